//! `ScalingPolicy`: how backends scale.

use kube::{CustomResource, KubeSchema};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::status::DocumentStatus;

/// The default of each field, as the schema says it; a test holds them to those of [`crate::policy::ScalingPolicy`].
macro_rules! fields {
    ($(#[$attribute:meta])* $name:ident) => {
        $(#[$attribute])*
        #[derive(Debug, Clone, Default, Serialize, Deserialize)]
        #[serde(rename_all = "camelCase")]
        pub struct $name {
            /// Who shares an instance: `session`, `tenant` or `shared`. Default: `session` for stdio, `tenant` for HTTP.
            #[serde(skip_serializing_if = "Option::is_none")]
            pub isolation: Option<Isolation>,
            /// From the end of the last exchange until an instance is stopped.
            #[serde(skip_serializing_if = "Option::is_none")]
            #[schemars(schema_with = "duration", extend("default" = "10m"))]
            pub idle_timeout: Option<String>,
            /// Until an instance that others keep busy lets go of a session.
            #[serde(skip_serializing_if = "Option::is_none")]
            #[schemars(schema_with = "duration", extend("default" = "30m"))]
            pub session_idle_timeout: Option<String>,
            /// What becomes of a session whose instance is gone: re-created at its next request (`revive`), or answered 404
            /// (`expire`).
            #[serde(skip_serializing_if = "Option::is_none")]
            #[schemars(extend("default" = "revive"))]
            pub on_idle: Option<OnIdle>,
            /// From the start of a server's container until the server must serve. Scheduling and pulling do not count.
            #[serde(skip_serializing_if = "Option::is_none")]
            #[schemars(schema_with = "duration", extend("default" = "60s"))]
            pub start_timeout: Option<String>,
            /// How long a request waits for an instance; the start goes on.
            #[serde(skip_serializing_if = "Option::is_none")]
            #[schemars(schema_with = "duration", extend("default" = "55s"))]
            pub hold_timeout: Option<String>,
            /// How long an exchange may take.
            #[serde(skip_serializing_if = "Option::is_none")]
            #[schemars(schema_with = "duration", extend("default" = "15m"))]
            pub request_timeout: Option<String>,
            /// Instances of a backend at once.
            #[serde(skip_serializing_if = "Option::is_none")]
            #[schemars(range(min = 1, max = 1_000_000), extend("default" = 100))]
            pub max_slots: Option<i32>,
            /// Requests that may wait for one instance.
            #[serde(skip_serializing_if = "Option::is_none")]
            #[schemars(range(min = 1, max = 1_000_000), extend("default" = 256))]
            pub max_pending: Option<i32>,
            /// Bytes of them, such as `64Mi`.
            #[serde(skip_serializing_if = "Option::is_none")]
            #[schemars(schema_with = "bytes", extend("default" = "64Mi"))]
            pub max_pending_bytes: Option<serde_json::Value>,
            /// Until open streams are cut, at deletion and shutdown only.
            #[serde(skip_serializing_if = "Option::is_none")]
            #[schemars(schema_with = "duration", extend("default" = "30s"))]
            pub drain_timeout: Option<String>,
            /// The oldest a session may become.
            #[serde(skip_serializing_if = "Option::is_none")]
            #[schemars(schema_with = "duration", extend("default" = "30d"))]
            pub session_lifetime: Option<String>,
            /// Instances kept per slot: not supported yet, accepted only as 0.
            #[serde(skip_serializing_if = "Option::is_none")]
            #[schemars(range(min = 0, max = 0))]
            pub min_instances: Option<i32>,
            /// Most instances per slot: not supported yet, accepted only as 1.
            #[serde(skip_serializing_if = "Option::is_none")]
            #[schemars(range(min = 1, max = 1))]
            pub max_instances: Option<i32>,
            /// Pods kept warm: not supported yet, accepted only as 0.
            #[serde(skip_serializing_if = "Option::is_none")]
            #[schemars(range(min = 0, max = 0))]
            pub warm_pool: Option<i32>,
        }
    };
}

fields! {
    /// A policy within an McpBackend: the fields of a ScalingPolicy.
    #[derive(JsonSchema)]
    PolicyFields
}
fields! {
    /// How the backends that refer to it scale. What is absent has its default.
    #[derive(CustomResource, KubeSchema)]
    #[kube(
        group = "mcp-gateway.dev",
        version = "v1alpha1",
        kind = "ScalingPolicy",
        plural = "scalingpolicies",
        namespaced,
        status = "DocumentStatus",
        shortname = "mcpsp",
        category = "mcp",
        doc = "How MCP backends that refer to it scale: who shares an instance, and when instances start and stop.",
        validation = Rule::new("self.metadata.name.matches('^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$')")
            .message("use 1 to 63 of a-z, 0-9 and '-' for the name, beginning and ending with a letter or digit"),
        printcolumn(name = "Isolation", type_ = "string", json_path = ".spec.isolation"),
        printcolumn(name = "Idle", type_ = "string", json_path = ".spec.idleTimeout"),
        printcolumn(name = "Accepted", type_ = "string", json_path = ".status.conditions[?(@.type=='Accepted')].status"),
        printcolumn(name = "Why", type_ = "string", json_path = ".status.why"),
        printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
    )]
    ScalingPolicySpec
}

/// As people write durations. The rule speaks where a pattern would only be quoted.
fn duration(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "minLength": 2,
        "maxLength": 64,
        "x-kubernetes-validations": [{
            "rule": "self.matches('^([0-9]{1,12} ?(ms|msec|s|sec|second|seconds|m|min|minute|minutes|h|hr|hour|hours|d|day|days|w|week|weeks) ?)+$')",
            "message": "write a number with its unit, such as 30s, 10m or 1h30m",
        }],
    })
}

fn bytes(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "anyOf": [{"type": "integer"}, {"type": "string"}],
        "pattern": "^[0-9]{1,15} ?(Ki|Mi|Gi)?$",
        "x-kubernetes-int-or-string": true,
    })
}

/// Who shares an instance.
#[expect(
    missing_docs,
    reason = "documented variants become schemas of their own"
)]
#[derive(Debug, Clone, Copy, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Isolation {
    Session,
    Tenant,
    Shared,
}

/// What becomes of a session whose instance is lost.
#[expect(
    missing_docs,
    reason = "documented variants become schemas of their own"
)]
#[derive(Debug, Clone, Copy, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum OnIdle {
    Revive,
    Expire,
}
