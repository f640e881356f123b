//! Where servers run and where their documents come from: processes and files on one machine; see [`super::pods`] for the
//! other ground.

use std::{io, path::PathBuf, sync::Arc};

use mcp_gateway_api::{catalog::CatalogWatch, endpoint::LocalDial, ids::InstanceId};
use mcp_gateway_control::{Problems, Registry, cluster::ClusterRegistry};
use mcp_gateway_runtime::{
    EventReceiver, Runtime,
    kubernetes::Owners,
    process::{ProcessConfig, ProcessRuntime},
};
use tokio::{io::DuplexStream, sync::watch};

use crate::{built_in, config::Settings};

/// What the rest of the gateway stands on.
pub(super) struct Ground {
    pub(super) runtime: Arc<dyn Runtime>,
    pub(super) events: EventReceiver,
    /// To bridges in this process.
    pub(super) dial: Arc<dyn LocalDial>,
    pub(super) documents: Documents,
    /// The file of sealing keys.
    pub(super) sealing: PathBuf,
}

/// What exists.
pub(crate) enum Documents {
    Files(Registry),
    Cluster(Arc<ClusterRegistry>),
}

impl Documents {
    /// The backends of the moment.
    pub(crate) fn catalog(&self) -> CatalogWatch {
        match self {
            Self::Files(registry) => registry.catalog(),
            Self::Cluster(registry) => registry.catalog(),
        }
    }

    /// What is wrong at the moment.
    pub(crate) fn problems(&self) -> watch::Receiver<Problems> {
        match self {
            Self::Files(registry) => registry.problems(),
            Self::Cluster(registry) => registry.problems(),
        }
    }

    /// Whether what exists is known. Before that nothing exists because nobody could say.
    pub(crate) fn known(&self) -> watch::Receiver<bool> {
        match self {
            Self::Files(_) => watch::channel(true).1,
            Self::Cluster(registry) => registry.known(),
        }
    }

    /// Who owns the pods of each backend, as far as there are objects.
    pub(crate) fn owners(&self) -> Owners {
        match self {
            Self::Files(_) => Owners::default(),
            Self::Cluster(registry) => registry.owners(),
        }
    }

    /// Stops watching files; the last catalog stays readable. The cluster is watched to the end: finalizers wait for
    /// what is said there.
    pub(crate) fn stop(&self) {
        match self {
            Self::Files(registry) => registry.stop(),
            Self::Cluster(_) => {}
        }
    }
}

/// No bridge lives in this process.
pub(crate) struct NoBridges;

impl LocalDial for NoBridges {
    fn dial(&self, _instance: InstanceId) -> io::Result<DuplexStream> {
        Err(io::ErrorKind::NotFound.into())
    }
}

/// Processes on this machine, documents from files.
///
/// # Errors
/// The state folder is another gateway's, or a path of `--backends` does not exist.
pub(super) async fn processes(settings: &Settings) -> anyhow::Result<Ground> {
    let built_in = if settings.demo {
        vec![built_in::demo()?]
    } else {
        Vec::new()
    };
    let config = ProcessConfig {
        // A bridge takes what the edge lets through.
        max_body: settings.edge.max_body,
        ..ProcessConfig::new(settings.state_dir.clone())
    };
    let (runtime, events, reaped) = ProcessRuntime::open(config).await?;
    for orphan in &reaped.reaped {
        tracing::info!(backend = %orphan.backend, pid = orphan.pid, "{}: ended an orphan of a killed gateway", orphan.backend);
    }
    for orphan in &reaped.stubborn {
        tracing::error!(backend = %orphan.backend, pid = orphan.pid, "{}: an orphan of a killed gateway cannot be ended", orphan.backend);
    }
    let registry = Registry::start(settings.backends.clone(), built_in).await?;
    let dial: Arc<ProcessRuntime> = Arc::clone(&runtime);
    Ok(Ground {
        runtime,
        events,
        dial,
        documents: Documents::Files(registry),
        sealing: settings.state_dir.join("sealing-keys"),
    })
}
