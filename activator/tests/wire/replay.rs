//! What a server's refusal during the replay of a handshake means for the session.

use std::time::Duration;

use mcp_gateway_api::record::SessionNews;

use crate::support::{Answer, Setup, World, call};

async fn lost() -> (World, String) {
    let mut setup = Setup::default();
    setup.config.lost_grace = Duration::from_millis(10);
    let world = World::with(setup).await;
    let id = world.open().await;
    let level =
        r#"{"jsonrpc":"2.0","id":1,"method":"logging/setLevel","params":{"level":"debug"}}"#;
    let set = world.client.post(level, &[("mcp-session-id", &id)]).await;
    assert_eq!(set.status, 200);
    let leveled = |news: &SessionNews| matches!(news, SessionNews::LogLevel(_));
    world
        .until("the level is kept", || {
            world.scaler.updates().iter().any(leveled)
        })
        .await;
    world.scaler.lose();
    world.upstream.forget_sessions();
    (world, id)
}

async fn ask(world: &World, id: &str, number: u32) -> Answer {
    let headers = [("mcp-session-id", id)];
    world.client.post(&call(number, "echo"), &headers).await
}

/// Busy, or too early: that says nothing on whether the session can be had again.
#[tokio::test]
async fn a_server_that_is_busy_during_the_replay_fails_the_request_and_not_the_session() {
    for (status, method) in [
        (408, "initialize"),
        (409, "initialize"),
        (425, "initialize"),
        (429, "initialize"),
        (500, "initialize"),
        (503, "initialize"),
        (429, "notifications/initialized"),
        (429, "logging/setLevel"),
    ] {
        let (world, id) = lost().await;
        *world.upstream.inner.refuses.lock() = Some((method, status));
        let answer = ask(&world, &id, 7).await;
        let body = answer.json();
        assert_eq!(answer.status, 502, "{status} to {method}: {body}");
        assert_eq!(
            (body["id"].as_i64(), body["error"]["code"].as_i64()),
            (Some(7), Some(-31_520))
        );
        assert_eq!(world.upstream.calls(), [0; 0], "nothing was sent");
        let retry = SessionNews::RevivalFailed { retry: true };
        assert!(world.scaler.updates().contains(&retry));
        let again = ask(&world, &id, 8).await;
        assert_eq!(again.status, 200, "{status} to {method}: {}", again.text());
        assert_eq!(again.header("mcp-session-id"), Some(id.as_str()));
    }
}

#[tokio::test]
async fn a_server_that_refuses_the_replay_ends_the_session() {
    for (status, method) in [
        (400, "initialize"),
        (401, "initialize"),
        (403, "initialize"),
        (404, "initialize"),
        (422, "initialize"),
        (400, "notifications/initialized"),
    ] {
        let (world, id) = lost().await;
        *world.upstream.inner.refuses.lock() = Some((method, status));
        assert_eq!(ask(&world, &id, 7).await.status, 404, "{status}");
        let ended = SessionNews::RevivalFailed { retry: false };
        assert!(world.scaler.updates().contains(&ended), "{status}");
        let claims = world.scaler.claims().len();
        assert_eq!(ask(&world, &id, 8).await.status, 404, "{status}");
        assert_eq!(world.scaler.claims().len(), claims, "and wakes nothing");
    }
}

#[tokio::test]
async fn a_setting_that_is_refused_at_the_replay_does_not_end_the_session() {
    let (world, id) = lost().await;
    *world.upstream.inner.refuses.lock() = Some(("logging/setLevel", 400));
    let answer = ask(&world, &id, 7).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(world.upstream.inner.refuses.lock().is_none(), "it was");
}
