//! The environment of a server.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One variable.
#[derive(Debug, Clone, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.value) != has(self.valueFrom)")
        .message("write either a value, or 'valueFrom: {secretKeyRef: {name: …, key: …}}'"),
    validation = Rule::new("!self.name.startsWith('MCP_GATEWAY_AGENT_')")
        .message("variables MCP_GATEWAY_AGENT_* are the gateway's own; rename it")
)]
pub struct EnvVar {
    /// Its name.
    #[schemars(length(min = 1, max = 256), regex(pattern = r"^[^=\x00]+$"))]
    pub name: String,
    /// Its value, in the open. What is secret belongs in a Secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 131072))]
    pub value: Option<String>,
    /// Where its value comes from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value_from: Option<ValueFrom>,
}

/// Where the value of a variable comes from: one of these.
#[derive(Debug, Clone, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.env)")
        .message("the gateway's own environment is no concern of a pod; put the value into a Secret and use 'secretKeyRef: {name: …, key: …}'"),
    validation = Rule::new("has(self.env) || has(self.secretKeyRef) != has(self.configMapKeyRef)")
        .message("write one of secretKeyRef and configMapKeyRef")
)]
pub struct ValueFrom {
    /// A variable of the gateway's own environment: on a laptop only, refused in a cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub env: Option<String>,
    /// A key of a Secret in this namespace, which must bear the label `mcp-gateway.dev/backend` with this backend's name, or
    /// `mcp-gateway.dev/tenant` with the tenant's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_key_ref: Option<KeySelector>,
    /// A key of a ConfigMap in this namespace, labelled likewise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config_map_key_ref: Option<KeySelector>,
}

/// One key of an object.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct KeySelector {
    /// The object's name.
    #[schemars(
        length(max = 253),
        regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")
    )]
    pub name: String,
    /// The key in it.
    #[schemars(length(max = 253), regex(pattern = r"^[-._a-zA-Z0-9]+$"))]
    pub key: String,
    /// Whether the server starts without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = false))]
    pub optional: Option<bool>,
}
