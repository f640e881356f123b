//! Sessions that a server opened and nobody will use: it hears a DELETE, so that a busy instance does not collect them.

use std::sync::atomic::Ordering;

use crate::{
    strands::{get, post, world},
    support::{INITIALIZE, Setup, World, call},
};

async fn until_deleted(world: &World, server: &crate::strands::Server, session: &str) {
    world
        .until("its server was told", || {
            *server.inner.deleted.lock() == [session]
        })
        .await;
    world
        .until("no lease is left", || world.scaler.leases() == Some(0))
        .await;
}

#[tokio::test]
async fn a_client_that_leaves_during_initialize_leaves_no_session_behind() {
    let (world, server) = world(Setup::default()).await;
    server.inner.answers.send_replace(false);
    let connection = world.client.post_raw(INITIALIZE, &[]).await;
    world
        .until("the server is asked", || {
            server.inner.asked.load(Ordering::SeqCst) == 1
        })
        .await;
    drop(connection);
    world.catch_up().await;
    server.inner.answers.send_replace(true);
    until_deleted(&world, &server, "s-0").await;
}

#[tokio::test]
async fn a_session_whose_id_cannot_be_carried_is_not_left_behind() {
    let (world, server) = world(Setup::default()).await;
    server.inner.long_ids.store(true, Ordering::SeqCst);
    assert_eq!(world.client.post(INITIALIZE, &[]).await.status, 500);
    let id = format!("s-0{}", "x".repeat(3_000));
    until_deleted(&world, &server, &id).await;
}

#[tokio::test]
async fn a_session_that_ends_while_it_is_revived_is_not_left_behind() {
    let (world, server) = world(Setup::default()).await;
    let session = world.open().await;
    world.scaler.lose();
    server.inner.answers.send_replace(false);
    let asking = {
        let (client, session) = (world.client.clone(), session.clone());
        tokio::spawn(async move {
            let headers = [("mcp-session-id", &*session)];
            client.post(&call(1, "echo"), &headers).await.status
        })
    };
    world
        .until("the handshake is replayed", || {
            server.inner.asked.load(Ordering::SeqCst) == 2
        })
        .await;
    assert_eq!(world.client.delete(&session).await.status, 204);
    assert_eq!(asking.await.unwrap(), 404);
    server.inner.answers.send_replace(true);
    until_deleted(&world, &server, "s-1").await;
}

#[tokio::test]
async fn a_session_that_its_client_has_is_not_said_goodbye_to() {
    let (world, server) = world(Setup::default()).await;
    let session = world.open().await;
    world.scaler.lose();
    assert_eq!(post(&world, &session, &call(1, "echo")).await.status, 200);
    drop(get(&world, &session, None).await);
    assert_eq!(post(&world, &session, &call(2, "echo")).await.status, 200);
    world
        .until("no lease is left", || world.scaler.leases() == Some(0))
        .await;
    assert_eq!(*server.inner.deleted.lock(), [""; 0]);
}
