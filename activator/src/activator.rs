//! The data plane as a whole: made, routed, shut down.

use std::{sync::Arc, time::Duration};

use axum::Router;
use tokio::time::Instant;

use crate::{
    config::ActivatorConfig,
    exchange::news,
    gateway::{Deps, Gateway},
    routes, sweep,
};

/// Longest that the tasks may take to end when they are cut, and the control plane to hear goodbye.
const END: Duration = Duration::from_secs(2);

/// The data plane.
#[derive(Clone)]
pub struct Activator {
    gateway: Gateway,
}

impl Activator {
    /// Joins the data plane to its ports and begins to follow the control plane's view. Needs a Tokio runtime.
    #[must_use]
    pub fn new(config: ActivatorConfig, deps: Deps) -> Self {
        let gateway = Gateway::new(config, deps);
        gateway.sessions.follow(&gateway.deps.directory);
        crate::metrics::observe_leases(gateway.deps.directory.clone());
        crate::metrics::observe_bodies(gateway.bodies.clone());
        let tasks = &gateway.background;
        let directory = gateway.deps.directory.clone();
        tasks.spawn(directory.run(Arc::clone(&gateway.deps.scaler), gateway.cut.clone()));
        tasks.spawn(gateway.deps.memory.clone().run(gateway.cut.clone()));
        tasks.spawn(sweep::run(gateway.clone()));
        tasks.spawn(news::repeat(gateway.clone()));
        Self { gateway }
    }

    /// The routes, behind the edge. `extra` adds routes of the caller's own, such as the list of backends at `/`.
    pub fn router(&self, extra: Router) -> Router {
        routes::router(&self.gateway, extra)
    }

    /// What every exchange may reach.
    #[must_use]
    pub const fn gateway(&self) -> &Gateway {
        &self.gateway
    }

    /// Exchanges that wait for an instance.
    #[must_use]
    pub fn waiting(&self) -> u32 {
        self.gateway.holds.waiting()
    }

    /// Waits until no exchange is in flight or held, or `within` has passed, and refuses none meanwhile: for a replica that
    /// nobody is sent to any more, and whose control plane goes on without it.
    pub async fn finish(&self, within: Duration) {
        self.gateway.tasks.close();
        // Whoever is later than this is told by the shutdown.
        let _in_time = tokio::time::timeout(within, self.gateway.tasks.wait()).await;
    }

    /// Shuts down: held exchanges are refused (503) at once and nothing new is taken; what runs may go on until the
    /// deadline, then open streams get their terminal error. Last the control plane is told goodbye. Returns when all is
    /// done.
    pub async fn shutdown(&self, deadline: Duration) {
        let until = Instant::now() + deadline;
        self.gateway.closing.cancel();
        self.gateway.tasks.close();
        // Whoever is later than this is cut below.
        let _in_time = tokio::time::timeout_at(until, self.gateway.tasks.wait()).await;
        self.gateway.cut.cancel();
        self.gateway.background.close();
        // The tasks end at once when cut; the bound guards against one that does not.
        let ended = async {
            self.gateway.tasks.wait().await;
            self.gateway.background.wait().await;
        };
        let _ended = tokio::time::timeout(END, ended).await;
        let deps = &self.gateway.deps;
        // Whoever could be told has been; a client that reads nothing is not waited for.
        self.gateway.sessions.cut();
        deps.directory.give_back_all();
        let goodbye = deps.directory.leave(&*deps.scaler);
        if tokio::time::timeout(END, goodbye).await.is_err() {
            tracing::warn!("the control plane was not told that this gateway ends");
        }
    }
}
