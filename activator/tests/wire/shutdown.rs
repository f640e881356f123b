//! How the data plane ends, and what a retiring instance may finish.

use std::time::Duration;

use mcp_gateway_api::view::Service;

use tokio::{io::AsyncWriteExt as _, task::JoinHandle};

use crate::support::{Answer, INITIALIZE, PATIENCE, World, call, client::read_until};

/// An `initialize` that waits, as one of so many.
async fn held(world: &World, waiting: u32) -> JoinHandle<Answer> {
    let client = world.client.clone();
    let held = tokio::spawn(async move { client.post(INITIALIZE, &[]).await });
    world
        .until("it waits", || world.activator.waiting() == waiting)
        .await;
    held
}

#[tokio::test]
async fn held_exchanges_are_refused_and_streams_told_at_shutdown() {
    let world = World::new().await;
    let id = world.open().await;
    let posting = world
        .client
        .posting(&call(7, "stream"), &[("mcp-session-id", &id)]);
    let mut coming = world.client.begin(posting).await;
    coming.until("\n\n").await;
    world.scaler.hold_claims();
    let first = held(&world, 1).await;
    let activator = world.activator.clone();
    let ending = tokio::spawn(async move { activator.shutdown(Duration::from_millis(200)).await });
    let answer = first.await.unwrap();
    assert_eq!(
        (answer.status, answer.json()["error"]["code"].as_i64()),
        (503, Some(-31_505))
    );
    assert!(answer.header("retry-after").is_some());
    let (text, orderly) = coming.rest().await;
    assert!(
        orderly && text.contains(r#""id":7,"error":{"code":-31505"#),
        "{text}"
    );
    ending.await.unwrap();
    assert_eq!(
        world
            .client
            .post(&call(8, "echo"), &[("mcp-session-id", &id)])
            .await
            .status,
        503
    );
}

#[tokio::test]
async fn a_shutdown_waits_for_what_runs() {
    let world = World::new().await;
    let id = world.open().await;
    let (client, session) = (world.client.clone(), id.clone());
    let running = tokio::spawn(async move {
        client
            .post(&call(1, "slow"), &[("mcp-session-id", &session)])
            .await
    });
    world
        .until("it runs", || world.upstream.calls() == [1])
        .await;
    let activator = world.activator.clone();
    let ending = tokio::spawn(async move { activator.shutdown(Duration::from_secs(60)).await });
    assert!(world.scaler.left().is_empty());
    world.upstream.inner.go.notify_waiters();
    assert_eq!(running.await.unwrap().status, 200);
    ending.await.unwrap();
    // Goodbye is the last word: nothing is used any more, and no drain need wait for this activator.
    assert_eq!(world.scaler.left(), [world.activator.gateway().config().id]);
}

#[tokio::test]
async fn a_replica_that_finishes_refuses_nothing_and_waits_for_what_it_holds() {
    let world = World::new().await;
    world.scaler.hold_claims();
    let first = held(&world, 1).await;
    let activator = world.activator.clone();
    let ending = tokio::spawn(async move { activator.finish(PATIENCE).await });
    let later = held(&world, 2).await;
    assert!(!ending.is_finished());
    world.scaler.release_claims();
    assert_eq!(first.await.unwrap().status, 200);
    assert_eq!(later.await.unwrap().status, 200);
    tokio::time::timeout(PATIENCE, ending)
        .await
        .expect("it waits for nothing else")
        .unwrap();
}

#[tokio::test]
async fn a_replica_that_finishes_waits_for_a_body_that_is_on_its_way() {
    let world = World::new().await;
    let told = [("expect", "100-continue")];
    let mut upload = world.client.upload(INITIALIZE.len(), &told).await;
    // It is being read.
    read_until(&mut upload, "100 Continue").await;
    let soon = Duration::from_millis(50);
    let finished = tokio::time::timeout(soon, world.activator.finish(PATIENCE)).await;
    assert!(finished.is_err(), "it did not wait");
    upload.write_all(INITIALIZE.as_bytes()).await.unwrap();
    read_until(&mut upload, "200 OK").await;
}

#[tokio::test]
async fn a_retiring_instance_finishes_what_it_began_and_is_given_its_answers() {
    let world = World::new().await;
    let id = world.open().await;
    let posting = world
        .client
        .posting(&call(1, "elicit"), &[("mcp-session-id", &id)]);
    let mut coming = world.client.begin(posting).await;
    coming.until("ask-1").await;
    world.scaler.service(Service::RetireDrain);
    world
        .until("the drain is acknowledged", || {
            world.scaler.acks().iter().any(|ack| ack.leases > 0)
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
    world.upstream.inner.finish_streams();
    let (text, orderly) = coming.rest().await;
    assert!(orderly && text.contains(r#""id":1"#), "{text}");
    world
        .until("nothing is leased", || {
            world
                .scaler
                .acks()
                .last()
                .is_some_and(|ack| ack.leases == 0)
        })
        .await;
}

#[tokio::test]
async fn a_cut_ends_open_streams_with_their_terminal_error() {
    let world = World::new().await;
    let id = world.open().await;
    let posting = world
        .client
        .posting(&call(7, "stream"), &[("mcp-session-id", &id)]);
    let mut coming = world.client.begin(posting).await;
    coming.until("\n\n").await;
    world.scaler.service(Service::Cut);
    let (text, orderly) = coming.rest().await;
    assert!(orderly && text.contains(r#""id":7,"error""#), "{text}");
    world
        .until("nothing is leased", || {
            world
                .scaler
                .acks()
                .last()
                .is_some_and(|ack| ack.leases == 0)
        })
        .await;
}

#[tokio::test]
async fn an_exchange_that_takes_too_long_is_504() {
    let world = World::new().await;
    let id = world.open().await;
    world.policy(|policy| policy.request_timeout = Duration::from_millis(80));
    let session = [("mcp-session-id", id.as_str())];
    let answer = world.client.post(&call(7, "never"), &session).await;
    assert_eq!(
        (answer.status, answer.json()["error"]["code"].as_i64()),
        (504, Some(-31_540))
    );
    let (text, orderly) = world
        .client
        .begin(world.client.posting(&call(8, "stream"), &session))
        .await
        .rest()
        .await;
    assert!(
        orderly && text.contains(r#""id":8,"error":{"code":-31540"#),
        "{text}"
    );
    world
        .until("nothing is leased", || world.scaler.leases() == Some(0))
        .await;
}
