//! Virtual time, the queue of what happens next, and the roads between the parts: messages are late, overtake each
//! other, come twice or (reports) not at all.

use std::{
    collections::{BTreeMap, BTreeSet},
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
    scaler::{ActivatorPod, PodUid, Presence},
    slot::{Owner, SlotKey},
    view::{Service, ViewEvent},
};
use mcp_gateway_autoscaler::core::{
    Core, Settings, Ticket, WaiterId,
    event::{Effect, Event},
    records::RecordLimits,
};
use mcp_gateway_runtime::{LaunchOrder, RuntimeEvent};
use rand::{Rng, SeedableRng, rngs::StdRng};
use tokio::time::Instant;

use crate::{
    activator::Activator,
    checks::Checks,
    clients::{self, Pending, Session},
    runtime::{Happening, Runtime, exit, ms},
};

mod cluster;
mod mischief;
mod traffic;

const UNIX: u64 = 1_000_000;
const REPORT_EVERY: Duration = Duration::from_secs(10);

enum Act {
    /// Over the network, to whoever leads when it arrives.
    Core(Event),
    /// Only to that leader.
    Leader(u64, Event),
    World(Happening),
    View(ActivatorId, u64, Box<ViewEvent>),
    Answer(u64, WaiterId, Result<Box<Claimed>, Failure>),
    Retry(ActivatorId, ClaimRequest, u32),
    /// What a leader orders, on its way to the runtime.
    Launch(u64, Ticket, Box<LaunchOrder>),
    Terminate(u64, InstanceId),
    Mark(u64, InstanceId),
    TakeOver,
    LoseLeader(u64),
    /// The pods of activators are listed.
    List(u64),
    Subscribe(ActivatorId),
    /// That subscription is found to be broken.
    Silence(u64, ActivatorId, u64),
    Heal(ActivatorId),
    Restate(ActivatorId),
    EndLease(ActivatorId, InstanceId),
    Report(ActivatorId, Option<InstanceId>),
    FullReport(ActivatorId),
    Withdraw(WaiterId),
    News(Option<ActivatorId>, SessionUpdate),
    Traffic,
    Chaos,
    Restore(usize),
    /// Somebody asks for what is just being drained.
    Demand(SlotKey),
    Edit(usize),
}

/// What is simulated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// One leader for ever, and activators in its own process.
    OneMachine,
    /// Leaders and activators in pods.
    Cluster,
}

pub(crate) struct World {
    form: Form,
    seed: u64,
    rng: StdRng,
    now: Instant,
    began: Instant,
    order: u64,
    queue: BTreeMap<(Instant, u64), Act>,
    /// The leader, when there is one.
    core: Option<Core>,
    epoch: u64,
    /// Where activators run.
    pods: BTreeSet<PodUid>,
    catalog: Catalog,
    generation: u64,
    runtime: Runtime,
    activators: BTreeMap<ActivatorId, Activator>,
    pending: BTreeMap<WaiterId, Pending>,
    sessions: Vec<Session>,
    next_waiter: u64,
    next_reply: u64,
    /// News that have not been answered.
    replies: BTreeMap<u64, (Option<ActivatorId>, SessionUpdate)>,
    quiet: bool,
    /// Of everything the core has said, where that is compared.
    trace: Option<DefaultHasher>,
    pub(crate) checks: Checks,
    pub(crate) steps: u64,
}

impl World {
    pub(crate) fn new(seed: u64, form: Form) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let catalog = clients::catalog(&mut rng);
        let now = Instant::now();
        let core = Core::new(settings(seed, 1), now, Arc::new(catalog.clone()), vec![]);
        let mut world = Self {
            form,
            seed,
            rng,
            now,
            began: now,
            order: 0,
            queue: BTreeMap::new(),
            core: Some(core),
            epoch: 1,
            pods: BTreeSet::new(),
            catalog,
            generation: 1,
            runtime: Runtime::default(),
            activators: BTreeMap::new(),
            pending: BTreeMap::new(),
            sessions: vec![],
            next_waiter: 0,
            next_reply: 0,
            replies: BTreeMap::new(),
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
        let core = self.core.as_ref().expect("somebody leads");
        for (what, size) in core.sizes() {
            assert_eq!(size, 0, "{what} were left behind");
        }
        assert!(core.is_still() && core.is_complete());
        assert!(self.replies.is_empty(), "news were not answered");
        for (id, one) in &self.activators {
            assert!(core.listens_to(*id), "an activator was forgotten");
            assert!(
                one.table.is_empty(),
                "an activator believes in what is gone"
            );
        }
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
        let alarm = self.core.as_ref().and_then(Core::next_deadline);
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
            Act::Leader(epoch, event) => self.tell_leader(epoch, event),
            Act::Launch(epoch, ticket, order) => self.launch(epoch, ticket, *order),
            Act::Terminate(epoch, id) => self.end(epoch, id),
            Act::Mark(epoch, id) => self.mark(epoch, id),
            Act::TakeOver => self.take_over(),
            Act::LoseLeader(epoch) => {
                if epoch == self.epoch {
                    self.lose_leader();
                }
            }
            Act::List(epoch) => {
                let runs = |uid: &PodUid| (*uid, Presence::Runs);
                let pods = self.pods.iter().map(runs).collect();
                self.tell_leader(epoch, Event::Expected(pods));
            }
            Act::Subscribe(id) => self.subscribe(id),
            Act::Silence(epoch, id, subscription) => self.silence(epoch, id, subscription),
            Act::Heal(id) => self.heal(id),
            Act::Restate(id) => self.restate(id),
            Act::Retry(at, request, tries) => self.claim_again(at, request, tries),
            Act::View(to, epoch, event) => self.view(to, epoch, *event),
            Act::Answer(epoch, waiter, answer) => self.answered(epoch, waiter, answer),
            Act::EndLease(activator, instance) => self.end_lease(activator, instance),
            Act::Report(from, only) => self.report(from, false, only),
            Act::FullReport(from) => {
                self.report(from, true, None);
                if let Some(one) = self.activators.get(&from) {
                    if one.is_asked {
                        self.restate(from);
                    }
                    self.later(REPORT_EVERY, Act::FullReport(from));
                }
            }
            Act::Withdraw(waiter) => self.withdraw(waiter),
            Act::News(from, update) => self.news(from, update),
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
        if self.core.is_none() {
            return;
        }
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
                session
                    .iter()
                    .for_each(|(key, _)| self.checks.end_permit(*key));
            }
            claimed
                .session
                .iter()
                .for_each(|key| self.checks.taken_back(*key));
        }
        let core = self.core.as_mut().expect("somebody leads");
        let was_complete = core.is_complete();
        let effects = core.step(self.now, event);
        let heard = !was_complete && core.is_complete();
        for effect in effects {
            if let Some(trace) = &mut self.trace {
                format!("{:?} {effect:?}", self.now - self.began).hash(trace);
            }
            self.effect(effect);
        }
        if heard && let ViewEvent::Snapshot { records, .. } = self.snapshot() {
            self.keep_ended();
            self.checks.all_heard(&records);
        }
        if self.steps.is_multiple_of(50) {
            self.audit();
        }
    }

    fn audit(&self) {
        if let Some(Err(what)) = self.core.as_ref().map(Core::audit) {
            panic!("after {} steps: {what}", self.steps);
        }
    }

    fn effect(&mut self, effect: Effect) {
        match effect {
            Effect::Launch { ticket, order } => {
                self.checks.counts.launches += 1;
                match self.form {
                    Form::OneMachine => self.launch(self.epoch, ticket, *order),
                    Form::Cluster => {
                        let after = self.lag();
                        self.later(after, Act::Launch(self.epoch, ticket, order));
                    }
                }
            }
            Effect::Mark(id) => {
                let after = self.lag();
                self.later(after, Act::Mark(self.epoch, id));
            }
            Effect::Terminate(id, _) => {
                self.checks.counts.terminates += 1;
                let complete = self.core.as_ref().is_some_and(Core::is_complete);
                assert!(complete, "ended before everybody was heard");
                self.assert_unleased(id);
                match self.form {
                    Form::OneMachine => self.end(self.epoch, id),
                    Form::Cluster => {
                        // An order may take longer than its leader lives.
                        let lost = !self.quiet && self.rng.random_ratio(1, 30);
                        let after = if lost {
                            self.later(Duration::ZERO, Act::LoseLeader(self.epoch));
                            ms(&mut self.rng, 10_000)
                        } else {
                            self.lag()
                        };
                        self.later(after, Act::Terminate(self.epoch, id));
                    }
                }
            }
            Effect::Publish(event) => self.published(*event),
            Effect::Answer { waiter, answer } => {
                let pending = self.pending.get_mut(&waiter).expect("somebody asked");
                assert!(!pending.answered, "answered twice");
                pending.answered = true;
                Checks::in_time(self.now - pending.asked, pending.request.budget);
                self.check_answer(waiter, &answer);
                let after = self.lag() / 4;
                self.later(after, Act::Answer(self.epoch, waiter, answer));
            }
            Effect::Recorded { reply, .. } => self.recorded(reply),
            Effect::Persist(_) | Effect::Note(_) => {}
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
                let complete = self.core.as_ref().is_some_and(Core::is_complete);
                let asker = self.activators.get(&self.pending[&waiter].activator);
                let gone = asker.and_then(|one| one.gone.get(&claimed.instance.id));
                assert!(
                    !complete || gone.is_none_or(|heard| *heard >= self.epoch),
                    "answered with what was gone under an earlier leader"
                );
                if let Some(key) = claimed.session {
                    self.checks.handed_out(key);
                }
                if let Purpose::Session { session, .. } = &request.purpose {
                    if self.core.as_ref().is_some_and(Core::is_complete) {
                        self.checks.may_be_served(session.key);
                    }
                    if claimed.standing == Standing::Revive {
                        let (id, to) = (claimed.instance.id, self.pending[&waiter].activator);
                        self.checks
                            .permitted(session.key, id, (to, self.epoch), self.now);
                    }
                }
            }
        }
    }

    fn launch(&mut self, epoch: u64, ticket: Ticket, order: LaunchOrder) {
        if epoch < self.epoch {
            self.checks.counts.late_orders += 1;
        }
        let plan = self
            .runtime
            .launch((epoch, ticket), order, &mut self.rng, self.quiet);
        for (after, happening) in plan {
            if after > Duration::from_secs(400) {
                self.checks.counts.late_answers += 1;
            }
            self.later(after, Act::World(happening));
        }
    }

    /// An order to end an instance reaches the runtime.
    fn end(&mut self, epoch: u64, id: InstanceId) {
        if epoch < self.epoch {
            self.checks.counts.late_orders += 1;
        }
        let taken = self.runtime.alive.get(&id).map(|copy| copy.taken_by);
        if taken.is_some_and(|by| by > epoch) {
            self.checks.counts.orders_fenced += 1;
            return;
        }
        self.assert_unleased(id);
        let end = self.runtime.terminate(id, epoch, &mut self.rng);
        match end {
            Some((after, happening)) => self.later(after, Act::World(happening)),
            // A lost order to an instance that nobody knows is nobody's to repeat but the runtime's own.
            None => self.later(Duration::from_secs(1_000), Act::World(Happening::Crash(id))),
        }
    }

    fn assert_unleased(&self, id: InstanceId) {
        if !self.checks.is_excused(id) {
            for activator in self.activators.values() {
                assert_eq!(
                    activator.leases(id),
                    0,
                    "{id:?} was ended while it was leased"
                );
            }
        }
    }

    fn snapshot(&self) -> ViewEvent {
        self.core.as_ref().expect("somebody leads").snapshot()
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
        let listen = self
            .activators
            .iter()
            .filter(|(_, one)| self.form == Form::OneMachine || one.listens);
        let all: Vec<_> = listen.map(|(id, _)| *id).collect();
        for to in all {
            for _ in 0..self.copies() {
                let after = self.lag();
                self.later(after, Act::View(to, self.epoch, Box::new(event.clone())));
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
            Happening::Say(epoch, event) => self.tell_leader(epoch, event),
            Happening::IfAlive(id, event) => {
                if let Some(copy) = self.runtime.alive.get_mut(&id) {
                    match &event {
                        RuntimeEvent::Running(_) => copy.running = true,
                        RuntimeEvent::Ready(..) => copy.ready = true,
                        RuntimeEvent::Warning(..)
                        | RuntimeEvent::Waits(..)
                        | RuntimeEvent::Exited(..) => {}
                    }
                    self.feed(Event::Runtime(event));
                }
            }
            Happening::Crash(id) => {
                if let Some(copy) = self.runtime.alive.remove(&id) {
                    self.checks.void_permits(id);
                    if !copy.told_to_end {
                        self.checks.crashed(id);
                    }
                    let report = exit("it exited");
                    self.feed(Event::Runtime(RuntimeEvent::Exited(id, report)));
                }
            }
        }
    }

    fn view(&mut self, to: ActivatorId, epoch: u64, event: ViewEvent) {
        let Some(activator) = self.activators.get_mut(&to) else {
            return;
        };
        if epoch < activator.epoch {
            self.checks.counts.old_views += 1;
        }
        let leased: Vec<_> = activator.leased().collect();
        let acks = activator.apply(epoch, event, self.now);
        for id in leased {
            let kept = activator.leases(id) > 0 || self.checks.is_excused(id);
            assert!(kept, "the exchanges on {id:?} were cut by the view");
        }
        if std::mem::take(&mut activator.is_new_to_leader) {
            let after = self.lag();
            self.later(after, Act::Restate(to));
        }
        for ack in acks {
            self.send_ack(ack);
        }
    }

    fn send_ack(&mut self, ack: DrainAck) {
        if !self.reaches(ack.activator) {
            return;
        }
        for _ in 0..self.copies() {
            let after = self.lag();
            self.later(after, Act::Core(Event::Ack(ack.clone())));
        }
    }

    fn report(&mut self, from: ActivatorId, full: bool, only: Option<InstanceId>) {
        let Some(activator) = self.activators.get_mut(&from) else {
            return;
        };
        if activator.pod.is_some() && !activator.listens {
            return;
        }
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

fn settings(seed: u64, epoch: u64) -> Settings {
    Settings {
        max_instances: 10,
        max_waiters: 1_000,
        records: RecordLimits::default(),
        epoch,
        unix_now: UNIX,
        seed: seed + epoch,
    }
}

fn principal_of(tenant: &TenantName, who: &str) -> Principal {
    Principal::new("keys", tenant.clone(), who)
}
