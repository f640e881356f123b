//! The command lines of the roles, into which a gateway in a cluster is split. What they share with `serve` has the same
//! flags and variables; a role reads no config file, because its Deployment is one.

use std::{net::SocketAddr, path::PathBuf, str::FromStr};

use clap::Args;

use super::{Address, Layer, LogFormat, Period, PodsLayer};

#[derive(Debug, Args)]
pub(crate) struct ActivatorArgs {
    /// Address of an autoscaler, HOST:PORT (may be repeated); a name may stand for many, and is looked up again and again
    #[arg(
        long,
        env = "MCP_GATEWAY_SCALER",
        value_name = "HOST:PORT",
        value_delimiter = ',',
        required = true
    )]
    pub(crate) scaler: Vec<ScalerAddress>,
    /// UID of the pod that this activator runs in [default: a new one at each start]
    #[arg(long, env = "MCP_GATEWAY_POD_UID", value_name = "UID")]
    pub(crate) pod_uid: Option<String>,
    /// How long to serve on, but not as ready, after SIGTERM: until no load balancer sends clients here [default: 0s]
    #[arg(long, env = "MCP_GATEWAY_SHUTDOWN_DELAY", value_name = "DURATION")]
    pub(crate) shutdown_delay: Option<Period>,
    #[command(flatten)]
    pub(crate) common: CommonArgs,
    #[command(flatten)]
    pub(crate) edge: EdgeArgs,
}

#[derive(Debug, Args)]
pub(crate) struct AutoscalerArgs {
    /// Address for activators [default: 0.0.0.0:7444]
    #[arg(long, env = "MCP_GATEWAY_SCALER_LISTEN", value_name = "ADDRESS")]
    pub(crate) scaler_listen: Option<Address>,
    /// Address under which activators reach --scaler-listen, where it listens on all
    #[arg(long, env = "MCP_GATEWAY_SCALER_ADVERTISE", value_name = "ADDRESS")]
    pub(crate) scaler_advertise: Option<Address>,
    /// UID of the pod that this autoscaler runs in: if its process led and died, the next one of the same pod leads at once
    #[arg(long, env = "MCP_GATEWAY_POD_UID", value_name = "UID")]
    pub(crate) pod_uid: Option<String>,
    /// Namespace of the gateway itself: of the lease by which replicas find their leader, and of the activators' pods
    /// [default: mcp-gateway-system]
    #[arg(long, env = "MCP_GATEWAY_SYSTEM_NAMESPACE", value_name = "NAME")]
    pub(crate) system_namespace: Option<String>,
    /// UID of an activator that runs outside the cluster, for a new leader to wait for (may be repeated)
    #[arg(
        long,
        env = "MCP_GATEWAY_ACTIVATOR",
        value_name = "UID",
        value_delimiter = ','
    )]
    pub(crate) activator: Vec<String>,
    /// Address that agents in pods call [default: 0.0.0.0:7443]
    #[arg(long, env = "MCP_GATEWAY_HOME_LISTEN", value_name = "ADDRESS")]
    pub(crate) home_listen: Option<Address>,
    /// Address under which pods reach the leader's --home-listen (may be repeated: agents try them in this order)
    #[arg(
        long,
        env = "MCP_GATEWAY_HOME_ADVERTISE",
        value_name = "ADDRESS",
        value_delimiter = ','
    )]
    pub(crate) home_advertise: Vec<Address>,
    /// Image of the agent; without one only backends with 'agent: embedded' or 'none' start
    #[arg(long, env = "MCP_GATEWAY_AGENT_IMAGE", value_name = "IMAGE")]
    pub(crate) agent_image: Option<String>,
    /// Most instances of all backends at once [default: 100]
    #[arg(long, env = "MCP_GATEWAY_MAX_INSTANCES", value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) max_instances: Option<u32>,
    #[command(flatten)]
    pub(crate) common: CommonArgs,
}

/// What every role has.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Common")]
pub(crate) struct CommonArgs {
    /// File or folder with McpBackend documents, the same for all roles (may be repeated); without one the McpBackend
    /// resources of the namespace are served
    #[arg(
        long,
        env = "MCP_GATEWAY_BACKENDS",
        value_name = "PATH",
        value_delimiter = ','
    )]
    pub(crate) backends: Vec<PathBuf>,
    /// Namespace of the backends and their pods [default: mcp]
    #[arg(long, env = "MCP_GATEWAY_NAMESPACE", value_name = "NAME")]
    pub(crate) namespace: Option<String>,
    /// Tells this gateway's pods from another's in the same namespace [default: mcp-gateway]
    #[arg(long, env = "MCP_GATEWAY_INSTALLATION", value_name = "NAME")]
    pub(crate) installation: Option<String>,
    /// Folder with the role's share of the installation's secrets, made by 'secrets create'
    #[arg(long, env = "MCP_GATEWAY_SECRETS", value_name = "DIR")]
    pub(crate) secrets: PathBuf,
    /// Address for status, health and metrics [default: 127.0.0.1:9090]
    #[arg(long, env = "MCP_GATEWAY_ADMIN_LISTEN", value_name = "ADDRESS")]
    pub(crate) admin_listen: Option<Address>,
    /// Show the status to everybody who can reach a non-loopback --admin-listen, and not only health and metrics
    #[arg(long, env = "MCP_GATEWAY_ADMIN_ALLOW_ANONYMOUS", num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    pub(crate) admin_allow_anonymous: Option<bool>,
    /// Largest request body in bytes, the same for all roles [default: 4194304]
    #[arg(long, env = "MCP_GATEWAY_MAX_BODY", value_name = "BYTES", value_parser = clap::value_parser!(u32).range(1_024..))]
    pub(crate) max_body: Option<u32>,
    /// Write addresses to this file as JSON once they are listened on
    #[arg(long, env = "MCP_GATEWAY_READY_FILE", value_name = "FILE")]
    pub(crate) ready_file: Option<PathBuf>,
    /// How log lines look [default: pretty on a terminal, else json]
    #[arg(long, env = "MCP_GATEWAY_LOG_FORMAT", value_name = "FORMAT")]
    pub(crate) log_format: Option<LogFormat>,
    /// Which log lines are written, such as `info` or `mcp_gateway=debug` [default: info]
    #[arg(long, env = "MCP_GATEWAY_LOG_FILTER", value_name = "FILTER")]
    pub(crate) log_filter: Option<String>,
}

/// Where and for whom an activator listens.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Clients")]
pub(crate) struct EdgeArgs {
    /// Address to serve clients on [default: 127.0.0.1:8080]
    #[arg(long, env = "MCP_GATEWAY_LISTEN", value_name = "ADDRESS")]
    pub(crate) listen: Option<Address>,
    /// Key file made by 'keys add'
    #[arg(long, env = "MCP_GATEWAY_KEYS", value_name = "FILE")]
    pub(crate) keys: Option<PathBuf>,
    /// Serve everybody who can reach a non-loopback address, without keys
    #[arg(long, env = "MCP_GATEWAY_ALLOW_ANONYMOUS", num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    pub(crate) allow_anonymous: Option<bool>,
    /// Host that clients may name beside loopback, such as mcp.example.com (may be repeated)
    #[arg(
        long,
        env = "MCP_GATEWAY_ALLOWED_HOST",
        value_name = "HOST",
        value_delimiter = ','
    )]
    pub(crate) allowed_host: Vec<String>,
    /// Origin of web pages that may connect, such as `https://app.example.com` (may be repeated)
    #[arg(
        long,
        env = "MCP_GATEWAY_ALLOWED_ORIGIN",
        value_name = "ORIGIN",
        value_delimiter = ','
    )]
    pub(crate) allowed_origin: Vec<String>,
    /// URL under which clients reach the gateway; its host is allowed
    #[arg(long, env = "MCP_GATEWAY_PUBLIC_URL", value_name = "URL")]
    pub(crate) public_url: Option<String>,
    /// How long running exchanges may go on at shutdown [default: 30s]
    #[arg(long, env = "MCP_GATEWAY_SHUTDOWN_TIMEOUT", value_name = "DURATION")]
    pub(crate) shutdown_timeout: Option<Period>,
}

impl ActivatorArgs {
    /// What it says of what `serve` has too.
    pub(crate) fn layer(&self) -> Layer {
        let edge = &self.edge;
        Layer {
            listen: edge.listen,
            keys: edge.keys.clone(),
            allow_anonymous: edge.allow_anonymous,
            allowed_host: edge.allowed_host.clone(),
            allowed_origin: edge.allowed_origin.clone(),
            public_url: edge.public_url.clone(),
            shutdown_timeout: edge.shutdown_timeout,
            ..self.common.layer()
        }
    }
}

impl AutoscalerArgs {
    /// What it says of what `serve` has too.
    pub(crate) fn layer(&self) -> Layer {
        let common = self.common.layer();
        let pods = PodsLayer {
            home_listen: self.home_listen,
            home_advertise: self.home_advertise.clone(),
            agent_image: self.agent_image.clone(),
            ..common.pods
        };
        Layer {
            pods,
            max_instances: self.max_instances,
            ..common
        }
    }
}

impl CommonArgs {
    fn layer(&self) -> Layer {
        let pods = PodsLayer {
            kubernetes: Some(true),
            namespace: self.namespace.clone(),
            installation: self.installation.clone(),
            secrets: Some(self.secrets.clone()),
            ..PodsLayer::default()
        };
        Layer {
            backends: self.backends.clone(),
            pods,
            admin_listen: self.admin_listen,
            admin_allow_anonymous: self.admin_allow_anonymous,
            max_body: self.max_body,
            ready_file: self.ready_file.clone(),
            log_format: self.log_format,
            log_filter: self.log_filter.clone(),
            ..Layer::default()
        }
    }
}

/// Where an autoscaler is: an address, or a name and a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ScalerAddress {
    Address(SocketAddr),
    /// Looked up when it is needed.
    Name(String),
}

impl FromStr for ScalerAddress {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(address) = text.parse() {
            return Ok(Self::Address(address));
        }
        let name = text.rsplit_once(':').filter(|(host, port)| {
            let fine = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
            (1..=253).contains(&host.len()) && host.bytes().all(fine) && port.parse::<u16>().is_ok()
        });
        match name {
            Some(_) => Ok(Self::Name(text.to_owned())),
            None => {
                let given: String = text.chars().take(80).collect();
                Err(format!(
                    "{given:?} is no place of an autoscaler; write a name or an address with its port, such as \
                     mcp-gateway-scaler.mcp-gateway-system:7444"
                ))
            }
        }
    }
}
