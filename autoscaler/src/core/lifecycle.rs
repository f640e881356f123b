//! Acting on slots and instances: carries out what the planner decides, moves the two state machines together, and
//! leaves nothing behind.
//!
//! Invariants: every change of an instance's phase goes through `advance`; every end goes through `bury`. A slot that
//! changes is poked, which is the only place where anything is launched.

use std::{borrow::Cow, sync::Arc};

use mcp_gateway_api::{failure::ExitReport, ids::InstanceId, view::Endpoint};
use mcp_gateway_runtime::{Farewell, LaunchOrder, Launched, RuntimeEvent};

use super::{
    Core, SlotId, Ticket,
    claims::no_room,
    event::{Effect, Note},
    instance::{Input, Instance, Phase},
    planner::{FAREWELL_GRACE, LAUNCH_DEADLINE, Room, SlotFacts, SlotPlan, plan_slot},
    slot::{self, SlotInput},
    timers::Timer,
};

/// Most sentences kept for the operator of each instance.
const MAX_WARNINGS: usize = 8;

impl Core {
    /// Has the planner look at a slot, and does what it says.
    pub(super) fn poke(&mut self, id: SlotId) {
        while let Some(facts) = self.slot_facts(id) {
            let plan = plan_slot(&facts, self.now);
            if plan != SlotPlan::AwaitRoom {
                self.unstarve(id);
            }
            let why = plan.why(&facts);
            match plan {
                SlotPlan::Rest(at) => {
                    if let Some(slot) = self.slots.get_mut(&id) {
                        self.timers.set(&mut slot.alarm, at, Timer::Slot(id));
                    }
                    return;
                }
                SlotPlan::Launch => self.launch(id, why),
                SlotPlan::AwaitRoom => {
                    if let Some(slot) = self.slots.get_mut(&id) {
                        slot.starved = true;
                        self.starved.insert(id);
                        self.timers.set(&mut slot.alarm, None, Timer::Slot(id));
                    }
                    return;
                }
                SlotPlan::AwaitView => {
                    if let Some(slot) = self.slots.get_mut(&id) {
                        self.timers.set(&mut slot.alarm, None, Timer::Slot(id));
                    }
                    return;
                }
                SlotPlan::Refuse(_) => {
                    let waiters = self.slots.get(&id).map(|slot| slot.waiters.clone());
                    for waiter in waiters.unwrap_or_default() {
                        self.answer(waiter, Err(no_room(&why)));
                    }
                }
                SlotPlan::CancelStart => match facts.phase.current() {
                    Some(ticket) => self.advance(ticket, Input::GaveUp, why),
                    None => return,
                },
                SlotPlan::Forgive => {
                    if let Some(slot) = self.slots.get_mut(&id) {
                        slot.phase = slot::step(slot.phase, SlotInput::Forgive);
                        slot.failures = 0;
                    }
                }
                SlotPlan::Forget => self.remove_slot(id),
            }
        }
    }

    fn slot_facts(&self, id: SlotId) -> Option<SlotFacts> {
        let slot = self.slots.get(&id)?;
        // What was found is not a start to be cancelled, before everybody has been heard or when it serves already.
        let current = slot.phase.current().and_then(|t| self.instances.get(&t));
        let starts = current.is_none_or(|one| one.phase != Phase::Adopted && !one.is_unfenced());
        let cancellable = slot.waiters.is_empty() && self.takeover.is_none() && starts;
        Some(SlotFacts {
            phase: slot.phase,
            waiting: slot.waiters.len(),
            room: self.room(id),
            cancel_at: slot.cancel_at.filter(|_| cancellable),
            leaving: !slot.leaving.is_empty(),
        })
    }

    fn room(&self, id: SlotId) -> Room {
        let Some(slot) = self.slots.get(&id) else {
            return Room::NoSlots;
        };
        if self.takeover.is_some() {
            return Room::Unheard;
        }
        let limit = self
            .catalog
            .get(slot.backend())
            .map_or(0, |backend| backend.policy.max_slots as usize);
        let occupied = self.tallies.get(slot.backend()).map_or(0, |t| t.occupied);
        if !slot.occupied && occupied >= limit {
            return Room::NoSlots;
        }
        if self.instances.len() < self.settings.max_instances {
            return Room::Free;
        }
        let before = self.starved.len() - usize::from(slot.starved);
        if self.ending > before {
            Room::Soon
        } else {
            Room::NoInstances
        }
    }

    fn unstarve(&mut self, id: SlotId) {
        if self.starved.remove(&id)
            && let Some(slot) = self.slots.get_mut(&id)
        {
            slot.starved = false;
        }
    }

    fn remove_slot(&mut self, id: SlotId) {
        self.withdraw_offer(id);
        let Some(mut slot) = self.slots.remove(&id) else {
            return;
        };
        self.timers.set(&mut slot.alarm, None, Timer::Slot(id));
        self.by_key.remove(&slot.key);
        self.drop_marks(&slot.key, std::mem::take(&mut slot.marks));
        if let Some(tally) = self.tallies.get_mut(slot.backend()) {
            tally.slots.remove(&id);
            if tally.slots.is_empty() && self.catalog.get(slot.backend()).is_none() {
                self.tallies.remove(slot.backend());
            }
        }
    }

    fn launch(&mut self, id: SlotId, why: Cow<'static, str>) {
        let ticket = Ticket(self.next_id());
        let Some(slot) = self.slots.get_mut(&id) else {
            return;
        };
        let Some(backend) = self.catalog.get(&slot.key.backend) else {
            return;
        };
        let from = slot.phase.label();
        slot.phase = slot::step(slot.phase, SlotInput::Launch(ticket));
        let order = LaunchOrder {
            backend: Arc::clone(backend),
            slot: slot.key.clone(),
            tenant: slot.tenant.clone(),
        };
        let instance = Instance::launching(id, &order, self.now);
        self.instances.insert(ticket, instance);
        self.in_flight.insert(ticket);
        let name = order.backend.name.clone();
        let order = Box::new(order);
        self.out.push(Effect::Launch { ticket, order });
        if let Some(tally) = self.tallies.get_mut(&name) {
            tally.starts += 1;
        }
        self.note_phase(ticket, None, Some(Phase::Launching));
        self.tell_transition(ticket, from, Phase::Launching.label(), &why);
        self.set_alarm(ticket, Some(self.now + LAUNCH_DEADLINE));
        self.count_occupied(id);
    }

    pub(super) fn launched(&mut self, ticket: Ticket, outcome: Result<Launched, ExitReport>) {
        if !self.in_flight.remove(&ticket) {
            return;
        }
        match outcome {
            Ok(launched) => {
                let id = launched.instance;
                if let Some(instance) = self.instances.get_mut(&ticket) {
                    instance.launched = Some(launched);
                    instance.stages.created = Some(self.now);
                    self.by_id.insert(id, ticket);
                    self.advance(ticket, Input::Created, "the runtime made it".into());
                    for event in self.strays.claim(id) {
                        self.runtime(event);
                    }
                }
            }
            Err(report) => {
                // Who waits now waits for another launch, if this one was given up.
                let awaited = self.instances.get(&ticket);
                if awaited.is_some_and(|instance| instance.phase == Phase::Launching) {
                    self.start_failed(ticket, &report, true);
                }
                self.advance(ticket, Input::Exited, "it could not be launched".into());
            }
        }
        let earliest = self.in_flight.first().copied();
        for orphan in self.strays.settle(earliest) {
            self.end_unknown(orphan);
        }
    }

    pub(super) fn runtime(&mut self, event: RuntimeEvent) {
        let id = match &event {
            RuntimeEvent::Running(id)
            | RuntimeEvent::Ready(id, _)
            | RuntimeEvent::Warning(id, _)
            | RuntimeEvent::Waits(id, _)
            | RuntimeEvent::Exited(id, _) => *id,
        };
        let Some(ticket) = self.by_id.get(&id).copied() else {
            self.unknown(id, event);
            return;
        };
        match event {
            RuntimeEvent::Running(_) => self.running(ticket),
            RuntimeEvent::Ready(_, endpoint) => self.accepts(ticket, endpoint),
            RuntimeEvent::Warning(_, text) => {
                if let Some(instance) = self.instances.get_mut(&ticket)
                    && instance.warnings.len() < MAX_WARNINGS
                {
                    instance.warnings.push(text);
                }
            }
            RuntimeEvent::Waits(_, what) => {
                if let Some(instance) = self.instances.get_mut(&ticket) {
                    instance.waits_for = what;
                }
            }
            RuntimeEvent::Exited(_, report) => self.exited(ticket, report),
        }
    }

    fn unknown(&mut self, id: InstanceId, event: RuntimeEvent) {
        let exited = matches!(event, RuntimeEvent::Exited(..));
        // Perhaps the answer of its launch is still on its way; and nothing ends before everybody has been heard.
        let unheard = self.takeover.as_ref().map(|_| Ticket(self.last_id));
        let kept = match self.in_flight.last().copied().or(unheard) {
            Some(last) => self.strays.keep(id, last, event),
            None => false,
        };
        if !kept && !exited {
            self.end_unknown(id);
        }
    }

    pub(super) fn end_unknown(&mut self, id: InstanceId) {
        let grace = FAREWELL_GRACE;
        self.out.push(Effect::Terminate(id, Farewell { grace }));
    }

    fn running(&mut self, ticket: Ticket) {
        let Some(instance) = self.instances.get_mut(&ticket) else {
            return;
        };
        if instance.phase != Phase::Starting || instance.stages.running.is_some() {
            return;
        }
        instance.stages.running = Some(self.now);
        let deadline = self.now + instance.backend.policy.start_timeout;
        self.set_alarm(ticket, Some(deadline));
    }

    pub(super) fn accepts(&mut self, ticket: Ticket, endpoint: Endpoint) {
        let Some(instance) = self.instances.get_mut(&ticket) else {
            return;
        };
        if instance.phase != Phase::Starting && instance.phase != Phase::Doomed {
            return;
        }
        instance.endpoint = Some(endpoint);
        instance.stages.ready = Some(self.now);
        if instance.is_unfenced() {
            return self.accepts_unfenced(ticket);
        }
        // Those who wait are given it in this very step; a tiny `idleTimeout` must not drain it before.
        instance.usage.touch(self.now);
        let backend = instance.backend.name.clone();
        let cost = instance.stages.cost(instance.stages.asked);
        let took = instance.stages.total().unwrap_or_default();
        let slot_id = instance.slot;
        // What failed before is over, and nobody is to be told that starts fail.
        let tally = self.tallies.get_mut(&backend);
        if let Some(last) = tally.and_then(|tally| tally.last_failure.as_mut()) {
            last.in_a_row = 0;
        }
        self.note(Note::ColdStart { backend, cost });
        self.advance(ticket, Input::Accepts, format!("after {took:.0?}").into());
        let Some(slot) = self.slots.get_mut(&slot_id) else {
            return;
        };
        slot.phase = slot::step(slot.phase, SlotInput::Ready(ticket));
        let waiters = slot.waiters.clone();
        self.place_all(waiters);
        self.poke(slot_id);
    }

    /// One that was found accepts requests: whether it may be leased is another matter.
    fn accepts_unfenced(&mut self, ticket: Ticket) {
        self.set_alarm(ticket, None);
        self.advance(ticket, Input::Found, "it accepts requests".into());
        let slot = self.instances.get(&ticket).map(|i| i.slot);
        let slot = slot.and_then(|id| self.slots.get(&id));
        if self.takeover.is_none() || slot.is_some_and(|slot| !slot.waiters.is_empty()) {
            self.mark(ticket);
        }
    }

    fn exited(&mut self, ticket: Ticket, report: ExitReport) {
        let Some(instance) = self.instances.get(&ticket) else {
            return;
        };
        match instance.phase {
            Phase::Starting => self.start_failed(ticket, &report, false),
            Phase::Ready => self.crashed(ticket, &report),
            Phase::Launching
            | Phase::Abandoned
            | Phase::Adopted
            | Phase::Doomed
            | Phase::IdleDraining
            | Phase::Retiring
            | Phase::Cut
            | Phase::Stopping => self.add_last_words(ticket, &report),
        }
        self.advance(ticket, Input::Exited, report.summary.into());
    }

    /// An instance's alarm rings: what that means depends on where it is.
    pub(super) fn instance_alarm(&mut self, ticket: Ticket) {
        let Some(instance) = self.instances.get(&ticket) else {
            return;
        };
        if self.takeover.is_some() {
            // Nothing ends before everybody has been heard; then the alarms are set anew.
            return;
        }
        match instance.phase {
            Phase::Launching | Phase::Starting => self.too_slow(ticket),
            Phase::Ready => self.check_idle(ticket),
            Phase::Retiring => {
                let leases = instance.usage.leases();
                self.note(Note::Cut(instance.key.backend.clone(), leases));
                self.advance(ticket, Input::CutDue, "its drain took too long".into());
            }
            Phase::Cut => self.advance(ticket, Input::CutDue, "it was not let go of".into()),
            Phase::Stopping => self.advance(ticket, Input::GaveUp, "it is still there".into()),
            Phase::Abandoned | Phase::Adopted | Phase::Doomed | Phase::IdleDraining => {}
        }
    }
}
