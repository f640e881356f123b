//! The command line: one struct for each subcommand. Every flag of `serve` has an `MCP_GATEWAY_*` variable and, under
//! the same name in camelCase, a place in the config file (what concerns pods under `pods`); flags win over variables,
//! variables over the file.

use std::{net::SocketAddr, path::PathBuf, str::FromStr, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};
use mcp_gateway_api::ids::TenantName;
use serde::{Deserialize, Deserializer, de::Error};

use crate::demo;

mod roles;

pub(crate) use roles::{ActivatorArgs, AutoscalerArgs, ScalerAddress};

/// Starts MCP servers when somebody asks for them, and stops them when nobody does.
#[derive(Debug, Parser)]
#[command(name = "mcp-gateway", version, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the gateway on this machine
    Serve(Box<ServeArgs>),
    /// Run the part of a gateway in a cluster that clients talk to; any number, beside 'autoscaler'
    Activator(Box<ActivatorArgs>),
    /// Run the part of a gateway in a cluster that starts and stops pods; one of the replicas leads
    Autoscaler(Box<AutoscalerArgs>),
    /// Make, list and remove API keys
    #[command(subcommand)]
    Keys(KeysCommand),
    /// Make the secrets of an installation in a cluster
    #[command(subcommand)]
    Secrets(SecretsCommand),
    /// Run the built-in demo MCP server
    DemoServer(DemoArgs),
    /// Print the Kubernetes definitions of McpBackend, ScalingPolicy and Tenant, for kubectl apply
    Crds,
    /// Print the version
    Version,
}

#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    /// File with any of the settings below, as YAML
    #[arg(long, env = "MCP_GATEWAY_CONFIG", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) layer: Layer,
}

/// One layer of settings: what the command line and the environment say, or what the config file says.
#[derive(Debug, Default, Args, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct Layer {
    /// File or folder with McpBackend documents, or an mcpServers JSON file (may be repeated)
    #[arg(
        long,
        env = "MCP_GATEWAY_BACKENDS",
        value_name = "PATH",
        value_delimiter = ','
    )]
    pub(crate) backends: Vec<PathBuf>,
    /// Serve the built-in demo server as backends 'demo' (stdio) and 'demo-http'
    #[arg(long, env = "MCP_GATEWAY_DEMO", num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    pub(crate) demo: Option<bool>,
    #[command(flatten)]
    pub(crate) pods: PodsLayer,
    /// Address to serve clients on [default: 127.0.0.1:8080]
    #[arg(long, env = "MCP_GATEWAY_LISTEN", value_name = "ADDRESS")]
    pub(crate) listen: Option<Address>,
    /// Address for status, health and metrics [default: 127.0.0.1:9090]
    #[arg(long, env = "MCP_GATEWAY_ADMIN_LISTEN", value_name = "ADDRESS")]
    pub(crate) admin_listen: Option<Address>,
    /// Show the status to everybody who can reach a non-loopback --admin-listen, and not only health and metrics
    #[arg(long, env = "MCP_GATEWAY_ADMIN_ALLOW_ANONYMOUS", num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    pub(crate) admin_allow_anonymous: Option<bool>,
    /// Folder for keys, records and logs [default: the XDG state folder]
    #[arg(long, env = "MCP_GATEWAY_STATE_DIR", value_name = "DIR")]
    pub(crate) state_dir: Option<PathBuf>,
    /// Write addresses and URLs to this file as JSON once ready
    #[arg(long, env = "MCP_GATEWAY_READY_FILE", value_name = "FILE")]
    pub(crate) ready_file: Option<PathBuf>,
    /// Key file made by 'keys add' [default: keys.json in the state folder, if it is there]
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
    /// Most instances of all backends at once [default: 100]
    #[arg(long, env = "MCP_GATEWAY_MAX_INSTANCES", value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) max_instances: Option<u32>,
    /// Largest request body in bytes [default: 4194304]
    #[arg(long, env = "MCP_GATEWAY_MAX_BODY", value_name = "BYTES", value_parser = clap::value_parser!(u32).range(1_024..))]
    pub(crate) max_body: Option<u32>,
    /// How long running exchanges may go on at shutdown [default: 30s]
    #[arg(long, env = "MCP_GATEWAY_SHUTDOWN_TIMEOUT", value_name = "DURATION")]
    pub(crate) shutdown_timeout: Option<Period>,
    /// How log lines look [default: pretty on a terminal, else json]
    #[arg(long, env = "MCP_GATEWAY_LOG_FORMAT", value_name = "FORMAT")]
    pub(crate) log_format: Option<LogFormat>,
    /// Which log lines are written, such as `info` or `mcp_gateway=debug` [default: info]
    #[arg(long, env = "MCP_GATEWAY_LOG_FILTER", value_name = "FILTER")]
    pub(crate) log_filter: Option<String>,
}

/// One layer of what running servers as pods needs; `pods` in the config file.
#[derive(Debug, Default, Args, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[command(next_help_heading = "Pods")]
pub(crate) struct PodsLayer {
    /// Run servers as pods of the cluster that KUBECONFIG or the service account names; without --backends the
    /// McpBackend resources of its namespace are served
    #[arg(long, env = "MCP_GATEWAY_KUBERNETES", num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    pub(crate) kubernetes: Option<bool>,
    /// Namespace of the backends and their pods [default: mcp]
    #[arg(long, env = "MCP_GATEWAY_NAMESPACE", value_name = "NAME")]
    pub(crate) namespace: Option<String>,
    /// Tells this gateway's pods from another's in the same namespace [default: mcp-gateway]
    #[arg(long, env = "MCP_GATEWAY_INSTALLATION", value_name = "NAME")]
    pub(crate) installation: Option<String>,
    /// Folder with the installation's secrets, made by 'secrets create' [default: the state folder, outside a cluster]
    #[arg(long, env = "MCP_GATEWAY_SECRETS", value_name = "DIR")]
    pub(crate) secrets: Option<PathBuf>,
    /// Address that agents in pods call [default: 0.0.0.0:7443]
    #[arg(long, env = "MCP_GATEWAY_HOME_LISTEN", value_name = "ADDRESS")]
    pub(crate) home_listen: Option<Address>,
    /// Address under which pods reach --home-listen, where it listens on all (may be repeated)
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
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogFormat {
    /// One JSON object a line
    Json,
    /// For people
    Pretty,
}

#[derive(Debug, Subcommand)]
pub(crate) enum KeysCommand {
    /// Make a key and print it, once
    Add {
        /// Whom its holder works for
        #[arg(long)]
        tenant: TenantName,
        /// Who holds it
        #[arg(long)]
        subject: String,
        #[command(flatten)]
        place: KeyPlace,
    },
    /// List keys: id, tenant, subject, age
    List {
        #[command(flatten)]
        place: KeyPlace,
    },
    /// Remove a key by its id
    Remove {
        /// As 'keys list' shows it
        id: String,
        #[command(flatten)]
        place: KeyPlace,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum SecretsCommand {
    /// Write what is not there yet into a folder; a role's own Secret holds only the files it needs (docs/roles.md)
    Create {
        /// The folder
        dir: PathBuf,
    },
}

/// Where keys are kept.
#[derive(Debug, Clone, Args)]
pub(crate) struct KeyPlace {
    /// The key file [default: keys.json in the state folder]
    #[arg(long, env = "MCP_GATEWAY_KEYS", value_name = "FILE")]
    pub(crate) keys: Option<PathBuf>,
    /// The gateway's state folder [default: the XDG state folder]
    #[arg(long, env = "MCP_GATEWAY_STATE_DIR", value_name = "DIR")]
    pub(crate) state_dir: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// How it is reached; http listens on $HOST:$PORT
    #[arg(long, value_enum, default_value = "stdio")]
    pub(crate) transport: demo::Transport,
}

/// An address to listen on: `127.0.0.1:8080`, `[::1]:8080`, `localhost:8080`; port 0 takes a free one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Address(pub(crate) SocketAddr);

impl FromStr for Address {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let plain = match text.strip_prefix("localhost:") {
            Some(port) => format!("127.0.0.1:{port}"),
            None => text.to_owned(),
        };
        plain.parse().map(Self).map_err(|_invalid| {
            let given: String = text.chars().take(80).collect();
            format!("{given:?} is no address; write one with its port, such as 127.0.0.1:8080")
        })
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}

/// A duration as people write it: `30s`, `5m`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Period(pub(crate) Duration);

impl FromStr for Period {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        humantime::parse_duration(text)
            .map(Self)
            .map_err(|_invalid| {
                let given: String = text.chars().take(40).collect();
                format!("{given:?} is no duration; write a number with its unit, such as 30s or 5m")
            })
    }
}

impl<'de> Deserialize<'de> for Period {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}
