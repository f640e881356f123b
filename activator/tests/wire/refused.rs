//! An instance that takes no connection although the view still has it: no byte was sent, so another may be asked.

use std::{pin::pin, sync::atomic::Ordering, time::Duration};

use mcp_gateway_api::record::SessionNews;
use tokio::net::{TcpSocket, TcpStream};

use crate::support::{PATIENCE, Setup, Upstream, World, call};

/// A session whose server is there no more, which nobody has reported yet.
async fn deserted(grace: Duration) -> (World, String, TcpSocket) {
    let mut setup = Setup::default();
    setup.config.lost_grace = grace;
    let world = World::with(setup).await;
    world.upstream.inner.closes.store(true, Ordering::SeqCst);
    let id = world.open().await;
    let held = world.upstream.stop().await;
    (world, id, held)
}

#[tokio::test]
async fn a_warm_request_that_is_refused_a_connection_goes_to_the_next_instance() {
    let (world, id, _held) = deserted(PATIENCE).await;
    let next = Upstream::start().await;
    world.scaler.move_upstream(next.address);
    let (body, headers) = (call(1, "echo"), [("mcp-session-id", &*id)]);
    let mut answer = pin!(world.client.post(&body, &headers));
    let early = tokio::time::timeout(Duration::from_millis(200), &mut answer).await;
    assert!(early.is_err(), "its end is not reported yet");
    world.scaler.lose();
    let answer = answer.await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.header("mcp-session-id"), Some(id.as_str()));
    assert_eq!(next.calls(), [1], "sent once");
    assert_eq!(world.scaler.starts.load(Ordering::SeqCst), 2);
}

/// A pod that goes away takes its network with it: nobody refuses a connection any more, and nobody takes one.
#[tokio::test]
async fn a_warm_request_that_waits_for_a_connection_when_its_instance_ends_goes_to_the_next() {
    let (world, id, held) = deserted(PATIENCE).await;
    let here = held.local_addr().expect("its address");
    // Linux takes one connection more than it is told to keep waiting, and leaves the next without an answer.
    let _listener = held.listen(1).expect("it listens, and accepts nothing");
    let mut full = Vec::new();
    for _ in 0..2 {
        full.push(
            TcpStream::connect(here)
                .await
                .expect("a place in the queue"),
        );
    }
    let next = Upstream::start().await;
    world.scaler.move_upstream(next.address);
    world
        .until("nothing runs", || world.scaler.leases() == Some(0))
        .await;
    let (body, headers) = (call(1, "echo"), [("mcp-session-id", &*id)]);
    let answer = world.client.post(&body, &headers);
    let ends = async {
        world
            .until("it is on its way", || world.scaler.leases() > Some(0))
            .await;
        world.scaler.lose();
    };
    let (answer, ()) = tokio::join!(answer, ends);
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(next.calls(), [1], "sent once");
}

#[tokio::test]
async fn a_warm_request_that_is_refused_a_connection_is_502_when_nobody_says_why() {
    let (world, id, _held) = deserted(Duration::from_millis(50)).await;
    let claims = world.scaler.claims().len();
    let headers = [("mcp-session-id", &*id)];
    let answer = world.client.post(&call(7, "echo"), &headers).await;
    let body = answer.json();
    assert_eq!(
        (answer.status, body["id"].as_i64(), &body["error"]["code"]),
        (502, Some(7), &(-31_520).into())
    );
    assert_eq!(world.scaler.claims().len(), claims, "nothing was claimed");
    // It was word of an instance that was missing: the session lives.
    assert!(!world.scaler.updates().contains(&SessionNews::Ended));
    let next = Upstream::start().await;
    world.scaler.move_upstream(next.address);
    world.scaler.lose();
    let answer = world.client.post(&call(8, "echo"), &headers).await;
    assert_eq!((answer.status, next.calls()), (200, vec![8]));
}
