//! `McpBackend`: a registered MCP server.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    env::EnvVar,
    pod::{PodOverrides, Resources},
    policy::PolicyFields,
};

/// How a server is started, reached and shared.
#[derive(Debug, Clone, Serialize, Deserialize, CustomResource, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[kube(
    group = "mcp-gateway.dev",
    version = "v1alpha1",
    kind = "McpBackend",
    namespaced,
    status = "McpBackendStatus",
    shortname = "mcpb",
    category = "mcp",
    doc = "An MCP server that is started when somebody asks for it, as pods in this namespace, and stopped when nobody does.",
    validation = Rule::new("self.metadata.name.matches('^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$')")
        .message("the name is part of a URL; use 1 to 63 of a-z, 0-9 and '-', beginning and ending with a letter or digit"),
    printcolumn(name = "State", type_ = "string", json_path = ".status.state", description = "cold, starting, ready, draining, backoff, or refused"),
    printcolumn(name = "Instances", type_ = "integer", json_path = ".status.instances", description = "Pods of this backend"),
    printcolumn(name = "Sessions", type_ = "integer", json_path = ".status.sessions", description = "Sessions that have an instance"),
    printcolumn(name = "Last Start", type_ = "date", json_path = ".status.lastStart", description = "How long ago the last pod was started"),
    printcolumn(name = "Why", type_ = "string", json_path = ".status.why", description = "What is wrong, if anything"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[x_kube(
    validation = Rule::new("has(self.image)")
        .message("there is no image; name the image that holds the server, such as 'image: ghcr.io/example/server:v1'"),
    validation = Rule::new("!(has(self.policy) && has(self.policyRef))")
        .message("there is both a policyRef and a policy; remove one of them"),
    validation = Rule::new("!(has(self.transport) ? self.transport == 'stdio' : has(self.command)) || !(has(self.port) || has(self.path) || has(self.host) || has(self.healthCheck))")
        .message("a stdio server has no port, path, host or healthCheck; remove it, or write 'transport: streamable-http' or 'transport: sse'"),
    validation = Rule::new("!(has(self.transport) ? self.transport == 'stdio' : has(self.command)) || !has(self.agent) || !(self.agent in ['sidecar', 'none'])")
        .message("a stdio server needs the agent in its own container, to speak with it; write 'agent: auto' with a command, or 'agent: embedded' for an image that holds the agent"),
    validation = Rule::new("has(self.command) || !has(self.agent) || !(self.agent in ['imageVolume', 'init'])")
        .message("this form of agent runs the server itself, and there is no command; say what to run in spec.command"),
    validation = Rule::new("has(self.command) || !has(self.transport) || self.transport != 'stdio' || (has(self.agent) && self.agent == 'embedded')")
        .message("a stdio server needs a command in a pod; say what to run in spec.command, or write 'agent: embedded' for an image that holds the agent"),
    validation = Rule::new("(has(self.transport) ? self.transport == 'stdio' : has(self.command)) || !has(self.env) || !self.env.exists(e, e.name == 'PORT')")
        .message("PORT is the gateway's to choose; remove it, the server gets its port as $PORT and as ${PORT} in command and args")
)]
pub struct McpBackendSpec {
    /// For people.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    pub description: Option<String>,
    /// The image of its pods. Required in a cluster; a gateway that runs processes passes it over.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub image: Option<String>,
    /// The program and its leading arguments. In a pod it replaces the image's entry point; without it the image's own is
    /// run, which needs an HTTP server, or an image that holds the agent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256), inner(length(max = 32768)))]
    pub command: Option<Vec<String>>,
    /// Further arguments. For HTTP servers `${PORT}` in command and args becomes the port.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024), inner(length(max = 131072)))]
    pub args: Option<Vec<String>>,
    /// Where the program runs: a path within the image, or `.` for the image's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("self == '.' || self == './' || self.startsWith('/')").message("a pod has no folder that this could be relative to; write a path within the image that begins with '/', or '.' for the image's own"))]
    #[schemars(length(min = 1, max = 4096))]
    pub working_dir: Option<String>,
    /// Its environment.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub env: Option<Vec<EnvVar>>,
    /// What the server speaks: `stdio`, `streamable-http`, or `sse` (2024-11-05). Default: `stdio` with a command,
    /// `streamable-http` with only an image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transport: Option<Transport>,
    /// Where an HTTP server listens. Default: 8000.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<i32>,
    /// The path of an HTTP server's endpoint. Default: `/mcp`, or `/sse` for `sse`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(max = 1024),
        regex(pattern = r"^/([!-\x22$-.0-~][!-\x22$-~]*)?$")
    )]
    pub path: Option<String>,
    /// The `Host` header sent to an HTTP server. Default: `localhost:<port>`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 255), regex(pattern = r"^[-A-Za-z0-9._:\[\]]+$"))]
    pub host: Option<String>,
    /// A probe of its own. Without it any answer below 500 to `GET /healthz` will do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health_check: Option<HealthCheck>,
    /// The ScalingPolicy in this namespace that applies. Not together with `policy`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy_ref: Option<PolicyRef>,
    /// The policy itself. Not together with `policyRef`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<PolicyFields>,
    /// Who may use it. Default: every tenant.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(max = 1000),
        inner(length(max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))
    )]
    pub tenants: Option<Vec<String>>,
    /// Not supported yet: accepted only empty.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 0))]
    pub required_roles: Option<Vec<String>>,
    /// How the gateway's agent gets into the pod, which decides how long a cold start takes. `auto`: `sidecar` for HTTP,
    /// else `imageVolume` where the cluster has it, else `init`. `embedded`: the image holds the agent as its entry point
    /// (fastest). `sidecar`: a second container beside an HTTP server. `imageVolume`: the agent's image, mounted read-only;
    /// needs `command`. `init`: copied by a container that starts first; needs `command`. `none`: no agent, the pod's address is
    /// probed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = "auto"))]
    pub agent: Option<Agent>,
    /// What its pods may use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    /// What else its pods are like. What is not listed here is the gateway's to decide.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod: Option<PodOverrides>,
}

/// What a server speaks.
#[expect(
    missing_docs,
    reason = "documented variants become schemas of their own"
)]
#[derive(Debug, Clone, Copy, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Transport {
    Stdio,
    StreamableHttp,
    Sse,
}

/// How the agent gets into the pod.
#[expect(
    missing_docs,
    reason = "documented variants become schemas of their own"
)]
#[derive(Debug, Clone, Copy, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Agent {
    Auto,
    Embedded,
    Sidecar,
    ImageVolume,
    Init,
    None,
}

/// A probe.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HealthCheck {
    /// The path that must answer 2xx before the server is used.
    #[schemars(
        length(max = 1024),
        regex(pattern = r"^/([!-\x22$-.0-~][!-\x22$-~]*)?$")
    )]
    pub path: String,
}

/// A reference to a ScalingPolicy.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PolicyRef {
    /// Its name, in this namespace.
    #[schemars(length(max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
}

/// How the backend is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct McpBackendStatus {
    /// `Accepted`: whether the document is in force, and if not why. `ReferencesUsable`: whether Secrets and ConfigMaps it
    /// names are there and labelled for it. `Available`: false while starts fail.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// The generation of the document that this status speaks of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `cold`, `starting`, `ready`, `draining`, `backoff`, or `refused` when the document is not in force.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// Pods of this backend.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instances: Option<i64>,
    /// Sessions that have an instance.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sessions: Option<i64>,
    /// When the last pod was started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_start: Option<Time>,
    /// What is wrong, if anything.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}
