//! A bridge that lost a session's child says so on the session's streams: nothing of the session keeps its instance then,
//! and nobody has to come and ask.

use std::sync::atomic::Ordering;

use mcp_gateway_api::{policy::OnIdle, record::SessionNews};

use crate::{
    strands::{Server, get, post, world},
    support::{Setup, World, call, client::Coming},
};

const LOST: &str = "event: x-mcp-gateway-lost\n\n";
const ASKS: &str = "data: {\"jsonrpc\":\"2.0\",\"id\":\"q\",\"method\":\"elicitation/create\"}\n\n";

/// A session whose server has asked its client something, and waits.
async fn asked() -> (World, Server, String, Coming) {
    let (world, server) = world(Setup::default()).await;
    let session = world.open().await;
    let posted = world
        .client
        .posting(&call(5, "drip"), &[("mcp-session-id", &session)]);
    let mut stream = world.client.begin(posted).await;
    server.say("5", ASKS);
    stream.until("elicitation").await;
    world
        .until("call and question are leased", || {
            world.scaler.leases() >= Some(2)
        })
        .await;
    (world, server, session, stream)
}

fn asleep(world: &World) -> usize {
    let updates = world.scaler.updates();
    updates
        .iter()
        .filter(|n| **n == SessionNews::Asleep)
        .count()
}

#[tokio::test]
async fn what_a_dead_child_has_asked_keeps_its_instance_no_longer() {
    let (world, server, session, stream) = asked().await;
    let error =
        "data: {\"jsonrpc\":\"2.0\",\"id\":5,\"error\":{\"code\":-31520,\"message\":\"lost\"}}\n\n";
    server.say("5", error);
    server.say("5", LOST);
    server.hang_up("5");
    let (text, in_order) = stream.rest().await;
    assert!(
        in_order && text.ends_with(&format!("{error}{LOST}")),
        "{text}"
    );
    world
        .until("no lease is left", || world.scaler.leases() == Some(0))
        .await;
    world.until("it sleeps", || asleep(&world) == 1).await;
    // Nobody had to ask the dead child first.
    assert_eq!(post(&world, &session, &call(6, "echo")).await.status, 200);
    let revived =
        |news: &SessionNews| matches!(news, SessionNews::Revived(b) if &*b.upstream.0 == "s-1");
    assert!(world.scaler.updates().iter().any(revived));
}

#[tokio::test]
async fn a_passive_stream_outlives_the_child_and_is_attached_to_the_next() {
    let (world, server, session, _stream) = asked().await;
    let mut passive = get(&world, &session, None).await;
    passive.until("welcome").await;
    server.say("get", LOST);
    server.hang_up("get");
    world
        .until("no lease is left", || world.scaler.leases() == Some(0))
        .await;
    assert_eq!(post(&world, &session, &call(6, "echo")).await.status, 200);
    world
        .until("attached again", || server.is_read("get"))
        .await;
    server.say("get", "data: {\"jsonrpc\":\"2.0\",\"method\":\"m\"}\n\n");
    passive.until("\"m\"").await;
}

#[tokio::test]
async fn a_late_word_of_a_dead_child_does_not_put_a_revived_session_to_sleep() {
    let (world, server, session, stream) = asked().await;
    // Another stream has told before.
    let mut passive = get(&world, &session, None).await;
    passive.until("welcome").await;
    server.say("get", LOST);
    server.hang_up("get");
    world.until("it sleeps", || asleep(&world) == 1).await;
    assert_eq!(post(&world, &session, &call(6, "echo")).await.status, 200);
    server.say("5", LOST);
    server.hang_up("5");
    assert!(stream.rest().await.0.ends_with(LOST));
    assert_eq!(post(&world, &session, &call(7, "echo")).await.status, 200);
    assert_eq!(asleep(&world), 1, "{:?}", world.scaler.updates());
}

#[tokio::test]
async fn under_expire_a_session_whose_child_died_ends_with_all_its_streams() {
    let mut setup = Setup::default();
    setup.policy.on_idle = OnIdle::Expire;
    let (world, server) = world(setup).await;
    let session = world.open().await;
    let mut passive = get(&world, &session, None).await;
    passive.until("welcome").await;
    server.say("get", LOST);
    assert!(passive.rest().await.1);
    assert_eq!(post(&world, &session, &call(6, "echo")).await.status, 404);
    world
        .until("its end is kept", || {
            world.scaler.updates().contains(&SessionNews::Ended)
        })
        .await;
}

#[tokio::test]
async fn a_call_that_loses_one_child_after_the_other_fails_and_its_session_goes_on() {
    let (world, server) = world(Setup::default()).await;
    let session = world.open().await;
    server.inner.dies.store(true, Ordering::SeqCst);
    let failed = post(&world, &session, &call(5, "echo")).await;
    assert_eq!(failed.status, 502, "{}", failed.text());
    server.inner.dies.store(false, Ordering::SeqCst);
    assert_eq!(post(&world, &session, &call(6, "echo")).await.status, 200);
    assert!(!world.scaler.updates().contains(&SessionNews::Ended));
}
