//! Documents as resources of the cluster: made, edited and read as their owner does it with kubectl.

use k8s_openapi::{
    api::events::v1::Event,
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, ResourceExt,
    api::{ListParams, Patch, PatchParams},
    core::{DynamicObject, GroupVersionKind},
    discovery::ApiResource,
};
use mcp_gateway_api::crds;
use serde_json::{Value, json};
use tokio::{
    sync::OnceCell,
    time::{Duration, Instant, sleep},
};

use super::cluster::Space;
use crate::{
    documents::Backend,
    gateway::{Gateway, PATIENCE},
};

/// `McpBackend`, as a kind that is known only when a test runs.
pub(crate) fn kind() -> ApiResource {
    let kind = GroupVersionKind::gvk(crds::GROUP, crds::VERSION, "McpBackend");
    ApiResource::from_gvk_with_plural(&kind, "mcpbackends")
}

impl Space {
    fn backends(&self) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), &self.name, &kind())
    }

    /// Installs the definitions, as `mcp-gateway crds | kubectl apply --server-side -f -` does.
    async fn define(&self) {
        static DEFINED: OnceCell<()> = OnceCell::const_new();
        DEFINED.get_or_init(|| self.define_all()).await;
    }

    async fn define_all(&self) {
        let all: Api<CustomResourceDefinition> = Api::all(self.client.clone());
        let params = PatchParams::apply("mcp-gateway-test").force();
        for crd in crds::all() {
            let name = crd.name_any();
            let applied = all.patch(&name, &params, &Patch::Apply(&crd)).await;
            applied.expect("the definition is accepted");
            let give_up = Instant::now() + PATIENCE;
            while !established(&all.get(&name).await.expect("the definition")) {
                assert!(Instant::now() < give_up, "{name} is not served");
                sleep(Duration::from_millis(50)).await;
            }
        }
    }

    /// A gateway that serves the `McpBackend`s of this namespace.
    pub(crate) async fn serving(&self, backends: &[Backend], arguments: &[&str]) -> Gateway {
        self.define().await;
        for backend in backends {
            self.put(backend).await;
        }
        let gateway = self.gateway(&[], arguments).await;
        for backend in backends {
            self.until(&backend.name, "accepted", |object| {
                condition(object, "Accepted")["status"] == "True"
            })
            .await;
        }
        gateway
    }

    /// Makes the `McpBackend`, or makes it so.
    pub(crate) async fn put(&self, backend: &Backend) {
        let text = backend.document();
        let object: Value =
            serde_json::from_str(text.trim_start_matches("---\n")).expect("a document");
        let params = PatchParams::apply("test").force();
        let backends = self.backends();
        let patch = Patch::Apply(&object);
        let applied = backends.patch(&backend.name, &params, &patch).await;
        applied.expect("the McpBackend is accepted");
    }

    /// Waits until the `McpBackend` is as `fine` says.
    pub(crate) async fn until(
        &self,
        backend: &str,
        what: &str,
        fine: impl Fn(&Value) -> bool,
    ) -> Value {
        let give_up = Instant::now() + PATIENCE;
        loop {
            let object = self
                .backends()
                .get(backend)
                .await
                .expect("the McpBackend is there");
            if fine(&object.data) {
                return object.data;
            }
            assert!(
                Instant::now() < give_up,
                "{backend} is not {what}: {}",
                object.data["status"]
            );
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// Waits for an event about the `McpBackend` that has `part` in its note.
    pub(crate) async fn until_told(&self, backend: &str, part: &str) {
        let events: Api<Event> = Api::namespaced(self.client.clone(), &self.name);
        let give_up = Instant::now() + PATIENCE;
        loop {
            let all = events
                .list(&ListParams::default())
                .await
                .expect("the events");
            let regarding = |event: &Event| event.regarding.as_ref()?.name.clone();
            let notes: Vec<String> = all
                .items
                .iter()
                .filter(|event| regarding(event).as_deref() == Some(backend))
                .filter_map(|event| event.note.clone())
                .collect();
            if notes.iter().any(|note| note.contains(part)) {
                return;
            }
            assert!(Instant::now() < give_up, "{backend}: {notes:?}");
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// What kubectl would do where no gateway is left: else the namespace never goes.
    pub(crate) async fn let_go(client: kube::Client, namespace: &str) {
        let backends: Api<DynamicObject> = Api::namespaced_with(client, namespace, &kind());
        let Ok(all) = backends.list(&ListParams::default()).await else {
            return;
        };
        for object in all {
            let none = json!({"metadata": {"finalizers": null}});
            let patch = Patch::Merge(&none);
            let params = PatchParams::default();
            drop(backends.patch(&object.name_any(), &params, &patch).await);
        }
    }
}

fn established(crd: &CustomResourceDefinition) -> bool {
    let status = crd.status.as_ref();
    let conditions = status.and_then(|status| status.conditions.as_ref());
    conditions.is_some_and(|all| {
        all.iter()
            .any(|one| one.type_ == "Established" && one.status == "True")
    })
}

/// One of its conditions, or `Null`.
pub(crate) fn condition(object: &Value, kind: &str) -> Value {
    let all = object["status"]["conditions"].as_array();
    let found = all.and_then(|all| all.iter().find(|one| one["type"] == kind));
    found.cloned().unwrap_or_default()
}
