//! Making what was found this leader's own: its place, and the fence against older orders.
//!
//! Invariant: what was found is open for leases only once it is fenced ([`super`]).

use mcp_gateway_api::{ids::InstanceId, slot::SlotKey};

use crate::core::{
    Core, SlotId, Ticket,
    event::Effect,
    instance::{Input, Instance, Phase, Retirement},
    slot::{self, SlotInput, SlotPhase},
};

impl Core {
    /// The runtime found an instance under the name its slot had at the launch; the slot may have become a session's, or
    /// a principal's, since.
    pub(in crate::core) fn reseat(&mut self, ticket: Ticket, key: &SlotKey) {
        let Some(instance) = self.instances.get(&ticket) else {
            return;
        };
        let (old, tenant) = (instance.slot, instance.tenant.clone());
        let is_current = self.slots.get(&old).and_then(|s| s.phase.current()) == Some(ticket);
        if !is_current || instance.key == *key || instance.key.backend != key.backend {
            return;
        }
        let new = match self.by_key.get(key) {
            Some(id) => *id,
            None => self.add_slot(key.clone(), tenant),
        };
        // Somebody else has it: this one is found under the old name, and idles out there.
        if self
            .slots
            .get(&new)
            .is_none_or(|s| s.phase.current().is_some())
        {
            return;
        }
        let mut served = SlotInput::Launch(ticket);
        if let Some(slot) = self.slots.get_mut(&old) {
            if matches!(slot.phase, SlotPhase::Serving(_)) {
                served = SlotInput::Ready(ticket);
            }
            slot.phase = slot::step(slot.phase, SlotInput::Leave(ticket));
        }
        if let Some(slot) = self.slots.get_mut(&new) {
            slot.phase = slot::step(slot.phase, SlotInput::Launch(ticket));
            slot.phase = slot::step(slot.phase, served);
        }
        if let Some(instance) = self.instances.get_mut(&ticket) {
            instance.slot = new;
        }
        self.rename(ticket, key.clone());
        self.count_occupied(old);
        self.count_occupied(new);
        self.poke(old);
        self.seat_waiters(new);
    }

    fn seat_waiters(&mut self, slot: SlotId) {
        let waiters = self.slots.get(&slot).map(|slot| slot.waiters.clone());
        self.place_all(waiters.unwrap_or_default());
        self.poke(slot);
    }

    /// Has the runtime see to it that no older order ends this one, if that is still to be done.
    pub(in crate::core) fn mark(&mut self, ticket: Ticket) {
        let Some(instance) = self.instances.get_mut(&ticket) else {
            return;
        };
        let wanted = match instance.phase {
            Phase::Adopted | Phase::IdleDraining => true,
            Phase::Launching
            | Phase::Abandoned
            | Phase::Starting
            | Phase::Doomed
            | Phase::Ready
            | Phase::Retiring
            | Phase::Cut
            | Phase::Stopping => false,
        };
        let id = instance.id();
        if let (Some(adopted), Some(id), true) = (&mut instance.adopted, id, wanted)
            && !adopted.fenced
            && !adopted.asked
        {
            adopted.asked = true;
            self.out.push(Effect::Mark(id));
        }
    }

    /// The runtime has answered a mark.
    pub(in crate::core) fn marked(&mut self, id: InstanceId, taken: bool) {
        let Some(ticket) = self.by_id.get(&id).copied() else {
            return;
        };
        if taken {
            self.fence(ticket);
        } else if self
            .instances
            .get(&ticket)
            .is_some_and(Instance::is_unfenced)
        {
            self.retire(ticket, Retirement::Ended, None);
        }
    }

    /// No older order can end it: it may be leased.
    pub(in crate::core) fn fence(&mut self, ticket: Ticket) {
        let Some(instance) = self.instances.get_mut(&ticket) else {
            return;
        };
        let slot_id = instance.slot;
        match &mut instance.adopted {
            Some(adopted) if !adopted.fenced => adopted.fenced = true,
            Some(_) | None => return,
        }
        match instance.phase {
            Phase::Adopted | Phase::IdleDraining => {}
            Phase::Launching
            | Phase::Abandoned
            | Phase::Starting
            | Phase::Doomed
            | Phase::Ready
            | Phase::Retiring
            | Phase::Cut
            | Phase::Stopping => return,
        }
        instance.usage.touch(self.now);
        self.advance(ticket, Input::Demand, "it is this leader's now".into());
        if let Some(slot) = self.slots.get_mut(&slot_id) {
            slot.phase = slot::step(slot.phase, SlotInput::Ready(ticket));
        }
        self.seat_waiters(slot_id);
    }
}
