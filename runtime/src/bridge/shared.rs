//! Who uses which child: the bridge's only shared state.
//!
//! Invariants: a child serves one legacy session, or the modern exchanges of one owner, or is the spare; never two of
//! these. A child that ends without having been asked to is told as an event, once. The lock is never held across an
//! await.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use http::StatusCode;
use mcp_gateway_api::failure::ExitReport;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    BridgeConfig, BridgeEvent,
    eras::Eras,
    pipes,
    refusal::{Refusal, code, sentence},
    worker::{Treatment, Worker},
};

mod modern;

/// Ids of lost sessions that are remembered, so that the activator learns why they are gone.
const LOST: usize = 1_024;
/// The way a legacy session came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Door {
    /// `/mcp`.
    Streamable,
    /// `/sse` and `/messages`.
    Sse,
}

#[derive(Default)]
struct Owner {
    /// Held while its child starts and is probed, so that it gets one.
    worker: tokio::sync::Mutex<Option<Arc<Worker>>>,
}

#[derive(Default)]
struct State {
    last_number: u64,
    spawning: usize,
    workers: HashMap<u64, Arc<Worker>>,
    spare: Option<Arc<Worker>>,
    sessions: HashMap<String, (Door, Arc<Worker>)>,
    lost: VecDeque<String>,
    owners: HashMap<String, Arc<Owner>>,
    eras: Eras,
    over: Option<Arc<ExitReport>>,
}

/// The shared state.
pub(super) struct Shared {
    /// As given.
    pub(super) config: BridgeConfig,
    /// Ends everything.
    pub(super) stop: CancellationToken,
    /// Children and their starts.
    pub(super) tasks: TaskTracker,
    /// From the polite signal to the kill; a stop may bring its own.
    pub(super) grace: Mutex<Duration>,
    treatment: Treatment,
    events: mpsc::Sender<BridgeEvent>,
    state: Mutex<State>,
}

impl Shared {
    /// Nothing running yet.
    pub(super) fn new(config: BridgeConfig, events: mpsc::Sender<BridgeEvent>) -> Arc<Self> {
        let treatment = Treatment {
            stdin_bytes: config.max_body.saturating_mul(2).clamp(1, 1 << 30),
            max_line: config.max_line,
            undeliverable_after: config.undeliverable_after,
            start_timeout: config.start_timeout,
        };
        Arc::new(Self {
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
            grace: Mutex::new(config.child_grace),
            treatment,
            events,
            state: Mutex::default(),
            config,
        })
    }

    /// Reads or writes what is known of the eras.
    pub(super) fn eras<T>(&self, f: impl FnOnce(&mut Eras) -> T) -> T {
        f(&mut self.state.lock().eras)
    }

    /// How the instance ended, if it has.
    pub(super) fn over(&self) -> Option<Arc<ExitReport>> {
        self.state.lock().over.clone()
    }

    /// Starts a child and lets it run; `Err` with the answer for whoever wanted it.
    async fn start(self: &Arc<Self>) -> Result<Arc<Worker>, Refusal> {
        // A stop that begins from here on waits for this start.
        let _counted = self.tasks.token();
        self.reserve()?;
        let (tell, told) = oneshot::channel();
        let shared = Arc::clone(self);
        // In a task of its own: a start whose client leaves must not leave a child that nobody knows.
        self.tasks.spawn(async move {
            let started = shared.spawn_child().await;
            if let Err(Ok(unwanted)) = tell.send(started) {
                shared.keep_spare(unwanted);
            }
        });
        match told.await {
            Ok(Ok(worker)) => Ok(worker),
            Ok(Err(report)) => Err(self.not_started(&report).await),
            Err(_stopped) => Err(Refusal::lost(&ExitReport::default())),
        }
    }

    fn reserve(&self) -> Result<(), Refusal> {
        let mut state = self.state.lock();
        if let Some(report) = &state.over {
            return Err(Refusal::lost(report));
        }
        if self.stop.is_cancelled() {
            return Err(Refusal::lost(&ExitReport::default()));
        }
        if state.workers.len() + state.spawning >= self.config.max_children {
            let idle = idle_owner(&state);
            if let Some((name, worker)) = idle {
                state.owners.remove(&name);
                state.workers.remove(&worker.number);
                worker.stop();
            } else {
                return Err(Refusal::unavailable(
                    code::CAPACITY,
                    "this server already runs as many copies of itself as it may",
                ));
            }
        }
        state.spawning += 1;
        Ok(())
    }

    async fn not_started(&self, report: &ExitReport) -> Refusal {
        let over = {
            let mut state = self.state.lock();
            let over = state.workers.is_empty() && state.spawning == 0 && state.over.is_none();
            if over {
                state.over = Some(Arc::new(report.clone()));
            }
            over
        };
        if over {
            self.tell(BridgeEvent::Failed(report.clone())).await;
        }
        Refusal::new(
            StatusCode::BAD_GATEWAY,
            code::START_FAILED,
            "the server could not be started",
        )
    }

    /// Spawns a child and its tasks. The caller has reserved its place.
    pub(super) async fn spawn_child(self: &Arc<Self>) -> Result<Arc<Worker>, ExitReport> {
        let spawned = self.config.spawner.spawn().await;
        let mut state = self.state.lock();
        state.spawning = state.spawning.saturating_sub(1);
        let child = spawned?;
        state.last_number += 1;
        let (worker, lines) = Worker::new(
            state.last_number,
            child.control.pid(),
            &self.treatment,
            self.stop.child_token(),
        );
        state.workers.insert(worker.number, Arc::clone(&worker));
        drop(state);
        let (shared, running) = (Arc::clone(self), Arc::clone(&worker));
        self.tasks.spawn(async move {
            let report = pipes::run(&running, child, lines, shared.treatment, &shared.grace).await;
            shared.bury(&running, report).await;
        });
        Ok(worker)
    }

    /// Keeps a child for whoever needs the next one, unless there is one already.
    pub(super) fn keep_spare(&self, worker: Arc<Worker>) {
        let mut state = self.state.lock();
        if state.spare.is_none() && worker.death().is_none() {
            state.spare = Some(worker);
        } else {
            worker.stop();
        }
    }

    /// A child nobody uses: the spare, or a new one.
    pub(super) async fn take(self: &Arc<Self>) -> Result<Arc<Worker>, Refusal> {
        let spare = self.state.lock().spare.take();
        match spare.filter(|s| s.death().is_none()) {
            Some(spare) => Ok(spare),
            None => self.start().await,
        }
    }

    async fn bury(&self, worker: &Arc<Worker>, report: ExitReport) {
        let deliberate = worker.stopping().is_cancelled() || worker.probing();
        let event = {
            let mut state = self.state.lock();
            state.workers.remove(&worker.number);
            state.spare.take_if(|s| s.number == worker.number);
            let mut lost = Vec::new();
            state.sessions.retain(|id, (_, w)| {
                let keep = w.number != worker.number;
                if !keep {
                    lost.push(id.clone());
                }
                keep
            });
            if deliberate {
                None
            } else {
                state.lost.extend(lost);
                let excess = state.lost.len().saturating_sub(LOST);
                state.lost.drain(..excess);
                let none_left = state.workers.is_empty() && state.spawning == 0;
                Some(if none_left {
                    state.over = Some(Arc::new(report.clone()));
                    BridgeEvent::Failed(report.clone())
                } else {
                    BridgeEvent::ChildLost {
                        exit: report.clone(),
                        sessions_left: state.sessions.len(),
                    }
                })
            }
        };
        tracing::debug!(
            backend = %self.config.backend, child = worker.number, deliberate,
            "a child has ended: {}", sentence(&report)
        );
        worker.bury(report);
        if let Some(event) = event {
            self.tell(event).await;
        }
    }

    async fn tell(&self, event: BridgeEvent) {
        // Nobody listens any more while a bridge is being dropped.
        let _unheard = self.events.send(event).await;
    }

    /// Opens a session on a child.
    pub(super) fn open_session(&self, door: Door, worker: &Arc<Worker>) -> String {
        let bytes: [u8; 24] = rand::random();
        let id: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
        let mut state = self.state.lock();
        state
            .sessions
            .insert(id.clone(), (door, Arc::clone(worker)));
        id
    }

    /// The child of a session.
    ///
    /// # Errors
    /// 404, marked if the session was lost with its child.
    pub(super) fn session(&self, door: Door, id: &str) -> Result<Arc<Worker>, Refusal> {
        let state = self.state.lock();
        match state.sessions.get(id) {
            Some((d, worker)) if *d == door => Ok(Arc::clone(worker)),
            Some(_) | None => Err(Refusal::no_session(state.lost.iter().any(|l| l == id))),
        }
    }

    /// Ends a session and its child, on purpose.
    pub(super) fn end_session(&self, id: &str) {
        if let Some((_, worker)) = self.state.lock().sessions.remove(id) {
            worker.stop();
        }
    }

    /// Reserves the place of the first child.
    pub(super) fn reserve_first(&self) {
        self.state.lock().spawning += 1;
    }
}

/// An owner whose child has nothing to do: it may give way.
fn idle_owner(state: &State) -> Option<(String, Arc<Worker>)> {
    state.owners.iter().find_map(|(name, owner)| {
        let slot = owner.worker.try_lock().ok()?;
        let worker = slot.as_ref()?;
        let idle = Arc::strong_count(owner) == 1 && worker.idle() && worker.death().is_none();
        idle.then(|| (name.clone(), Arc::clone(worker)))
    })
}
