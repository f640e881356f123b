//! The whole of deciding, as one synchronous value: [`Core::step`] takes the time and an event and says what is to be
//! done.
//!
//! Invariants: no IO, no clock, no task, no lock; the same events at the same times give the same effects. Every claim
//! is answered exactly once. An instance is known from its launch to its `Exited`; one that is not known is terminated.
//! A step costs what it changes: nothing but a snapshot, a status and an activator's departure looks at everything.
//!
//! Read it in this order: [`event`] (in and out), [`instance`] and [`slot`] (the two state machines), [`planner`] (when
//! what is done), then `claims`, `revival` and `lifecycle`, which act on these; `adoption` is how a new leader begins.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use mcp_gateway_api::{
    backend::Backend,
    catalog::Catalog,
    failure::ExitReport,
    ids::{ActivatorId, BackendName, InstanceId, SessionKey},
    principal::PrincipalId,
    record::SessionRecord,
    scaler::{PodUid, Presence},
    slot::SlotKey,
    view::{Stamp, ViewEvent},
};
use rand::{Rng, SeedableRng, rngs::StdRng};
use tokio::time::Instant;

pub mod activity;
mod adoption;
mod audit;
pub mod backoff;
mod catalog;
mod claims;
mod drains;
pub mod event;
mod failures;
pub mod instance;
mod lifecycle;
mod peers;
mod permits;
mod phases;
pub mod planner;
mod provisional;
pub mod records;
mod revival;
pub mod slot;
mod status;
mod strays;
#[cfg(test)]
mod tests;
mod timers;
mod view;

use adoption::Takeover;
use event::{Effect, Event, Note, Transition};
use instance::Instance;
use peers::Activator;
use records::{Change, RecordLimits, Records};
use slot::Slot;
use strays::Strays;
use timers::{Timer, Timers};

/// Most timers that ring in one step. When more are due at once the next deadline is in the past: the driver comes back
/// at once, but hears in between what else there is.
const MOST_TIMERS: usize = 512;

/// Names one launch and the instance that comes of it, for as long as the core lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket(pub u64);

/// Names one claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WaiterId(pub u64);

/// Names one slot, also while its key changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct SlotId(u64);

/// What a core is made with.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Most instances alive at once, of all backends, those that are stopping included.
    pub max_instances: usize,
    /// Most claims that may wait; activators hold fewer.
    pub max_waiters: usize,
    /// Bounds of the session records.
    pub records: RecordLimits,
    /// The leadership term.
    pub epoch: u64,
    /// Unix seconds at the first instant.
    pub unix_now: u64,
    /// For the jitter of back-off.
    pub seed: u64,
}

/// What is counted for each backend.
#[derive(Debug, Default)]
struct Tally {
    slots: BTreeSet<SlotId>,
    /// Slots with an instance that is not ending.
    occupied: usize,
    waiting: usize,
    starts: u64,
    failures: u64,
    last_failure: Option<LastFailure>,
    /// Its server has answered a handshake without a session id.
    sessionless: bool,
}

/// The last failure of a backend, for people.
#[derive(Debug)]
struct LastFailure {
    ticket: Ticket,
    at: Instant,
    exit: ExitReport,
    log: Option<String>,
    in_a_row: u32,
}

/// The autoscaler's mind.
#[derive(Debug)]
pub struct Core {
    settings: Settings,
    began: Instant,
    now: Instant,
    jitter: StdRng,
    stamp: Stamp,
    catalog: Arc<Catalog>,
    slots: BTreeMap<SlotId, Slot>,
    by_key: HashMap<SlotKey, SlotId>,
    offers: HashMap<(BackendName, PrincipalId), BTreeSet<SlotId>>,
    starved: BTreeSet<SlotId>,
    tallies: HashMap<BackendName, Tally>,
    instances: BTreeMap<Ticket, Instance>,
    by_id: HashMap<InstanceId, Ticket>,
    /// How many of the instances are ending.
    ending: usize,
    /// Launches that have not been answered.
    in_flight: BTreeSet<Ticket>,
    strays: Strays,
    waiters: HashMap<WaiterId, claims::Waiter>,
    revivals: HashMap<SessionKey, permits::Revival>,
    activators: BTreeMap<ActivatorId, Activator>,
    /// The process of each pod that is listened to.
    pods: BTreeMap<PodUid, (u64, ActivatorId)>,
    /// The pods in which activators run, once they have been named.
    expected: Option<BTreeMap<PodUid, Presence>>,
    /// Until everybody has been heard.
    takeover: Option<Takeover>,
    /// How many instances were found at takeover.
    found: usize,
    records: Records,
    records_alarm: Option<Instant>,
    timers: Timers,
    /// How long farewells may take, once everything is to end.
    shutdown: Option<Duration>,
    last_id: u64,
    out: Vec<Effect>,
}

impl Core {
    /// A core that knows nothing but the backends and the records kept from before. Of these it drops what nobody can
    /// ask for any more; the first step says so.
    #[must_use]
    pub fn new(
        settings: Settings,
        now: Instant,
        catalog: Arc<Catalog>,
        kept: Vec<SessionRecord>,
    ) -> Self {
        let mut records = Records::new(settings.records);
        let mut out = Vec::new();
        for record in kept {
            let useless = record.expires_at <= settings.unix_now
                || (record.ended && revival::never_revives(&catalog, &record.backend));
            if useless {
                out.push(Effect::Persist(Change::Remove(record.key)));
            } else {
                records.restore(record);
            }
        }
        let mut core = Self {
            began: now,
            now,
            jitter: StdRng::seed_from_u64(settings.seed),
            stamp: Stamp {
                epoch: settings.epoch,
                sequence: 0,
            },
            settings,
            catalog,
            slots: BTreeMap::new(),
            by_key: HashMap::new(),
            offers: HashMap::new(),
            starved: BTreeSet::new(),
            tallies: HashMap::new(),
            instances: BTreeMap::new(),
            by_id: HashMap::new(),
            ending: 0,
            in_flight: BTreeSet::new(),
            strays: Strays::default(),
            waiters: HashMap::new(),
            revivals: HashMap::new(),
            activators: BTreeMap::new(),
            pods: BTreeMap::new(),
            expected: None,
            takeover: None,
            found: 0,
            records,
            records_alarm: None,
            timers: Timers::default(),
            shutdown: None,
            last_id: 0,
            out,
        };
        core.watch_expiry();
        core
    }

    /// Takes in one event and everything that is due; says what is to be done.
    pub fn step(&mut self, now: Instant, event: Event) -> Vec<Effect> {
        self.now = self.now.max(now);
        match event {
            Event::Claim {
                waiter,
                request,
                fresh,
            } => self.claim(waiter, request, fresh),
            Event::Withdrawn(waiter) => self.withdraw(waiter),
            Event::Undelivered { session, claimed } => self.take_back(session, &claimed),
            Event::Launched { ticket, outcome } => self.launched(ticket, outcome),
            Event::Runtime(event) => self.runtime(event),
            Event::Report(report) => self.report(&report),
            Event::Ack(ack) => self.acknowledge(&ack),
            Event::Joined(activator) => self.join(activator),
            Event::Subscribed(activator, pod) => self.subscribed(activator, pod),
            Event::Silent(activator) => self.silent(activator),
            Event::Left(activator) => self.leave(activator),
            Event::Restated(all) => self.restated(&all),
            Event::Expected(pods) => self.expected(pods),
            Event::Marked(id, taken) => self.marked(id, taken),
            Event::Catalog(catalog) => self.replace_catalog(catalog),
            Event::Record { reply, update } => self.record(reply, &update),
            Event::Tick => {}
            Event::Shutdown(within) => self.shut_down(within),
        }
        for _ in 0..MOST_TIMERS {
            let Some(timer) = self.timers.pop(self.now) else {
                break;
            };
            self.ring(timer);
        }
        std::mem::take(&mut self.out)
    }

    /// When [`Event::Tick`] is due at the latest.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        self.timers.next()
    }

    /// Whether nothing runs and nothing is being launched.
    #[must_use]
    pub fn is_still(&self) -> bool {
        self.instances.is_empty() && self.in_flight.is_empty()
    }

    /// How many instances there are, those being launched or stopping included.
    #[must_use]
    pub fn alive(&self) -> usize {
        self.instances.len()
    }

    fn ring(&mut self, timer: Timer) {
        match timer {
            Timer::Waiter(id) => self.hold_over(id),
            Timer::Instance(ticket) => {
                if let Some(instance) = self.instances.get_mut(&ticket) {
                    instance.alarm = None;
                    self.instance_alarm(ticket);
                }
            }
            Timer::Slot(id) => {
                if let Some(slot) = self.slots.get_mut(&id) {
                    slot.alarm = None;
                    self.poke(id);
                }
            }
            Timer::Permit(key) => self.permit_over(key),
            Timer::Records => {
                self.records_alarm = None;
                self.expire_records();
            }
            Timer::Silence(id) => self.silent_too_long(id),
            Timer::Takeover => self.complete(),
        }
    }

    fn unix_now(&self) -> u64 {
        let since = self.now.saturating_duration_since(self.began);
        self.settings.unix_now.saturating_add(since.as_secs())
    }

    fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    fn next_stamp(&mut self) -> Stamp {
        self.stamp.sequence += 1;
        self.stamp
    }

    fn draw_jitter(&mut self) -> f64 {
        self.jitter.random()
    }

    fn backend(&self, name: &BackendName) -> Option<Arc<Backend>> {
        self.catalog.get(name).map(Arc::clone)
    }

    fn publish(&mut self, event: ViewEvent) {
        self.out.push(Effect::Publish(Box::new(event)));
    }

    fn persist(&mut self, change: Change) {
        self.out.push(Effect::Persist(change));
    }

    fn note(&mut self, note: Note) {
        self.out.push(Effect::Note(note));
    }

    fn tell(&mut self, transition: Transition) {
        self.note(Note::Transition(Box::new(transition)));
    }

    fn watch_expiry(&mut self) {
        // A minute's slack: expired records are refused by their time, this only frees memory.
        let unix = self.unix_now();
        let at = self.records.first_expiry().map(|expiry| {
            let left = expiry.saturating_sub(unix).min(366 * 24 * 3600);
            self.now + Duration::from_secs(left + 60)
        });
        self.timers.set(&mut self.records_alarm, at, Timer::Records);
    }

    fn expire_records(&mut self) {
        let unix = self.unix_now();
        while let Some(key) = self.records.pop_expired(unix) {
            self.persist(Change::Remove(key));
            self.publish(ViewEvent::Forget(key));
        }
        self.watch_expiry();
    }
}
