//! What is to be looked at again, and when.
//!
//! One ordered set: the next deadline is its first element, setting and clearing cost a logarithm, nothing is scanned.
//! Whoever sets a timer remembers its time and clears it by that; so there is never more than one per subject.

use std::collections::BTreeSet;

use mcp_gateway_api::ids::{ActivatorId, SessionKey};
use tokio::time::Instant;

use super::{SlotId, Ticket, WaiterId};

/// What a timer is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    /// The budget of a waiter.
    Waiter(WaiterId),
    /// A start deadline, an idle check, a cut: by the phase of the instance.
    Instance(Ticket),
    /// The next try, the end of memory of failures, a start nobody waits for.
    Slot(SlotId),
    /// A permit to revive.
    Permit(SessionKey),
    /// Session records may have expired.
    Records,
    /// An activator has been silent for too long.
    Silence(ActivatorId),
    /// Not everybody has been heard, and nobody is waited for any longer.
    Takeover,
}

/// The set.
#[derive(Debug, Default)]
pub(super) struct Timers {
    due: BTreeSet<(Instant, Timer)>,
}

impl Timers {
    /// Moves a timer: `slot` is where its owner keeps the time.
    pub(super) fn set(&mut self, kept: &mut Option<Instant>, at: Option<Instant>, timer: Timer) {
        if *kept == at {
            return;
        }
        if let Some(old) = kept.take() {
            self.due.remove(&(old, timer));
        }
        if let Some(new) = at {
            self.due.insert((new, timer));
        }
        *kept = at;
    }

    /// The earliest.
    pub(super) fn next(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    /// Takes one that is due, if any.
    pub(super) fn pop(&mut self, now: Instant) -> Option<Timer> {
        let (at, _) = self.due.first()?;
        if *at > now {
            return None;
        }
        self.due.pop_first().map(|(_, timer)| timer)
    }

    /// How many are set.
    pub(super) fn len(&self) -> usize {
        self.due.len()
    }
}
