//! The real cluster, and a namespace of one test's own in it.
//!
//! Invariant: the namespace goes with the test, whatever became of it.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use kube::{
    Api, Client, Config,
    api::{DeleteParams, ListParams, ObjectMeta, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
};
use tokio::time::{Instant, sleep};

use crate::{
    documents::Backend,
    gateway::{Gateway, PATIENCE},
};

/// The agent's image, as `dev/image` names it.
pub(crate) const AGENT: &str = "localhost/mcp-gateway-agent:dev";
/// The demo server's.
pub(crate) const DEMO: &str = "localhost/mcp-gateway-demo:dev";
/// The demo server's, with the agent as its entry point.
pub(crate) const EMBEDDED: &str = "localhost/mcp-gateway-demo-embedded:dev";

/// A namespace on the cluster.
pub(crate) struct Space {
    pub(crate) client: Client,
    pub(crate) name: String,
    pub(crate) kubeconfig: PathBuf,
    /// The address of its first node: pods reach the test's processes there.
    pub(crate) node: String,
}

/// The way to the cluster; `None`, having said so, if there is none and this is no CI.
pub(crate) async fn reach(test: &str) -> Option<(PathBuf, Client)> {
    let Some(kubeconfig) = std::env::var_os("MCP_GATEWAY_TEST_KUBECONFIG").map(PathBuf::from)
    else {
        let ci = matches!(std::env::var("CI").as_deref(), Ok("true" | "1"));
        assert!(
            !ci,
            "{test}: MCP_GATEWAY_TEST_KUBECONFIG is not set; in CI nothing is skipped"
        );
        eprintln!("SKIPPED {test}: there is no cluster (dev/test cluster test)");
        return None;
    };
    let file = Kubeconfig::read_from(&kubeconfig).expect("a kubeconfig");
    let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
        .await
        .expect("a usable kubeconfig");
    let client = Client::try_from(config).expect("a client");
    Some((kubeconfig, client))
}

/// A new namespace; `None`, having said so, if there is no cluster and this is no CI.
pub(crate) async fn space(test: &str) -> Option<Space> {
    let (kubeconfig, client) = reach(test).await?;
    let name = format!("mcp-test-{:08x}", rand::random::<u32>());
    let namespace = Namespace {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            ..ObjectMeta::default()
        },
        ..Namespace::default()
    };
    let all: Api<Namespace> = Api::all(client.clone());
    all.create(&PostParams::default(), &namespace)
        .await
        .expect("a namespace can be made");
    let node = node(&client).await;
    let space = Space {
        client,
        name,
        kubeconfig,
        node,
    };
    space.until_usable().await;
    Some(space)
}

/// The first node's own address: pods reach the test's gateway there.
async fn node(client: &Client) -> String {
    let nodes: Api<Node> = Api::all(client.clone());
    let nodes = nodes.list(&ListParams::default()).await.expect("the nodes");
    let addresses = nodes.items.into_iter().filter_map(|node| node.status);
    let mut addresses = addresses.flat_map(|status| status.addresses.unwrap_or_default());
    let own = addresses.find(|address| address.type_ == "InternalIP");
    own.expect("a node with an address").address
}

impl Space {
    /// Pods cannot be made before the namespace's service account is there.
    async fn until_usable(&self) {
        let accounts: Api<k8s_openapi::api::core::v1::ServiceAccount> =
            Api::namespaced(self.client.clone(), &self.name);
        let give_up = Instant::now() + PATIENCE;
        while accounts.get_opt("default").await.ok().flatten().is_none() {
            assert!(
                Instant::now() < give_up,
                "no service account in {}",
                self.name
            );
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// A gateway on this machine whose servers run here as pods.
    pub(crate) async fn gateway(&self, backends: &[Backend], arguments: &[&str]) -> Gateway {
        let at = (self.name.as_str(), self.kubeconfig.as_path());
        self.gateway_at(at, backends, arguments).await
    }

    /// The same whose servers run in another namespace, or that comes with another kubeconfig.
    pub(crate) async fn gateway_at(
        &self,
        (namespace, kubeconfig): (&str, &Path),
        backends: &[Backend],
        arguments: &[&str],
    ) -> Gateway {
        let mut all = self.arguments(namespace);
        all.extend(arguments.iter().map(ToString::to_string));
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        let kubeconfig = kubeconfig.to_str().expect("a readable path");
        Gateway::start_in(backends, &all, &[("KUBECONFIG", kubeconfig)]).await
    }

    /// What `serve` is told so that its servers run as pods in a namespace.
    pub(crate) fn arguments(&self, namespace: &str) -> Vec<String> {
        let home = format!("{}:0", self.node);
        [
            "--kubernetes",
            "--namespace",
            namespace,
            "--installation",
            "test",
            "--home-listen",
            "0.0.0.0:0",
            "--home-advertise",
            &home,
            "--agent-image",
            AGENT,
        ]
        .map(str::to_owned)
        .into()
    }

    /// The pods here that are not being deleted, by name, each with its phase.
    pub(crate) async fn pods(&self) -> BTreeMap<String, String> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &self.name);
        let pods = pods.list(&ListParams::default()).await.expect("the pods");
        let staying = pods
            .items
            .into_iter()
            .filter(|pod| pod.metadata.deletion_timestamp.is_none());
        let told = staying.map(|pod| {
            let phase = pod.status.and_then(|status| status.phase);
            (
                pod.metadata.name.unwrap_or_default(),
                phase.unwrap_or_default(),
            )
        });
        told.collect()
    }

    /// Waits until there is no pod at all, not even one that is being deleted.
    pub(crate) async fn until_empty(&self) {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &self.name);
        let give_up = Instant::now() + PATIENCE;
        loop {
            let left = pods.list(&ListParams::default()).await.expect("the pods");
            if left.items.is_empty() {
                return;
            }
            assert!(
                Instant::now() < give_up,
                "pods stay: {:?}",
                left.items
                    .iter()
                    .map(|pod| (&pod.metadata.name, &pod.status))
                    .collect::<Vec<_>>()
            );
            sleep(Duration::from_millis(50)).await;
        }
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        let (client, name) = (self.client.clone(), self.name.clone());
        // The test's runtime may be ending: a thread and a runtime of its own do not.
        let gone = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            runtime.block_on(async move {
                Self::let_go(client.clone(), &name).await;
                Self::forget_rules(client.clone(), &name).await;
                let all: Api<Namespace> = Api::all(client);
                drop(all.delete(&name, &DeleteParams::default()).await);
            });
        });
        drop(gone.join());
    }
}
