//! An autoscaler whose process dies and is started again in the same pod, as a kubelet does it.

use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use tokio::time::{Instant, sleep};

use super::roles::{self, Role};
use crate::{
    gateway::PATIENCE,
    pods::cluster::{Space, space},
    tools::{self, Share},
};

/// Of the pods that they would run in, as the API writes it and as the lease's holder begins with it.
const FIRST: &str = "00000000-0000-0000-0000-0000000000a1";
const FIRST_HOLDER: &str = "000000000000000000000000000000a1.";
const SECOND: &str = "00000000-0000-0000-0000-0000000000b2";

async fn start(space: &Space, shared: &std::path::Path, pod: &str) -> Role {
    let arguments = [
        ["--system-namespace", &space.name],
        ["--installation", "test"],
        ["--scaler-listen", "127.0.0.1:0"],
        ["--home-listen", "127.0.0.1:0"],
        // No agent will call.
        ["--home-advertise", "127.0.0.1:1"],
        ["--pod-uid", pod],
    ];
    roles::start("autoscaler", shared, Some(space), arguments.as_flattened()).await
}

/// Who leads, and in which term, once that is somebody else than before.
async fn leader(space: &Space, before: &str) -> (String, i32) {
    let leases: Api<Lease> = Api::namespaced(space.client.clone(), &space.name);
    let give_up = Instant::now() + PATIENCE;
    loop {
        let lease = leases.get_opt("mcp-gateway-test").await.ok().flatten();
        let spec = lease.and_then(|lease| lease.spec).unwrap_or_default();
        if let (Some(holder), Some(term)) = (spec.holder_identity, spec.lease_transitions)
            && holder != before
        {
            return (holder, term);
        }
        assert!(Instant::now() < give_up, "nobody leads after {before:?}");
        sleep(std::time::Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_autoscaler_that_is_killed_and_started_again_in_its_pod_leads_on_before_another_could() {
    let Some(space) = space("an autoscaler that is started again").await else {
        return;
    };
    let _turn = tools::turn(Share::Whole).await;
    let shared = roles::shared(&[]);
    let first = start(&space, shared.path(), FIRST).await;
    let (led, term) = leader(&space, "").await;
    assert!(led.starts_with(FIRST_HOLDER), "{led}");
    let _second = start(&space, shared.path(), SECOND).await;

    first.kill();
    let _again = start(&space, shared.path(), FIRST).await;
    let (leads, next) = leader(&space, &led).await;
    assert!(leads.starts_with(FIRST_HOLDER), "{leads} after {led}");
    assert_eq!(next, term + 1, "a term of its own");
}
