//! A rollout of both roles at once, as an upgrade of the gateway is one.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use k8s_openapi::api::core::v1::Pod;
use kube::{Api, api::ListParams};
use tokio::time::{Instant, sleep};

use super::{Installation, OWN, count};
use crate::{gateway::PATIENCE, wire::Peer};

/// So long a leader that was killed is missed at least; one that is told to end gives its lease back.
const LEASE: Duration = Duration::from_secs(15);

/// A session that stays loses no call and nothing of its server's memory, and new ones never wait for a lease to run out.
pub(super) async fn is_noticed_by_nobody(installed: &Installation, backend: &str) {
    let address = installed.through_the_service().await;
    let url = format!("http://{address}/adapters/{backend}/mcp");
    let done = AtomicBool::new(false);
    let rolling = async {
        roll(installed).await;
        done.store(true, Ordering::Relaxed);
    };
    let (calls, slowest, ()) = tokio::join!(calling(&url, &done), starting(&url, &done), rolling);
    println!("the slowest new session took {slowest:?}");
    assert!(calls > 100, "{calls} calls are no load");
    assert!(slowest < LEASE, "a new session took {slowest:?}");
}

async fn roll(installed: &Installation) {
    let kubectl = async |arguments: &[&str]| {
        let all = ["-n", &installed.system, "rollout"];
        installed.kubectl(&[&all[..], arguments].concat()).await
    };
    let roles = [
        "deployment/mcp-gateway-activator",
        "deployment/mcp-gateway-autoscaler",
    ];
    kubectl(&[&["restart"][..], &roles].concat()).await;
    for role in roles {
        kubectl(&["status", "--timeout=180s", role]).await;
    }
    // The old ones take their time to end.
    let pods: Api<Pod> = Api::namespaced(installed.client.clone(), &installed.system);
    let own = ListParams::default().labels(OWN);
    let give_up = Instant::now() + PATIENCE;
    while pods.list(&own).await.expect("the pods").items.len() > 4 {
        assert!(Instant::now() < give_up, "old pods stay");
        sleep(Duration::from_millis(100)).await;
    }
}

/// Calls in one session, one after the other; how many.
async fn calling(url: &str, done: &AtomicBool) -> u64 {
    let peer = Peer::connect(url, "stays").await.expect("a session");
    let (mut calls, mut slowest) = (0, Duration::ZERO);
    while !done.load(Ordering::Relaxed) {
        calls += 1;
        let begun = Instant::now();
        assert_eq!(count(&peer).await, calls, "one server, with its memory");
        slowest = slowest.max(begun.elapsed());
        sleep(Duration::from_millis(20)).await;
    }
    println!("{calls} calls; the slowest took {slowest:?}");
    calls
}

/// New sessions, each with a server of its own; how long the slowest waited for it.
async fn starting(url: &str, done: &AtomicBool) -> Duration {
    let mut slowest = Duration::ZERO;
    while !done.load(Ordering::Relaxed) {
        let begun = Instant::now();
        let peer = Peer::connect(url, "new").await.expect("a session");
        assert_eq!(count(&peer).await, 1, "a server of its own");
        slowest = slowest.max(begun.elapsed());
        sleep(Duration::from_millis(1_500)).await;
    }
    slowest
}
