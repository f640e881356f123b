//! Sessions that outlive their instance.

use std::{collections::HashSet, sync::atomic::Ordering};

use mcp_gateway_api::{
    failure::{Failure, FailureKind},
    record::SessionNews,
};

use crate::support::{Upstream, World, call};

async fn lost(world: &World) {
    world.scaler.lose();
    world.upstream.forget_sessions();
}

fn revivals(world: &World) -> usize {
    world
        .scaler
        .updates()
        .iter()
        .filter(|n| matches!(n, SessionNews::Revived(_)))
        .count()
}

#[tokio::test]
async fn a_session_goes_on_behind_the_same_id_on_a_new_instance() {
    let world = World::new().await;
    let id = world.open().await;
    lost(&world).await;
    let answer = world
        .client
        .post(&call(1, "echo"), &[("mcp-session-id", &id)])
        .await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.header("mcp-session-id"), Some(id.as_str()));
    assert_eq!(answer.json()["result"]["session"], "upstream-1");
    let methods = world.upstream.methods();
    assert_eq!(
        methods[2..],
        ["initialize", "notifications/initialized", "tools/call"]
    );
    let replayed: serde_json::Value =
        serde_json::from_slice(&world.upstream.seen()[2].body).unwrap();
    assert_eq!(replayed["params"]["clientInfo"]["name"], "test");
    assert_eq!(
        replayed["params"]["capabilities"],
        serde_json::json!({"roots": {}})
    );
    let noted = &world.upstream.seen()[3];
    assert_eq!(noted.header("mcp-session-id"), Some("upstream-1"));
    assert_eq!(noted.header("mcp-protocol-version"), Some("2025-11-25"));
    assert_eq!(revivals(&world), 1);
    // Warm again, without another claim.
    let claims = world.scaler.claims().len();
    assert_eq!(
        world
            .client
            .post(&call(2, "echo"), &[("mcp-session-id", &id)])
            .await
            .status,
        200
    );
    assert_eq!(world.scaler.claims().len(), claims);
}

/// As when a leader is lost while it answers, or takes long to hear everybody.
#[tokio::test]
async fn a_server_keeps_the_session_whose_revival_was_noted_though_nobody_was_told_so() {
    let world = World::new().await;
    let id = world.open().await;
    lost(&world).await;
    let late = Failure::new(FailureKind::HoldTimeout, "the leader did not answer");
    world.scaler.lose_answers(Some(late));
    let headers = [("mcp-session-id", &*id)];
    let answer = world.client.post(&call(1, "echo"), &headers).await;
    assert_eq!(answer.status, 503, "{}", answer.text());
    world.scaler.lose_answers(None);
    let answer = world.client.post(&call(2, "echo"), &headers).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.json()["result"]["session"], "upstream-1");
    assert_eq!(revivals(&world), 1, "nor is it revived once more");
    let seen = world.upstream.seen();
    assert!(seen.iter().all(|one| one.method != http::Method::DELETE));
}

#[tokio::test]
async fn many_waiters_cost_one_replay() {
    let world = World::new().await;
    let id = world.open().await;
    lost(&world).await;
    let calls = (1..=20).map(|n| {
        let (client, id) = (world.client.clone(), id.clone());
        tokio::spawn(async move {
            client
                .post(&call(n, "echo"), &[("mcp-session-id", &id)])
                .await
                .status
        })
    });
    for one in calls.collect::<Vec<_>>() {
        assert_eq!(one.await.unwrap(), 200);
    }
    assert_eq!(revivals(&world), 1);
    let unique: HashSet<u64> = world.upstream.calls().into_iter().collect();
    assert_eq!(
        (unique.len(), world.upstream.calls().len()),
        (20, 20),
        "each arrived once"
    );
}

#[tokio::test]
async fn log_level_and_subscriptions_are_restored() {
    let world = World::new().await;
    let id = world.open().await;
    let session = [("mcp-session-id", id.as_str())];
    for body in [
        r#"{"jsonrpc":"2.0","id":1,"method":"logging/setLevel","params":{"level":"debug"}}"#,
        r#"{"jsonrpc":"2.0","id":2,"method":"resources/subscribe","params":{"uri":"a://1"}}"#,
        r#"{"jsonrpc":"2.0","id":3,"method":"resources/subscribe","params":{"uri":"a://2"}}"#,
        r#"{"jsonrpc":"2.0","id":4,"method":"resources/unsubscribe","params":{"uri":"a://1"}}"#,
    ] {
        assert_eq!(world.client.post(body, &session).await.status, 200);
    }
    world
        .until("all is recorded", || world.scaler.updates().len() >= 5)
        .await;
    let before = world.upstream.seen().len();
    lost(&world).await;
    assert_eq!(
        world.client.post(&call(5, "echo"), &session).await.status,
        200
    );
    let replayed = world.upstream.methods().split_off(before);
    assert_eq!(
        replayed,
        [
            "initialize",
            "notifications/initialized",
            "logging/setLevel",
            "resources/subscribe",
            "tools/call"
        ]
    );
    let restored: serde_json::Value =
        serde_json::from_slice(&world.upstream.seen()[before + 3].body).unwrap();
    assert_eq!(restored["params"]["uri"], "a://2");
}

#[tokio::test]
async fn a_refused_setting_is_not_remembered() {
    let world = World::new().await;
    let id = world.open().await;
    let body = r#"{"jsonrpc":"2.0","id":1,"method":"logging/setLevel","params":{"level":"debug","name":"missing"}}"#;
    world.client.post(body, &[("mcp-session-id", &id)]).await;
    assert!(
        !world
            .scaler
            .updates()
            .iter()
            .any(|n| matches!(n, SessionNews::LogLevel(_)))
    );
}

#[tokio::test]
async fn a_server_that_now_promises_something_else_ends_the_session() {
    let world = World::new().await;
    let id = world.open().await;
    lost(&world).await;
    *world.upstream.inner.revision.lock() = Some("2025-06-18");
    for _ in 0..2 {
        let answer = world
            .client
            .post(&call(1, "echo"), &[("mcp-session-id", &id)])
            .await;
        assert_eq!(
            (answer.status, answer.json()["id"].as_i64()),
            (404, answer.json()["id"].as_i64())
        );
    }
    assert!(
        world
            .scaler
            .updates()
            .contains(&SessionNews::RevivalFailed { retry: false })
    );
    assert_eq!(world.upstream.calls(), [0; 0]);
}

#[tokio::test]
async fn a_server_that_issues_no_session_now_ends_it() {
    let world = World::new().await;
    let id = world.open().await;
    lost(&world).await;
    world.upstream.inner.stateless.store(true, Ordering::SeqCst);
    assert_eq!(
        world
            .client
            .post(&call(1, "echo"), &[("mcp-session-id", &id)])
            .await
            .status,
        404
    );
}

#[tokio::test]
async fn a_child_that_a_bridge_lost_is_revived_too() {
    let world = World::new().await;
    world.upstream.inner.bridge.store(true, Ordering::SeqCst);
    let id = world.open().await;
    world.upstream.forget_sessions();
    let answer = world
        .client
        .post(&call(1, "echo"), &[("mcp-session-id", &id)])
        .await;
    assert_eq!(
        (answer.status, answer.json()["result"]["session"].as_str()),
        (200, Some("upstream-1"))
    );
    assert_eq!(answer.header("x-mcp-gateway-lost"), None);
    assert_eq!(world.scaler.starts.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn an_instance_that_takes_no_connection_is_replaced_without_the_client_noticing() {
    let world = World::new().await;
    let id = world.open().await;
    // The address answers nobody any more; the word of it comes later. It is held, or another test's server might get it.
    let held = tokio::net::TcpSocket::new_v4().unwrap();
    held.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let dead = held.local_addr().unwrap();
    let next = Upstream::start().await;
    world.scaler.lose();
    world.scaler.move_upstream(dead);
    let (client, session) = (world.client.clone(), id.clone());
    let waiting = tokio::spawn(async move {
        client
            .post(&call(1, "echo"), &[("mcp-session-id", &session)])
            .await
    });
    world
        .until("the dead one is tried", || {
            world.scaler.starts.load(Ordering::SeqCst) == 2
        })
        .await;
    world.scaler.move_upstream(next.address);
    world.scaler.lose();
    let answer = waiting.await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(next.calls(), [1]);
    assert_eq!(revivals(&world), 1);
}

#[tokio::test]
async fn an_instance_lost_amid_a_stream_is_told_in_one_last_event() {
    let world = World::new().await;
    let id = world.open().await;
    let request = world
        .client
        .posting(&call(7, "stream"), &[("mcp-session-id", &id)]);
    let mut coming = world.client.begin(request).await;
    coming.until("\n\n").await;
    world.scaler.lose();
    let (text, orderly) = coming.rest().await;
    assert!(orderly);
    let last = text.trim_end().rsplit("\n\n").next().unwrap();
    let data = last
        .strip_prefix("event: message\ndata: ")
        .unwrap_or_else(|| panic!("{last}"));
    let error: serde_json::Value = serde_json::from_str(data).unwrap();
    assert_eq!(
        (error["id"].as_i64(), error["error"]["code"].as_i64()),
        (Some(7), Some(-31_520))
    );
}

#[tokio::test]
async fn a_connection_that_breaks_amid_a_stream_is_told_too() {
    let world = World::new().await;
    let id = world.open().await;
    let request = world
        .client
        .posting(&call(7, "die"), &[("mcp-session-id", &id)]);
    let (text, orderly) = world.client.begin(request).await.rest().await;
    assert!(orderly && text.contains(r#""id":7,"error""#), "{text}");
    world
        .until("no lease is left", || world.scaler.leases() == Some(0))
        .await;
}

#[tokio::test]
async fn within_an_event_a_loss_breaks_the_answer_off() {
    let world = World::new().await;
    let id = world.open().await;
    let request = world
        .client
        .posting(&call(7, "half"), &[("mcp-session-id", &id)]);
    let mut coming = world.client.begin(request).await;
    coming.until("jsonrpc").await;
    world.scaler.lose();
    let (text, orderly) = coming.rest().await;
    assert!(!orderly && !text.contains("error"), "{text}");
}

#[tokio::test]
async fn an_instance_lost_before_it_answered_is_502_with_the_requests_id() {
    let world = World::new().await;
    let id = world.open().await;
    let (client, session) = (world.client.clone(), id.clone());
    let waiting = tokio::spawn(async move {
        client
            .post(&call(7, "never"), &[("mcp-session-id", &session)])
            .await
    });
    world
        .until("it is there", || world.upstream.calls() == [7])
        .await;
    world.scaler.lose();
    let answer = waiting.await.unwrap();
    assert_eq!(
        (answer.status, answer.json()["id"].as_i64()),
        (502, Some(7))
    );
    assert_eq!(world.upstream.calls(), [7], "sent once");
}
