//! What wakes nothing and meets an idle drain: the drain may be called off, so the server may yet have to hear it.

use std::{pin::pin, time::Duration};

use mcp_gateway_api::{record::SessionNews, view::Service};

use crate::support::{Answer, PATIENCE, Setup, World};

const NOTE: &str = r#"{"jsonrpc":"2.0","method":"notifications/roots/list_changed"}"#;

/// A session on an instance whose idle drain has been acknowledged.
async fn draining() -> (World, String) {
    let mut setup = Setup::default();
    setup.config.lost_grace = PATIENCE;
    let world = World::with(setup).await;
    let id = world.open().await;
    world.scaler.service(Service::IdleDrain);
    world
        .until("the drain is acknowledged", || {
            world.scaler.acks().iter().any(|ack| ack.leases == 0)
        })
        .await;
    (world, id)
}

/// The answer to what is sent now, given once `decide` has been called; it must not come before.
async fn once_decided(sent: impl Future<Output = Answer>, decide: impl FnOnce()) -> Answer {
    let mut sent = pin!(sent);
    let early = tokio::time::timeout(Duration::from_millis(200), &mut sent).await;
    assert!(early.is_err(), "nothing is decided yet");
    decide();
    sent.await
}

async fn note(world: &World, id: &str) -> Answer {
    world.client.post(NOTE, &[("mcp-session-id", id)]).await
}

#[tokio::test]
async fn a_notification_that_meets_an_idle_drain_is_passed_on_when_the_drain_is_called_off() {
    let (world, id) = draining().await;
    let claims = world.scaler.claims().len();
    let call_off = || world.scaler.service(Service::Open);
    let answer = once_decided(note(&world, &id), call_off).await;
    assert_eq!((answer.status, answer.body.len()), (202, 0));
    let last = world.upstream.last();
    assert_eq!(
        last.rpc_method().as_deref(),
        Some("notifications/roots/list_changed")
    );
    assert_eq!(world.scaler.claims().len(), claims, "it wakes nothing");
}

#[tokio::test]
async fn a_notification_that_meets_an_idle_drain_is_taken_when_the_instance_is_gone() {
    let (world, id) = draining().await;
    let (claims, seen) = (world.scaler.claims().len(), world.upstream.seen().len());
    let answer = once_decided(note(&world, &id), || world.scaler.lose()).await;
    assert_eq!((answer.status, answer.body.len()), (202, 0));
    assert_eq!(
        (world.scaler.claims().len(), world.upstream.seen().len()),
        (claims, seen)
    );
    assert!(!world.scaler.updates().contains(&SessionNews::Ended));
}

#[tokio::test]
async fn a_delete_that_meets_an_idle_drain_is_the_servers_to_answer_when_the_drain_is_called_off() {
    let (world, id) = draining().await;
    let call_off = || world.scaler.service(Service::Open);
    let answer = once_decided(world.client.delete(&id), call_off).await;
    assert_eq!(answer.status, 200, "the server's own answer");
    assert_eq!(world.upstream.last().method, http::Method::DELETE);
}

#[tokio::test]
async fn a_delete_that_meets_an_idle_drain_ends_the_session_when_the_instance_is_gone() {
    let (world, id) = draining().await;
    let (claims, seen) = (world.scaler.claims().len(), world.upstream.seen().len());
    let answer = once_decided(world.client.delete(&id), || world.scaler.lose()).await;
    assert_eq!((answer.status, answer.body.len()), (204, 0));
    assert_eq!(
        (world.scaler.claims().len(), world.upstream.seen().len()),
        (claims, seen)
    );
    assert_eq!(note(&world, &id).await.status, 404);
}
