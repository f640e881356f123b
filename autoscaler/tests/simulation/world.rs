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
    trace: DefaultHasher,
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
            trace: DefaultHasher::new(),
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

    pub(crate) fn fingerprint(&self) -> u64 {
        self.trace.finish()
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
            format!("{:?} {effect:?}", self.now - self.began).hash(&mut self.trace);
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

    fn join(&mut self) {
        let id = ActivatorId(self.rng.random());
        self.activators.insert(id, Activator::new(id));
        self.feed(Event::Joined(id));
        let all = self.core.snapshot();
        self.view(id, all);
        self.later(REPORT_EVERY, Act::FullReport(id));
    }

    fn leave(&mut self) {
        let Some(id) = self.some_activator() else {
            return;
        };
        self.checks.counts.activators_left += 1;
        self.activators.remove(&id);
        let asked = self.pending.iter_mut().filter(|(_, p)| p.activator == id);
        let mut waiting = vec![];
        for (waiter, pending) in asked {
            if !pending.left {
                pending.left = true;
                waiting.push(*waiter);
            }
        }
        for waiter in waiting {
            self.feed(Event::Withdrawn(waiter));
        }
        let after = ms(&mut self.rng, 50);
        self.later(after, Act::Core(Event::Left(id)));
    }

    fn some_activator(&mut self) -> Option<ActivatorId> {
        let n = self.rng.random_range(0..self.activators.len().max(1));
        self.activators.keys().nth(n).copied()
    }

    fn chaos(&mut self) {
        let of = self.rng.random_range(0..clients::NAMES.len());
        match self.rng.random_range(0..12) {
            0..2 => {
                self.leave();
                self.join();
            }
            2..4 => {
                let stray = self.runtime.stray(&mut self.rng);
                self.checks.counts.strays += 1;
                self.feed(Event::Runtime(stray));
            }
            4..7 => {
                let n = self.rng.random_range(0..self.runtime.alive.len().max(1));
                if let Some(id) = self.runtime.alive.keys().nth(n).copied() {
                    self.happen(Happening::Crash(id));
                }
            }
            7..9 => self.edit(of),
            9..11 => {
                let Some(old) = self.catalog.get(&clients::name(of)).cloned() else {
                    return self.change_back(of);
                };
                let backend = clients::backend(of, old.generation.0, &mut self.rng);
                self.checks.counts.policies += 1;
                self.change(of, Some(backend));
            }
            _ if self.catalog.get(&clients::name(of)).is_some() => {
                self.checks.counts.deletions += 1;
                self.change(of, None);
                let after = ms(&mut self.rng, 8_000);
                self.later(after, Act::Restore(of));
            }
            _ => self.change_back(of),
        }
    }

    /// A drain is disturbed by demand, and what came of that by an edit.
    fn disturb(&mut self, slot: &SlotKey) {
        if self.rng.random_ratio(1, 3) {
            let after = ms(&mut self.rng, 30);
            self.later(after, Act::Demand(slot.clone()));
            if self.rng.random_ratio(1, 4) {
                let of = clients::NAMES
                    .iter()
                    .position(|n| *n == slot.backend.as_str());
                let after = ms(&mut self.rng, 1_500);
                self.later(after, Act::Edit(of.expect("it is one of them")));
            }
        }
    }

    fn demand(&mut self, slot: &SlotKey) {
        let Some(at) = self.some_activator() else {
            return;
        };
        let of = clients::NAMES
            .iter()
            .position(|n| *n == slot.backend.as_str());
        let tenant = match &slot.owner {
            Owner::Tenant(tenant) => tenant.clone(),
            Owner::Session(_) | Owner::Principal(_) | Owner::Nobody => {
                clients::principal(&mut self.rng).tenant
            }
        };
        let principal = principal_of(&tenant, "ann");
        self.claim(
            at,
            of.expect("it is one of them"),
            &principal,
            Purpose::Exchange,
        );
    }

    fn edit(&mut self, of: usize) {
        if self.catalog.get(&clients::name(of)).is_some() {
            self.generation += 1;
            let backend = clients::backend(of, self.generation, &mut self.rng);
            self.checks.counts.edits += 1;
            self.change(of, Some(backend));
        }
    }

    fn change_back(&mut self, of: usize) {
        let backend = clients::backend(of, self.generation, &mut self.rng);
        self.change(of, Some(backend));
    }

    fn change(&mut self, of: usize, backend: Option<Backend>) {
        match backend {
            Some(backend) => self
                .catalog
                .backends
                .insert(clients::name(of), Arc::new(backend)),
            None => self.catalog.backends.remove(&clients::name(of)),
        };
        self.feed(Event::Catalog(Arc::new(self.catalog.clone())));
    }

    /// One client does one thing.
    fn traffic(&mut self) {
        let Some(at) = self.some_activator() else {
            return;
        };
        let of = self.rng.random_range(0..clients::NAMES.len());
        let principal = clients::principal(&mut self.rng);
        match self.rng.random_range(0..20) {
            0..3 => self.claim(at, of, &principal, Purpose::Initialize),
            3..5 => self.claim(at, of, &principal, Purpose::Probe),
            5..9 => {
                let isolation = clients::backend(of, 0, &mut self.rng).policy.isolation;
                let (backend, tenant) = (clients::name(of), &principal.tenant);
                let slot = SlotKey::of(&backend, isolation, tenant, principal.id, None);
                match self.activators[&at].open_for(&slot) {
                    Some(id) => self.use_warm(at, id),
                    None => self.claim(at, of, &principal, Purpose::Exchange),
                }
            }
            9..19 => self.session_traffic(at),
            _ => self.end_session(),
        }
    }

    fn session_traffic(&mut self, at: ActivatorId) {
        if self.sessions.is_empty() {
            return;
        }
        let n = self.rng.random_range(0..self.sessions.len());
        let session = self.sessions[n].clone();
        let sealed = SessionBinding {
            instance: session.home,
            upstream: UpstreamSession("sealed".into()),
        };
        let record = self.activators[&at].records.get(&session.about.key);
        if record.is_some_and(|record| record.ended) {
            self.sessions.swap_remove(n);
            return;
        }
        let bound = record.map_or(Some(sealed.clone()), |record| record.binding_or(&sealed));
        let bound = bound.map(|binding| binding.instance);
        match bound.filter(|id| self.activators[&at].is_open(*id)) {
            Some(id) => self.use_warm(at, id),
            None => {
                let of = clients::NAMES
                    .iter()
                    .position(|n| *n == session.about.backend.as_str());
                let purpose = Purpose::Session {
                    session: session.about.clone(),
                    bound,
                };
                self.claim(
                    at,
                    of.expect("it is one of them"),
                    &session.principal,
                    purpose,
                );
            }
        }
        if self.rng.random_ratio(1, 30) {
            self.send_news(&session.about, SessionNews::Asleep);
        }
    }

    fn end_session(&mut self) {
        if self.sessions.is_empty() {
            return;
        }
        let n = self.rng.random_range(0..self.sessions.len());
        let about = self.sessions[n].about.clone();
        self.checks.counts.sessions_ended += 1;
        self.send_news(&about, SessionNews::Ended);
    }

    fn send_news(&mut self, session: &SessionRef, news: SessionNews) {
        let after = ms(&mut self.rng, 20);
        let session = session.clone();
        self.later(after, Act::News(SessionUpdate { session, news }));
    }

    fn news(&mut self, update: SessionUpdate) {
        self.next_reply += 1;
        let reply = self.next_reply;
        self.feed(Event::Record { reply, update });
    }

    fn claim(&mut self, at: ActivatorId, of: usize, principal: &Principal, purpose: Purpose) {
        let request = clients::ask(of, principal, purpose, &mut self.rng);
        self.claim_again(at, request, 0);
    }

    fn claim_again(&mut self, at: ActivatorId, request: ClaimRequest, tries: u32) {
        self.checks.counts.claims += 1;
        self.next_waiter += 1;
        let waiter = WaiterId(self.next_waiter);
        let pending = Pending {
            activator: at,
            request: request.clone(),
            asked: self.now,
            left: false,
            answered: false,
            tries,
        };
        self.pending.insert(waiter, pending);
        if self.rng.random_ratio(1, 8) {
            let after = ms(&mut self.rng, 300);
            self.later(after, Act::Withdraw(waiter));
        }
        let fresh = SessionKey(self.rng.random());
        self.feed(Event::Claim {
            waiter,
            request,
            fresh,
        });
    }

    fn withdraw(&mut self, waiter: WaiterId) {
        if let Some(pending) = self.pending.get_mut(&waiter)
            && !pending.left
        {
            pending.left = true;
            self.checks.counts.withdrawn += 1;
            self.feed(Event::Withdrawn(waiter));
        }
    }

    /// An answer reaches its asker, if it is still there.
    fn answered(&mut self, waiter: WaiterId, answer: Result<Box<Claimed>, Failure>) {
        let pending = self.pending.remove(&waiter).expect("somebody asked");
        let session = match &pending.request.purpose {
            Purpose::Session { session, .. } => Some(session.clone()),
            Purpose::Initialize | Purpose::Exchange | Purpose::Probe => None,
        };
        let Ok(claimed) = answer else {
            return;
        };
        let at = pending.activator;
        if pending.left || !self.activators.contains_key(&at) {
            let session = session.map(|session| session.key);
            return self.feed(Event::Undelivered { session, claimed });
        }
        let id = claimed.instance.id;
        let activator = self.activators.get_mut(&at).expect("it is there");
        if let Some(ack) = activator.know(claimed.instance.clone(), self.now) {
            self.send_ack(ack);
        }
        if !self.activators[&at].is_open(id) {
            if let (Standing::Revive, Some(session)) = (&claimed.standing, &session) {
                self.send_news(session, SessionNews::RevivalFailed { retry: true });
            }
            if pending.tries < 3 && !self.quiet {
                self.claim_again(at, pending.request, pending.tries + 1);
            }
            return;
        }
        self.lease(at, id);
        match (&claimed.standing, session) {
            (Standing::Revive, Some(session)) => self.revive(&session, id),
            (Standing::Bound(_), _) => self.checks.counts.bound += 1,
            (Standing::Fresh | Standing::Revive, _) => {}
        }
        if let Some(key) = claimed.session
            && self.rng.random_ratio(9, 10)
        {
            self.open(key, &pending.request, id);
        }
    }

    fn revive(&mut self, session: &SessionRef, id: InstanceId) {
        match self.rng.random_range(0..20) {
            0 => self.checks.counts.permits_lost += 1,
            1..3 => {
                self.checks.counts.revival_failed += 1;
                self.send_news(session, SessionNews::RevivalFailed { retry: true });
            }
            3 => {
                self.checks.counts.revival_failed += 1;
                self.send_news(session, SessionNews::RevivalFailed { retry: false });
            }
            _ => {
                self.checks.counts.revived += 1;
                let binding = SessionBinding {
                    instance: id,
                    upstream: UpstreamSession("revived".into()),
                };
                self.send_news(session, SessionNews::Revived(binding));
            }
        }
    }

    fn open(&mut self, key: SessionKey, request: &ClaimRequest, home: InstanceId) {
        self.checks.counts.sessions_opened += 1;
        let about = SessionRef {
            key,
            backend: request.backend.clone(),
            tenant: request.tenant.clone(),
            expires_at: UNIX + 1_000_000_000,
        };
        self.send_news(&about, SessionNews::Opened(home));
        let subject = ["ann", "bob"]
            .map(|who| principal_of(&request.tenant, who))
            .into_iter()
            .find(|p| p.id == request.principal)
            .expect("it is one of them");
        self.sessions.push(Session {
            about,
            principal: subject,
            home,
        });
        if self.sessions.len() > 40 {
            self.sessions.remove(0);
        }
    }

    fn use_warm(&mut self, at: ActivatorId, id: InstanceId) {
        self.checks.counts.warm += 1;
        self.lease(at, id);
    }

    /// Takes a lease, as the rule allows, and ends it some time later.
    fn lease(&mut self, at: ActivatorId, id: InstanceId) {
        let activator = self.activators.get_mut(&at).expect("it is there");
        assert!(activator.lease(id), "it was open");
        let ending = self
            .runtime
            .alive
            .get(&id)
            .is_none_or(|copy| copy.told_to_end);
        assert!(
            !ending || self.checks.is_excused(id),
            "leased while it was being ended"
        );
        let long = if self.rng.random_ratio(1, 20) {
            10_000
        } else {
            200
        };
        let after = ms(&mut self.rng, long);
        self.later(after, Act::EndLease(at, id));
        self.later(Duration::from_millis(10), Act::Report(at, Some(id)));
    }

    fn end_lease(&mut self, at: ActivatorId, id: InstanceId) {
        let Some(activator) = self.activators.get_mut(&at) else {
            return;
        };
        if let Some(ack) = activator.release(id, self.now) {
            self.send_ack(ack);
        }
        self.later(Duration::from_millis(10), Act::Report(at, Some(id)));
    }
}

fn principal_of(tenant: &TenantName, who: &str) -> Principal {
    Principal::new("keys", tenant.clone(), who)
}
