//! Acting: one task owns the core, feeds it what happens, and carries out what it says.
//!
//! Invariants: the only writer of the core; never waits for the runtime (launches and terminations run beside it) and
//! never for an activator (one that does not read is sent a snapshot when it does). A claim whose future is dropped is
//! withdrawn, also if its answer was already under way. Every channel is bounded.

use std::{path::PathBuf, sync::Arc, time::Duration};

use mcp_gateway_api::catalog::CatalogWatch;
use mcp_gateway_runtime::{EventReceiver, Found, Runtime};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::Instant,
};

use crate::{
    core::{Core, Settings, records::RecordLimits},
    store::{Store, StoreError},
};

mod actor;
mod log;
mod message;
mod scaler;
mod subscribers;
#[cfg(test)]
mod tests;

use actor::Actor;
use message::Message;
pub use scaler::InProcessScaler;

/// Messages that may wait for the loop.
const INBOX: usize = 4_096;

/// How the autoscaler runs.
#[derive(Debug, Clone)]
pub struct AutoscalerConfig {
    /// Most instances alive at once, of all backends.
    pub max_instances: u32,
    /// Most claims that may wait at once; above what the activators hold.
    pub max_waiters: u32,
    /// Where session records are kept; nowhere, if absent: then they end with the process.
    pub record_dir: Option<PathBuf>,
    /// How many session records there may be.
    pub record_limits: RecordLimits,
    /// Events that may wait for one activator before it is sent a snapshot instead.
    pub view_queue: usize,
}

impl Default for AutoscalerConfig {
    fn default() -> Self {
        Self {
            max_instances: 256,
            max_waiters: 16_384,
            record_dir: None,
            record_limits: RecordLimits::default(),
            view_queue: 1_024,
        }
    }
}

/// Why the autoscaler does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Session records cannot be kept.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What was left when the time to shut down was over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leftover {
    /// Instances that had not ended.
    pub instances: usize,
}

/// What a new leader begins with.
#[derive(Debug)]
pub struct Takeover {
    /// Its term; higher than any before.
    pub epoch: u64,
    /// What the runtime found, oldest first.
    pub found: Vec<Found>,
}

/// Starts the loop.
#[derive(Debug, Clone, Copy)]
pub struct Autoscaler;

impl Autoscaler {
    /// Reads the kept records and starts the loop on the current Tokio runtime.
    ///
    /// # Errors
    /// The session records cannot be opened.
    ///
    /// # Panics
    /// Outside a Tokio runtime.
    pub fn start(
        config: AutoscalerConfig,
        runtime: Arc<dyn Runtime>,
        events: EventReceiver,
        catalog: CatalogWatch,
    ) -> Result<(InProcessScaler, AutoscalerHandle), StartError> {
        Self::begin(&config, runtime, events, catalog, None)
    }

    /// Takes over from an earlier leader: adopts what the runtime found. The view is complete once
    /// [`InProcessScaler::expect`] has named the running activators and each has restated what it knows.
    ///
    /// # Errors
    /// The session records cannot be opened.
    ///
    /// # Panics
    /// Outside a Tokio runtime.
    pub fn lead(
        config: AutoscalerConfig,
        runtime: Arc<dyn Runtime>,
        events: EventReceiver,
        catalog: CatalogWatch,
        takeover: Takeover,
    ) -> Result<(InProcessScaler, AutoscalerHandle), StartError> {
        Self::begin(&config, runtime, events, catalog, Some(takeover))
    }

    fn begin(
        config: &AutoscalerConfig,
        runtime: Arc<dyn Runtime>,
        events: EventReceiver,
        catalog: CatalogWatch,
        takeover: Option<Takeover>,
    ) -> Result<(InProcessScaler, AutoscalerHandle), StartError> {
        let (store, kept) = match &config.record_dir {
            None => (None, Vec::new()),
            Some(folder) => {
                let (store, kept) = Store::open(folder)?;
                (Some(store), kept)
            }
        };
        let unix_now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |since| since.as_secs());
        let settings = Settings {
            max_instances: config.max_instances as usize,
            max_waiters: config.max_waiters as usize,
            records: config.record_limits,
            epoch: takeover.as_ref().map_or(1, |takeover| takeover.epoch),
            unix_now,
            seed: rand::random(),
        };
        let first = Arc::clone(&catalog.borrow());
        let now = Instant::now();
        let core = match takeover {
            None => Core::new(settings, now, first, kept),
            Some(takeover) => Core::adopt(settings, now, first, kept, takeover.found),
        };
        let (inbox, messages) = mpsc::channel(INBOX);
        let scaler = InProcessScaler::new(inbox, Arc::clone(&runtime), config.view_queue);
        let actor = Actor::new(core, runtime, scaler.clone(), store);
        let task = tokio::spawn(actor.run(messages, events, catalog));
        let handle = AutoscalerHandle {
            scaler: scaler.clone(),
            task,
        };
        Ok((scaler, handle))
    }
}

/// Ends the loop.
#[derive(Debug)]
pub struct AutoscalerHandle {
    scaler: InProcessScaler,
    task: JoinHandle<()>,
}

impl AutoscalerHandle {
    /// Somebody else leads from now on: decides nothing any more, and ends nothing. Whoever waits is refused, and
    /// whoever listens hears that the stream ends.
    pub fn step_down(self) {
        self.task.abort();
    }

    /// Answers who waits, drains everything, cuts what is still open in time, and returns when nothing runs any more or
    /// the time is over.
    ///
    /// # Errors
    /// Says what was left when the time was over.
    pub async fn shutdown(self, within: Duration) -> Result<(), Leftover> {
        let (reply, still) = oneshot::channel();
        let asked = self.scaler.send(Message::Shutdown { within, reply }).await;
        let left = if asked { still.await.unwrap_or(0) } else { 0 };
        // The task has nothing left to do once it has answered; it is not waited for longer than that.
        self.task.abort();
        if left == 0 {
            Ok(())
        } else {
            Err(Leftover { instances: left })
        }
    }
}
