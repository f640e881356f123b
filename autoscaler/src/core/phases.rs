//! Moving an instance through its phases, with all that hangs on it: what activators are told, the drain, the alarm,
//! the slot, the log.
//!
//! Invariants: what activators know of an instance changes only together with its stamp; `Gone` is told once, when its
//! end is ordered or, if it ends by itself, when it has ended.

use std::{borrow::Cow, collections::BTreeSet, sync::Arc};

use mcp_gateway_api::{
    slot::SlotKey,
    view::{Stamp, ViewEvent},
};
use mcp_gateway_runtime::{Farewell, LaunchOrder};
use tokio::time::Instant;

use super::{
    Core, SlotId, Ticket,
    activity::{Drain, Usage},
    event::{Effect, Note, Transition},
    instance::{self, Act, Input, Instance, Next, Phase, Stages},
    planner::{CUT_GRACE, FAREWELL_GRACE, TELL_AGAIN},
    slot::{self, SlotInput, owner_label},
    timers::Timer,
};

impl Instance {
    /// One that the runtime is being asked for.
    pub(super) fn launching(slot: SlotId, order: &LaunchOrder, now: Instant) -> Self {
        Self {
            slot,
            key: order.slot.clone(),
            tenant: order.tenant.clone(),
            backend: Arc::clone(&order.backend),
            phase: Phase::Launching,
            stages: Stages {
                asked: now,
                created: None,
                running: None,
                ready: None,
            },
            launched: None,
            endpoint: None,
            stamp: Stamp::default(),
            usage: Usage::default(),
            drain: None,
            cut_at: None,
            alarm: None,
            permits: BTreeSet::new(),
            warnings: Vec::new(),
            waits_for: None,
            adopted: None,
            forsaken: BTreeSet::new(),
        }
    }
}

impl Core {
    /// Something happens to an instance.
    pub(super) fn advance(&mut self, ticket: Ticket, input: Input, why: Cow<'static, str>) {
        let Some(instance) = self.instances.get(&ticket) else {
            return;
        };
        match instance::step(instance.phase, input) {
            Next::Stay => {}
            Next::To(phase, act) => self.enter(ticket, phase, act, &why),
            Next::Gone => self.bury(ticket, &why),
        }
    }

    fn enter(&mut self, ticket: Ticket, phase: Phase, act: Act, why: &str) {
        let Some(instance) = self.instances.get_mut(&ticket) else {
            return;
        };
        let from = std::mem::replace(&mut instance.phase, phase);
        let slot = instance.slot;
        if from.label() != phase.label() {
            self.tell_transition(ticket, from.label(), phase.label(), why);
        }
        self.note_phase(ticket, Some(from), Some(phase));
        if phase.is_ending() && !from.is_ending() {
            self.ending += 1;
        }
        let orphans = if from.is_current() && !phase.is_current() {
            self.leave_slot(ticket, slot, from);
            self.void_permits(ticket)
        } else {
            BTreeSet::new()
        };
        match act {
            Act::Nothing => {}
            Act::Publish => self.publish_instance(ticket),
            Act::Depart => {
                self.publish_gone(ticket, why);
                self.terminate(ticket);
            }
            Act::Terminate => self.terminate(ticket),
        }
        self.rearm(ticket, phase);
        self.count_occupied(slot);
        self.place_all(orphans);
        if from.is_current() && !phase.is_current() {
            self.poke(slot);
        }
        self.finish_drain(ticket);
    }

    /// Sets the alarm that belongs to a phase; a start keeps the one it has.
    pub(super) fn rearm(&mut self, ticket: Ticket, phase: Phase) {
        match phase {
            Phase::Launching | Phase::Starting => {}
            Phase::Ready => self.check_idle(ticket),
            Phase::Abandoned | Phase::Adopted | Phase::Doomed | Phase::IdleDraining => {
                self.set_alarm(ticket, None);
            }
            Phase::Retiring => {
                let cut = self.instances.get(&ticket).and_then(|i| i.cut_at);
                self.set_alarm(ticket, cut);
            }
            Phase::Cut => self.set_alarm(ticket, Some(self.now + CUT_GRACE)),
            Phase::Stopping => self.set_alarm(ticket, Some(self.now + TELL_AGAIN)),
        }
    }

    /// The slot has no current instance any more; what it was runs on beside.
    fn leave_slot(&mut self, ticket: Ticket, slot: SlotId, from: Phase) {
        let Some(slot) = self.slots.get_mut(&slot) else {
            return;
        };
        slot.phase = slot::step(slot.phase, SlotInput::Leave(ticket));
        slot.leaving.insert(ticket);
        match from {
            // It has served and is let go in peace.
            Phase::Ready | Phase::IdleDraining => slot.failures = 0,
            Phase::Launching
            | Phase::Abandoned
            | Phase::Starting
            | Phase::Adopted
            | Phase::Doomed
            | Phase::Retiring
            | Phase::Cut
            | Phase::Stopping => {}
        }
    }

    /// It is gone: nothing of it is kept.
    fn bury(&mut self, ticket: Ticket, why: &str) {
        let orphans = self.void_permits(ticket);
        let Some(instance) = self.instances.get(&ticket) else {
            return;
        };
        let (slot_id, from) = (instance.slot, instance.phase);
        // Activators may know one that was found from an earlier leader.
        let foreign = instance.adopted.is_some() && instance.stamp == Stamp::default();
        if from.service().is_some() || foreign {
            self.publish_gone(ticket, why);
        }
        let successor = self
            .slots
            .get(&slot_id)
            .and_then(|slot| slot.phase.current());
        let to = if successor.is_none_or(|current| current == ticket) {
            "cold"
        } else {
            "gone"
        };
        // A failure has already been told, with what it leads to.
        if from.is_ending() || from.service().is_some() && from != Phase::Ready {
            self.tell_transition(ticket, from.label(), to, why);
        }
        self.note_phase(ticket, Some(from), None);
        self.set_alarm(ticket, None);
        if from.is_ending() {
            self.ending -= 1;
        }
        if let Some(instance) = self.instances.remove(&ticket)
            && let Some(id) = instance.id()
            && self.by_id.get(&id) == Some(&ticket)
        {
            self.by_id.remove(&id);
        }
        for activator in self.activators.values_mut() {
            activator.leasing.remove(&ticket);
        }
        if let Some(slot) = self.slots.get_mut(&slot_id) {
            slot.phase = slot::step(slot.phase, SlotInput::Leave(ticket));
            slot.leaving.remove(&ticket);
        }
        self.count_occupied(slot_id);
        self.place_all(orphans);
        self.poke(slot_id);
        for starved in self.starved.clone() {
            self.poke(starved);
        }
    }

    pub(super) fn terminate(&mut self, ticket: Ticket) {
        let grace = self.shutdown.unwrap_or(FAREWELL_GRACE);
        if let Some(id) = self.instances.get(&ticket).and_then(Instance::id) {
            self.out.push(Effect::Terminate(id, Farewell { grace }));
        }
    }

    fn publish_instance(&mut self, ticket: Ticket) {
        let stamp = self.next_stamp();
        let activators: Vec<_> = self.activators.keys().copied().collect();
        let Some(instance) = self.instances.get_mut(&ticket) else {
            return;
        };
        instance.stamp = stamp;
        instance.drain = match instance.phase {
            Phase::IdleDraining | Phase::Retiring | Phase::Cut => {
                let awaited = activators.into_iter();
                Some(Drain::new(
                    stamp,
                    awaited.filter(|id| !instance.forsaken.contains(id)),
                ))
            }
            Phase::Launching
            | Phase::Abandoned
            | Phase::Starting
            | Phase::Adopted
            | Phase::Doomed
            | Phase::Ready
            | Phase::Stopping => None,
        };
        if let Some(view) = instance.view() {
            self.publish(ViewEvent::Instance(view));
        }
    }

    fn publish_gone(&mut self, ticket: Ticket, why: &str) {
        let stamp = self.next_stamp();
        let Some(instance) = self.instances.get_mut(&ticket) else {
            return;
        };
        instance.stamp = stamp;
        instance.drain = None;
        if let Some(id) = instance.id() {
            self.publish(ViewEvent::Gone {
                instance: id,
                why: why.into(),
                stamp,
            });
        }
    }

    /// An instance belongs to a slot of another name from now on.
    pub(super) fn rename(&mut self, ticket: Ticket, key: SlotKey) {
        let Some(instance) = self.instances.get_mut(&ticket) else {
            return;
        };
        instance.key = key;
        match instance.phase {
            // A drain that is renamed is a new drain, to be acknowledged anew.
            Phase::Ready | Phase::IdleDraining | Phase::Retiring | Phase::Cut => {
                self.publish_instance(ticket);
                self.finish_drain(ticket);
            }
            Phase::Launching
            | Phase::Abandoned
            | Phase::Starting
            | Phase::Adopted
            | Phase::Doomed
            | Phase::Stopping => {}
        }
    }

    pub(super) fn set_alarm(&mut self, ticket: Ticket, at: Option<Instant>) {
        if let Some(instance) = self.instances.get_mut(&ticket) {
            self.timers
                .set(&mut instance.alarm, at, Timer::Instance(ticket));
        }
    }

    /// Counts a slot as occupied while an instance of it is not ending.
    pub(super) fn count_occupied(&mut self, id: SlotId) {
        let Some(slot) = self.slots.get_mut(&id) else {
            return;
        };
        let serves = |ticket: &Ticket| {
            let instance = self.instances.get(ticket);
            instance.is_some_and(|instance| !instance.phase.is_ending())
        };
        let occupied = slot.phase.current().is_some() || slot.leaving.iter().any(serves);
        if occupied == slot.occupied {
            return;
        }
        slot.occupied = occupied;
        if let Some(tally) = self.tallies.get_mut(&slot.key.backend) {
            if occupied {
                tally.occupied += 1;
            } else {
                tally.occupied -= 1;
            }
        }
    }

    pub(super) fn note_phase(&mut self, ticket: Ticket, from: Option<Phase>, to: Option<Phase>) {
        if let Some(instance) = self.instances.get(&ticket) {
            let backend = instance.key.backend.clone();
            self.note(Note::Phase { backend, from, to });
        }
    }

    pub(super) fn tell_transition(
        &mut self,
        ticket: Ticket,
        from: &'static str,
        to: &'static str,
        why: &str,
    ) {
        if let Some(instance) = self.instances.get(&ticket) {
            let transition = Transition {
                backend: instance.key.backend.clone(),
                owner: owner_label(&instance.key.owner),
                instance: instance.id(),
                from,
                to,
                why: why.to_owned(),
                trouble: false,
                private: None,
            };
            self.tell(transition);
        }
    }
}
