//! Whose pod it is: one for each tenant, or one for all, and nobody's session is another's.

use http::{Method, StatusCode};
use serde_json::json;

use super::{cluster::space, count, demo};
use crate::{
    bad_input::key,
    tools::{self, Share},
    wire::{self, Peer},
};

/// What a client is answered that goes on with a session under a key.
async fn goes_on(url: &str, session: &str, key: &str) -> StatusCode {
    let http = wire::http();
    let bearer = format!("Bearer {key}");
    let headers = [
        ("authorization", bearer.as_str()),
        ("mcp-session-id", session),
    ];
    let ping = json!({"jsonrpc": "2.0", "id": 1, "method": "ping"});
    let reply = wire::post(&http, url, &headers, &ping).await;
    let posted = reply.expect("an answer").status;
    let deleted = wire::send(&http, wire::request(Method::DELETE, url, &headers, "")).await;
    assert_eq!(deleted.expect("an answer").status, posted);
    posted
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_tenant_has_a_pod_of_its_own_unless_it_is_shared_and_no_session_of_another() {
    let Some(space) = space("a pod per tenant").await else {
        return;
    };
    let home = tempfile::tempdir().expect("a temporary folder");
    let file = home.path().join("keys.json");
    let file = file.to_str().expect("a readable path");
    let alice = key(file, "engineering", "alice");
    let ann = key(file, "engineering", "ann");
    let bob = key(file, "sales", "bob");
    let backend = |isolation: &str| {
        demo(isolation, "streamable-http")
            .policy("isolation", isolation)
            // Longer than a slow machine takes from the first step to the last.
            .policy("idleTimeout", "10s")
    };
    let _turn = tools::turn(Share::Whole).await;
    let gateway = space
        .gateway(&[backend("tenant"), backend("shared")], &["--keys", file])
        .await;
    for (isolation, pods) in [("tenant", 2), ("shared", 1)] {
        let url = gateway.url(isolation);
        let (a, n, b) = tokio::join!(
            Peer::connect_as(&url, "alice", Some(&alice)),
            Peer::connect_as(&url, "ann", Some(&ann)),
            Peer::connect_as(&url, "bob", Some(&bob)),
        );
        let peers = [a, n, b].map(|peer| peer.expect("a session"));
        for peer in &peers {
            assert_eq!(count(peer).await, 1, "{isolation}: sessions count apart");
        }
        let own = async || {
            let all = space.pods().await;
            all.keys().filter(|pod| pod.starts_with(isolation)).count()
        };
        assert_eq!(own().await, pods, "{isolation}");
        let slots = gateway.status(isolation).await.slots;
        let mut owners: Vec<_> = slots.iter().map(|slot| slot.owner.as_str()).collect();
        owners.sort_unstable();
        match isolation {
            "tenant" => assert_eq!(owners, ["tenant engineering", "tenant sales"]),
            _ => assert_eq!(owners, ["shared"]),
        }
        // Not another tenant's, nor a colleague's.
        for (peer, key) in [(&peers[0], &bob), (&peers[2], &alice), (&peers[0], &ann)] {
            let answered = goes_on(&url, peer.session(), key).await;
            assert_eq!(answered, StatusCode::NOT_FOUND, "{isolation}");
        }
        for peer in &peers {
            assert_eq!(count(peer).await, 2, "{isolation}: none was ended");
        }
        gateway.until_cold(isolation).await;
        space.until_empty().await;
        assert_eq!(count(&peers[2]).await, 1, "{isolation}: revived");
        assert_eq!(own().await, 1, "{isolation}: its own alone");
    }
}
