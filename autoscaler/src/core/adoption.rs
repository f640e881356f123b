//! Takeover: a new leader's core is made from what the runtime found, and from what activators say.
//!
//! Until every running activator has said everything it knows (`restate`) the view is not complete, and then absence
//! means nothing: nothing is launched, nothing found is terminated, no idle age is counted, what is written of a session
//! waits. What runs goes on being used meanwhile, by what activators were told before.
//!
//! An earlier leader may have ordered the end of what it had drained, and the order may still be on its way. So what was
//! found is opened for leases only once it is *fenced*: an activator still has it open (then the earlier leader cannot
//! have had every acknowledgement), or the runtime has marked it with this leader's epoch, which makes an older order
//! fail. Never: adopts what the runtime did not find; believes an activator in anything but what it was told.

use std::{collections::VecDeque, sync::Arc};

use mcp_gateway_api::{
    backend::Backend,
    catalog::Catalog,
    record::{SessionRecord, SessionRef, SessionUpdate, SharedRecord},
    scaler::Restatement,
    view::{InstanceView, Service, ViewEvent},
};
use mcp_gateway_runtime::{Found, FoundStage, LaunchOrder};
use tokio::time::Instant;

use super::{
    Core, Settings, Ticket, WaiterId,
    instance::{Adopted, Input, Instance, Phase, Retirement},
    planner::{LAUNCH_DEADLINE, PARTITION},
    records::Change,
    slot::{self, SlotInput},
    timers::Timer,
};

mod fence;
mod remnant;

use remnant::remnant;

/// Kept while not everybody has been heard.
#[derive(Debug, Default)]
pub(super) struct Takeover {
    alarm: Option<Instant>,
    /// News of sessions, applied once all records are known.
    news: VecDeque<(u64, SessionUpdate)>,
}

impl Core {
    /// A new leader's core: from what was found in order of creation, oldest first, and the records kept from before.
    /// Its view is complete once [`super::event::Event::Expected`] has named the running activators and each has
    /// restated what it knows, or after ten minutes.
    #[must_use]
    pub fn adopt(
        settings: Settings,
        now: Instant,
        catalog: Arc<Catalog>,
        kept: Vec<SessionRecord>,
        found: Vec<Found>,
    ) -> Self {
        let mut core = Self::new(settings, now, catalog, kept);
        let mut takeover = Takeover::default();
        core.timers
            .set(&mut takeover.alarm, Some(now + PARTITION), Timer::Takeover);
        core.takeover = Some(takeover);
        core.found = found.len();
        // What fits today's documents comes last, so that nothing else takes its slot from it.
        let (fits, other): (Vec<_>, Vec<_>) = found.into_iter().partition(|one| core.fits(one));
        for one in other.into_iter().chain(fits) {
            core.take_in(one);
        }
        core
    }

    /// Whether every running activator has been heard: only then does absence mean anything.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.takeover.is_none()
    }

    fn fits(&self, found: &Found) -> bool {
        let backend = self.catalog.get(&found.backend);
        backend.is_some_and(|backend| backend.generation == found.generation)
    }

    fn take_in(&mut self, found: Found) {
        let (backend, why) = match self.catalog.get(&found.backend) {
            Some(same) if same.generation == found.generation => (Arc::clone(same), None),
            Some(other) => {
                let mut older = Backend::clone(other);
                older.generation = found.generation;
                (Arc::new(older), Some(Retirement::Edited))
            }
            None => {
                let remnant = remnant(found.backend.clone(), found.generation);
                (Arc::new(remnant), Some(Retirement::Deleted))
            }
        };
        let slot_id = match self.by_key.get(&found.slot) {
            Some(id) => *id,
            None => self.add_slot(found.slot.clone(), found.tenant.clone()),
        };
        let order = LaunchOrder {
            backend,
            slot: found.slot,
            tenant: found.tenant,
        };
        let ticket = Ticket(self.next_id());
        let mut instance = Instance::launching(slot_id, &order, self.now);
        instance.stages.created = Some(self.now);
        instance.adopted = Some(Adopted::default());
        self.by_id.insert(found.launched.instance, ticket);
        instance.launched = Some(found.launched);
        instance.phase = match found.stage {
            FoundStage::Starting => Phase::Starting,
            FoundStage::Running => {
                instance.stages.running = Some(self.now);
                Phase::Starting
            }
            FoundStage::Ready(endpoint) => {
                instance.stages.ready = Some(self.now);
                instance.endpoint = Some(endpoint);
                Phase::Adopted
            }
            FoundStage::Ending => Phase::Stopping,
        };
        let phase = instance.phase;
        self.instances.insert(ticket, instance);
        self.note_phase(ticket, None, Some(phase));
        self.tell_transition(ticket, "unknown", phase.label(), "it was found");
        self.seat_found(ticket, phase, why);
    }

    /// Gives one that was found its place in its slot; the older of two makes room.
    fn seat_found(&mut self, ticket: Ticket, phase: Phase, why: Option<Retirement>) {
        let Some(slot_id) = self.instances.get(&ticket).map(|i| i.slot) else {
            return;
        };
        if phase.is_ending() {
            self.ending += 1;
            if let Some(slot) = self.slots.get_mut(&slot_id) {
                slot.leaving.insert(ticket);
            }
            self.count_occupied(slot_id);
            return;
        }
        let older = self.slots.get(&slot_id).and_then(|s| s.phase.current());
        if let Some(older) = older {
            self.retire(older, Retirement::Doubled, None);
        }
        if let Some(slot) = self.slots.get_mut(&slot_id) {
            slot.phase = slot::step(slot.phase, SlotInput::Launch(ticket));
        }
        self.count_occupied(slot_id);
        if let Some(why) = why {
            let limit = self.instances.get(&ticket).map(|i| &i.backend.policy);
            let cut_at = match (why, limit) {
                (Retirement::Deleted, Some(policy)) => Some(self.now + policy.drain_timeout),
                (_, _) => None,
            };
            self.retire(ticket, why, cut_at);
        }
    }

    /// Everything one activator knows. Once the view is complete only its use counts.
    pub(super) fn restated(&mut self, all: &Restatement) {
        let from = all.report.activator;
        if !self.activators.contains_key(&from) {
            return;
        }
        // Said to another leader it says nothing of what has happened since, such as an acknowledgement.
        if all.epoch != self.settings.epoch {
            return;
        }
        self.report(&all.report);
        if self.takeover.is_none() {
            return;
        }
        for record in &all.records {
            self.remember(record);
        }
        for view in &all.instances {
            self.was_told(view);
        }
        for id in &all.gone {
            if let Some(ticket) = self.by_id.get(id).copied() {
                // Its end was told; the order was lost with the leader.
                if let Some(instance) = self.instances.get_mut(&ticket) {
                    instance.forsaken.insert(from);
                    if let Some(drain) = &mut instance.drain {
                        drain.leave(from);
                    }
                }
                self.retire(ticket, Retirement::Ended, None);
            }
        }
        for permit in &all.permits {
            self.permitted(permit.session, permit.instance);
        }
        if let Some(activator) = self.activators.get_mut(&from) {
            activator.restated = true;
        }
        self.check_complete();
    }

    fn remember(&mut self, record: &SharedRecord) {
        let known = self.records.get(&record.key);
        let joined = match known {
            Some(known) => known.as_ref().clone().join(record.as_ref().clone()),
            None => record.as_ref().clone(),
        };
        if record.expires_at <= self.unix_now() || known.is_some_and(|known| **known == joined) {
            return;
        }
        let session = SessionRef {
            key: joined.key,
            backend: joined.backend.clone(),
            tenant: joined.tenant.clone(),
            expires_at: joined.expires_at,
        };
        let ended = joined.ended;
        let joined = Arc::new(joined);
        self.records.restore(joined.as_ref().clone());
        self.persist(Change::Put(Arc::clone(&joined)));
        self.publish(ViewEvent::Record(joined));
        self.watch_expiry();
        if ended {
            self.session_ended(&session);
            self.hang_mark(&session);
        }
    }

    /// What an activator was told of an instance by an earlier leader.
    fn was_told(&mut self, view: &InstanceView) {
        let Some(ticket) = self.by_id.get(&view.id).copied() else {
            return;
        };
        let epoch = self.settings.epoch;
        let Some(instance) = self.instances.get_mut(&ticket) else {
            return;
        };
        let Some(adopted) = instance
            .adopted
            .as_mut()
            .filter(|_| view.stamp.epoch < epoch)
        else {
            return;
        };
        let newest = adopted.told < view.stamp;
        adopted.told = adopted.told.max(view.stamp);
        match instance.phase {
            Phase::Starting | Phase::Doomed => self.accepts(ticket, view.endpoint.clone()),
            Phase::Launching
            | Phase::Abandoned
            | Phase::Adopted
            | Phase::Ready
            | Phase::IdleDraining
            | Phase::Retiring
            | Phase::Cut
            | Phase::Stopping => {}
        }
        if newest {
            self.reseat(ticket, &view.slot);
        }
        match view.service {
            Service::Open => self.fence(ticket),
            Service::IdleDrain => {}
            Service::RetireDrain | Service::Cut => self.retire(ticket, Retirement::Edited, None),
        }
    }

    /// News of a session that have to wait until all that is known of it has been heard; `false` when there are too many.
    pub(super) fn put_off(&mut self, reply: u64, update: &SessionUpdate) -> bool {
        let room = self.settings.max_waiters;
        let Some(takeover) = &mut self.takeover else {
            return false;
        };
        let fits = takeover.news.len() < room;
        if fits {
            takeover.news.push_back((reply, update.clone()));
        }
        fits
    }

    /// Everybody has been heard, or has been waited for long enough: from here on absence means gone.
    pub(super) fn complete(&mut self) {
        let Some(mut takeover) = self.takeover.take() else {
            return;
        };
        self.timers.set(&mut takeover.alarm, None, Timer::Takeover);
        let all: Vec<Ticket> = self.instances.keys().copied().collect();
        for ticket in &all {
            self.judge(*ticket);
        }
        let snapshot = self.snapshot();
        self.publish(snapshot);
        for (reply, update) in takeover.news {
            self.record(reply, &update);
        }
        for orphan in self.strays.settle(None) {
            self.end_unknown(orphan);
        }
        for ticket in all {
            self.finish_drain(ticket);
        }
        let mut waiters: Vec<WaiterId> = self.waiters.keys().copied().collect();
        waiters.sort_unstable();
        self.place_all(waiters.into_iter().collect());
        let slots: Vec<_> = self.slots.keys().copied().collect();
        for slot in slots {
            self.poke(slot);
        }
    }

    /// What the complete view makes of one that was found: alarms that were put off are set, what nobody has open is
    /// drained until it is fenced.
    fn judge(&mut self, ticket: Ticket) {
        let Some(instance) = self.instances.get(&ticket) else {
            return;
        };
        let running = instance.stages.running.is_some();
        let start_timeout = instance.backend.policy.start_timeout;
        let phase = instance.phase;
        match phase {
            Phase::Starting => {
                let limit = if running {
                    start_timeout
                } else {
                    LAUNCH_DEADLINE
                };
                self.set_alarm(ticket, Some(self.now + limit));
            }
            Phase::Adopted => {
                self.mark(ticket);
                self.advance(ticket, Input::Idle, "nobody has it open".into());
            }
            Phase::Doomed => self.advance(ticket, Input::GaveUp, "nobody knows it".into()),
            Phase::Stopping => {
                self.terminate(ticket);
                self.rearm(ticket, phase);
            }
            Phase::Ready | Phase::Retiring | Phase::Cut => self.rearm(ticket, phase),
            Phase::Launching | Phase::Abandoned | Phase::IdleDraining => {}
        }
    }
}
