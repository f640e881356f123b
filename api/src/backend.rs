//! A backend as the rest of the program sees it: validated, defaults filled in, its policy resolved, no secret resolved.

use std::{fmt, path::PathBuf, sync::Arc};

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
}

impl fmt::Debug for EnvValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Literal(_) => f.write_str("Literal(…)"),
            Self::FromEnv(name) => write!(f, "FromEnv({name})"),
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

/// How a server is started and reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaunchSpec {
    /// The program and its leading arguments; never empty for a process.
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
