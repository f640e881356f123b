//! 2024-11-05 HTTP+SSE.

use std::{sync::Arc, time::Duration};

use http::Method;
use mcp_gateway_api::{backend::Transport, record::SessionNews, view::Service};
use tokio::{io::AsyncWriteExt, net::TcpStream};

use crate::{
    streams::talking,
    support::{
        Answer, INITIALIZE, INITIALIZED, Names, PATIENCE, Setup, World, call, client::Coming,
        talker::Talker,
    },
};

fn stdio() -> Setup {
    Setup {
        transport: Transport::Stdio,
        ..Setup::default()
    }
}

/// An open stream and where to post.
async fn stream(world: &World, headers: &[(&str, &str)]) -> (Coming, String) {
    let request = world
        .client
        .request(Method::GET, "/adapters/demo/sse", headers, "");
    let mut stream = world.client.begin(request).await;
    assert_eq!(stream.status, 200);
    assert_eq!(stream.headers["content-type"], "text/event-stream");
    let text = stream.until("\n\n").await;
    let endpoint = text.strip_prefix("event: endpoint\ndata: ").unwrap();
    let endpoint = endpoint.lines().next().unwrap().to_owned();
    assert!(endpoint.starts_with("/adapters/demo/messages?session_id="));
    (stream, endpoint)
}

async fn post(world: &World, endpoint: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    let mut all = vec![("content-type", "application/json")];
    all.extend_from_slice(headers);
    let request = world.client.request(Method::POST, endpoint, &all, body);
    world.client.send(request).await
}

/// An initialized session.
async fn opened() -> (World, Talker, Coming, String) {
    let (world, talker) = talking(stdio()).await;
    let (mut stream, endpoint) = stream(&world, &[]).await;
    assert!(world.scaler.claims().is_empty());
    assert_eq!(post(&world, &endpoint, &[], INITIALIZE).await.status, 202);
    stream.until("protocolVersion").await;
    assert_eq!(post(&world, &endpoint, &[], INITIALIZED).await.status, 202);
    (world, talker, stream, endpoint)
}

#[tokio::test]
async fn the_first_post_launches_and_answers_come_on_the_stream() {
    let (world, talker, mut stream, endpoint) = opened().await;
    assert_eq!(world.scaler.claims().len(), 1);
    assert_eq!(
        post(&world, &endpoint, &[], &call(3, "echo")).await.text(),
        "Accepted"
    );
    let seen = stream.until("\"id\":3").await;
    assert_eq!(seen.matches("event: endpoint").count(), 1, "{seen}");
    let posted: Vec<_> = talker
        .seen()
        .iter()
        .filter(|s| s.method == Method::POST)
        .map(|s| s.uri.to_string())
        .collect();
    assert_eq!(posted, ["/messages?session_id=0"; 3]);
    let body = talker.seen().last().unwrap().body.clone();
    assert_eq!(body, call(3, "echo"));
}

#[tokio::test]
async fn a_pending_request_holds_the_instance_and_the_stream_does_not() {
    let (world, talker, mut stream, endpoint) = opened().await;
    world
        .until("no lease is left", || world.scaler.leases() == Some(0))
        .await;
    assert_eq!(
        post(&world, &endpoint, &[], &call(3, "never")).await.status,
        202
    );
    world
        .until("a lease is reported", || world.scaler.leases() == Some(1))
        .await;
    talker.say("data: {\"jsonrpc\":\"2.0\",\"id\":3,\"result\":{}}\n\n");
    stream.until("\"id\":3").await;
    world
        .until("the lease has ended", || world.scaler.leases() == Some(0))
        .await;
}

#[tokio::test]
async fn the_stream_outlives_its_instance_and_the_next_post_revives_unseen() {
    let (world, talker, mut stream, endpoint) = opened().await;
    let level =
        r#"{"jsonrpc":"2.0","id":4,"method":"logging/setLevel","params":{"level":"debug"}}"#;
    assert_eq!(post(&world, &endpoint, &[], level).await.status, 202);
    stream.until("\"id\":4").await;
    world
        .until("the level is recorded", || {
            world
                .scaler
                .updates()
                .contains(&SessionNews::LogLevel("debug".into()))
        })
        .await;
    world.scaler.lose();
    world
        .until("the upstream stream is closed", || talker.open() == 0)
        .await;
    stream.until(":\n\n").await;
    assert_eq!(
        post(&world, &endpoint, &[], &call(5, "echo")).await.status,
        202
    );
    let seen = stream.until("\"id\":5").await;
    assert_eq!(seen.matches("protocolVersion").count(), 1, "{seen}");
    assert!(!seen.contains("gateway-revival"), "{seen}");
    let replayed = &talker.methods()[3..];
    assert_eq!(
        replayed,
        [
            "initialize",
            "notifications/initialized",
            "logging/setLevel",
            "tools/call"
        ]
    );
    let revived = |news: &SessionNews| matches!(news, SessionNews::Revived(_));
    assert!(world.scaler.updates().iter().any(revived));
}

#[tokio::test]
async fn what_waits_for_an_answer_of_a_lost_server_is_told_and_the_stream_goes_on() {
    let (world, _talker, mut stream, endpoint) = opened().await;
    assert_eq!(
        post(&world, &endpoint, &[], &call(3, "never")).await.status,
        202
    );
    world.scaler.lose();
    let seen = stream.until("\"id\":3").await;
    assert!(
        seen.contains("\"error\"") && seen.contains("instance_lost"),
        "{seen}"
    );
    assert_eq!(
        post(&world, &endpoint, &[], &call(4, "echo")).await.status,
        202
    );
    stream.until("\"id\":4").await;
}

#[tokio::test]
async fn losses_and_posts_that_meet_leave_nothing_without_exactly_one_answer() {
    let (world, _talker, mut stream, endpoint) = opened().await;
    for round in 1..=20 {
        let (waits, next) = (call(round * 10, "never"), call(round * 10 + 1, "echo"));
        assert_eq!(post(&world, &endpoint, &[], &waits).await.status, 202);
        world.scaler.lose();
        assert_eq!(post(&world, &endpoint, &[], &next).await.status, 202);
        stream.until(&format!("\"id\":{}", round * 10 + 1)).await;
        stream
            .until(&format!("\"id\":{},\"error\"", round * 10))
            .await;
    }
    let seen = stream.until("\"id\":201").await;
    for id in (1..=20).flat_map(|round| [round * 10, round * 10 + 1]) {
        assert_eq!(
            seen.matches(&format!("\"id\":{id},")).count()
                + seen.matches(&format!("\"id\":{id}}}")).count(),
            1,
            "{id}"
        );
    }
}

#[tokio::test]
async fn a_server_that_promises_something_else_ends_the_session() {
    let (world, talker, stream, endpoint) = opened().await;
    world.scaler.lose();
    talker.change_capabilities();
    assert_eq!(
        post(&world, &endpoint, &[], &call(3, "echo")).await.status,
        404
    );
    assert!(stream.rest().await.1);
    assert_eq!(
        post(&world, &endpoint, &[], &call(3, "echo")).await.status,
        404
    );
}

#[tokio::test]
async fn what_wakes_nothing_is_answered_while_the_server_sleeps() {
    let (world, talker, mut stream, endpoint) = opened().await;
    world.scaler.lose();
    world
        .until("the upstream stream is closed", || talker.open() == 0)
        .await;
    let ping = r#"{"jsonrpc":"2.0","id":"p","method":"ping"}"#;
    assert_eq!(post(&world, &endpoint, &[], ping).await.status, 202);
    stream
        .until("{\"jsonrpc\":\"2.0\",\"id\":\"p\",\"result\":{}}")
        .await;
    let note = r#"{"jsonrpc":"2.0","method":"notifications/roots/list_changed"}"#;
    assert_eq!(post(&world, &endpoint, &[], note).await.status, 202);
    assert_eq!(world.scaler.claims().len(), 1);
}

#[tokio::test]
async fn a_drain_that_is_called_off_revives_nothing() {
    let (world, talker, mut stream, endpoint) = opened().await;
    world.scaler.service(Service::IdleDrain);
    world
        .until("the drain is acknowledged", || {
            !world.scaler.acks().is_empty()
        })
        .await;
    let body = call(5, "echo");
    assert_eq!(post(&world, &endpoint, &[], &body).await.status, 202);
    stream.until("\"id\":5").await;
    let expected = ["initialize", "notifications/initialized", "tools/call"];
    assert_eq!(talker.methods(), expected);
}

#[tokio::test]
async fn a_shutdown_tells_what_still_waits() {
    let (world, _talker, stream, endpoint) = opened().await;
    let body = call(3, "never");
    assert_eq!(post(&world, &endpoint, &[], &body).await.status, 202);
    world.activator.shutdown(Duration::from_millis(50)).await;
    let (text, in_order) = stream.rest().await;
    assert!(
        in_order && text.contains("shutting_down") && text.contains("\"id\":3"),
        "{text}"
    );
}

#[tokio::test]
async fn closing_the_stream_ends_the_session() {
    let (world, talker, stream, endpoint) = opened().await;
    drop(stream);
    world
        .until("the end is recorded", || {
            world.scaler.updates().contains(&SessionNews::Ended)
        })
        .await;
    world
        .until("the upstream stream is closed", || talker.open() == 0)
        .await;
    assert_eq!(
        post(&world, &endpoint, &[], &call(3, "echo")).await.status,
        404
    );
}

#[tokio::test]
async fn a_channel_is_its_principals_only() {
    let setup = Setup {
        auth: Arc::new(Names),
        ..stdio()
    };
    let (world, _talker) = talking(setup).await;
    let alice = [("authorization", "Bearer alice")];
    let (_stream, endpoint) = stream(&world, &alice).await;
    let bob = [("authorization", "Bearer bob")];
    assert_eq!(post(&world, &endpoint, &bob, INITIALIZE).await.status, 404);
    assert_eq!(post(&world, &endpoint, &[], INITIALIZE).await.status, 401);
    let forged = "/adapters/demo/messages?session_id=AAAA";
    assert_eq!(post(&world, forged, &alice, INITIALIZE).await.status, 404);
    assert_eq!(
        post(&world, "/adapters/demo/messages", &alice, INITIALIZE)
            .await
            .status,
        404
    );
    assert!(world.scaler.claims().is_empty());
    assert_eq!(
        post(&world, &endpoint, &alice, INITIALIZE).await.status,
        202
    );
}

#[tokio::test]
async fn a_call_that_is_cancelled_while_it_waits_never_reaches_the_server() {
    let (world, talker, _stream, endpoint) = opened().await;
    world.scaler.lose();
    world
        .until("the upstream stream is closed", || talker.open() == 0)
        .await;
    world.scaler.hold_claims();
    let body = call(9, "echo");
    let held = post(&world, &endpoint, &[], &body);
    let cancel = async {
        world
            .until("the call waits", || world.scaler.claims().len() == 2)
            .await;
        let cancel =
            r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":9}}"#;
        post(&world, &endpoint, &[], cancel).await
    };
    let (held, cancelled) = tokio::join!(held, cancel);
    assert_eq!((held.status, cancelled.status), (202, 202));
    world.scaler.release_claims();
    assert!(!talker.methods().contains(&"tools/call".to_owned()));
}

#[tokio::test]
async fn only_backends_of_this_transport_have_its_endpoints() {
    let (world, _talker) = talking(Setup::default()).await;
    let request = world
        .client
        .request(Method::GET, "/adapters/demo/sse", &[], "");
    assert_eq!(world.client.send(request).await.status, 404);
    let setup = Setup {
        transport: Transport::Sse,
        ..Setup::default()
    };
    let (world, _talker) = talking(setup).await;
    assert_eq!(world.client.post(INITIALIZE, &[]).await.status, 405);
    let request = world
        .client
        .request(Method::GET, "/adapters/demo/mcp", &[], "");
    let mut stream = world.client.begin(request).await;
    stream.until("event: endpoint").await;
}

#[tokio::test]
async fn a_server_that_gives_no_stream_holds_nobody_longer_than_a_start_would() {
    let mut setup = stdio();
    setup.policy.hold_timeout = Duration::from_secs(1);
    let (world, talker) = talking(setup).await;
    talker.mute();
    let (_stream, endpoint) = stream(&world, &[]).await;
    let answer = post(&world, &endpoint, &[], INITIALIZE).await;
    assert_eq!(answer.status, 503, "{}", answer.text());
    assert_eq!(talker.gets().len(), 1);
    world
        .until("the lease has ended", || world.scaler.leases() == Some(0))
        .await;
    world.activator.shutdown(Duration::from_secs(60)).await;
}

#[tokio::test]
async fn a_wake_that_its_server_does_not_finish_is_given_up_at_a_shutdown() {
    let (world, talker) = talking(stdio()).await;
    talker.mute();
    let (_stream, endpoint) = stream(&world, &[]).await;
    let waits = post(&world, &endpoint, &[], INITIALIZE);
    let shutdown = async {
        world
            .until("its stream is asked for", || talker.gets().len() == 1)
            .await;
        let deadline = Duration::from_secs(60);
        tokio::time::timeout(PATIENCE, world.activator.shutdown(deadline)).await
    };
    let (answer, ended) = tokio::join!(waits, shutdown);
    assert_eq!(answer.status, 503);
    assert!(ended.is_ok());
}

#[tokio::test]
async fn a_message_whose_client_leaves_before_it_is_taken_is_delivered_all_the_same() {
    let (world, talker, mut stream, endpoint) = opened().await;
    let body = call(7, "later");
    let mut leaver = TcpStream::connect(world.address).await.unwrap();
    let text = format!(
        "POST {endpoint} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    leaver.write_all(text.as_bytes()).await.unwrap();
    world
        .until("the server reads it", || {
            talker.seen().last().is_some_and(|seen| seen.body == body)
        })
        .await;
    drop(leaver);
    // By the time that this is answered the gateway has seen the other leave.
    for id in 20..25 {
        let noted = post(&world, &endpoint, &[], &call(id, "echo")).await;
        assert_eq!(noted.status, 202);
        stream.until(&format!("\"id\":{id}")).await;
    }
    talker.go();
    stream.until("\"id\":7").await;
    world
        .until("the lease has ended", || world.scaler.leases() == Some(0))
        .await;
}

#[tokio::test]
async fn what_waits_behind_a_wake_counts_in_the_hold() {
    let mut setup = stdio();
    setup.policy.max_pending = 1;
    let (world, talker) = talking(setup).await;
    let (mut stream, endpoint) = stream(&world, &[]).await;
    assert_eq!(post(&world, &endpoint, &[], INITIALIZE).await.status, 202);
    stream.until("protocolVersion").await;
    world.scaler.lose();
    world
        .until("the upstream stream is closed", || talker.open() == 0)
        .await;
    world.scaler.hold_claims();
    let body = call(3, "echo");
    let held = post(&world, &endpoint, &[], &body);
    let noted = async {
        world
            .until("the call waits", || world.scaler.claims().len() == 2)
            .await;
        let noted = post(&world, &endpoint, &[], INITIALIZED).await;
        world.scaler.release_claims();
        noted
    };
    let (held, noted) = tokio::join!(held, noted);
    assert_eq!((held.status, noted.status), (202, 503));
}

#[tokio::test]
async fn a_channel_closes_when_its_tenant_may_no_longer_use_the_backend_or_its_life_is_over() {
    let (world, talker, waiting, endpoint) = opened().await;
    let body = call(3, "never");
    assert_eq!(post(&world, &endpoint, &[], &body).await.status, 202);
    world.withdraw();
    let (text, in_order) = waiting.rest().await;
    assert!(in_order && text.contains("\"id\":3"), "{text}");
    world
        .until("the upstream stream is closed", || talker.open() == 0)
        .await;
    let mut setup = stdio();
    setup.policy.session_lifetime = Duration::from_secs(1);
    let (world, _talker) = talking(setup).await;
    let (stream, endpoint) = stream(&world, &[]).await;
    assert!(stream.rest().await.1);
    let answer = post(&world, &endpoint, &[], INITIALIZE).await;
    assert_eq!(answer.status, 404);
}
