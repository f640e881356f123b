//! What every exchange may reach: settings, ports and tables, shared and made once.

use std::{ops::Deref, sync::Arc};

use mcp_gateway_api::{catalog::CatalogWatch, endpoint::LocalDial, scaler::Scaler};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    auth::Authenticate,
    body::Budget,
    config::ActivatorConfig,
    directory::Directory,
    exchange::{news::Writing, turn::Turns},
    forward::{outlive::Abandoned, upstream::Upstreams},
    hold::Holds,
    memory::Memory,
    session::{Sessions, sealed::Sealer},
    sse_transport::channel::Channels,
    streams::share::Shares,
};

/// Sessions remembered here while nothing of them is pending; forgetting one costs nothing but its age.
const MOST_SESSIONS: usize = 200_000;

/// What the data plane is joined to.
pub struct Deps {
    /// The autoscaler.
    pub scaler: Arc<dyn Scaler>,
    /// The backends.
    pub catalog: CatalogWatch,
    /// Connections to bridges in this process.
    pub dial: Arc<dyn LocalDial>,
    /// Who is calling.
    pub auth: Arc<dyn Authenticate>,
    /// Session ids.
    pub sealer: Sealer,
    /// What is remembered of servers.
    pub memory: Memory,
    /// The table of instances.
    pub directory: Directory,
}

/// Everything an exchange may reach. Cheap to clone.
#[derive(Clone)]
pub struct Gateway(Arc<Shared>);

/// The inside of [`Gateway`].
pub struct Shared {
    pub(crate) config: ActivatorConfig,
    pub(crate) deps: Deps,
    pub(crate) upstreams: Upstreams,
    pub(crate) holds: Holds,
    /// What request bodies take of memory.
    pub(crate) bodies: Budget,
    pub(crate) sessions: Sessions,
    pub(crate) turns: Turns,
    pub(crate) abandoned: Abandoned,
    /// News of sessions on its way to the control plane.
    pub(crate) writing: Writing,
    /// Open 2024-11-05 streams.
    pub(crate) channels: Channels,
    /// Open streams of any kind, by principal.
    pub(crate) shares: Shares,
    /// Cancelled when the gateway begins to shut down: nothing new is taken, nothing waits any longer.
    pub(crate) closing: CancellationToken,
    /// Cancelled when what is still open must end.
    pub(crate) cut: CancellationToken,
    /// Exchanges in flight, and tasks that outlive their request.
    pub(crate) tasks: TaskTracker,
    /// Tasks that run until the cut.
    pub(crate) background: TaskTracker,
}

impl Gateway {
    pub(crate) fn new(config: ActivatorConfig, deps: Deps) -> Self {
        Self(Arc::new(Shared {
            upstreams: Upstreams::new(Arc::clone(&deps.dial)),
            holds: Holds::new(config.hold),
            bodies: Budget::new(config.max_bodies),
            sessions: Sessions::new(MOST_SESSIONS),
            turns: Turns::default(),
            abandoned: Abandoned::default(),
            writing: Writing::default(),
            channels: Channels::default(),
            shares: Shares::new(config.max_streams),
            closing: CancellationToken::new(),
            cut: CancellationToken::new(),
            tasks: TaskTracker::new(),
            background: TaskTracker::new(),
            config,
            deps,
        }))
    }

    /// The settings.
    #[must_use]
    pub fn config(&self) -> &ActivatorConfig {
        &self.config
    }
}

impl Deref for Gateway {
    type Target = Shared;
    fn deref(&self) -> &Shared {
        &self.0
    }
}
