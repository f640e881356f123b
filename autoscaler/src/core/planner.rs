//! What to do with one slot, and when to drain one instance: values and `now` in, a decision with its reason out.
//!
//! Invariants: pure; looks at one slot at a time, so its cost follows changes and never the number of slots. Decides
//! everything that is a matter of policy; the state machines only say what is possible.

use std::{borrow::Cow, time::Duration};

use tokio::time::Instant;

use super::slot::SlotPhase;

/// From the moment that nobody waits for a session's start any more to its cancellation: a client that reconnects at
/// once finds the start still going on.
pub const CANCEL_GRACE: Duration = Duration::from_secs(5);
/// How long after its next try became possible a failing slot is remembered, so that its delays go on growing.
pub const FAILURE_MEMORY: Duration = Duration::from_secs(120);
/// An instance that has served this long has proved itself: its crash counts as a first failure and delays nothing.
pub const STABLE: Duration = Duration::from_secs(10);
/// Shortest time from giving somebody an instance to its idle drain, so that a tiny `idleTimeout` does not take it back
/// before it could be leased.
pub const GIVEN_GRACE: Duration = Duration::from_millis(100);
/// Longest from the launch call to a running process: scheduling, pulling, creating.
pub const LAUNCH_DEADLINE: Duration = Duration::from_secs(600);
/// From telling activators to cut to the end of the instance, if they do not acknowledge.
pub const CUT_GRACE: Duration = Duration::from_secs(2);
/// From the polite signal to the kill.
pub const FAREWELL_GRACE: Duration = Duration::from_secs(5);
/// The runtime owes `Exited` after a terminate; when it does not come it is told again.
pub const TELL_AGAIN: Duration = Duration::from_secs(60);
/// When to come back after a refusal for want of room.
pub const ROOM_RETRY: Duration = Duration::from_secs(5);

/// An activator that has been silent this long is taken for gone, whatever else is known (§4).
pub const PARTITION: Duration = Duration::from_secs(600);

/// Whether another instance may be launched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    /// Yes.
    Free,
    /// As soon as one that is stopping is gone.
    Soon,
    /// The backend has as many slots as it may.
    NoSlots,
    /// The gateway has as many instances as it may.
    NoInstances,
    /// Not before everybody has been heard: there may be one already.
    Unheard,
}

/// What is to be known of a slot.
#[derive(Debug, Clone, Copy)]
pub struct SlotFacts {
    /// Its phase.
    pub phase: SlotPhase,
    /// How many wait for it.
    pub waiting: usize,
    /// Whether there is room.
    pub room: Room,
    /// When its start is cancelled for want of anybody who waits.
    pub cancel_at: Option<Instant>,
    /// Whether something of it still runs beside.
    pub leaving: bool,
}

/// What to do with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SlotPlan {
    /// Nothing now; look again then, if a time is given.
    Rest(Option<Instant>),
    /// Launch an instance.
    Launch,
    /// Keep those who wait until there is room.
    AwaitRoom,
    /// Keep those who wait until the view is complete.
    AwaitView,
    /// Tell those who wait that there is none.
    Refuse(Room),
    /// Nobody waits for its start any more.
    CancelStart,
    /// Its failures are long past.
    Forgive,
    /// Nothing is left to remember.
    Forget,
}

impl SlotPlan {
    /// Why, for logs and snapshots.
    #[must_use]
    pub fn why(self, facts: &SlotFacts) -> Cow<'static, str> {
        match self {
            Self::Rest(_) => "nothing to do".into(),
            Self::Launch => format!("{} waiting", facts.waiting).into(),
            Self::AwaitRoom => "an instance is stopping and will make room".into(),
            Self::AwaitView => "not every activator has been heard yet".into(),
            Self::Refuse(Room::NoSlots) => "the backend has as many slots as it may".into(),
            Self::Refuse(Room::Free | Room::Soon | Room::NoInstances | Room::Unheard) => {
                "the gateway has as many instances as it may".into()
            }
            Self::CancelStart => "nobody waits for it any more".into(),
            Self::Forgive => "its failures are long past".into(),
            Self::Forget => "nothing is left to remember".into(),
        }
    }
}

/// Plans one slot.
#[must_use]
pub fn plan_slot(facts: &SlotFacts, now: Instant) -> SlotPlan {
    match facts.phase {
        SlotPhase::Cold if facts.waiting > 0 => launch(facts),
        SlotPhase::Cold if facts.leaving => SlotPlan::Rest(None),
        SlotPhase::Cold => SlotPlan::Forget,
        SlotPhase::Backoff { until } if facts.waiting > 0 && until <= now => launch(facts),
        SlotPhase::Backoff { until } if facts.waiting > 0 => SlotPlan::Rest(Some(until)),
        SlotPhase::Backoff { until } if until + FAILURE_MEMORY <= now => SlotPlan::Forgive,
        SlotPhase::Backoff { until } => SlotPlan::Rest(Some(until + FAILURE_MEMORY)),
        SlotPhase::Starting(_) => match facts.cancel_at {
            Some(at) if at <= now => SlotPlan::CancelStart,
            at => SlotPlan::Rest(at),
        },
        SlotPhase::Serving(_) => SlotPlan::Rest(None),
    }
}

fn launch(facts: &SlotFacts) -> SlotPlan {
    match facts.room {
        Room::Free => SlotPlan::Launch,
        Room::Soon => SlotPlan::AwaitRoom,
        Room::Unheard => SlotPlan::AwaitView,
        Room::NoSlots | Room::NoInstances => SlotPlan::Refuse(facts.room),
    }
}

/// What is to be known of a ready instance.
#[derive(Debug, Clone, Copy)]
pub struct IdleFacts {
    /// Since when nobody leases it; `None` while somebody does.
    pub idle_since: Option<Instant>,
    /// When somebody was last given it.
    pub given: Option<Instant>,
    /// The policy's `idleTimeout`; zero when nobody can come back.
    pub idle_timeout: Duration,
}

/// When to drain it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IdlePlan {
    /// Not while it is in use.
    Busy,
    /// Look again then.
    CheckAt(Instant),
    /// Now: it has been idle so long.
    Drain(Duration),
}

/// Plans one ready instance.
#[must_use]
pub fn plan_idle(facts: &IdleFacts, now: Instant) -> IdlePlan {
    let Some(since) = facts.idle_since else {
        return IdlePlan::Busy;
    };
    let due = (since + facts.idle_timeout).max(facts.given.map_or(since, |at| at + GIVEN_GRACE));
    if due <= now {
        IdlePlan::Drain(now.saturating_duration_since(since))
    } else {
        IdlePlan::CheckAt(due)
    }
}
