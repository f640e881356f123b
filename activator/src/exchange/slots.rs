//! Which instance last served a slot of exchanges without session: a hint that saves the claim.
//!
//! Never trusted: a lease on the instance decides. Bounded; forgetting costs a claim.

use dashmap::DashMap;
use mcp_gateway_api::{ids::InstanceId, slot::SlotKey};

use crate::caller::Caller;

/// Most slots remembered.
const MOST: usize = 16_384;

/// The hints.
#[derive(Default)]
pub(crate) struct Slots(DashMap<SlotKey, InstanceId>);

impl Slots {
    /// The instance that last served a slot.
    pub(crate) fn get(&self, slot: &SlotKey) -> Option<InstanceId> {
        self.0.get(slot).map(|found| *found)
    }

    /// A claim for the slot was answered with this instance.
    pub(crate) fn learn(&self, slot: SlotKey, instance: InstanceId) {
        if self.0.len() >= MOST {
            self.0.clear();
        }
        self.0.insert(slot, instance);
    }

    /// Forgets instances that `known` no longer confirms.
    pub(crate) fn retain(&self, known: impl Fn(InstanceId) -> bool) {
        self.0.retain(|_slot, instance| known(*instance));
    }
}

/// The slot of a caller's exchanges without session.
pub(crate) fn slot_of(caller: &Caller) -> SlotKey {
    SlotKey::of(
        &caller.backend.name,
        caller.backend.policy.isolation,
        &caller.principal.tenant,
        caller.principal.id,
        None,
    )
}
