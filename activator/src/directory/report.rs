//! What the directory tells the autoscaler: reports of use, gathered for 10 ms, acknowledgements of drains, at once, and
//! everything it knows, whenever a leader asks for that.
//!
//! Invariant: what is told is read under the instance's lock when it is told, never kept from earlier.
//! Never: decides anything; a lost or late report does no harm.

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use mcp_gateway_api::{
    activity::{ActivityReport, DrainAck, InstanceActivity},
    failure::Failure,
    scaler::Scaler,
    view::{Service, ViewEvent},
};
use parking_lot::Mutex;
use tokio::{
    sync::{Notify, mpsc},
    time::{Instant, MissedTickBehavior, interval, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::Directory;
use crate::lease::Entry;

/// How long changes are gathered into one report.
const GATHER: Duration = Duration::from_millis(10);
/// How often everything is told.
const FULL_REPORT: Duration = Duration::from_secs(10);
/// How long to wait before listening again when the control plane hung up.
const LISTEN_AGAIN: Duration = Duration::from_secs(1);

/// What is still to be told.
#[derive(Default)]
pub(crate) struct Outbox {
    dirty: Mutex<Vec<Arc<Entry>>>,
    changed: Notify,
    drains: Mutex<Vec<Arc<Entry>>>,
    drained: Notify,
}

impl Outbox {
    /// The entry's count has changed and it was not in the list (`State::dirty`).
    pub(crate) fn report_soon(&self, entry: &Arc<Entry>) {
        self.dirty.lock().push(Arc::clone(entry));
        self.changed.notify_one();
    }

    /// The entry drains, or drains and its count fell.
    pub(crate) fn acknowledge(&self, entry: &Arc<Entry>) {
        let mut drains = self.drains.lock();
        if !drains.iter().any(|known| Arc::ptr_eq(known, entry)) {
            drains.push(Arc::clone(entry));
        }
        drop(drains);
        self.drained.notify_one();
    }
}

fn activity(entry: &Entry, now: Instant) -> Option<InstanceActivity> {
    let mut state = entry.state.lock();
    state.dirty = false;
    (!state.gone).then(|| state.activity(now))
}

impl Directory {
    /// Feeds the table from the view and tells the autoscaler about use, until cancelled.
    pub async fn run(self, scaler: Arc<dyn Scaler>, cancel: CancellationToken) {
        let mut reporter = Reporter {
            directory: self,
            scaler,
            sequence: 0,
            restating: None,
            restate_at: None,
        };
        let listening = async {
            loop {
                let events = reporter
                    .scaler
                    .subscribe(reporter.directory.inner.activator);
                reporter.listen(events).await;
                reporter.restating = None;
                reporter.restate_at = None;
                sleep(LISTEN_AGAIN).await;
            }
        };
        tokio::select! {
            () = cancel.cancelled() => {}
            () = listening => {}
        }
    }

    /// Says goodbye, once [`Directory::run`] has ended: no drain waits for this activator any more. Says nothing while a
    /// lease is held: whoever holds one is not gone.
    pub async fn leave(&self, scaler: &dyn Scaler) {
        let leases = self.leases();
        if leases > 0 {
            tracing::warn!(leases, "instances are still used while the gateway ends");
            return;
        }
        scaler.leave(self.inner.activator).await;
    }
}

type Restating = Pin<Box<dyn Future<Output = Result<(), Failure>> + Send>>;

async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

async fn under_way(restating: &mut Option<Restating>) -> Result<(), Failure> {
    match restating {
        Some(restating) => restating.await,
        None => std::future::pending().await,
    }
}

struct Reporter {
    directory: Directory,
    scaler: Arc<dyn Scaler>,
    sequence: u64,
    /// A new leader is being told everything, which may take as long as there is none: the view is read meanwhile.
    restating: Option<Restating>,
    /// It is to be told again then.
    restate_at: Option<Instant>,
}

impl Reporter {
    /// Returns when the control plane hangs up.
    async fn listen(&mut self, mut events: mpsc::Receiver<ViewEvent>) {
        let outbox = Arc::clone(&self.directory.inner.outbox);
        let mut full = interval(FULL_REPORT);
        full.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut gather_until = None;
        loop {
            tokio::select! {
                biased;
                event = events.recv() => match event {
                    Some(event) => self.apply(event),
                    None => return,
                },
                told = under_way(&mut self.restating) => self.restated(told),
                () = at(self.restate_at) => self.restate(),
                () = outbox.drained.notified() => self.acknowledge(&outbox).await,
                _ = full.tick() => {
                    self.directory.tidy();
                    self.report_all().await;
                }
                () = outbox.changed.notified(), if gather_until.is_none() => {
                    gather_until = Some(Instant::now() + GATHER);
                }
                () = at(gather_until) => {
                    gather_until = None;
                    self.report_changes(&outbox).await;
                }
            }
        }
    }

    fn apply(&mut self, event: ViewEvent) {
        let asks_or_has_heard = matches!(event, ViewEvent::Snapshot { .. });
        self.directory.apply(event);
        if asks_or_has_heard {
            self.restate();
        }
    }

    /// Tells the leader everything as it stands now, if it asks for that.
    fn restate(&mut self) {
        (self.restating, self.restate_at) = (None, None);
        if let Some(epoch) = self.directory.asked_by() {
            self.sequence += 1;
            let all = self.directory.restatement(epoch, self.sequence);
            let scaler = Arc::clone(&self.scaler);
            self.restating = Some(Box::pin(async move { scaler.restate(all).await }));
        }
    }

    /// Said in vain it is said again, as long as it is asked for.
    fn restated(&mut self, told: Result<(), Failure>) {
        self.restating = None;
        if let Err(failure) = told {
            let why = failure.private.as_deref();
            tracing::warn!(
                why,
                "a leader was not told what this activator knows: {failure}"
            );
            self.restate_at = Some(Instant::now() + LISTEN_AGAIN);
        }
    }

    async fn report_changes(&mut self, outbox: &Outbox) {
        let dirty = std::mem::take(&mut *outbox.dirty.lock());
        let now = Instant::now();
        let instances: Vec<_> = dirty.iter().filter_map(|e| activity(e, now)).collect();
        if !instances.is_empty() {
            self.send(false, instances).await;
        }
    }

    async fn report_all(&mut self) {
        let now = Instant::now();
        self.directory.inner.outbox.dirty.lock().clear();
        let table = self.directory.entries();
        let instances = table.iter().filter_map(|e| activity(e, now)).collect();
        self.send(true, instances).await;
    }

    async fn send(&mut self, full: bool, instances: Vec<InstanceActivity>) {
        self.sequence += 1;
        let report = ActivityReport {
            activator: self.directory.inner.activator,
            sequence: self.sequence,
            full,
            instances,
        };
        self.scaler.report(report).await;
    }

    async fn acknowledge(&mut self, outbox: &Outbox) {
        let drains = std::mem::take(&mut *outbox.drains.lock());
        for entry in drains {
            let ack = {
                let state = entry.state.lock();
                if state.gone || state.view.service == Service::Open {
                    continue;
                }
                DrainAck {
                    activator: self.directory.inner.activator,
                    instance: entry.id,
                    stamp: state.view.stamp,
                    leases: state.leases,
                }
            };
            self.scaler.acknowledge(ack).await;
        }
    }
}
