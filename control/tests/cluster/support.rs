//! A namespace on the real cluster, gone when dropped.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use k8s_openapi::{
    api::core::v1::Namespace,
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, Client, Config, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
    core::DynamicObject,
};
use mcp_gateway_api::{backend::Backend, crds, ids::BackendName};
use mcp_gateway_control::{
    ClusterConfig, ClusterRegistry,
    cluster::{BackendReport, Writing, objects::Kind},
};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};

/// Longer than anything takes here, unless it never happens.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Cluster {
    pub(crate) client: Client,
    pub(crate) config: Config,
    pub(crate) namespace: String,
    kubeconfig: PathBuf,
}

/// The cluster with our definitions and a namespace of this test's own; none where there is no cluster.
pub(crate) async fn cluster(test: &str) -> Option<Cluster> {
    let Some(kubeconfig) = std::env::var_os("MCP_GATEWAY_TEST_KUBECONFIG") else {
        assert!(
            std::env::var_os("CI").is_none(),
            "MCP_GATEWAY_TEST_KUBECONFIG must be set in CI: 'dev/cluster up' makes a cluster"
        );
        eprintln!(
            "SKIPPED {test}: MCP_GATEWAY_TEST_KUBECONFIG is not set; 'dev/cluster up' makes a cluster"
        );
        return None;
    };
    let kubeconfig = PathBuf::from(kubeconfig);
    let file = Kubeconfig::read_from(&kubeconfig).unwrap();
    let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
        .await
        .unwrap();
    let client = Client::try_from(config.clone()).unwrap();
    install(&client).await;
    let namespace = format!("control-{test}-{:08x}", rand_u32());
    let named: Namespace =
        serde_json::from_value(json!({"metadata": {"name": namespace}})).unwrap();
    let namespaces = Api::<Namespace>::all(client.clone());
    namespaces
        .create(&PostParams::default(), &named)
        .await
        .unwrap();
    Some(Cluster {
        client,
        config,
        namespace,
        kubeconfig,
    })
}

fn rand_u32() -> u32 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    u32::try_from(RandomState::new().build_hasher().finish() >> 32).unwrap()
}

/// Applies our definitions and waits until they are served.
async fn install(client: &Client) {
    let api = Api::<CustomResourceDefinition>::all(client.clone());
    for crd in crds::all() {
        let name = crd.name_any();
        let params = PatchParams::apply("mcp-gateway-test").force();
        api.patch(&name, &params, &Patch::Apply(&crd))
            .await
            .unwrap();
        let established = kube::runtime::conditions::is_crd_established();
        let waiting = kube::runtime::wait::await_condition(api.clone(), &name, established);
        timeout(PATIENCE, waiting).await.unwrap().unwrap();
    }
}

impl Cluster {
    pub(crate) fn api(&self, kind: Kind) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), &self.namespace, &kind.resource())
    }

    /// Creates an object, refusing unknown fields as kubectl does.
    pub(crate) async fn create(
        &self,
        kind: Kind,
        name: &str,
        spec: Value,
    ) -> Result<DynamicObject, String> {
        let object = json!({
            "apiVersion": "mcp-gateway.dev/v1alpha1",
            "kind": kind.as_str(),
            "metadata": {"name": name},
            "spec": spec,
        });
        let params = PostParams {
            field_manager: Some("test".to_owned()),
            ..PostParams::default()
        };
        let object: DynamicObject = serde_json::from_value(object).unwrap();
        let made = self.api(kind).create(&params, &object).await;
        made.map_err(|error| error.to_string())
    }

    pub(crate) async fn merge(&self, kind: Kind, name: &str, patch: Value) {
        let params = PatchParams::default();
        self.api(kind)
            .patch(name, &params, &Patch::Merge(patch))
            .await
            .unwrap();
    }

    pub(crate) async fn delete(&self, kind: Kind, name: &str) {
        self.api(kind)
            .delete(name, &DeleteParams::default())
            .await
            .unwrap();
    }

    pub(crate) async fn registry(&self) -> ClusterRegistry {
        ClusterRegistry::start(ClusterConfig {
            watches: Client::try_from(self.config.clone()).unwrap(),
            namespace: self.namespace.clone(),
            writing: Some(Writing::alone(self.client.clone(), "test")),
        })
        .await
    }

    /// Waits until an object is as it should be, looking at it again whenever it changes.
    pub(crate) async fn until(
        &self,
        kind: Kind,
        name: &str,
        what: &str,
        fine: impl Fn(Option<&DynamicObject>) -> bool,
    ) {
        let api = self.api(kind);
        let seen = std::sync::Mutex::new(None);
        let condition = |object: Option<&DynamicObject>| {
            *seen.lock().unwrap() = object.cloned();
            fine(object)
        };
        let waiting = kube::runtime::wait::await_condition(api, name, condition);
        if timeout(PATIENCE, waiting).await.is_err() {
            panic!("{what} never came true: {:#?}", seen.lock().unwrap());
        }
    }

    /// Asks kubectl again and again until it shows what it should.
    pub(crate) async fn until_told(&self, args: &[&str], fine: impl Fn(&str) -> bool) {
        let give_up = Instant::now() + PATIENCE;
        loop {
            let told = self.kubectl(args);
            if fine(&told) {
                return;
            }
            assert!(Instant::now() < give_up, "{args:?}: {told}");
            sleep(Duration::from_millis(100)).await;
        }
    }

    pub(crate) fn kubectl(&self, args: &[&str]) -> String {
        let ours = self
            .kubeconfig
            .parent()
            .unwrap_or(Path::new("/"))
            .join("bin/kubectl");
        let program = if ours.exists() {
            ours
        } else {
            "kubectl".into()
        };
        let out = Command::new(program)
            .env("KUBECONFIG", &self.kubeconfig)
            .args(["-n", &self.namespace])
            .args(args)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&out.stdout) + String::from_utf8_lossy(&out.stderr);
        text.into_owned()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // Nobody is left to take finalizers away.
        for object in self
            .kubectl(&["get", "mcpbackends", "-o", "name"])
            .lines()
            .filter(|line| line.contains('/'))
        {
            let patch = r#"{"metadata":{"finalizers":null}}"#;
            self.kubectl(&["patch", object, "--type=merge", "-p", patch]);
        }
        self.kubectl(&["delete", "namespace", &self.namespace, "--wait=false"]);
    }
}

/// One condition of an object.
pub(crate) fn condition(object: &DynamicObject, kind: &str) -> Option<(String, String, String)> {
    let all = object.data["status"]["conditions"].as_array()?;
    let found = all.iter().find(|condition| condition["type"] == kind)?;
    let text = |field: &str| found[field].as_str().unwrap_or_default().to_owned();
    Some((text("status"), text("reason"), text("message")))
}

/// Waits for the catalog to hold the backend as it should be.
pub(crate) async fn backend(
    registry: &ClusterRegistry,
    name: &str,
    fine: impl Fn(Option<&Backend>) -> bool,
) {
    let name = BackendName::new(name).unwrap();
    let mut catalog = registry.catalog();
    let waiting = catalog.wait_for(|catalog| fine(catalog.get(&name).map(AsRef::as_ref)));
    let outcome = timeout(PATIENCE, waiting).await;
    assert!(outcome.is_ok(), "the catalog never was as it should be");
}

/// Says how one backend is doing, and that no other has an instance.
pub(crate) fn say(registry: &ClusterRegistry, name: &str, report: BackendReport) {
    let reports: BTreeMap<_, _> = [(BackendName::new(name).unwrap(), report)].into();
    registry.report(Instant::now(), reports);
}
