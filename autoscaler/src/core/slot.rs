//! One slot: its state machine, and who waits for it.
//!
//! Invariants: [`step`] is pure and total. A slot has at most one current instance; those that retire or stop beside
//! it are in `leaving`. A slot without instance, waiter or remembered failure is removed.

use std::collections::BTreeSet;

use mcp_gateway_api::{
    ids::{BackendName, SessionKey, TenantName},
    principal::PrincipalId,
    slot::{Owner, SlotKey},
};
use tokio::time::Instant;

use super::{Ticket, WaiterId};

/// Where a slot is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SlotPhase {
    /// No current instance, and none wanted yet.
    Cold,
    /// An instance is being started.
    Starting(Ticket),
    /// An instance is ready, or draining for idleness.
    Serving(Ticket),
    /// The last start failed; not before `until` is it tried again, and only if somebody waits then.
    Backoff {
        /// The time of the next try.
        until: Instant,
    },
}

/// What can happen to a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SlotInput {
    /// An instance is launched for it.
    Launch(Ticket),
    /// That instance accepts requests.
    Ready(Ticket),
    /// That instance is on its way out, or lost without blame.
    Leave(Ticket),
    /// That instance failed to start, or crashed: not before then again.
    Fail(Ticket, Instant),
    /// Its failures are forgotten.
    Forgive,
}

/// The state machine.
#[must_use]
pub fn step(phase: SlotPhase, input: SlotInput) -> SlotPhase {
    match phase {
        SlotPhase::Cold | SlotPhase::Backoff { .. } => without_instance(phase, input),
        SlotPhase::Starting(current) => with_instance(phase, current, input),
        SlotPhase::Serving(current) => with_instance(phase, current, input),
    }
}

fn without_instance(phase: SlotPhase, input: SlotInput) -> SlotPhase {
    match input {
        SlotInput::Launch(ticket) => SlotPhase::Starting(ticket),
        SlotInput::Forgive => SlotPhase::Cold,
        // Of an instance that is not current any more.
        SlotInput::Ready(_) | SlotInput::Leave(_) | SlotInput::Fail(..) => phase,
    }
}

fn with_instance(phase: SlotPhase, current: Ticket, input: SlotInput) -> SlotPhase {
    match input {
        SlotInput::Ready(ticket) if ticket == current => SlotPhase::Serving(ticket),
        SlotInput::Leave(ticket) if ticket == current => SlotPhase::Cold,
        SlotInput::Fail(ticket, until) if ticket == current => SlotPhase::Backoff { until },
        SlotInput::Ready(_)
        | SlotInput::Leave(_)
        | SlotInput::Fail(..)
        | SlotInput::Launch(_)
        | SlotInput::Forgive => phase,
    }
}

impl SlotPhase {
    /// The instance that claims are answered with, or will be.
    #[must_use]
    pub const fn current(self) -> Option<Ticket> {
        match self {
            Self::Starting(ticket) | Self::Serving(ticket) => Some(ticket),
            Self::Cold | Self::Backoff { .. } => None,
        }
    }

    /// As logs say it.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Cold => "cold",
            Self::Starting(_) => "starting",
            Self::Serving(_) => "ready",
            Self::Backoff { .. } => "backoff",
        }
    }
}

/// A slot that an `initialize` may take, or has taken, and that is no session's yet.
#[derive(Debug, Clone)]
pub(super) struct Provisional {
    /// Whose tries find it.
    pub(super) principal: PrincipalId,
    /// Its key has been given to an asker, who may have minted an id with it: nobody else gets it.
    pub(super) handed: bool,
}

/// All that is known of one slot.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) key: SlotKey,
    /// Whom the next launch is charged to.
    pub(super) tenant: TenantName,
    pub(super) phase: SlotPhase,
    /// In arrival order, which is the order of the ids.
    pub(super) waiters: BTreeSet<WaiterId>,
    /// Instances that retire or stop.
    pub(super) leaving: BTreeSet<Ticket>,
    /// Failures in a row.
    pub(super) failures: u32,
    pub(super) provisional: Option<Provisional>,
    /// The last probe, while nothing but probes has asked for this slot.
    pub(super) probed: Option<Instant>,
    /// Its session has ended: nobody will come back.
    pub(super) ended: bool,
    /// When a start that nobody waits for is cancelled.
    pub(super) cancel_at: Option<Instant>,
    /// Ended marks of sessions that can live nowhere but on an instance of this slot: useless once it has none.
    pub(super) marks: BTreeSet<SessionKey>,
    /// Waits for room.
    pub(super) starved: bool,
    /// Counts against `maxSlots`.
    pub(super) occupied: bool,
    pub(super) alarm: Option<Instant>,
}

impl Slot {
    /// A cold slot.
    pub(super) fn new(key: SlotKey, tenant: TenantName) -> Self {
        Self {
            key,
            tenant,
            phase: SlotPhase::Cold,
            waiters: BTreeSet::new(),
            leaving: BTreeSet::new(),
            failures: 0,
            provisional: None,
            probed: None,
            ended: false,
            cancel_at: None,
            marks: BTreeSet::new(),
            starved: false,
            occupied: false,
            alarm: None,
        }
    }

    /// Of which backend.
    pub(super) fn backend(&self) -> &BackendName {
        &self.key.backend
    }

    /// Whether it belongs to one session (or will): a start that nobody waits for serves nobody else.
    pub(super) fn is_session(&self) -> bool {
        match self.key.owner {
            Owner::Session(_) => true,
            Owner::Principal(_) | Owner::Tenant(_) | Owner::Nobody => false,
        }
    }
}

/// The owner as status pages and logs name it.
#[must_use]
pub fn owner_label(owner: &Owner) -> String {
    match owner {
        Owner::Session(key) => format!("session {key:?}"),
        Owner::Principal(id) => format!("principal {id:?}"),
        Owner::Tenant(tenant) => format!("tenant {tenant}"),
        Owner::Nobody => "shared".into(),
    }
}
