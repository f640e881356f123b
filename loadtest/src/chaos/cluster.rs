//! A namespace of a run's own on a real cluster: definitions, backends, stand-ins
//! for the activators' pods. The namespace goes with the value.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, bail};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Namespace, Node, Pod, ServiceAccount};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{ApiResource, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::{DynamicObject, GroupVersionKind};
use kube::{Api, Client, Config, ResourceExt as _};
use mcp_gateway_api::crds;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};

/// Longer than anything takes here, unless it never happens.
pub const PATIENCE: Duration = Duration::from_secs(120);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(100);
/// The image of the servers, as `dev/image` names it.
pub const WITNESS: &str = "localhost/mcp-gateway-witness:dev";

/// A namespace.
pub struct Space {
    /// Its name.
    pub name: String,
    /// An address of this machine that pods can call.
    pub node: String,
    kubeconfig: PathBuf,
    client: Client,
}

impl fmt::Debug for Space {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Space")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// Waits until something holds.
///
/// # Errors
/// It does not for too long.
pub async fn until(
    what: &str,
    patience: Duration,
    holds: impl AsyncFn() -> bool,
) -> anyhow::Result<()> {
    let give_up = Instant::now() + patience;
    while !holds().await {
        if Instant::now() > give_up {
            bail!("{what}: not within {patience:?}");
        }
        sleep(LOOK).await;
    }
    Ok(())
}

/// How pods are deleted whose processes get no time to end.
#[must_use]
pub fn at_once() -> DeleteParams {
    DeleteParams::default().grace_period(0)
}

async fn connect(kubeconfig: &Path) -> anyhow::Result<Client> {
    let file = Kubeconfig::read_from(kubeconfig)
        .with_context(|| format!("reading {}", kubeconfig.display()))?;
    let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?;
    Ok(Client::try_from(config)?)
}

impl Space {
    /// Makes one, with the gateway's definitions in the cluster.
    ///
    /// # Errors
    /// The cluster does not answer, or refuses.
    pub async fn make(kubeconfig: &Path) -> anyhow::Result<Self> {
        let client = connect(kubeconfig).await?;
        definitions(&client).await?;
        let name = format!("chaos-{:08x}", rand::random::<u32>());
        let namespace = serde_json::from_value(json!({"metadata": {"name": name}}))?;
        let all: Api<Namespace> = Api::all(client.clone());
        all.create(&PostParams::default(), &namespace).await?;
        let nodes: Api<Node> = Api::all(client.clone());
        let nodes = nodes.list(&ListParams::default()).await?;
        let addresses = nodes.items.into_iter().filter_map(|node| node.status);
        let mut addresses = addresses.flat_map(|status| status.addresses.unwrap_or_default());
        let own = addresses.find(|address| address.type_ == "InternalIP");
        let space = Self {
            name,
            node: own.context("a node with an address")?.address,
            kubeconfig: kubeconfig.to_owned(),
            client,
        };
        let accounts: Api<ServiceAccount> = space.api();
        let ready = async || accounts.get_opt("default").await.ok().flatten().is_some();
        until("a service account", PATIENCE, ready).await?;
        Ok(space)
    }

    fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
    {
        self.api_in(&self.name)
    }

    /// What there is of a kind in another namespace.
    #[must_use]
    pub fn api_in<K>(&self, namespace: &str) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// Creates a backend.
    ///
    /// # Errors
    /// The API server refuses it.
    pub async fn backend(&self, name: &str, spec: &Value) -> anyhow::Result<()> {
        let api: Api<DynamicObject> =
            Api::namespaced_with(self.client.clone(), &self.name, &backends());
        let object = serde_json::from_value(json!({
            "apiVersion": "mcp-gateway.dev/v1alpha1",
            "kind": "McpBackend",
            "metadata": {"name": name},
            "spec": spec,
        }))?;
        api.create(&PostParams::default(), &object)
            .await
            .with_context(|| format!("the backend {name}"))?;
        Ok(())
    }

    /// A pod that stands in for one of the gateway's, which runs beside the cluster:
    /// the leader waits for the activators that have a pod. Its uid.
    ///
    /// # Errors
    /// It does not run in time.
    pub async fn stand_in(
        &self,
        installation: &str,
        role: &str,
        name: &str,
    ) -> anyhow::Result<String> {
        let pods: Api<Pod> = self.api();
        let pod = serde_json::from_value(json!({
            "metadata": {"name": name, "labels": {
                "app.kubernetes.io/name": "mcp-gateway",
                "app.kubernetes.io/instance": installation,
                "app.kubernetes.io/component": role,
            }},
            "spec": {
                "terminationGracePeriodSeconds": 0,
                "automountServiceAccountToken": false,
                "containers": [{"name": "stand-in", "image": WITNESS, "imagePullPolicy": "IfNotPresent"}],
            },
        }))?;
        let pod = pods.create(&PostParams::default(), &pod).await?;
        let runs = async || {
            let pod = pods.get_opt(name).await.ok().flatten();
            let phase = pod.and_then(|pod| pod.status?.phase);
            phase.as_deref() == Some("Running")
        };
        until(name, PATIENCE, runs).await?;
        pod.uid().context("a pod has a uid")
    }

    /// The servers' pods that are not being deleted, each with its age in microseconds.
    ///
    /// # Errors
    /// The cluster does not answer.
    pub async fn servers(&self) -> anyhow::Result<BTreeMap<String, u64>> {
        let pods = self.pods().await?.into_iter();
        let staying = pods.filter(|pod| pod.metadata.deletion_timestamp.is_none());
        Ok(staying.map(|pod| (pod.name_any(), age(&pod))).collect())
    }

    /// Whether no pod of a server is left, not even one that is being deleted.
    pub async fn is_empty(&self) -> bool {
        self.pods().await.is_ok_and(|pods| pods.is_empty())
    }

    async fn pods(&self) -> anyhow::Result<Vec<Pod>> {
        let pods: Api<Pod> = self.api();
        let all = pods.list(&ListParams::default()).await?.items;
        let role = "app.kubernetes.io/component";
        let of_servers = |pod: &Pod| {
            !matches!(
                pod.labels().get(role).map(String::as_str),
                Some("activator" | "autoscaler")
            )
        };
        Ok(all.into_iter().filter(of_servers).collect())
    }

    /// A pod's uid.
    ///
    /// # Errors
    /// The cluster does not answer, or knows no such pod.
    pub async fn uid(&self, name: &str) -> anyhow::Result<String> {
        let pods: Api<Pod> = self.api();
        pods.get(name).await?.uid().context("a pod has a uid")
    }

    /// Deletes a pod at once.
    ///
    /// # Errors
    /// The cluster does not answer.
    pub async fn delete_pod(&self, name: &str) -> anyhow::Result<()> {
        let pods: Api<Pod> = self.api();
        pods.delete(name, &at_once()).await?;
        Ok(())
    }

    /// Who holds the lease of the gateway's leader in the gateway's namespace.
    pub async fn leader(&self, system: &str, lease: &str) -> Option<String> {
        let leases: Api<Lease> = self.api_in(system);
        let lease = leases.get_opt(lease).await.ok().flatten()?;
        lease.spec?.holder_identity
    }

    /// The kubeconfig it was made with.
    #[must_use]
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }
}

/// In microseconds, by its creation, which Kubernetes tells in seconds.
fn age(pod: &Pod) -> u64 {
    let made = pod.metadata.creation_timestamp.as_ref();
    let made = made.map_or(i64::MAX, |made| made.0.as_second());
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let now = now.map_or(0, |now| i64::try_from(now.as_secs()).unwrap_or(i64::MAX));
    u64::try_from(now.saturating_sub(made)).unwrap_or(0) * 1_000_000
}

/// Applies the definitions and waits until they are served.
async fn definitions(client: &Client) -> anyhow::Result<()> {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    for crd in crds::all() {
        let name = crd.name_any();
        let params = PatchParams::apply("mcp-gateway-chaos").force();
        api.patch(&name, &params, &Patch::Apply(&crd)).await?;
        let served = kube::runtime::conditions::is_crd_established();
        let waiting = kube::runtime::wait::await_condition(api.clone(), &name, served);
        timeout(PATIENCE, waiting).await??;
    }
    Ok(())
}

/// Lets backends go whose gateway is no more: they would hold the namespace for ever.
async fn release(client: Client, namespace: &str) -> anyhow::Result<()> {
    let api: Api<DynamicObject> = Api::namespaced_with(client, namespace, &backends());
    let none = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    for backend in api.list(&ListParams::default()).await? {
        let name = backend.name_any();
        api.patch(&name, &PatchParams::default(), &none).await?;
    }
    Ok(())
}

fn backends() -> ApiResource {
    let kind = GroupVersionKind::gvk("mcp-gateway.dev", "v1alpha1", "McpBackend");
    ApiResource::from_gvk(&kind)
}

impl Drop for Space {
    fn drop(&mut self) {
        let (kubeconfig, name) = (self.kubeconfig.clone(), self.name.clone());
        // The run's own runtime may be ending: a thread and a runtime of its own do not.
        let gone = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            runtime.block_on(async move {
                let client = connect(&kubeconfig).await?;
                let all: Api<Namespace> = Api::all(client.clone());
                all.delete(&name, &DeleteParams::default()).await?;
                release(client, &name).await
            })
        });
        drop(gone.join());
    }
}
