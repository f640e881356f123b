//! Legacy sessions while their instance runs.

use std::sync::atomic::Ordering;

use mcp_gateway_api::record::SessionNews;

use crate::support::{INITIALIZE, World, call, client::read_until};

#[tokio::test]
async fn a_session_opens_with_a_sealed_id_and_its_bytes_untouched() {
    let world = World::new().await;
    let answer = world.client.post(INITIALIZE, &[]).await;
    assert_eq!(answer.status, 200);
    let id = answer.header("mcp-session-id").unwrap();
    assert!(
        !id.contains("upstream-"),
        "the server's own id is not for clients"
    );
    assert!(id.len() <= 2_048 && id.bytes().all(|b| (0x21..=0x7e).contains(&b)));
    assert_eq!(answer.json()["result"]["serverInfo"]["name"], "fake");
    assert_eq!(world.upstream.last().body, INITIALIZE.as_bytes());
    assert!(matches!(
        world.scaler.updates()[..],
        [SessionNews::Opened(_)]
    ));
}

#[tokio::test]
async fn initialize_over_an_event_stream_passes_every_byte() {
    let world = World::new().await;
    world.upstream.inner.sse.store(true, Ordering::SeqCst);
    let answer = world.client.post(INITIALIZE, &[]).await;
    assert!(answer.header("mcp-session-id").is_some());
    assert!(
        answer
            .text()
            .starts_with(": hello\n\nevent: message\ndata: {"),
        "{}",
        answer.text()
    );
    assert_eq!(answer.header("x-accel-buffering"), Some("no"));
    assert_eq!(
        answer.header("cache-control"),
        Some("no-cache, no-transform")
    );
}

#[tokio::test]
async fn a_call_goes_out_under_the_servers_own_id_with_the_bytes_it_came_with() {
    let world = World::new().await;
    let id = world.open().await;
    // Odd spacing, key order and number form must survive.
    let body = r#"{ "params":{"name":"echo","arguments":{"x":1.50e1,"_meta":{"z":1}}}, "id":7,"jsonrpc" : "2.0","method":"tools/call" }"#;
    let headers = [
        ("mcp-session-id", id.as_str()),
        ("mcp-protocol-version", "2025-11-25"),
        ("mcp-param-region", "Zürich"),
        ("x-custom", "kept"),
        ("authorization", "Bearer secret"),
        ("origin", "http://localhost:5173"),
        ("cookie", "a=b"),
        ("x-mcp-tenant", "forged"),
    ];
    let answer = world.client.post(body, &headers).await;
    assert_eq!(answer.status, 200);
    assert_eq!(
        answer.header("mcp-session-id"),
        Some(id.as_str()),
        "one id on every answer"
    );
    let seen = world.upstream.last();
    assert_eq!(seen.body, body.as_bytes());
    assert_eq!(seen.header("mcp-session-id"), Some("upstream-0"));
    assert_eq!(
        seen.header("accept"),
        Some("application/json, text/event-stream")
    );
    assert_eq!(seen.header("mcp-protocol-version"), Some("2025-11-25"));
    assert_eq!(
        seen.headers.get("mcp-param-region").unwrap().as_bytes(),
        "Zürich".as_bytes()
    );
    assert_eq!(seen.header("x-custom"), Some("kept"));
    assert_eq!(
        seen.header("host"),
        Some(format!("localhost:{}", world.upstream.address.port()).as_str())
    );
    for stays in ["authorization", "origin", "cookie", "x-mcp-tenant"] {
        assert_eq!(seen.header(stays), None, "{stays} is not for servers");
    }
}

#[tokio::test]
async fn a_warm_call_claims_nothing() {
    let world = World::new().await;
    let id = world.open().await;
    let before = world.scaler.claims().len();
    for n in 1..=20 {
        assert_eq!(
            world
                .client
                .post(&call(n, "echo"), &[("mcp-session-id", &id)])
                .await
                .status,
            200
        );
    }
    assert_eq!(world.scaler.claims().len(), before);
}

#[tokio::test]
async fn events_pass_as_they_come_and_byte_for_byte() {
    let world = World::new().await;
    let id = world.open().await;
    let request = world
        .client
        .posting(&call(1, "stream"), &[("mcp-session-id", &id)]);
    let mut coming = world.client.begin(request).await;
    let seen = coming.until("\n\n").await;
    assert!(
        seen.starts_with("id: e1\nretry: 500\nevent: message\ndata: {"),
        "{seen}"
    );
    world.upstream.inner.finish_streams();
    let (all, orderly) = coming.rest().await;
    assert!(orderly && all.contains(r#""id":1"#), "{all}");
}

#[tokio::test]
async fn errors_of_the_server_pass_with_status_type_and_body() {
    let world = World::new().await;
    let body = call(1, "echo");
    let answer = world.client.post(&body, &[]).await;
    assert_eq!(
        (answer.status, answer.json()["error"]["code"].as_i64()),
        (400, Some(-32000)),
        "no id: the server's 400"
    );
    assert_eq!(answer.header("content-type"), Some("application/json"));
}

#[tokio::test]
async fn a_lease_lasts_until_the_response_passed() {
    let world = World::new().await;
    let id = world.open().await;
    let request = world
        .client
        .posting(&call(1, "stream"), &[("mcp-session-id", &id)]);
    let mut coming = world.client.begin(request).await;
    coming.until("\n\n").await;
    world
        .until("a lease is reported", || {
            world.scaler.leases().is_some_and(|n| n > 0)
        })
        .await;
    world.upstream.inner.finish_streams();
    coming.rest().await;
    world
        .until("the lease ends", || world.scaler.leases() == Some(0))
        .await;
}

#[tokio::test]
async fn a_cancelled_request_keeps_no_instance_though_its_server_leaves_it_unanswered() {
    let world = World::new().await;
    let id = world.open().await;
    let session = [("mcp-session-id", id.as_str())];
    let mut streaming = world.client.post_raw(&call(1, "stream"), &session).await;
    read_until(&mut streaming, "notifications/progress").await;
    let silent = world.client.post_raw(&call(2, "slow"), &session).await;
    world
        .until("both have arrived", || world.upstream.calls() == [1, 2])
        .await;
    for id in [1, 2] {
        world
            .until("it is leased", || world.scaler.leases() > Some(0))
            .await;
        let cancelled = format!(
            r#"{{"jsonrpc":"2.0","method":"notifications/cancelled","params":{{"requestId":{id}}}}}"#
        );
        assert_eq!(world.client.post(&cancelled, &session).await.status, 202);
    }
    world
        .until("the leases end", || world.scaler.leases() == Some(0))
        .await;
    drop((streaming, silent));
}

#[tokio::test]
async fn a_legacy_client_that_leaves_cancels_nothing() {
    let world = World::new().await;
    let id = world.open().await;
    let mut raw = world
        .client
        .post_raw(&call(1, "stream"), &[("mcp-session-id", &id)])
        .await;
    read_until(&mut raw, "notifications/progress").await;
    drop(raw);
    let slow = world
        .client
        .post_raw(&call(2, "slow"), &[("mcp-session-id", &id)])
        .await;
    world
        .until("the slow call arrived", || world.upstream.calls() == [1, 2])
        .await;
    drop(slow);
    // Whatever would be dropped would be dropped by the time another call has passed.
    world
        .client
        .post(&call(3, "echo"), &[("mcp-session-id", &id)])
        .await;
    assert_eq!(world.upstream.dropped(), 0);
    world
        .until("both are still leased", || world.scaler.leases() > Some(0))
        .await;
    world.upstream.inner.go.notify_waiters();
    world.upstream.inner.finish_streams();
    world
        .until("the leases end with the answers", || {
            world.scaler.leases() == Some(0)
        })
        .await;
    assert_eq!(world.upstream.dropped(), 0);
}

#[tokio::test]
async fn a_cancellation_reaches_the_server_and_ends_the_lease() {
    let world = World::new().await;
    let id = world.open().await;
    let raw = world
        .client
        .post_raw(&call(1, "never"), &[("mcp-session-id", &id)])
        .await;
    world
        .until("the call arrived", || world.upstream.calls() == [1])
        .await;
    drop(raw);
    let cancel = r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}}"#;
    let answer = world.client.post(cancel, &[("mcp-session-id", &id)]).await;
    assert_eq!((answer.status, answer.body.len()), (202, 0));
    assert!(
        world
            .upstream
            .methods()
            .contains(&"notifications/cancelled".to_owned())
    );
}

#[tokio::test]
async fn an_unanswered_request_of_the_server_keeps_the_lease_until_the_client_answers() {
    let world = World::new().await;
    let id = world.open().await;
    let request = world
        .client
        .posting(&call(1, "elicit"), &[("mcp-session-id", &id)]);
    let mut coming = world.client.begin(request).await;
    coming.until("ask-1").await;
    world.upstream.inner.finish_streams();
    coming.rest().await;
    world
        .until("a lease is reported", || {
            world.scaler.leases().is_some_and(|n| n > 0)
        })
        .await;
    let posted = r#"{"jsonrpc":"2.0","id":"ask-1","result":{"action":"accept"}}"#;
    assert_eq!(
        world
            .client
            .post(posted, &[("mcp-session-id", &id)])
            .await
            .status,
        202
    );
    assert_eq!(world.upstream.last().body, posted.as_bytes());
    world
        .until("the lease ends", || world.scaler.leases() == Some(0))
        .await;
}

#[tokio::test]
async fn a_batch_goes_as_it_is() {
    let world = World::new().await;
    *world.upstream.inner.revision.lock() = Some("2025-03-26");
    let id = world.open().await;
    let batch = format!("[{}, {}]", call(1, "echo"), call(2, "echo"));
    let answer = world.client.post(&batch, &[("mcp-session-id", &id)]).await;
    assert_eq!(answer.json().as_array().map(Vec::len), Some(2));
    assert_eq!(world.upstream.last().body, batch.as_bytes());
    let silent = r#"[{"jsonrpc":"2.0","method":"notifications/initialized"}]"#;
    assert_eq!(
        world
            .client
            .post(silent, &[("mcp-session-id", &id)])
            .await
            .status,
        202
    );
}

#[tokio::test]
async fn a_stream_closed_for_polling_keeps_its_lease() {
    let world = World::new().await;
    let id = world.open().await;
    let answer = world
        .client
        .post(&call(1, "poll"), &[("mcp-session-id", &id)])
        .await;
    assert_eq!(answer.text(), "id: p1\ndata:\n\n");
    world
        .until("the lease stays", || world.scaler.leases() == Some(1))
        .await;
    let cancel = r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}}"#;
    world.client.post(cancel, &[("mcp-session-id", &id)]).await;
    world
        .until("the lease ends", || world.scaler.leases() == Some(0))
        .await;
}

#[tokio::test]
async fn a_server_without_sessions_gets_none_from_us() {
    let world = World::new().await;
    world.upstream.inner.stateless.store(true, Ordering::SeqCst);
    let answer = world.client.post(INITIALIZE, &[]).await;
    assert_eq!(
        (answer.status, answer.header("mcp-session-id")),
        (200, None)
    );
    assert_eq!(world.client.post(&call(1, "echo"), &[]).await.status, 200);
    let claims = world.scaler.claims().len();
    assert_eq!(world.client.post(&call(2, "echo"), &[]).await.status, 200);
    assert_eq!(world.scaler.claims().len(), claims, "the slot is known");
}

#[tokio::test]
async fn a_whole_answer_ends_its_lease_at_once() {
    let world = World::new().await;
    let id = world.open().await;
    for n in 1..=3 {
        world
            .client
            .post(&call(n, "echo"), &[("mcp-session-id", &id)])
            .await;
    }
    world
        .until("no lease is left", || world.scaler.leases() == Some(0))
        .await;
}

#[tokio::test]
async fn a_client_that_left_and_resumes_its_stream_takes_it_over() {
    let world = World::new().await;
    let id = world.open().await;
    let mut raw = world
        .client
        .post_raw(&call(1, "stream"), &[("mcp-session-id", &id)])
        .await;
    read_until(&mut raw, "notifications/progress").await;
    drop(raw);
    world
        .until("its stream is read on", || world.scaler.leases() == Some(2))
        .await;
    let resume = |event: &'static str| {
        let headers = [
            ("mcp-session-id", id.as_str()),
            ("accept", "text/event-stream"),
            ("last-event-id", event),
        ];
        let client = &world.client;
        let request = client.request(http::Method::GET, "/adapters/demo/mcp", &headers, "");
        async move { client.begin(request).await }
    };
    let stranger = resume("other").await;
    drop(stranger);
    assert_eq!(
        world.upstream.dropped(),
        0,
        "another stream's event takes nothing over"
    );
    let _resumed = resume("e1").await;
    world
        .until("the old reader left", || world.upstream.dropped() == 1)
        .await;
    world
        .until("only the response to come is leased", || {
            world.scaler.leases() == Some(1)
        })
        .await;
}
