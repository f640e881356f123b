//! Pods without the gateway: alone, and behind a Deployment and a Service.
//!
//! All run the same image in the same way as the gateway's own pods: same user and
//! restrictions, no service account's token, no volume, no pull.

use anyhow::Context as _;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use super::gateway::PROGRAM;
use super::place::{Place, SERVER, labels};

/// The port of the demo server.
pub const PORT: u16 = 8000;
/// The name of the Deployment and of its Service.
const NAME: &str = "scaled";

/// A pod's spec, without what a Deployment forbids.
fn spec(image: &str) -> Value {
    json!({
        "enableServiceLinks": false,
        "automountServiceAccountToken": false,
        "terminationGracePeriodSeconds": 1,
        "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [{
            "name": SERVER,
            "image": image,
            "imagePullPolicy": "IfNotPresent",
            "command": [PROGRAM, "demo-server", "--transport", "http"],
            "env": [
                {"name": "HOST", "value": "0.0.0.0"},
                {"name": "PORT", "value": PORT.to_string()},
            ],
            "ports": [{"name": "mcp", "containerPort": PORT}],
            "securityContext": {
                "runAsNonRoot": true,
                "allowPrivilegeEscalation": false,
                "capabilities": {"drop": ["ALL"]},
            },
        }],
    })
}

/// A bare pod, not created yet.
///
/// # Errors
/// None that a fixed template would give.
pub fn pod(image: &str) -> anyhow::Result<Pod> {
    let mut spec = spec(image);
    spec["restartPolicy"] = "Never".into();
    let name = format!("bare-{:08x}", rand::random::<u32>());
    Ok(serde_json::from_value(json!({
        "metadata": {"name": name, "labels": labels("bare")},
        "spec": spec,
    }))?)
}

/// Ends a pod.
///
/// # Errors
/// The API server refused.
pub async fn end(place: &Place, name: &str) -> anyhow::Result<()> {
    place.pods.delete(name, &DeleteParams::default()).await?;
    Ok(())
}

/// A Deployment of no pods, and its Service.
pub struct Scaled {
    deployments: Api<Deployment>,
    /// `address:port` of the Service.
    pub authority: String,
}

impl Scaled {
    /// Makes both.
    ///
    /// # Errors
    /// The API server refused.
    pub async fn create(place: &Place, image: &str) -> anyhow::Result<Self> {
        let mut spec = spec(image);
        spec["containers"][0]["readinessProbe"] = json!({
            "httpGet": {"path": "/healthz", "port": PORT},
            "periodSeconds": 1,
        });
        let deployment: Deployment = serde_json::from_value(json!({
            "metadata": {"name": NAME},
            "spec": {
                "replicas": 0,
                "selector": {"matchLabels": labels(NAME)},
                "template": {"metadata": {"labels": labels(NAME)}, "spec": spec},
            },
        }))?;
        let service: Service = serde_json::from_value(json!({
            "metadata": {"name": NAME},
            "spec": {"selector": labels(NAME), "ports": [{"port": PORT, "targetPort": PORT}]},
        }))?;
        let deployments: Api<Deployment> = Api::namespaced(place.client.clone(), &place.namespace);
        let services: Api<Service> = Api::namespaced(place.client.clone(), &place.namespace);
        let params = PostParams::default();
        deployments
            .create(&params, &deployment)
            .await
            .context("a Deployment")?;
        let service = services
            .create(&params, &service)
            .await
            .context("a Service")?;
        let address = service.spec.and_then(|spec| spec.cluster_ip);
        let address = address.context("the Service has no address")?;
        Ok(Self {
            deployments,
            authority: format!("{address}:{PORT}"),
        })
    }

    /// Asks for so many pods.
    ///
    /// # Errors
    /// The API server refused.
    pub async fn scale(&self, replicas: u32) -> anyhow::Result<()> {
        let patch = json!({"spec": {"replicas": replicas}});
        self.deployments
            .patch_scale(NAME, &PatchParams::default(), &Patch::Merge(&patch))
            .await?;
        Ok(())
    }
}
