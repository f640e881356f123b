//! 2026-07-28: exchanges that stand alone.

use std::{sync::atomic::Ordering, time::Duration};

use mcp_gateway_api::claim::Purpose;

use crate::support::{INITIALIZE, World, client::read_until};

const V: (&str, &str) = ("mcp-protocol-version", "2026-07-28");

fn request(id: u32, method: &str, tool: &str) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","id":{id},"method":"{method}","params":{{"name":"{tool}","_meta":{{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{{}},"traceparent":"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}}}}}}"#
    )
}

fn probe(id: u32) -> String {
    request(id, "server/discover", "")
}

const PROBE: [(&str, &str); 2] = [V, ("mcp-method", "server/discover")];

#[tokio::test]
async fn an_exchange_passes_whole_and_never_gets_a_session() {
    let world = World::new().await;
    let body = request(1, "tools/call", "echo");
    let headers = [
        V,
        ("mcp-method", "tools/call"),
        ("mcp-name", "=?base64?ZWNobw==?="),
        ("mcp-param-a", "b"),
        ("mcp-session-id", "left over"),
        ("last-event-id", "9"),
    ];
    let answer = world.client.post(&body, &headers).await;
    assert_eq!(
        (answer.status, answer.header("mcp-session-id")),
        (200, None)
    );
    let seen = world.upstream.last();
    assert_eq!(seen.body, body.as_bytes());
    for (name, value) in &headers[..4] {
        assert_eq!(seen.header(name), Some(*value));
    }
    assert_eq!(
        (seen.header("mcp-session-id"), seen.header("last-event-id")),
        (None, None)
    );
    assert!(matches!(
        world.scaler.claims()[0].purpose,
        Purpose::Exchange
    ));
    // Warm: no claim.
    world.client.post(&body, &headers).await;
    assert_eq!(world.scaler.claims().len(), 1);
}

#[tokio::test]
async fn a_modern_client_that_leaves_cancels_at_once() {
    let world = World::new().await;
    let headers = [V, ("mcp-method", "tools/call"), ("mcp-name", "x")];
    let mut raw = world
        .client
        .post_raw(&request(1, "tools/call", "stream"), &headers)
        .await;
    read_until(&mut raw, "progress").await;
    drop(raw);
    world
        .until("the stream is closed upstream", || {
            world.upstream.dropped() == 1
        })
        .await;
    let raw = world
        .client
        .post_raw(&request(2, "tools/call", "never"), &headers)
        .await;
    world
        .until("the call is there", || world.upstream.calls().contains(&2))
        .await;
    drop(raw);
    world
        .until("the call is closed upstream", || {
            world.upstream.dropped() == 2
        })
        .await;
    world
        .until("the leases end", || world.scaler.leases() == Some(0))
        .await;
}

#[tokio::test]
async fn modern_errors_pass_intact() {
    let world = World::new().await;
    let headers = [V, ("mcp-method", "tools/call"), ("mcp-name", "missing")];
    let answer = world
        .client
        .post(&request(1, "tools/call", "missing"), &headers)
        .await;
    assert_eq!(
        (answer.status, answer.json()["error"]["code"].as_i64()),
        (404, Some(-32_601))
    );
}

#[tokio::test]
async fn a_probe_of_a_sleeping_server_is_answered_from_memory_while_it_starts() {
    let world = World::new().await;
    let first = world.client.post(&probe(1), &PROBE).await;
    assert_eq!(first.status, 200);
    assert!(matches!(world.scaler.claims()[0].purpose, Purpose::Probe));
    world.scaler.lose();
    world.scaler.hold_claims();
    let answer = world.client.post(&probe(2), &PROBE).await;
    assert_eq!(
        (answer.status, answer.json()["id"].as_i64()),
        (200, Some(2))
    );
    assert_eq!(answer.json()["result"], first.json()["result"]);
    world
        .until("it starts", || world.scaler.claims().len() == 2)
        .await;
    assert!(matches!(world.scaler.claims()[1].purpose, Purpose::Probe));
    world.scaler.release_claims();
    world
        .until("it has started", || {
            world.scaler.starts.load(Ordering::SeqCst) == 2
        })
        .await;
}

#[tokio::test]
async fn a_probe_answered_as_an_event_stream_is_remembered_too() {
    let world = World::new().await;
    let streams = &world.upstream.inner.discover_streams;
    streams.store(true, Ordering::SeqCst);
    let first = world.client.post(&probe(1), &PROBE).await;
    assert_eq!(first.header("content-type"), Some("text/event-stream"));
    world.scaler.lose();
    world.scaler.hold_claims();
    let answer = world.client.post(&probe(2), &PROBE).await;
    let result = &answer.json()["result"];
    assert_eq!(result["supportedVersions"][0], "2026-07-28");
    assert_eq!(answer.json()["id"], 2);
    world.scaler.release_claims();
}

#[tokio::test]
async fn a_probe_that_the_memory_cannot_answer_is_held() {
    let mut setup = crate::support::Setup::default();
    setup.policy.hold_timeout = Duration::from_millis(50);
    let world = World::with(setup).await;
    assert_eq!(world.client.post(&probe(1), &PROBE).await.status, 200);
    world.scaler.lose();
    world.scaler.hold_claims();
    // Another revision, and a header that contradicts the body: both are for the server to judge.
    let unknown = [("mcp-protocol-version", "2099-01-01"), PROBE[1]];
    assert_eq!(world.client.post(&probe(2), &unknown).await.status, 503);
    assert_eq!(
        world
            .client
            .post(&probe(3), &[V, ("mcp-method", "tools/list")])
            .await
            .status,
        503
    );
    assert_eq!(world.client.post(&probe(4), &PROBE).await.status, 200);
}

#[tokio::test]
async fn a_refused_probe_is_remembered_so_that_clients_fall_back_at_once() {
    let world = World::new().await;
    world
        .upstream
        .inner
        .legacy_only
        .store(true, Ordering::SeqCst);
    let first = world.client.post(&probe(1), &PROBE).await;
    assert_eq!(
        (first.status, first.json()["error"]["code"].as_i64()),
        (400, Some(-32_000))
    );
    world.scaler.lose();
    world.scaler.hold_claims();
    let answer = world.client.post(&probe(2), &PROBE).await;
    assert_eq!(
        (answer.status, answer.json()["error"]["code"].as_i64()),
        (400, Some(-32_000))
    );
    assert_eq!(answer.json()["id"].as_i64(), Some(2));
    world.scaler.release_claims();
    assert_eq!(world.client.post(INITIALIZE, &[]).await.status, 200);
}

#[tokio::test]
async fn a_probe_refused_for_its_own_faults_is_not_remembered_against_the_server() {
    let world = World::new().await;
    world
        .upstream
        .inner
        .legacy_only
        .store(true, Ordering::SeqCst);
    let contradicts = [V, ("mcp-method", "tools/list")];
    assert_eq!(world.client.post(&probe(1), &contradicts).await.status, 400);
    let incomplete = probe(2).replace("clientCapabilities", "other");
    assert_eq!(world.client.post(&incomplete, &PROBE).await.status, 400);
    world
        .upstream
        .inner
        .legacy_only
        .store(false, Ordering::SeqCst);
    world.scaler.lose();
    assert_eq!(world.client.post(&probe(3), &PROBE).await.status, 200);
}

#[tokio::test]
async fn modern_streams_carry_nothing_of_ours() {
    let mut setup = crate::support::Setup::default();
    setup.config.keep_alive = Duration::from_millis(20);
    let world = World::with(setup).await;
    let headers = [V, ("mcp-method", "tools/call"), ("mcp-name", "x")];
    let posting = world
        .client
        .posting(&request(1, "tools/call", "stream"), &headers);
    let mut coming = world.client.begin(posting).await;
    coming.until("\n\n").await;
    // Several keep-alives long.
    tokio::time::sleep(Duration::from_millis(120)).await;
    world.upstream.inner.finish_streams();
    let (text, _orderly) = coming.rest().await;
    assert_eq!(text.matches("\n\n").count(), 2, "{text}");
}

#[tokio::test]
async fn quiet_legacy_streams_are_kept_alive_between_events() {
    let mut setup = crate::support::Setup::default();
    setup.config.keep_alive = Duration::from_millis(20);
    let world = World::with(setup).await;
    let id = world.open().await;
    let posting = world.client.posting(
        &crate::support::call(1, "stream"),
        &[("mcp-session-id", &id)],
    );
    let mut coming = world.client.begin(posting).await;
    coming.until("\n\n:\n\n:\n\n").await;
    let posting = world
        .client
        .posting(&crate::support::call(2, "half"), &[("mcp-session-id", &id)]);
    let mut half = world.client.begin(posting).await;
    half.until("jsonrpc").await;
    coming.until(":\n\n:\n\n:\n\n:\n\n").await;
    world.upstream.inner.finish_streams();
    let (text, _orderly) = half.rest().await;
    assert_eq!(
        text, "event: message\ndata: {\"jsonrpc\":\"2.0\"}\n\n",
        "nothing within an event"
    );
}
