//! The documents as Kubernetes resources: what the API server knows of them.
//!
//! These types exist for their schemas: they are what `mcp-gateway crds` prints, with the meaning of each field, its
//! default, and the rules that the API server enforces by itself. The registry reads objects with the parser of the files
//! instead, so that a mistake gets the same sentence everywhere; a test holds both to the same fields.
//!
//! Invariants: schemas are structural; nothing is nullable; whatever a rule refuses, the parser refuses too.

#![expect(
    unreachable_pub,
    reason = "the derive makes copies of the types that nobody can name"
)]
#![expect(
    clippy::doc_markdown,
    reason = "these are the words of 'kubectl explain', which shows no Markdown"
)]

mod backend;
mod env;
mod pod;
mod policy;
mod status;
mod tenant;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use serde_json::Value;
use sha2::{Digest, Sha256};

pub use backend::{
    Agent, HealthCheck, McpBackend, McpBackendSpec, McpBackendStatus, PolicyRef, Transport,
};
pub use env::{EnvVar, KeySelector, ValueFrom};
pub use pod::{PodOverrides, PullPolicy, PullSecret, Resources};
pub use policy::{Isolation, OnIdle, PolicyFields, ScalingPolicy, ScalingPolicySpec};
pub use status::DocumentStatus;
pub use tenant::{Tenant, TenantSpec};

/// The API group.
pub const GROUP: &str = "mcp-gateway.dev";
/// Its version.
pub const VERSION: &str = "v1alpha1";
/// Keeps an `McpBackend` that is being deleted until none of its instances is left.
pub const FINALIZER: &str = "mcp-gateway.dev/instances";
/// On each definition: tells a gateway whether the cluster has the definitions it was built with.
pub const SCHEMA_ANNOTATION: &str = "mcp-gateway.dev/schema";

/// All definitions, in the order in which they are printed.
#[must_use]
pub fn all() -> Vec<CustomResourceDefinition> {
    [McpBackend::crd(), ScalingPolicy::crd(), Tenant::crd()]
        .into_iter()
        .map(finish)
        .collect()
}

/// What the derived definition lacks.
fn finish(crd: CustomResourceDefinition) -> CustomResourceDefinition {
    let mut crd = plain(crd);
    let digest = Sha256::digest(serde_json::to_vec(&crd.spec).unwrap_or_default());
    let hash: String = digest.iter().take(8).map(|b| format!("{b:02x}")).collect();
    let annotations = crd.metadata.annotations.get_or_insert_default();
    annotations.insert(SCHEMA_ANNOTATION.to_owned(), hash);
    crd
}

/// Without `nullable`: the API server then drops a null before it fills in defaults and asks the rules, which would
/// otherwise all have to think of it.
fn plain(crd: CustomResourceDefinition) -> CustomResourceDefinition {
    let Ok(mut value) = serde_json::to_value(&crd) else {
        return crd;
    };
    strip(&mut value);
    serde_json::from_value(value).unwrap_or(crd)
}

fn strip(value: &mut Value) {
    match value {
        Value::Object(map) => {
            // A field of that name would have an object here.
            if map.get("nullable").is_some_and(Value::is_boolean) {
                map.remove("nullable");
            }
            map.values_mut().for_each(strip);
        }
        Value::Array(list) => list.iter_mut().for_each(strip),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
