//! What the bodies of all requests may take of memory together.

use std::time::Duration;

use crate::support::{Client, PATIENCE, Setup, World, call};

const LARGE: usize = 700 << 10;

fn setup() -> Setup {
    let mut setup = Setup::default();
    setup.config.max_bodies = 1 << 20;
    setup
}

/// A call of this tool with so much in it.
fn large(id: u32, tool: &str) -> String {
    let filler = "x".repeat(LARGE);
    call(id, tool).replace("\"n\":", &format!("\"filler\":\"{filler}\",\"n\":"))
}

fn asking(client: &Client, session: &str, body: String) -> tokio::task::JoinHandle<u16> {
    let (client, session) = (client.clone(), session.to_owned());
    tokio::spawn(async move {
        let headers = [("mcp-session-id", &*session)];
        client.post(&body, &headers).await.status
    })
}

#[tokio::test]
async fn large_bodies_are_refused_while_others_take_all_there_is_and_small_ones_pass() {
    let world = World::with(setup()).await;
    let session = world.open().await;
    let headers = [("mcp-session-id", session.as_str())];
    let slow = asking(&world.client, &session, large(1, "slow"));
    world
        .until("it is with the server", || world.upstream.calls() == [1])
        .await;
    let refused = world.client.post(&large(2, "echo"), &headers).await;
    assert_eq!(
        (refused.status, refused.header("retry-after")),
        (503, Some("1"))
    );
    assert_eq!(refused.json()["error"]["data"]["kind"], "overloaded");
    let small = world.client.post(&call(3, "echo"), &headers).await;
    assert_eq!(small.status, 200);
    world.upstream.inner.go.notify_one();
    assert_eq!(slow.await.unwrap(), 200);
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while world.client.post(&large(4, "echo"), &headers).await.status != 200 {
        assert!(tokio::time::Instant::now() < deadline, "never given back");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn what_waits_for_a_sleeping_server_does_not_refuse_others() {
    let world = World::with(setup()).await;
    let session = world.open().await;
    world.scaler.lose();
    world.scaler.hold_claims();
    let mut held = Vec::new();
    for id in 1..=4 {
        held.push(asking(&world.client, &session, large(id, "echo")));
        world
            .until("it waits", || world.activator.waiting() == id)
            .await;
    }
    world.scaler.release_claims();
    for one in held {
        assert_eq!(one.await.unwrap(), 200);
    }
}
