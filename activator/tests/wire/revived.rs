//! What a revival repeats, and what it tells of itself.

use std::collections::HashSet;

use crate::{
    strands::{post, world},
    support::{Setup, call},
};

#[tokio::test]
async fn what_the_requests_of_a_batch_set_is_set_again_each_for_itself() {
    let (world, server) = world(Setup::default()).await;
    let session = world.open().await;
    let batch = r#"[
        {"jsonrpc":"2.0","id":1,"method":"logging/setLevel","params":{"level":"debug"}},
        {"jsonrpc":"2.0","id":2,"method":"resources/subscribe","params":{"uri":"bad"}},
        {"jsonrpc":"2.0","id":3,"method":"resources/subscribe","params":{"uri":"good"}},
        {"jsonrpc":"2.0","method":"notifications/roots/list_changed"}]"#;
    assert_eq!(post(&world, &session, batch).await.status, 200);
    world
        .until("both are recorded", || world.scaler.updates().len() == 3)
        .await;
    world.scaler.lose();
    server.inner.replayed.lock().clear();
    assert_eq!(post(&world, &session, &call(4, "echo")).await.status, 200);
    let replayed = server.inner.replayed.lock().clone();
    let set: HashSet<String> = replayed
        .iter()
        .map(|message| message["params"].to_string())
        .collect();
    assert!(set.contains(r#"{"level":"debug"}"#), "{set:?}");
    assert!(set.contains(r#"{"uri":"good"}"#), "{set:?}");
    assert!(!set.contains(r#"{"uri":"bad"}"#), "{set:?}");
}

#[tokio::test]
async fn a_revival_tells_what_its_handshake_took() {
    let (world, _server) = world(Setup::default()).await;
    let opened = world.client.post(crate::support::INITIALIZE, &[]).await;
    let timing = opened.header("server-timing").unwrap();
    assert!(
        timing.contains("hold;dur=") && !timing.contains("handshake"),
        "{timing}"
    );
    let session = opened.header("mcp-session-id").unwrap().to_owned();
    world.scaler.lose();
    let revived = post(&world, &session, &call(1, "echo")).await;
    let timing = revived.header("server-timing").unwrap();
    assert!(timing.contains(", handshake;dur="), "{timing}");
}
