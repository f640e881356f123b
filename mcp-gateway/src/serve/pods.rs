//! Pods of a cluster. Documents come from files where `--backends` names some, else from the cluster.
//!
//! One gateway alone: pods that an earlier one left are ended, their sessions revive.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context;
use mcp_gateway_control::{Place, Registry};
use mcp_gateway_runtime::{
    Farewell, Runtime,
    kubernetes::{Home, KubernetesConfig, KubernetesRuntime, client},
};
use tokio::net::TcpListener;

use super::ground::{Documents, Ground, NoBridges};
use crate::{
    config::{Pods, Settings},
    secrets,
};

/// Longest farewell of a pod that nobody knows any more.
const LEFT_BEHIND: Duration = Duration::from_secs(2);

/// The cluster, and what runs there already.
///
/// # Errors
/// There is no way to the cluster, a secret is missing, the listener for agents cannot be had.
pub(super) async fn ground(settings: &Settings, pods: &Pods) -> anyhow::Result<Ground> {
    if pods.may_make_secrets {
        secrets::make(&pods.secrets)?;
    }
    let secrets = secrets::load(&pods.secrets)?;
    let config = client::config(None).await?;
    let listener = TcpListener::bind(pods.home_listen).await.with_context(|| {
        format!(
            "the address {} for agents cannot be listened on: give another with --home-listen",
            pods.home_listen
        )
    })?;
    let home = Home {
        advertise: advertised(pods, listener.local_addr()?),
        listener,
        authority: secrets.authority,
        key: secrets.home,
    };
    let clients = (client::client(&config)?, client::client(&config)?);
    let runtime = KubernetesConfig {
        agent_image: pods.agent_image.clone(),
        max_body: settings.edge.max_body,
        ..KubernetesConfig::new(clients, &pods.namespace, &pods.installation, home)
    };
    let (runtime, events, found) = KubernetesRuntime::open(runtime).await?;
    for one in found {
        tracing::info!(backend = %one.backend, pod = ?one.launched.instance, "{}: ending a pod that an earlier gateway left", one.backend);
        let grace = LEFT_BEHIND;
        runtime
            .terminate(one.launched.instance, Farewell { grace })
            .await;
    }
    let registry = Registry::start_for(Place::Pod, settings.backends.clone(), Vec::new()).await?;
    Ok(Ground {
        runtime,
        events,
        dial: Arc::new(NoBridges),
        documents: Documents::Files(registry),
        sealing: secrets.sealing,
    })
}

/// Where the port was left to the operating system, it is known only now.
fn advertised(pods: &Pods, bound: SocketAddr) -> Vec<SocketAddr> {
    let fill = |address: &SocketAddr| {
        let port = match address.port() {
            0 => bound.port(),
            port => port,
        };
        SocketAddr::new(address.ip(), port)
    };
    pods.home_advertise.iter().map(fill).collect()
}
