//! Slots for an `initialize` under `session` isolation, before there is a session.
//!
//! Invariants: a provisional slot's key is handed to one asker only (it becomes the nonce of a sealed id); until then
//! every try of the same principal may find the slot again, so a client that retries does not start a second instance.

use std::time::Duration;

use mcp_gateway_api::{
    claim::ClaimRequest,
    ids::{BackendName, SessionKey},
    policy::Isolation,
    principal::PrincipalId,
    record::SessionRef,
    slot::{Owner, SlotKey},
};

use super::{
    Core, SlotId, WaiterId,
    claims::slot_key,
    slot::{Provisional, Slot, SlotPhase},
};

/// A slot that only probes have asked for serves the same owner's `initialize` this long after the last of them.
const PROBE_SERVES: Duration = Duration::from_secs(60);

impl Core {
    /// The slot of an `initialize` under `session` isolation: the one it was given before; one left over by the same
    /// principal; its probes' slot; a new one.
    pub(super) fn provisional_slot(&mut self, id: WaiterId, request: &ClaimRequest) -> SlotId {
        let waiter = self.waiters.get(&id);
        let fresh = waiter.map_or_else(SessionKey::random, |waiter| waiter.fresh);
        let before = waiter.and_then(|waiter| waiter.assigned);
        let slot = before
            .filter(|slot| self.is_untaken(*slot))
            .or_else(|| self.left_over(request))
            .or_else(|| self.probed_slot(request, fresh))
            .unwrap_or_else(|| self.new_provisional(request, fresh));
        if let Some(waiter) = self.waiters.get_mut(&id) {
            waiter.assigned = Some(slot);
        }
        slot
    }

    fn is_untaken(&self, slot: SlotId) -> bool {
        let provisional = self.slots.get(&slot).and_then(|s| s.provisional.as_ref());
        provisional.is_some_and(|provisional| !provisional.handed)
    }

    fn is_offered(&self, slot: SlotId) -> bool {
        let waited_for = self.slots.get(&slot).is_none_or(|s| !s.waiters.is_empty());
        !waited_for && self.is_untaken(slot)
    }

    fn left_over(&self, request: &ClaimRequest) -> Option<SlotId> {
        let offers = self
            .offers
            .get(&(request.backend.clone(), request.principal))?;
        let rank = |slot: &Slot| match slot.phase {
            SlotPhase::Serving(_) => 0,
            SlotPhase::Starting(_) => 1,
            SlotPhase::Backoff { .. } => 2,
            SlotPhase::Cold => 3,
        };
        let free = offers.iter().filter(|id| self.is_offered(**id));
        free.filter_map(|id| self.slots.get(id).map(|slot| (rank(slot), *id)))
            .min()
            .map(|(_, id)| id)
    }

    /// Turns the principal's slot into a session's, if nothing but probes has asked for it lately.
    fn probed_slot(&mut self, request: &ClaimRequest, fresh: SessionKey) -> Option<SlotId> {
        let old = slot_key(request, Isolation::Session, None);
        let id = *self.by_key.get(&old)?;
        let slot = self.slots.get_mut(&id)?;
        let lately = slot.probed.is_some_and(|at| self.now < at + PROBE_SERVES);
        let current = slot.phase.current()?;
        let in_use = |ticket| {
            let instance = self.instances.get(&ticket);
            instance.is_some_and(|instance| instance.usage.leases() > 0)
        };
        if !lately || in_use(current) {
            return None;
        }
        let key = slot_key(request, Isolation::Session, Some(fresh));
        slot.key = key.clone();
        slot.probed = None;
        // The probes that still wait here are answered from here: that is what the start was made for.
        for probe in &slot.waiters {
            if let Some(waiter) = self.waiters.get_mut(probe) {
                waiter.assigned = Some(id);
            }
        }
        self.by_key.remove(&old);
        self.by_key.insert(key.clone(), id);
        self.offer(id, request.principal);
        self.rename(current, key);
        Some(id)
    }

    fn new_provisional(&mut self, request: &ClaimRequest, fresh: SessionKey) -> SlotId {
        // A server that fails for this caller is not started at full speed by calling more often.
        let offers = self
            .offers
            .get(&(request.backend.clone(), request.principal));
        let worst = offers
            .into_iter()
            .flatten()
            .filter_map(|id| self.slots.get(id))
            .filter(|slot| matches!(slot.phase, SlotPhase::Backoff { .. }))
            .max_by_key(|slot| slot.failures)
            .map(|slot| (slot.phase, slot.failures));
        let key = slot_key(request, Isolation::Session, Some(fresh));
        let id = self.add_slot(key, request.tenant.clone());
        if let (Some((phase, failures)), Some(slot)) = (worst, self.slots.get_mut(&id)) {
            slot.phase = phase;
            slot.failures = failures;
        }
        self.offer(id, request.principal);
        id
    }

    fn offer(&mut self, id: SlotId, principal: PrincipalId) {
        let Some(slot) = self.slots.get_mut(&id) else {
            return;
        };
        slot.provisional = Some(Provisional {
            principal,
            handed: false,
        });
        let key = (slot.backend().clone(), principal);
        self.offers.entry(key).or_default().insert(id);
    }

    /// The slot is no longer anybody's for the taking.
    pub(super) fn withdraw_offer(&mut self, id: SlotId) {
        let Some(slot) = self.slots.get_mut(&id) else {
            return;
        };
        let Some(provisional) = slot.provisional.take() else {
            return;
        };
        let key = (slot.backend().clone(), provisional.principal);
        if let Some(offers) = self.offers.get_mut(&key) {
            offers.remove(&id);
            if offers.is_empty() {
                self.offers.remove(&key);
            }
        }
    }

    /// Whether handshakes of this backend are known to make no session.
    pub(super) fn is_sessionless(&self, backend: &BackendName) -> bool {
        self.tallies
            .get(backend)
            .is_some_and(|tally| tally.sessionless)
    }

    /// The server issued no id: the slot started for the handshake is the principal's, whose exchanges will look for
    /// it there. Should the principal have one already, the new one idles out by itself.
    pub(super) fn has_no_session(&mut self, session: &SessionRef, principal: PrincipalId) {
        if let Some(tally) = self.tallies.get_mut(&session.backend) {
            tally.sessionless = true;
        }
        let old = SlotKey {
            backend: session.backend.clone(),
            owner: Owner::Session(session.key),
        };
        let new = SlotKey {
            backend: session.backend.clone(),
            owner: Owner::Principal(principal),
        };
        let Some(id) = self.by_key.get(&old).copied() else {
            return;
        };
        self.withdraw_offer(id);
        if self.by_key.contains_key(&new) {
            return;
        }
        let Some(slot) = self.slots.get_mut(&id) else {
            return;
        };
        slot.key = new.clone();
        let tickets: Vec<_> = slot
            .leaving
            .iter()
            .copied()
            .chain(slot.phase.current())
            .collect();
        self.by_key.remove(&old);
        self.by_key.insert(new.clone(), id);
        for ticket in tickets {
            self.rename(ticket, new.clone());
        }
    }

    /// The session key for an `initialize`: the slot's own while it is provisional.
    pub(super) fn hand_over(&mut self, slot: SlotId, fresh: SessionKey) -> SessionKey {
        let Some(slot) = self.slots.get_mut(&slot) else {
            return fresh;
        };
        match (&slot.key.owner, &mut slot.provisional) {
            (Owner::Session(key), Some(provisional)) => {
                provisional.handed = true;
                *key
            }
            (Owner::Session(_) | Owner::Principal(_) | Owner::Tenant(_) | Owner::Nobody, _) => {
                fresh
            }
        }
    }
}
