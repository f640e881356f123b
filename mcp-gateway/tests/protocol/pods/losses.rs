//! Pods that Kubernetes takes away: the sessions go on in new ones, and the reason is kept.

use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api,
    api::{EvictParams, Patch, PatchParams},
};
use serde_json::{Value, json};
use tokio::time::{Duration, Instant, sleep};

use super::{
    cluster::{Space, space},
    count, demo,
    troubles::until_known,
};
use crate::{
    gateway::{Gateway, PATIENCE},
    tools::{self, Share},
    wire::Peer,
};

/// Says of every pod here what a kubelet, or whoever speaks for one that is gone, would say.
async fn say(space: &Space, status: Value) {
    let pods: Api<Pod> = Api::namespaced(space.client.clone(), &space.name);
    for name in space.pods().await.keys() {
        let patch = Patch::Merge(json!({ "status": status }));
        let params = PatchParams::default();
        let said = pods.patch_status(name, &params, &patch).await;
        said.expect("the status is taken");
    }
}

/// A gateway, and a session that has a pod.
async fn session(space: &Space) -> (Gateway, Peer) {
    let backend = demo("demo", "streamable-http").policy("idleTimeout", "1h");
    let gateway = space.gateway(&[backend], &[]).await;
    let peer = Peer::connect(&gateway.url("demo"), "stays").await;
    let peer = peer.expect("a session");
    assert_eq!(count(&peer).await, 1);
    (gateway, peer)
}

/// What the session counts in its next pod. A request may have been on its way to the pod that is gone; a client sends it
/// again.
async fn comes_back(gateway: &Gateway, peer: &Peer) -> String {
    let give_up = Instant::now() + PATIENCE;
    loop {
        match peer.call("counter", json!({})).await {
            Ok(answer) => return answer.text().to_owned(),
            Err(lost) => assert!(Instant::now() < give_up, "{lost}\n{}", gateway.log()),
        }
        sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_survives_its_pods_eviction_and_its_nodes_loss_and_status_says_what_it_was() {
    let Some(space) = space("losses").await else {
        return;
    };
    let _turn = tools::turn(Share::Half).await;
    let (gateway, peer) = session(&space).await;
    for (status, why) in [
        (
            json!({"phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: memory."}),
            "its node ran out of something, and Kubernetes evicted its pod",
        ),
        (
            json!({"reason": "NodeLost", "message": "Node a which was running it is unresponsive"}),
            "the node it ran on was lost",
        ),
    ] {
        let before = gateway.status("demo").await.starts;
        say(&space, status).await;
        until_known(&gateway, "demo", why).await;
        let counted = comes_back(&gateway, &peer).await;
        assert!(counted.contains('1'), "revived in a new pod: {counted}");
        assert_eq!(gateway.status("demo").await.starts, before + 1);
    }
}

/// Kubernetes asks the pod to end and gives it time, in which nothing new may go there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_goes_on_in_a_new_pod_when_its_own_is_evicted_as_kubectl_drain_does() {
    let Some(space) = space("a drain").await else {
        return;
    };
    let _turn = tools::turn(Share::Half).await;
    let (gateway, peer) = session(&space).await;
    let before = space.pods().await;
    let pods: Api<Pod> = Api::namespaced(space.client.clone(), &space.name);
    for name in before.keys() {
        let evicted = pods.evict(name, &EvictParams::default()).await;
        evicted.expect("nothing forbids it");
    }
    until_known(&gateway, "demo", "somebody else deleted its pod").await;
    let counted = comes_back(&gateway, &peer).await;
    assert!(counted.contains('1'), "revived in a new pod: {counted}");
    assert_eq!(gateway.status("demo").await.starts, 2);
}
