//! A backend as the rest of the program sees it: validated, defaults filled in, its policy resolved, no secret resolved.

use std::{collections::BTreeMap, fmt, path::PathBuf, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::{
    ids::{BackendName, Generation, TenantName},
    policy::ScalingPolicy,
};

/// What a server speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Transport {
    /// Newline-delimited JSON-RPC over pipes, served over HTTP by the bridge.
    Stdio,
    /// One MCP endpoint (2025-03-26 and later).
    StreamableHttp,
    /// 2024-11-05: an SSE endpoint and a message endpoint.
    Sse,
}

/// Where the value of an environment variable comes from. Values are secrets until proven otherwise: `Debug` hides them.
#[derive(Clone, PartialEq, Eq)]
pub enum EnvValue {
    /// Written in the document.
    Literal(String),
    /// From the gateway's own environment (laptops), read at each launch.
    FromEnv(String),
    /// From a Secret beside the backend (pods), read by the kubelet.
    FromSecret(KeyRef),
    /// From a `ConfigMap` beside the backend (pods), read by the kubelet.
    FromConfigMap(KeyRef),
}

/// One key of a Secret or `ConfigMap` in the backend's namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRef {
    /// The object's name.
    pub name: String,
    /// The key in it.
    pub key: String,
    /// Whether the server starts without it.
    pub optional: bool,
}

impl fmt::Debug for EnvValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Literal(_) => f.write_str("Literal(…)"),
            Self::FromEnv(name) => write!(f, "FromEnv({name})"),
            Self::FromSecret(key) => write!(f, "FromSecret({}/{})", key.name, key.key),
            Self::FromConfigMap(key) => write!(f, "FromConfigMap({}/{})", key.name, key.key),
        }
    }
}

/// One environment variable of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnvVar {
    /// Its name.
    pub name: String,
    /// Its value, or where that comes from.
    pub value: EnvValue,
}

/// How our agent gets into a pod, which decides the cold start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum AgentForm {
    /// `Sidecar` for HTTP, else `ImageVolume` where the cluster has it, else `Init`.
    #[default]
    Auto,
    /// The image holds the agent as its entry point.
    Embedded,
    /// A second container beside an HTTP server.
    Sidecar,
    /// The agent's image mounted read-only; needs `command`.
    ImageVolume,
    /// Copied into an `emptyDir` by a container that starts before the server; needs `command`.
    Init,
    /// No agent: the pod's IP is probed.
    None,
}

/// What a document may say of its pods beyond image and command: an allow-list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PodOptions {
    /// How the agent gets in.
    pub agent: AgentForm,
    /// Kubernetes quantities by resource name.
    pub requests: BTreeMap<String, String>,
    /// Kubernetes quantities by resource name.
    pub limits: BTreeMap<String, String>,
    /// Further labels; none of `mcp-gateway.dev/`, `kubernetes.io/` or `k8s.io/`.
    pub labels: BTreeMap<String, String>,
    /// Further annotations, likewise.
    pub annotations: BTreeMap<String, String>,
    /// `nodeSelector`.
    pub node_selector: BTreeMap<String, String>,
    /// `tolerations`, as Kubernetes writes them.
    pub tolerations: Vec<serde_json::Value>,
    /// `affinity`, as Kubernetes writes it.
    pub affinity: Option<serde_json::Value>,
    /// `topologySpreadConstraints`, as Kubernetes writes them.
    pub topology_spread: Vec<serde_json::Value>,
    /// `priorityClassName`.
    pub priority_class: Option<String>,
    /// `runtimeClassName`.
    pub runtime_class: Option<String>,
    /// `imagePullSecrets`, by name.
    pub pull_secrets: Vec<String>,
    /// `imagePullPolicy`: `Always`, `IfNotPresent` or `Never`.
    pub pull_policy: Option<String>,
}

/// How a server is started and reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaunchSpec {
    /// The image of its pods; processes have none.
    pub image: Option<String>,
    /// The port an HTTP server in a pod listens on; a process gets a free one.
    pub port: Option<u16>,
    /// What else its pods are like.
    pub pod: Arc<PodOptions>,
    /// The program and its leading arguments; never empty for a process. In a pod it replaces the image's entry point.
    pub command: Vec<String>,
    /// Further arguments. `${PORT}` is replaced in `command` and `args` of HTTP servers.
    pub args: Vec<String>,
    /// Where it runs, resolved against the document's folder.
    pub working_dir: Option<PathBuf>,
    /// Its environment beyond what every child gets.
    pub env: Vec<EnvVar>,
    /// What it speaks.
    pub transport: Transport,
    /// The path of its MCP endpoint (`/mcp`), or of its SSE endpoint (`/sse`) for [`Transport::Sse`].
    pub path: String,
    /// The `Host` header sent upstream; by default `localhost:<port>`.
    pub host: Option<String>,
    /// An explicit probe that must give 2xx. Absent: `GET /healthz`, where any answer below 500 will do.
    pub health_path: Option<String>,
}

/// A registered MCP server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backend {
    /// Its name, unique.
    pub name: BackendName,
    /// Changes when, and only when, what would start changes (launch, isolation).
    pub generation: Generation,
    /// For people.
    pub description: Option<String>,
    /// How it starts.
    pub launch: LaunchSpec,
    /// How it scales.
    pub policy: Arc<ScalingPolicy>,
    /// Who may use it; empty means every tenant.
    pub tenants: Vec<TenantName>,
}

impl Backend {
    /// Whether this tenant may use it.
    #[must_use]
    pub fn admits(&self, tenant: &TenantName) -> bool {
        self.tenants.is_empty() || self.tenants.contains(tenant)
    }
}
