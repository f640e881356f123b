//! How sessions end: by DELETE, by their server, by age, by loss under `onIdle: expire`.

use std::{sync::atomic::Ordering, time::Duration};

use mcp_gateway_api::{policy::OnIdle, record::SessionNews};

use crate::support::{INITIALIZED, Setup, World, call};

fn ended(world: &World) -> bool {
    world.scaler.updates().contains(&SessionNews::Ended)
}

async fn assert_gone(world: &World, id: &str) {
    let claims = world.scaler.claims().len();
    for body in [&*call(9, "echo"), INITIALIZED] {
        let answer = world.client.post(body, &[("mcp-session-id", id)]).await;
        assert_eq!(answer.status, 404);
    }
    assert_eq!(world.client.delete(id).await.status, 404);
    assert_eq!(world.scaler.claims().len(), claims, "nothing woke");
}

#[tokio::test]
async fn delete_passes_the_servers_answer_and_ends_the_session() {
    let world = World::new().await;
    let id = world.open().await;
    assert_eq!(world.client.delete(&id).await.status, 200);
    assert_eq!(
        world.upstream.last().header("mcp-session-id"),
        Some("upstream-0")
    );
    world.until("the end is recorded", || ended(&world)).await;
    assert_gone(&world, &id).await;
}

#[tokio::test]
async fn a_server_that_keeps_its_sessions_keeps_them() {
    let world = World::new().await;
    let id = world.open().await;
    world
        .upstream
        .inner
        .keeps_sessions
        .store(true, Ordering::SeqCst);
    assert_eq!(world.client.delete(&id).await.status, 405);
    assert_eq!(
        world
            .client
            .post(&call(1, "echo"), &[("mcp-session-id", &id)])
            .await
            .status,
        200
    );
    assert!(!ended(&world));
}

#[tokio::test]
async fn delete_of_a_sleeping_session_ends_it_and_wakes_nothing() {
    let world = World::new().await;
    let id = world.open().await;
    world.scaler.lose();
    let (claims, seen) = (world.scaler.claims().len(), world.upstream.seen().len());
    let answer = world.client.delete(&id).await;
    assert_eq!((answer.status, answer.body.len()), (204, 0));
    assert_eq!(
        (world.scaler.claims().len(), world.upstream.seen().len()),
        (claims, seen)
    );
    world.until("the end is recorded", || ended(&world)).await;
    assert_gone(&world, &id).await;
}

#[tokio::test]
async fn delete_without_a_session_is_405() {
    let world = World::new().await;
    let request = world
        .client
        .request(http::Method::DELETE, "/adapters/demo/mcp", &[], "");
    assert_eq!(world.client.send(request).await.status, 405);
    assert!(world.scaler.claims().is_empty());
}

#[tokio::test]
async fn a_session_that_its_server_ended_stays_ended() {
    let world = World::new().await;
    let id = world.open().await;
    world.upstream.forget_sessions();
    let answer = world
        .client
        .post(&call(1, "echo"), &[("mcp-session-id", &id)])
        .await;
    assert_eq!(
        (answer.status, answer.json()["error"]["code"].as_i64()),
        (404, Some(-32_001)),
        "the server's own words"
    );
    world.until("the end is recorded", || ended(&world)).await;
    assert_gone(&world, &id).await;
}

#[tokio::test]
async fn an_old_session_is_expired() {
    let mut setup = Setup::default();
    setup.policy.session_lifetime = Duration::ZERO;
    let world = World::with(setup).await;
    let answer = world.client.post(crate::support::INITIALIZE, &[]).await;
    let id = answer.header("mcp-session-id").unwrap().to_owned();
    assert_gone(&world, &id).await;
}

#[tokio::test]
async fn under_expire_a_lost_instance_ends_its_sessions_without_waking_anything() {
    let mut setup = Setup::default();
    setup.policy.on_idle = OnIdle::Expire;
    let world = World::with(setup).await;
    let id = world.open().await;
    world.scaler.lose();
    assert_gone(&world, &id).await;
    world.until("the end is recorded", || ended(&world)).await;
    assert_ne!(world.open().await, id, "a new one can be had");
}

/// Whatever comes first after the loss must say so: a client that is answered believes that its session lives.
#[tokio::test]
async fn under_expire_a_lost_session_is_404_to_whatever_comes_first() {
    let ping = r#"{"jsonrpc":"2.0","id":7,"method":"ping"}"#;
    for first in ["GET", "DELETE", ping, INITIALIZED] {
        let mut setup = Setup::default();
        setup.policy.on_idle = OnIdle::Expire;
        let world = World::with(setup).await;
        let id = world.open().await;
        world.scaler.lose();
        let claims = world.scaler.claims().len();
        let status = match first {
            "GET" => {
                let headers = [("mcp-session-id", &*id), ("accept", "text/event-stream")];
                let path = "/adapters/demo/mcp";
                let get = world.client.request(http::Method::GET, path, &headers, "");
                world.client.begin(get).await.status
            }
            "DELETE" => world.client.delete(&id).await.status,
            body => {
                let headers = [("mcp-session-id", &*id)];
                world.client.post(body, &headers).await.status
            }
        };
        assert_eq!(status, 404, "{first}");
        assert_eq!(world.scaler.claims().len(), claims, "nothing woke");
    }
}

#[tokio::test]
async fn an_idle_session_is_released_from_a_busy_instance_and_comes_back() {
    let mut setup = Setup::default();
    setup.policy.session_idle_timeout = Duration::from_millis(100);
    let world = World::with(setup).await;
    let id = world.open().await;
    world
        .until("it sleeps", || {
            world.scaler.updates().contains(&SessionNews::Asleep)
        })
        .await;
    world
        .until("its server was told", || {
            world
                .upstream
                .seen()
                .iter()
                .any(|s| s.method == http::Method::DELETE)
        })
        .await;
    let answer = world
        .client
        .post(&call(1, "echo"), &[("mcp-session-id", &id)])
        .await;
    assert_eq!(
        (answer.status, answer.json()["result"]["session"].as_str()),
        (200, Some("upstream-1"))
    );
}

/// Another may be using it.
#[tokio::test]
async fn one_of_several_activators_lets_go_of_no_session_that_is_idle_here() {
    let mut setup = Setup::default();
    setup.config.alone = false;
    setup.policy.session_idle_timeout = Duration::from_millis(100);
    let world = World::with(setup).await;
    let id = world.open().await;
    // Longer than the sweep pauses: it has looked in between.
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    assert!(!world.scaler.updates().contains(&SessionNews::Asleep));
    let headers = [("mcp-session-id", &*id)];
    let answer = world.client.post(&call(1, "echo"), &headers).await;
    assert_eq!(answer.status, 200);
    let seen = world.upstream.seen();
    assert!(seen.iter().all(|one| one.method != http::Method::DELETE));
}

#[tokio::test]
async fn a_request_that_finds_its_session_just_released_waits_until_that_is_written() {
    let world = World::new().await;
    let id = world.open().await;
    world.scaler.hold_records();
    world.policy(|policy| policy.session_idle_timeout = Duration::from_millis(100));
    world
        .until("its server was told", || {
            world
                .upstream
                .seen()
                .iter()
                .any(|s| s.method == http::Method::DELETE)
        })
        .await;
    let claims = world.scaler.claims().len();
    let (body, headers) = (call(1, "echo"), [("mcp-session-id", &*id)]);
    let mut answer = std::pin::pin!(world.client.post(&body, &headers));
    // A claim that overtook the record would be answered with the session that its server has just deleted.
    let early = tokio::time::timeout(Duration::from_millis(200), &mut answer).await;
    assert!(early.is_err(), "nothing can be said yet");
    assert_eq!(world.scaler.claims().len(), claims);
    world.scaler.release_records();
    let answer = answer.await;
    assert_eq!(
        (answer.status, answer.json()["result"]["session"].as_str()),
        (200, Some("upstream-1"))
    );
}
