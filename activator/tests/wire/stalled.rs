//! Clients that stop reading: what they were answered keeps no instance for longer than if they read.

use std::{sync::atomic::Ordering, time::Duration};

use mcp_gateway_api::view::Service;
use tokio::{io::AsyncReadExt as _, net::TcpStream, time::Instant};

use crate::support::{INITIALIZE, PATIENCE, Setup, World, call};

const MODERN: [(&str, &str); 3] = [
    ("mcp-protocol-version", "2026-07-28"),
    ("mcp-method", "tools/call"),
    ("mcp-name", "flood"),
];

fn modern_flood() -> String {
    call(1, "flood").replace(
        r#""arguments""#,
        r#""_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}},"arguments""#,
    )
}

/// A call whose answer has no end and is not read: all that can be on its way is.
async fn stalled(world: &World, body: &str, headers: &[(&str, &str)]) -> TcpStream {
    let mut all = vec![("connection", "close")];
    all.extend_from_slice(headers);
    let stream = world.client.post_unread(body, &all).await;
    let said = || world.upstream.inner.flooded.load(Ordering::SeqCst);
    let (mut last, mut since) = (0, Instant::now());
    world
        .until("nothing passes any more", || {
            if said() != last {
                (last, since) = (said(), Instant::now());
            }
            last > 0 && since.elapsed() > Duration::from_millis(300)
        })
        .await;
    assert!(world.scaler.leases() != Some(0), "too late");
    stream
}

async fn given_back(world: &World) {
    world
        .until("no lease is left", || world.scaler.leases() == Some(0))
        .await;
}

#[tokio::test]
async fn a_call_whose_client_stopped_reading_keeps_its_instance_no_longer_than_a_request_may_take()
{
    for modern in [false, true] {
        let mut setup = Setup::default();
        setup.policy.request_timeout = Duration::from_secs(5);
        let world = World::with(setup).await;
        let mut stream = if modern {
            stalled(&world, &modern_flood(), &MODERN).await
        } else {
            let session = world.open().await;
            let headers = [("mcp-session-id", session.as_str())];
            stalled(&world, &call(1, "flood"), &headers).await
        };
        given_back(&world).await;
        // One that comes back after all finds an end.
        let mut rest = vec![0; 64 << 10];
        let read = async { while stream.read(&mut rest).await.is_ok_and(|read| read > 0) {} };
        tokio::time::timeout(PATIENCE, read).await.expect("in time");
    }
}

#[tokio::test]
async fn a_call_whose_client_stopped_reading_does_not_keep_an_instance_that_is_cut() {
    let world = World::new().await;
    let session = world.open().await;
    let headers = [("mcp-session-id", session.as_str())];
    let _stream = stalled(&world, &call(1, "flood"), &headers).await;
    world.scaler.service(Service::RetireDrain);
    world.scaler.service(Service::Cut);
    world
        .until("the cut is acknowledged", || {
            world
                .scaler
                .acks()
                .last()
                .is_some_and(|ack| ack.leases == 0)
        })
        .await;
}

#[tokio::test]
async fn a_shutdown_says_goodbye_though_a_client_has_stopped_reading() {
    let world = World::new().await;
    let session = world.open().await;
    let headers = [("mcp-session-id", session.as_str())];
    let _stream = stalled(&world, &call(1, "flood"), &headers).await;
    world.activator.shutdown(Duration::from_millis(50)).await;
    assert_eq!(world.scaler.left(), [world.activator.gateway().config().id]);
}

#[tokio::test]
async fn an_answer_that_has_come_as_a_whole_keeps_no_instance_while_its_client_does_not_read_it() {
    let mut setup = Setup::default();
    setup.config.max_initialize_answer = 64 << 20;
    let world = World::with(setup).await;
    let inner = &world.upstream.inner;
    inner.instructs.store(32 << 20, Ordering::SeqCst);
    let stream = world.client.post_unread(INITIALIZE, &[]).await;
    stream.readable().await.unwrap();
    given_back(&world).await;
}
