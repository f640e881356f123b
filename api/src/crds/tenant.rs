//! `Tenant`: whom work is done for.

use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use super::status::DocumentStatus;

/// What is known of a tenant.
#[derive(Debug, Clone, Default, Serialize, Deserialize, CustomResource, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[kube(
    group = "mcp-gateway.dev",
    version = "v1alpha1",
    kind = "Tenant",
    namespaced,
    status = "DocumentStatus",
    shortname = "mcpt",
    category = "mcp",
    doc = "Whom work is done for: callers belong to a tenant, and backends may be for some tenants only.",
    validation = Rule::new("self.metadata.name.matches('^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$')")
        .message("use 1 to 63 of a-z, 0-9 and '-' for the name, beginning and ending with a letter or digit"),
    printcolumn(name = "Display Name", type_ = "string", json_path = ".spec.displayName"),
    printcolumn(name = "Accepted", type_ = "string", json_path = ".status.conditions[?(@.type=='Accepted')].status"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
pub struct TenantSpec {
    /// How people call it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub display_name: Option<String>,
    /// For people.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    pub description: Option<String>,
}
