//! What `serve` and the roles are put together from: who is let in, what listens, what ends it.

use std::{path::Path, sync::Arc, time::Duration};

use anyhow::Context;
use axum::{Router, routing::get};
use mcp_gateway_activator::{
    Activator, ActivatorConfig,
    auth::{Anonymous, Authenticate},
};
use mcp_gateway_api::catalog::CatalogWatch;
use mcp_gateway_control::Problems;
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    admin::{self, Admin, Gate, NotReady, StatusSource},
    banner::base_url,
    config::{Access, Edge},
    keys, landing,
    leaving::Leaving,
    listen::Listener,
    telemetry::MetricsPage,
};

/// How long answers that are on their way may take to leave once everything else has ended.
pub(crate) const LAST_WORDS: Duration = Duration::from_millis(500);

/// The async runtime: one worker for each core.
///
/// # Errors
/// The operating system has no more threads to give.
pub(crate) fn async_runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("starting the async runtime")
}

/// What ends the tasks around it.
#[derive(Debug, Clone)]
pub(crate) struct Tokens {
    /// The gateway shuts down: not ready any more.
    pub(crate) closing: CancellationToken,
    /// Clients are asked to connect anew, elsewhere.
    pub(crate) leaving: Leaving,
    /// No new connections of clients.
    pub(crate) left: CancellationToken,
    /// No new connections, of clients or operators.
    pub(crate) stop: CancellationToken,
    /// No connections at all.
    pub(crate) cut: CancellationToken,
}

impl Default for Tokens {
    fn default() -> Self {
        let stop = CancellationToken::new();
        Self {
            closing: CancellationToken::new(),
            leaving: Leaving::default(),
            left: stop.child_token(),
            stop,
            cut: CancellationToken::new(),
        }
    }
}

/// Who callers are.
///
/// # Errors
/// The key file cannot be read.
pub(crate) fn authenticate(
    access: &Access,
    stop: &CancellationToken,
) -> anyhow::Result<Arc<dyn Authenticate>> {
    match access {
        Access::Anonymous => Ok(Arc::new(Anonymous::default())),
        Access::Keys(path) => {
            let followed = keys::Followed::open(path.clone())?;
            let keys = followed.keys();
            if keys.count() == 0 {
                tracing::warn!(
                    "there are no API keys yet: nobody is let in until 'mcp-gateway keys add'"
                );
            }
            tokio::spawn(followed.follow(stop.clone()));
            Ok(keys)
        }
    }
}

/// The data plane's settings; `alone` if no other process serves the same sessions.
pub(crate) fn activator_config(edge: &Edge, alone: bool) -> ActivatorConfig {
    ActivatorConfig {
        alone,
        hosts: edge.hosts.clone(),
        origins: edge.origins.clone(),
        public_url: edge.public_url.as_deref().map(Arc::from),
        max_body: edge.max_body,
        ..ActivatorConfig::default()
    }
}

/// What the pages for operators are made from.
pub(crate) struct Pages {
    pub(crate) catalog: CatalogWatch,
    pub(crate) problems: watch::Receiver<Problems>,
    pub(crate) status: StatusSource,
    pub(crate) not_ready: NotReady,
    pub(crate) metrics: MetricsPage,
    pub(crate) began: Instant,
}

/// How clients reach the gateway, without a final slash.
pub(crate) fn base(edge: &Edge, clients: &Listener) -> Arc<str> {
    let public = edge.public_url.as_deref();
    public.map_or_else(|| base_url(clients.address()).into(), Arc::from)
}

/// Serves operators; `base` is how clients reach the gateway.
pub(crate) fn serve_operators(
    operators: Listener,
    edge: &Edge,
    pages: Pages,
    base: Arc<str>,
    tokens: &Tokens,
) -> JoinHandle<()> {
    let exposed = !operators.address().ip().is_loopback();
    if exposed && edge.admin_open {
        tracing::warn!(
            "whoever can reach the admin listener sees the status, last words of servers included"
        );
    }
    let admin = admin::router(Admin {
        status: pages.status,
        catalog: pages.catalog,
        problems: pages.problems,
        metrics: pages.metrics,
        base,
        began: pages.began,
        gate: Gate {
            exposed,
            open: edge.admin_open,
            hosts: edge.hosts.clone(),
            origins: edge.origins.clone(),
        },
        closing: tokens.closing.clone(),
        not_ready: pages.not_ready,
    });
    let (stop, cut) = (tokens.stop.clone(), tokens.cut.clone());
    tokio::spawn(operators.naming_peers().serve(admin, stop, cut))
}

/// Serves clients.
pub(crate) fn serve_clients(
    clients: Listener,
    activator: &Activator,
    landing: landing::Landing,
    tokens: &Tokens,
) -> JoinHandle<()> {
    let front = Router::new()
        .route("/", get(landing::page))
        .with_state(landing);
    let data = tokens.leaving.over(activator.router(front));
    tokio::spawn(clients.serve(data, tokens.left.clone(), tokens.cut.clone()))
}

/// The end of what listens: nothing new, then what is under way has `last_words` to leave, each listener in turn, then all
/// is cut, and the ready file goes.
pub(crate) async fn close(
    tokens: &Tokens,
    listeners: impl IntoIterator<Item = JoinHandle<()>>,
    last_words: Duration,
    ready_file: Option<&Path>,
) {
    tokens.stop.cancel();
    for listener in listeners {
        // What is later than this is cut.
        let _ = timeout(last_words, listener).await;
    }
    tokens.cut.cancel();
    if let Some(file) = ready_file {
        // It may be gone already.
        let _ = std::fs::remove_file(file);
    }
}

/// Lets the process have as many open files as it may, within reason, and says how many: each stream is one or two.
pub(crate) fn more_files() -> usize {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let most = limit.maximum.unwrap_or(65_536).min(65_536);
    let mut current = limit.current.unwrap_or(most);
    if current < most {
        let raised = Rlimit {
            current: Some(most),
            maximum: limit.maximum,
        };
        match setrlimit(Resource::Nofile, raised) {
            Ok(()) => current = most,
            Err(error) => tracing::debug!(%error, "the limit of open files stays as it is"),
        }
    }
    usize::try_from(current).unwrap_or(usize::MAX)
}
