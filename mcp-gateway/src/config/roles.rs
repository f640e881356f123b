//! What the roles need, checked.

use std::{collections::BTreeSet, net::SocketAddr, path::PathBuf, time::Duration};

use mcp_gateway_api::scaler::PodUid;

use super::{Access, ConfigError, Edge, Log, Pods, pods::label, shutdown_timeout};
use crate::cli::{ActivatorArgs, AutoscalerArgs, ScalerAddress};

/// All settings of `activator`.
#[derive(Debug, Clone)]
pub(crate) struct ActivatorSettings {
    pub(crate) edge: Edge,
    pub(crate) access: Access,
    /// Empty: the cluster's documents are served.
    pub(crate) backends: Vec<PathBuf>,
    pub(crate) namespace: String,
    pub(crate) secrets: PathBuf,
    /// Never empty.
    pub(crate) scaler: Vec<ScalerAddress>,
    /// The pod it runs in, if it was told.
    pub(crate) pod: Option<PodUid>,
    pub(crate) ready_file: Option<PathBuf>,
    /// So long it serves on after it was asked to end.
    pub(crate) shutdown_delay: Duration,
    pub(crate) shutdown_timeout: Duration,
    pub(crate) log: Log,
}

/// All settings of `autoscaler`.
#[derive(Debug, Clone)]
pub(crate) struct AutoscalerSettings {
    /// Of its listener for operators; it has none for clients.
    pub(crate) edge: Edge,
    pub(crate) pods: Pods,
    /// Empty: the cluster's documents are served.
    pub(crate) backends: Vec<PathBuf>,
    pub(crate) system_namespace: String,
    /// The pod it runs in, if it runs in one.
    pub(crate) pod: Option<PodUid>,
    pub(crate) scaler_listen: SocketAddr,
    /// Port 0: the one that is bound.
    pub(crate) scaler_advertise: SocketAddr,
    /// Activators outside the cluster.
    pub(crate) activators: BTreeSet<PodUid>,
    pub(crate) max_instances: u32,
    pub(crate) ready_file: Option<PathBuf>,
    pub(crate) log: Log,
}

impl ActivatorSettings {
    /// Checks it.
    pub(crate) fn load(args: &ActivatorArgs, terminal: bool) -> Result<Self, ConfigError> {
        let layer = args.layer();
        let edge = Edge::of(&layer)?;
        let pod = args.pod_uid.as_deref();
        Ok(Self {
            access: Access::of(&layer, None, &edge)?,
            edge,
            namespace: label("--namespace", layer.pods.namespace.as_deref(), "mcp")?,
            secrets: args.common.secrets.clone(),
            scaler: args.scaler.clone(),
            pod: pod.map(|uid| pod_uid("pod-uid", uid)).transpose()?,
            shutdown_delay: args.shutdown_delay.map_or(Duration::ZERO, |delay| delay.0),
            shutdown_timeout: shutdown_timeout(&layer),
            log: Log::of(&layer, terminal),
            backends: layer.backends,
            ready_file: layer.ready_file,
        })
    }
}

impl AutoscalerSettings {
    /// Checks it.
    pub(crate) fn load(args: &AutoscalerArgs, terminal: bool) -> Result<Self, ConfigError> {
        let layer = args.layer();
        let listen = args
            .scaler_listen
            .map_or_else(|| SocketAddr::from(([0, 0, 0, 0], 7444)), |a| a.0);
        let outside = args.activator.iter();
        let activators = outside.map(|uid| pod_uid("activator", uid));
        Ok(Self {
            edge: Edge::of(&layer)?,
            pods: Pods::of_role(&layer.pods, &args.common.secrets)?,
            system_namespace: label(
                "--system-namespace",
                args.system_namespace.as_deref(),
                "mcp-gateway-system",
            )?,
            pod: args
                .pod_uid
                .as_deref()
                .map(|uid| pod_uid("pod-uid", uid))
                .transpose()?,
            scaler_listen: listen,
            scaler_advertise: advertised(listen, args.scaler_advertise.map(|a| a.0))?,
            activators: activators.collect::<Result<_, _>>()?,
            max_instances: layer.max_instances.unwrap_or(100),
            log: Log::of(&layer, terminal),
            backends: layer.backends,
            ready_file: layer.ready_file,
        })
    }
}

fn pod_uid(flag: &'static str, given: &str) -> Result<PodUid, ConfigError> {
    given.parse().map_err(|source| ConfigError::PodUid {
        flag,
        given: given.chars().take(80).collect(),
        source,
    })
}

/// Where activators reach a replica.
fn advertised(listen: SocketAddr, given: Option<SocketAddr>) -> Result<SocketAddr, ConfigError> {
    match given {
        Some(address) if address.ip().is_unspecified() => {
            Err(ConfigError::ScalerUncallable(address))
        }
        Some(address) => Ok(address),
        None if listen.ip().is_unspecified() => Err(ConfigError::ScalerAdvertise(listen)),
        None => Ok(listen),
    }
}

#[cfg(test)]
mod tests;
