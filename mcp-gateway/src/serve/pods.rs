//! Pods of a cluster. Documents come from files where `--backends` names some, else from the cluster.
//!
//! One gateway alone: pods that an earlier one left are ended, their sessions revive.

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use anyhow::Context;
use mcp_gateway_autoscaler::InProcessScaler;
use mcp_gateway_control::{
    Place, Registry,
    cluster::{BackendReport, ClusterConfig, ClusterRegistry, Writing},
};
use mcp_gateway_runtime::{
    Farewell, Runtime,
    kubernetes::{Home, KubernetesConfig, KubernetesRuntime, client},
};
use tokio::{
    net::TcpListener,
    time::{Instant, MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;

use super::ground::{Documents, Ground, NoBridges};
use crate::{
    config::{Pods, Settings},
    secrets,
};

/// Longest farewell of a pod that nobody knows any more.
const LEFT_BEHIND: Duration = Duration::from_secs(2);
/// From one look at the autoscaler, for the objects' statuses, to the next.
const REPORT_EACH: Duration = Duration::from_secs(1);

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
    let listener = home_listener(pods).await?;
    let home = Home {
        advertise: advertised(pods, listener.local_addr()?),
        listener,
        authority: secrets.authority,
        key: secrets.home,
    };
    let clients = (client::client(&config)?, client::client(&config)?);
    let writing = Writing::alone(client::client(&config)?, &pods.installation);
    let documents = documents(
        &settings.backends,
        &pods.namespace,
        Some(&config),
        Some(writing),
    )
    .await?;
    let runtime = KubernetesConfig {
        owners: documents.owners(),
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
    Ok(Ground {
        runtime,
        events,
        dial: Arc::new(NoBridges),
        documents,
        sealing: secrets.sealing,
    })
}

/// What agents call.
///
/// # Errors
/// The address is taken or not ours.
pub(crate) async fn home_listener(pods: &Pods) -> anyhow::Result<TcpListener> {
    let bound = TcpListener::bind(pods.home_listen).await;
    bound.with_context(|| {
        format!(
            "the address {} for agents cannot be listened on: give another with --home-listen",
            pods.home_listen
        )
    })
}

/// From files where some are given, else from the cluster: `cluster`, or the one that the environment names.
///
/// # Errors
/// A path is not there, or there is no way to the cluster.
pub(crate) async fn documents(
    backends: &[PathBuf],
    namespace: &str,
    cluster: Option<&kube::Config>,
    writing: Option<Writing>,
) -> anyhow::Result<Documents> {
    if !backends.is_empty() {
        let registry = Registry::start_for(Place::Pod, backends.to_vec(), Vec::new()).await?;
        return Ok(Documents::Files(registry));
    }
    let own;
    let cluster = match cluster {
        Some(cluster) => cluster,
        None => {
            own = client::config(None).await?;
            &own
        }
    };
    let registry = ClusterRegistry::start(ClusterConfig {
        watches: client::client(cluster)?,
        namespace: namespace.to_owned(),
        writing,
    });
    Ok(Documents::Cluster(Arc::new(registry.await)))
}

/// Tells the objects of the cluster how their backends are, until `stop`.
pub(crate) async fn report(
    registry: Arc<ClusterRegistry>,
    scaler: InProcessScaler,
    stop: CancellationToken,
) {
    let mut each = interval(REPORT_EACH);
    each.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while stop.run_until_cancelled(each.tick()).await.is_some() {
        let asked = Instant::now();
        let status = scaler.summary().await;
        registry.report(asked, BackendReport::all(&status, SystemTime::now()));
    }
}

/// Where the port was left to the operating system, it is known only now.
pub(crate) fn advertised(pods: &Pods, bound: SocketAddr) -> Vec<SocketAddr> {
    let fill = |address: &SocketAddr| {
        let port = match address.port() {
            0 => bound.port(),
            port => port,
        };
        SocketAddr::new(address.ip(), port)
    };
    pods.home_advertise.iter().map(fill).collect()
}
