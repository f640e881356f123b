//! Use of an instance, as activators report it, and the acknowledgements of its drain.
//!
//! Invariants: numbers are absolute, so a lost or repeated report does no harm. A drain is over only when every
//! activator that was subscribed when it was published has acknowledged that very stamp with no lease, or has left.

use std::{collections::BTreeMap, time::Duration};

use mcp_gateway_api::{ids::ActivatorId, view::Stamp};
use tokio::time::Instant;

/// What one activator last said of one instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Use {
    /// Leases it held.
    pub leases: u32,
    /// When its last lease ended.
    pub idle_since: Instant,
}

/// Use of one instance by all.
#[derive(Debug, Default)]
pub struct Usage {
    by: BTreeMap<ActivatorId, Use>,
    /// The last moment that somebody was given it, or left it.
    last: Option<Instant>,
}

impl Usage {
    /// Somebody was given it now.
    pub fn touch(&mut self, now: Instant) {
        self.last = self.last.max(Some(now));
    }

    /// One activator's numbers.
    pub fn report(&mut self, from: ActivatorId, now: Instant, leases: u32, idle_for: Duration) {
        let idle_since = now.checked_sub(idle_for).unwrap_or(now);
        let idle_since = if leases > 0 { now } else { idle_since };
        self.by.insert(from, Use { leases, idle_since });
    }

    /// One activator holds nothing here; it had not said so before if it was thought to hold something.
    pub fn absent(&mut self, from: ActivatorId, now: Instant) {
        if let Some(one) = self.by.get_mut(&from)
            && one.leases > 0
        {
            *one = Use {
                leases: 0,
                idle_since: now,
            };
        }
    }

    /// One activator is gone with its leases.
    pub fn leave(&mut self, from: ActivatorId, now: Instant) {
        if self.by.remove(&from).is_some_and(|one| one.leases > 0) {
            self.touch(now);
        }
    }

    /// Leases held by all.
    #[must_use]
    pub fn leases(&self) -> u32 {
        self.by
            .values()
            .fold(0, |sum, one| sum.saturating_add(one.leases))
    }

    /// Since when nobody uses it; `None` while somebody does.
    #[must_use]
    pub fn idle_since(&self, ready: Instant) -> Option<Instant> {
        if self.leases() > 0 {
            return None;
        }
        let left = self.by.values().map(|one| one.idle_since).max();
        left.into_iter().chain(self.last).chain([ready]).max()
    }

    /// The last moment that somebody was given it.
    #[must_use]
    pub fn given(&self) -> Option<Instant> {
        self.last
    }
}

/// A drain that waits for acknowledgements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drain {
    stamp: Stamp,
    awaited: BTreeMap<ActivatorId, Option<u32>>,
}

/// What an acknowledgement means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// Of an older drain, or from a stranger.
    Ignored,
    /// Others, or leases, are still awaited.
    Waiting,
    /// The sender still holds leases.
    InUse,
    /// Nobody holds a lease, and nobody will take one.
    Drained,
}

impl Drain {
    /// A drain published with this stamp to these activators.
    pub fn new(stamp: Stamp, activators: impl IntoIterator<Item = ActivatorId>) -> Self {
        Self {
            stamp,
            awaited: activators.into_iter().map(|id| (id, None)).collect(),
        }
    }

    /// One more activator has to acknowledge, if it has not.
    pub fn expect(&mut self, activator: ActivatorId) {
        self.awaited.entry(activator).or_insert(None);
    }

    /// One activator acknowledges.
    pub fn acknowledge(&mut self, from: ActivatorId, stamp: Stamp, leases: u32) -> Heard {
        if stamp != self.stamp {
            return Heard::Ignored;
        }
        match self.awaited.get_mut(&from) {
            None => return Heard::Ignored,
            // The count only falls once the drain is applied: of two acknowledgements that overtook each other the
            // lower one is the later.
            Some(said) => *said = Some(said.map_or(leases, |before| before.min(leases))),
        }
        if leases > 0 {
            Heard::InUse
        } else if self.is_over() {
            Heard::Drained
        } else {
            Heard::Waiting
        }
    }

    /// One activator is gone with its leases.
    pub fn leave(&mut self, from: ActivatorId) {
        self.awaited.remove(&from);
    }

    /// Whether everybody has acknowledged with no lease.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.awaited.values().all(|said| *said == Some(0))
    }
}
