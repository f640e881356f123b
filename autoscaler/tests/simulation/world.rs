//! Virtual time, the queue of what happens next, and the roads between the parts: messages are late, overtake each
//! other, come twice or (reports) not at all.

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
    time::Duration,
};

use mcp_gateway_api::{
    activity::DrainAck,
    backend::Backend,
    catalog::Catalog,
    claim::{ClaimRequest, Claimed, Purpose, Standing},
    failure::Failure,
    ids::{ActivatorId, InstanceId, SessionKey, TenantName, UpstreamSession},
    principal::Principal,
    record::{SessionBinding, SessionNews, SessionRef, SessionUpdate},
    slot::{Owner, SlotKey},
    view::{Service, ViewEvent},
};
use mcp_gateway_autoscaler::core::{
    Core, Settings, WaiterId,
    event::{Effect, Event},
    records::RecordLimits,
};
use mcp_gateway_runtime::RuntimeEvent;
use rand::{Rng, SeedableRng, rngs::StdRng};
use tokio::time::Instant;

use crate::{
    activator::Activator,
    checks::Checks,
    clients::{self, Pending, Session},
    runtime::{Happening, Runtime, exit, ms},
};

mod mischief;
mod traffic;

const UNIX: u64 = 1_000_000;
const REPORT_EVERY: Duration = Duration::from_secs(10);

enum Act {
    Core(Event),
    World(Happening),
    View(ActivatorId, Box<ViewEvent>),
    Answer(WaiterId, Result<Box<Claimed>, Failure>),
    EndLease(ActivatorId, InstanceId),
    Report(ActivatorId, Option<InstanceId>),
    FullReport(ActivatorId),
    Withdraw(WaiterId),
    News(SessionUpdate),
    Traffic,
    Chaos,
    Restore(usize),
    /// Somebody asks for what is just being drained.
    Demand(SlotKey),
    Edit(usize),
}

pub(crate) struct World {
    rng: StdRng,
    now: Instant,
    began: Instant,
    order: u64,
    queue: BTreeMap<(Instant, u64), Act>,
    core: Core,
    catalog: Catalog,
    generation: u64,
    runtime: Runtime,
    activators: BTreeMap<ActivatorId, Activator>,
    pending: BTreeMap<WaiterId, Pending>,
    sessions: Vec<Session>,
    next_waiter: u64,
    next_reply: u64,
    quiet: bool,
    /// Of everything the core has said, where that is compared.
    trace: Option<DefaultHasher>,
    pub(crate) checks: Checks,
    pub(crate) steps: u64,
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let catalog = clients::catalog(&mut rng);
        let now = Instant::now();
        let settings = Settings {
            max_instances: 10,
            max_waiters: 1_000,
            records: RecordLimits::default(),
            epoch: 1,
            unix_now: UNIX,
            seed,
        };
        let core = Core::new(settings, now, Arc::new(catalog.clone()), vec![]);
        let mut world = Self {
            rng,
            now,
            began: now,
            order: 0,
            queue: BTreeMap::new(),
            core,
            catalog,
            generation: 1,
            runtime: Runtime::default(),
            activators: BTreeMap::new(),
            pending: BTreeMap::new(),
            sessions: vec![],
            next_waiter: 0,
            next_reply: 0,
            quiet: false,
            trace: None,
            checks: Checks::default(),
            steps: 0,
        };
        for _ in 0..3 {
            world.join();
        }
        world.later(Duration::ZERO, Act::Traffic);
        world.later(Duration::ZERO, Act::Chaos);
        world
    }

    /// Lets so many events reach the core.
    pub(crate) fn run(&mut self, steps: u64) {
        while self.steps < steps {
            self.next();
        }
    }

    /// No more traffic and no more mischief: all goes to zero, and nothing is remembered.
    pub(crate) fn settle(&mut self) {
        self.quiet = true;
        let end = self.now + Duration::from_secs(3_600);
        while self.now < end {
            self.next();
        }
        self.audit();
        assert!(self.runtime.alive.is_empty(), "instances were left running");
        assert!(
            self.pending.values().all(|p| p.answered || p.left),
            "a claim was left waiting"
        );
        for (what, size) in self.core.sizes() {
            assert_eq!(size, 0, "{what} were left behind");
        }
        assert!(self.core.is_still());
    }

    /// Remembers what the core says from now on.
    pub(crate) fn trace(&mut self) {
        self.trace = Some(DefaultHasher::new());
    }

    pub(crate) fn fingerprint(&self) -> Option<u64> {
        self.trace.as_ref().map(Hasher::finish)
    }

    fn later(&mut self, after: Duration, act: Act) {
        self.order += 1;
        self.queue.insert((self.now + after, self.order), act);
    }

    fn next(&mut self) {
        let queued = self.queue.first_key_value().map(|((at, _), _)| *at);
        let alarm = self.core.next_deadline();
        match (queued, alarm) {
            (Some(at), Some(alarm)) if alarm < at => self.tick(alarm),
            (None, Some(alarm)) => self.tick(alarm),
            (Some(_), _) => {
                let ((at, _), act) = self.queue.pop_first().expect("it was there");
                self.now = self.now.max(at);
                self.act(act);
            }
            (None, None) => self.now += Duration::from_secs(1),
        }
    }

    fn tick(&mut self, alarm: Instant) {
        // Timers ring late, never early.
        let late = ms(&mut self.rng, 2);
        self.now = self.now.max(alarm + late);
        self.feed(Event::Tick);
    }

    fn act(&mut self, act: Act) {
        match act {
            Act::Core(event) => self.feed(event),
            Act::World(happening) => self.happen(happening),
            Act::View(to, event) => self.view(to, *event),
            Act::Answer(waiter, answer) => self.answered(waiter, answer),
            Act::EndLease(activator, instance) => self.end_lease(activator, instance),
            Act::Report(from, only) => self.report(from, false, only),
            Act::FullReport(from) => {
                self.report(from, true, None);
                if self.activators.contains_key(&from) {
                    self.later(REPORT_EVERY, Act::FullReport(from));
                }
            }
            Act::Withdraw(waiter) => self.withdraw(waiter),
            Act::News(update) => self.news(update),
            Act::Traffic => {
                if !self.quiet {
                    self.traffic();
                    let pause = if self.rng.random_ratio(1, 200) {
                        8_000
                    } else {
                        60
                    };
                    let pause = ms(&mut self.rng, pause);
                    self.later(pause, Act::Traffic);
                }
            }
            Act::Restore(of) => {
                if self.catalog.get(&clients::name(of)).is_none() {
                    self.change_back(of);
                }
            }
            Act::Demand(slot) => self.demand(&slot),
            Act::Edit(of) => self.edit(of),
            Act::Chaos => {
                if !self.quiet {
                    self.chaos();
                    let pause = ms(&mut self.rng, 4_000);
                    self.later(pause, Act::Chaos);
                }
            }
        }
    }

    fn feed(&mut self, event: Event) {
        self.steps += 1;
        if let Event::Record { update, .. } = &event {
            match update.news {
                SessionNews::Revived(_) | SessionNews::RevivalFailed { .. } => {
                    self.checks.end_permit(update.session.key);
                }
                SessionNews::Opened(_)
                | SessionNews::Sessionless(_)
                | SessionNews::Asleep
                | SessionNews::LogLevel(_)
                | SessionNews::Subscribed(_)
                | SessionNews::Unsubscribed(_)
                | SessionNews::Ended => {}
            }
        }
        if let Event::Undelivered { session, claimed } = &event {
            self.checks.counts.undelivered += 1;
            if claimed.standing == Standing::Revive {
                session.iter().for_each(|key| self.checks.end_permit(*key));
            }
            claimed
                .session
                .iter()
                .for_each(|key| self.checks.taken_back(*key));
        }
        let effects = self.core.step(self.now, event);
        for effect in effects {
            if let Some(trace) = &mut self.trace {
                format!("{:?} {effect:?}", self.now - self.began).hash(trace);
            }
            self.effect(effect);
        }
        if self.steps.is_multiple_of(50) {
            self.audit();
        }
    }

    fn audit(&self) {
        if let Err(what) = self.core.audit() {
            panic!("after {} steps: {what}", self.steps);
        }
    }

    fn effect(&mut self, effect: Effect) {
        match effect {
            Effect::Launch { ticket, .. } => {
                self.checks.counts.launches += 1;
                let plan = self.runtime.launch(ticket, &mut self.rng, self.quiet);
                for (after, happening) in plan {
                    if after > Duration::from_secs(400) {
                        self.checks.counts.late_answers += 1;
                    }
                    self.later(after, Act::World(happening));
                }
            }
            Effect::Terminate(id, _) => self.terminated(id),
            Effect::Publish(event) => self.published(*event),
            Effect::Answer { waiter, answer } => {
                let pending = self.pending.get_mut(&waiter).expect("somebody asked");
                assert!(!pending.answered, "answered twice");
                pending.answered = true;
                Checks::in_time(self.now - pending.asked, pending.request.budget);
                self.check_answer(waiter, &answer);
                let after = self.lag() / 4;
                self.later(after, Act::Answer(waiter, answer));
            }
            Effect::Recorded { .. } | Effect::Persist(_) | Effect::Note(_) => {}
        }
    }

    fn check_answer(&mut self, waiter: WaiterId, answer: &Result<Box<Claimed>, Failure>) {
        let request = &self.pending[&waiter].request;
        match answer {
            Err(failure) => self.checks.failed(failure.kind),
            Ok(claimed) => {
                self.checks.counts.answered += 1;
                assert!(
                    !self.checks.has_departed(claimed.instance.id),
                    "given what is gone"
                );
                if let Some(key) = claimed.session {
                    self.checks.handed_out(key);
                }
                if let Purpose::Session { session, .. } = &request.purpose {
                    self.checks.may_be_served(session.key);
                    if claimed.standing == Standing::Revive {
                        self.checks
                            .permitted(session.key, claimed.instance.id, self.now);
                    }
                }
            }
        }
    }

    fn terminated(&mut self, id: InstanceId) {
        self.checks.counts.terminates += 1;
        if !self.checks.is_excused(id) {
            for activator in self.activators.values() {
                assert_eq!(
                    activator.leases(id),
                    0,
                    "{id:?} was ended while it was leased"
                );
            }
        }
        let end = self.runtime.terminate(id, &mut self.rng);
        match end {
            Some((after, happening)) => self.later(after, Act::World(happening)),
            // A lost order to an instance that nobody knows is nobody's to repeat but the runtime's own.
            None => self.later(Duration::from_secs(1_000), Act::World(Happening::Crash(id))),
        }
    }

    fn published(&mut self, event: ViewEvent) {
        match &event {
            ViewEvent::Instance(view) => {
                self.checks.published(view);
                if view.service == Service::IdleDrain && !self.quiet {
                    self.disturb(&view.slot);
                }
            }
            ViewEvent::Gone { instance, .. } => self.checks.gone(*instance),
            ViewEvent::Record(record) => {
                if record.ended {
                    self.checks.ended(record.key);
                }
            }
            ViewEvent::Snapshot { .. } | ViewEvent::Forget(_) => {}
        }
        let all: Vec<_> = self.activators.keys().copied().collect();
        for to in all {
            for _ in 0..self.copies() {
                let after = self.lag();
                self.later(after, Act::View(to, Box::new(event.clone())));
            }
        }
    }

    /// Most messages come soon, some are held up for longer than many a state lasts.
    fn lag(&mut self) -> Duration {
        let most = if self.rng.random_ratio(1, 15) {
            2_000
        } else {
            20
        };
        ms(&mut self.rng, most)
    }

    /// Most messages come once, some twice.
    fn copies(&mut self) -> u32 {
        if self.rng.random_ratio(1, 20) { 2 } else { 1 }
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Say(event) => self.feed(event),
            Happening::IfAlive(id, event) => {
                if self.runtime.alive.contains_key(&id) {
                    self.feed(Event::Runtime(event));
                }
            }
            Happening::Crash(id) => {
                if let Some(copy) = self.runtime.alive.remove(&id) {
                    if !copy.told_to_end {
                        self.checks.crashed(id);
                    }
                    let report = exit("it exited");
                    self.feed(Event::Runtime(RuntimeEvent::Exited(id, report)));
                }
            }
        }
    }

    fn view(&mut self, to: ActivatorId, event: ViewEvent) {
        let Some(activator) = self.activators.get_mut(&to) else {
            return;
        };
        for ack in activator.apply(event, self.now) {
            self.send_ack(ack);
        }
    }

    fn send_ack(&mut self, ack: DrainAck) {
        for _ in 0..self.copies() {
            let after = self.lag();
            self.later(after, Act::Core(Event::Ack(ack.clone())));
        }
    }

    fn report(&mut self, from: ActivatorId, full: bool, only: Option<InstanceId>) {
        let Some(activator) = self.activators.get_mut(&from) else {
            return;
        };
        let report = activator.report(full, only, self.now);
        if !self.quiet && self.rng.random_ratio(1, 10) {
            self.checks.counts.lost_reports += 1;
            return;
        }
        for _ in 0..self.copies() {
            let after = self.lag();
            self.later(after, Act::Core(Event::Report(report.clone())));
        }
    }
}

fn principal_of(tenant: &TenantName, who: &str) -> Principal {
    Principal::new("keys", tenant.clone(), who)
}
