//! How much may wait: exchanges and their bytes, per slot, per tenant and in the whole gateway.
//!
//! Invariants: what is counted is counted until its guard is dropped; an overflow changes nothing.
//! Never: waits, or decides who goes first.

use std::{collections::HashMap, hash::Hash, sync::Arc};

use mcp_gateway_api::{ids::TenantName, slot::SlotKey};
use parking_lot::Mutex;

/// What waits together: the slot an exchange is held for. An `initialize` under `session` isolation, whose slot is not
/// known yet, waits under its principal's.
pub type HoldKey = SlotKey;

/// A bound on count and bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bound {
    /// Exchanges.
    pub exchanges: u32,
    /// Bytes of their bodies.
    pub bytes: u64,
}

/// The bounds that are not a backend's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HoldBounds {
    /// Of one tenant.
    pub tenant: Bound,
    /// Of the whole gateway.
    pub whole: Bound,
}

impl Default for HoldBounds {
    fn default() -> Self {
        Self {
            tenant: Bound {
                exchanges: 1_024,
                bytes: 128 << 20,
            },
            whole: Bound {
                exchanges: 4_096,
                bytes: 256 << 20,
            },
        }
    }
}

/// Which bound was met.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Overflow {
    /// The slot's.
    #[error("too many requests wait for this server")]
    Slot,
    /// The tenant's.
    #[error("too many requests of this tenant wait")]
    Tenant,
    /// The gateway's.
    #[error("too many requests wait")]
    Whole,
}

#[derive(Debug, Clone, Copy, Default)]
struct Held {
    exchanges: u32,
    bytes: u64,
}

impl Held {
    const fn fits(self, bytes: u64, bound: Bound) -> bool {
        self.exchanges < bound.exchanges && self.bytes.saturating_add(bytes) <= bound.bytes
    }
}

#[derive(Default)]
struct Counts {
    slots: HashMap<HoldKey, Held>,
    tenants: HashMap<TenantName, Held>,
    whole: Held,
}

/// All that waits. Cheap to clone.
#[derive(Clone)]
pub struct Holds {
    bounds: HoldBounds,
    counts: Arc<Mutex<Counts>>,
}

impl Holds {
    /// Nothing waits yet.
    #[must_use]
    pub fn new(bounds: HoldBounds) -> Self {
        Self {
            bounds,
            counts: Arc::default(),
        }
    }

    /// Admits one exchange with a body of `bytes`; `slot_bound` is its backend's.
    ///
    /// # Errors
    /// A bound is met.
    pub fn admit(
        &self,
        key: &HoldKey,
        tenant: &TenantName,
        bytes: u64,
        slot_bound: Bound,
    ) -> Result<HoldGuard, Overflow> {
        let mut counts = self.counts.lock();
        let slot = counts.slots.get(key).copied().unwrap_or_default();
        let of_tenant = counts.tenants.get(tenant).copied().unwrap_or_default();
        if !slot.fits(bytes, slot_bound) {
            return Err(Overflow::Slot);
        }
        if !of_tenant.fits(bytes, self.bounds.tenant) {
            return Err(Overflow::Tenant);
        }
        if !counts.whole.fits(bytes, self.bounds.whole) {
            return Err(Overflow::Whole);
        }
        add(&mut counts.slots, key, bytes);
        add(&mut counts.tenants, tenant, bytes);
        counts.whole.exchanges += 1;
        counts.whole.bytes += bytes;
        Ok(HoldGuard {
            key: key.clone(),
            tenant: tenant.clone(),
            bytes,
            counts: Arc::clone(&self.counts),
        })
    }

    /// Exchanges that wait now.
    #[must_use]
    pub fn waiting(&self) -> u32 {
        self.counts.lock().whole.exchanges
    }
}

fn add<K: Hash + Eq + Clone>(map: &mut HashMap<K, Held>, key: &K, bytes: u64) {
    let held = map.entry(key.clone()).or_default();
    held.exchanges += 1;
    held.bytes += bytes;
}

fn remove<K: Hash + Eq>(map: &mut HashMap<K, Held>, key: &K, bytes: u64) {
    if let Some(held) = map.get_mut(key) {
        held.exchanges -= 1;
        held.bytes -= bytes;
        if held.exchanges == 0 {
            map.remove(key);
        }
    }
}

/// One exchange that waits; dropped, it waits no more.
pub struct HoldGuard {
    key: HoldKey,
    tenant: TenantName,
    bytes: u64,
    counts: Arc<Mutex<Counts>>,
}

impl Drop for HoldGuard {
    fn drop(&mut self) {
        let mut counts = self.counts.lock();
        remove(&mut counts.slots, &self.key, self.bytes);
        remove(&mut counts.tenants, &self.tenant, self.bytes);
        counts.whole.exchanges -= 1;
        counts.whole.bytes -= self.bytes;
    }
}

#[cfg(test)]
mod tests;
