//! Those who wait: where each is seated, how it is answered, what it leaves behind.
//!
//! Invariants: a waiter is in exactly one place and is answered exactly once, at the latest when its budget has passed.
//! However many wait for a slot, one launch is made for it. Whenever what a waiter waits for changes (ready, failed,
//! edited, revived) it is placed anew from its own request, so there is one way to be seated and no second opinion.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use mcp_gateway_api::{
    claim::{ClaimRequest, Claimed, Purpose, Standing},
    failure::{Failure, FailureKind},
    ids::{SessionKey, TenantName},
    policy::Isolation,
    slot::SlotKey,
};
use tokio::time::Instant;

use super::{
    Core, SlotId, Ticket, WaiterId,
    event::{Effect, Note},
    instance::{Input, Phase},
    planner::{CANCEL_GRACE, ROOM_RETRY},
    revival::Whereabouts,
    slot::{Slot, SlotPhase},
    timers::Timer,
};

/// Longest budget that is honoured.
const MAX_BUDGET: Duration = Duration::from_secs(24 * 3600);
/// When to come back after a hold, if nothing better is known.
pub(super) const HOLD_RETRY: Duration = Duration::from_secs(5);

/// Where a waiter waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Nowhere yet.
    Arriving,
    /// For the slot's instance.
    Slot(SlotId),
    /// For somebody else's revival of its session.
    Revival(SessionKey),
}

/// One who waits.
#[derive(Debug)]
pub(super) struct Waiter {
    pub(super) request: Arc<ClaimRequest>,
    pub(super) fresh: SessionKey,
    pub(super) arrived: Instant,
    pub(super) deadline: Instant,
    alarm: Option<Instant>,
    pub(super) place: Place,
    /// The slot that an `initialize` was given, or that was taken from under a probe for one: it gets the same one when
    /// it is placed anew.
    pub(super) assigned: Option<SlotId>,
    /// It has waited for a start.
    cold: bool,
}

impl Core {
    pub(super) fn claim(&mut self, id: WaiterId, request: ClaimRequest, fresh: SessionKey) {
        let deadline = self.now + request.budget.min(MAX_BUDGET);
        let backend = request.backend.clone();
        let waiter = Waiter {
            request: Arc::new(request),
            fresh,
            arrived: self.now,
            deadline,
            alarm: None,
            place: Place::Arriving,
            assigned: None,
            cold: false,
        };
        let full = self.waiters.len() >= self.settings.max_waiters;
        self.waiters.insert(id, waiter);
        if let Some(waiter) = self.waiters.get_mut(&id) {
            self.timers
                .set(&mut waiter.alarm, Some(deadline), Timer::Waiter(id));
        }
        self.count_waiting(&backend, 1);
        if full {
            let failure = Failure::new(FailureKind::Overloaded, "Too many requests are waiting.");
            self.answer(id, Err(failure.retry_after(HOLD_RETRY)));
        } else {
            self.place(id);
        }
    }

    /// Seats a waiter by its request, as if it had just come.
    pub(super) fn place(&mut self, id: WaiterId) {
        let Some(request) = self.waiters.get(&id).map(|w| Arc::clone(&w.request)) else {
            return;
        };
        let before = self.unseat(id);
        let seat = self.seat(id, &request);
        match seat {
            Ok(slot) => self.wait(id, slot, &request),
            Err(failure) => self.answer(id, Err(failure)),
        }
        if let Some(old) = before {
            self.poke(old);
        }
    }

    /// Seats all of them, in arrival order.
    pub(super) fn place_all(&mut self, ids: BTreeSet<WaiterId>) {
        for id in ids {
            self.place(id);
        }
    }

    /// Which slot a claim is for; a failure if it is for none.
    fn seat(&mut self, id: WaiterId, request: &ClaimRequest) -> Result<SlotId, Failure> {
        if self.shutdown.is_some() {
            return Err(shutting_down());
        }
        let Some(backend) = self.backend(&request.backend) else {
            return Err(unknown_backend(request));
        };
        let isolation = backend.policy.isolation;
        let session = match &request.purpose {
            Purpose::Initialize
                if isolation == Isolation::Session && !self.is_sessionless(&request.backend) =>
            {
                return Ok(self.provisional_slot(id, request));
            }
            Purpose::Session { session, bound } => {
                let key = slot_key(request, isolation, Some(session.key));
                match self.whereabouts(session, *bound, &key, &backend) {
                    Whereabouts::Gone(failure) => return Err(failure),
                    Whereabouts::There | Whereabouts::Lost => {}
                }
                Some(session.key)
            }
            Purpose::Probe if isolation == Isolation::Session => {
                match self.waiters.get(&id).and_then(|w| w.assigned) {
                    Some(slot) if self.slots.contains_key(&slot) => return Ok(slot),
                    Some(_) | None => None,
                }
            }
            Purpose::Initialize | Purpose::Exchange | Purpose::Probe => None,
        };
        Ok(self.slot_of(slot_key(request, isolation, session), request))
    }

    fn slot_of(&mut self, key: SlotKey, request: &ClaimRequest) -> SlotId {
        let only_probes = request.purpose == Purpose::Probe;
        let known = self.by_key.get(&key).copied();
        let id = known.unwrap_or_else(|| self.add_slot(key, request.tenant.clone()));
        if let Some(slot) = self.slots.get_mut(&id) {
            let untouched = known.is_none() || slot.probed.is_some();
            slot.probed = (only_probes && untouched).then_some(self.now);
        }
        id
    }

    pub(super) fn add_slot(&mut self, key: SlotKey, tenant: TenantName) -> SlotId {
        let id = SlotId(self.next_id());
        let tally = self.tallies.entry(key.backend.clone()).or_default();
        tally.slots.insert(id);
        self.by_key.insert(key.clone(), id);
        self.slots.insert(id, Slot::new(key, tenant));
        id
    }

    fn wait(&mut self, id: WaiterId, slot_id: SlotId, request: &ClaimRequest) {
        let (Some(waiter), Some(slot)) = (self.waiters.get_mut(&id), self.slots.get_mut(&slot_id))
        else {
            return;
        };
        waiter.place = Place::Slot(slot_id);
        slot.waiters.insert(id);
        slot.cancel_at = None;
        match slot.phase {
            SlotPhase::Serving(ticket) => self.serve(id, slot_id, ticket),
            SlotPhase::Backoff { until } if until > waiter.deadline => {
                let failure = self.start_failure(slot_id, until);
                self.answer(id, Err(failure));
            }
            SlotPhase::Cold | SlotPhase::Starting(_) | SlotPhase::Backoff { .. } => {
                waiter.cold = true;
                match slot.phase.current() {
                    Some(ticket) => self.mark(ticket),
                    None => slot.tenant = request.tenant.clone(),
                }
                self.poke(slot_id);
            }
        }
    }

    /// Answers with an instance that is ready (or brought back from its idle drain).
    fn serve(&mut self, id: WaiterId, slot: SlotId, ticket: Ticket) {
        let phase = self.instances.get(&ticket).map(|i| i.phase);
        if phase == Some(Phase::IdleDraining) {
            self.advance(ticket, Input::Demand, "somebody asks for it".into());
        }
        let Some(waiter) = self.waiters.get(&id) else {
            return;
        };
        let request = Arc::clone(&waiter.request);
        let fresh = waiter.fresh;
        let (session, standing) = match &request.purpose {
            Purpose::Session { session, bound } => {
                match self.standing(id, session, *bound, ticket) {
                    Some(standing) => (None, standing),
                    None => return,
                }
            }
            Purpose::Initialize => (Some(self.hand_over(slot, fresh)), Standing::Fresh),
            Purpose::Exchange | Purpose::Probe => (None, Standing::Fresh),
        };
        let Some(instance) = self.instances.get_mut(&ticket) else {
            return;
        };
        instance.usage.touch(self.now);
        let Some(view) = instance.view() else {
            return;
        };
        let waiter = self.waiters.get(&id).filter(|waiter| waiter.cold);
        let cold = waiter.map(|waiter| instance.stages.cost(waiter.arrived));
        let claimed = Claimed {
            session,
            instance: view,
            standing,
            cold,
        };
        self.answer(id, Ok(Box::new(claimed)));
        self.check_idle(ticket);
    }

    /// Answers a waiter, once and for all.
    pub(super) fn answer(&mut self, id: WaiterId, answer: Result<Box<Claimed>, Failure>) {
        if self.remove_waiter(id).is_some() {
            self.out.push(Effect::Answer { waiter: id, answer });
        }
    }

    fn remove_waiter(&mut self, id: WaiterId) -> Option<Waiter> {
        self.unseat(id);
        let mut waiter = self.waiters.remove(&id)?;
        self.timers.set(&mut waiter.alarm, None, Timer::Waiter(id));
        let backend = waiter.request.backend.clone();
        self.count_waiting(&backend, -1);
        Some(waiter)
    }

    /// Takes a waiter from its place; says which slot has lost it.
    pub(super) fn unseat(&mut self, id: WaiterId) -> Option<SlotId> {
        let waiter = self.waiters.get_mut(&id)?;
        match std::mem::replace(&mut waiter.place, Place::Arriving) {
            Place::Arriving => None,
            Place::Slot(slot) => {
                self.slots.get_mut(&slot)?.waiters.remove(&id);
                Some(slot)
            }
            Place::Revival(key) => {
                if let Some(revival) = self.revivals.get_mut(&key) {
                    revival.queue.remove(&id);
                }
                None
            }
        }
    }

    /// A client has left. The last one to leave a session's start cancels it, a little later.
    pub(super) fn withdraw(&mut self, id: WaiterId) {
        let Some(place) = self.waiters.get(&id).map(|waiter| waiter.place) else {
            return;
        };
        self.remove_waiter(id);
        let Place::Slot(slot_id) = place else {
            return;
        };
        if let Some(slot) = self.slots.get_mut(&slot_id)
            && slot.is_session()
            && slot.waiters.is_empty()
        {
            slot.cancel_at = Some(self.now + CANCEL_GRACE);
        }
        self.poke(slot_id);
    }

    /// A budget has passed: the start goes on, and the same client's next try finds it.
    pub(super) fn hold_over(&mut self, id: WaiterId) {
        let Some(waiter) = self.waiters.get(&id) else {
            return;
        };
        let place = waiter.place;
        let slot = match place {
            Place::Slot(slot) => self.slots.get(&slot),
            Place::Arriving | Place::Revival(_) => None,
        };
        let failure = match slot {
            Some(slot) if slot.starved => no_room("the gateway is at its limit of instances"),
            Some(_) | None => self.still_starting(slot),
        };
        self.answer(id, Err(failure));
        if let Place::Slot(slot) = place {
            self.poke(slot);
        }
    }

    fn still_starting(&self, slot: Option<&Slot>) -> Failure {
        let ticket = slot.and_then(|slot| slot.phase.current());
        let instance = ticket.and_then(|ticket| self.instances.get(&ticket));
        let public = match instance.and_then(|instance| instance.waits_for.as_deref()) {
            Some(what) => {
                format!("The server is still starting, and waits: {what}. Try again soon.")
            }
            None => "The server is still starting; try again soon.".to_owned(),
        };
        Failure::new(FailureKind::HoldTimeout, public).retry_after(HOLD_RETRY)
    }

    fn count_waiting(&mut self, backend: &mcp_gateway_api::ids::BackendName, by: i64) {
        // A backend that does not exist is not counted: anybody can name one.
        if self.catalog.get(backend).is_none() && !self.tallies.contains_key(backend) {
            return;
        }
        let tally = self.tallies.entry(backend.clone()).or_default();
        tally.waiting = tally
            .waiting
            .saturating_add_signed(isize::try_from(by).unwrap_or(0));
        self.note(Note::Waiting(backend.clone(), by));
    }
}

/// The slot that a claim is for.
pub(super) fn slot_key(
    request: &ClaimRequest,
    isolation: Isolation,
    session: Option<SessionKey>,
) -> SlotKey {
    let (backend, tenant) = (&request.backend, &request.tenant);
    SlotKey::of(backend, isolation, tenant, request.principal, session)
}

/// The failure of everything that is asked while the gateway stops.
pub(super) fn shutting_down() -> Failure {
    Failure::new(FailureKind::ShuttingDown, "The gateway is shutting down.")
        .retry_after(Duration::from_secs(5))
}

fn unknown_backend(request: &ClaimRequest) -> Failure {
    let sentence = format!("There is no backend named {}.", request.backend);
    Failure::new(FailureKind::UnknownBackend, sentence)
}

/// The failure of a claim for which there is no room.
pub(super) fn no_room(why: &str) -> Failure {
    Failure::new(FailureKind::Capacity, format!("There is no room: {why}.")).retry_after(ROOM_RETRY)
}
