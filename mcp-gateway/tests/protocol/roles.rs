//! The gateway as the manifests install it on a real Kubernetes: in its roles, and all in one.
//!
//! Needs `MCP_GATEWAY_TEST_KUBECONFIG` (the step `cluster` of `dev/test`) and the images that the step loads.

mod alone;
mod installation;
mod rights;
mod rollout;

use std::collections::BTreeSet;

use http::StatusCode;
pub(crate) use installation::Installation;
use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::{
    documents::Backend,
    gateway::PATIENCE,
    tools::{self, Share},
    wire::{self, Peer},
};

/// The demo server's image, and where the program is in it.
const DEMO: (&str, &str) = (
    "localhost/mcp-gateway-demo:dev",
    "/usr/local/bin/mcp-gateway",
);
/// The labels of the gateway's own pods.
const OWN: &str = "app.kubernetes.io/name=mcp-gateway";

/// So many that a random choice which sends all of them to one of two activators would be no accident.
const CALLS: u64 = 24;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_manifests_install_serves_may_no_more_than_it_must_and_goes_without_a_trace() {
    let _turn = tools::turn(Share::Half).await;
    let Some(installed) = Installation::roles("the manifests").await else {
        return;
    };
    may_be_run_again(&installed, "--roles", 4).await;
    let accounts = ["mcp-gateway-activator", "mcp-gateway-autoscaler"];
    rights::least_privilege(&installed, &accounts).await;
    rights::its_lease_alone(&installed).await;
    installed.apply(&[demo()]).await;
    let (spread, address) = installed.spread().await;
    let url = format!("http://{address}/adapters/demo/mcp");
    let peer = Peer::connect(&url, "installed").await.expect("a session");
    for expected in 1..=CALLS {
        assert_eq!(count(&peer).await, expected, "one pod, whichever activator");
    }
    let counts = spread.counts();
    assert!(counts.iter().all(|count| *count > 0), "{counts:?}");
    assert_eq!(servers(&installed).await, 1);
    // Used meanwhile, so that it stays.
    shown(&installed, ["ready", "1"], Some(&peer)).await;
    through_the_service(&installed).await;

    until_no_server(&installed).await;
    shown(&installed, ["cold", "0"], None).await;
    assert_eq!(count(&peer).await, 1, "revived on a new pod");
    assert_eq!(servers(&installed).await, 1);
    rollout::is_noticed_by_nobody(&installed, "demo").await;
    until_no_server(&installed).await;

    goes_without_a_trace(installed).await;
}

/// A server with a memory, which each session has of its own.
fn demo() -> Backend {
    Backend::image("demo", "streamable-http", DEMO.0)
        .spec(
            "command",
            json!([DEMO.1, "demo-server", "--transport", "http"]),
        )
        .policy("isolation", "session")
        .policy("idleTimeout", "10s")
}

async fn goes_without_a_trace(installed: Installation) {
    let (client, namespaces) = (
        installed.client.clone(),
        [installed.namespace.clone(), installed.system.clone()],
    );
    installed.uninstall().await;
    let all: Api<Namespace> = Api::all(client);
    for namespace in namespaces {
        let left = all.get_opt(&namespace).await.expect("an answer");
        assert!(left.is_none(), "{namespace} is left");
    }
}

async fn count(peer: &Peer) -> u64 {
    let answer = peer.call("counter", json!({})).await.expect("it counts");
    let digits: String = answer.text().chars().filter(char::is_ascii_digit).collect();
    digits.parse().expect("a number")
}

/// A second run changes nothing and prints no key.
async fn may_be_run_again(installed: &Installation, form: &str, own: usize) {
    let uids = |pods: Vec<k8s_openapi::api::core::v1::Pod>| -> BTreeSet<Option<String>> {
        pods.into_iter().map(|pod| pod.metadata.uid).collect()
    };
    let before = uids(installed.pods(&installed.system, OWN).await);
    assert_eq!(before.len(), own, "{form}");
    assert_eq!(installed.install(&[form]).await, "");
    assert_eq!(uids(installed.pods(&installed.system, OWN).await), before);
}

async fn servers(installed: &Installation) -> usize {
    let label = "mcp-gateway.dev/backend=demo";
    installed.pods(&installed.namespace, label).await.len()
}

async fn until_no_server(installed: &Installation) {
    let give_up = Instant::now() + PATIENCE;
    while servers(installed).await > 0 {
        assert!(Instant::now() < give_up, "a pod stays after idle");
        sleep(std::time::Duration::from_millis(100)).await;
    }
}

/// What `kubectl get mcpbackends` shows, which is a moment behind.
async fn shown(installed: &Installation, expected: [&str; 2], user: Option<&Peer>) {
    let give_up = Instant::now() + PATIENCE;
    loop {
        if let Some(user) = user {
            count(user).await;
        }
        let arguments = ["-n", &installed.namespace, "get", "mcpbackends"];
        let table = installed.kubectl(&arguments).await;
        let row = table.lines().find(|line| line.starts_with("demo "));
        let columns: Vec<&str> = row.unwrap_or_default().split_whitespace().collect();
        if columns.get(1..3) == Some(&expected) {
            return;
        }
        assert!(
            Instant::now() < give_up,
            "not shown as {expected:?}:\n{table}"
        );
        sleep(std::time::Duration::from_millis(100)).await;
    }
}

/// Clients in the cluster use the Service by its name, and need a key.
async fn through_the_service(installed: &Installation) {
    let url = format!("http://{}/adapters/demo/mcp", installed.service().await);
    let http = wire::http();
    let host = format!("mcp-gateway.{}.svc", installed.system);
    let bearer = format!("Bearer {}", installed.key);
    for (authorization, expected) in [
        (bearer.as_str(), StatusCode::OK),
        ("Bearer mgk_wrong", StatusCode::UNAUTHORIZED),
    ] {
        let headers = [("host", host.as_str()), ("authorization", authorization)];
        let reply = wire::post(&http, &url, &headers, &wire::initialize(1)).await;
        assert_eq!(reply.expect("an answer").status, expected);
    }
}
