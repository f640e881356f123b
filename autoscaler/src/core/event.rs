//! What goes into the core and what comes out.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use mcp_gateway_api::{
    activity::{ActivityReport, DrainAck},
    catalog::Catalog,
    claim::{ClaimRequest, Claimed, ColdStart},
    failure::{ExitReport, Failure},
    ids::{ActivatorId, BackendName, ClaimId, InstanceId, SessionKey},
    record::SessionUpdate,
    scaler::{ActivatorPod, PodUid, Presence, Restatement},
    view::ViewEvent,
};
use mcp_gateway_runtime::{Farewell, LaunchOrder, Launched, RuntimeEvent};

use super::{Ticket, WaiterId, instance::Phase, records::Change};

/// Something has happened.
#[derive(Debug)]
pub enum Event {
    /// Somebody wants an instance.
    Claim {
        /// Who; ids grow in arrival order and are never used twice.
        waiter: WaiterId,
        /// What.
        request: ClaimRequest,
        /// A session key nobody has used, in case one is needed.
        fresh: SessionKey,
    },
    /// Somebody does not want it any more (its client has left).
    Withdrawn(WaiterId),
    /// An answer never reached the asker: what it was given is taken back.
    Undelivered {
        /// The session it was for, if it was for one, and the claim that it answered.
        session: Option<(SessionKey, ClaimId)>,
        /// The answer.
        claimed: Box<Claimed>,
    },
    /// The runtime has answered a launch.
    Launched {
        /// Which.
        ticket: Ticket,
        /// How.
        outcome: Result<Launched, ExitReport>,
    },
    /// The runtime tells of an instance.
    Runtime(RuntimeEvent),
    /// An activator reports use.
    Report(ActivityReport),
    /// An activator acknowledges a drain.
    Ack(DrainAck),
    /// An activator of this process listens from now on.
    Joined(ActivatorId),
    /// An activator of another process listens from now on, perhaps again.
    Subscribed(ActivatorId, ActivatorPod),
    /// An activator is heard no more. That says nothing of its leases.
    Silent(ActivatorId),
    /// An activator is gone, and its leases with it.
    Left(ActivatorId),
    /// An activator says everything it knows.
    Restated(Box<Restatement>),
    /// The pods in which activators run are these from now on.
    Expected(BTreeMap<PodUid, Presence>),
    /// The runtime has answered [`Effect::Mark`]; `false`: an earlier leader has ended it.
    Marked(InstanceId, bool),
    /// The backends are these from now on.
    Catalog(Arc<Catalog>),
    /// News of a session.
    Record {
        /// Names the answer ([`Effect::Recorded`]).
        reply: u64,
        /// What is new.
        update: SessionUpdate,
    },
    /// Time has passed.
    Tick,
    /// Everything is to end within that time.
    Shutdown(Duration),
}

/// Something is to be done, in this order.
#[derive(Debug)]
pub enum Effect {
    /// Ask the runtime for an instance, answer with [`Event::Launched`].
    Launch {
        /// Names the answer.
        ticket: Ticket,
        /// What to start.
        order: Box<LaunchOrder>,
    },
    /// Have the runtime end an instance.
    Terminate(InstanceId, Farewell),
    /// Have the runtime see to it that nothing an earlier leader ordered can end this one, answer with
    /// [`Event::Marked`].
    Mark(InstanceId),
    /// Tell all activators.
    Publish(Box<ViewEvent>),
    /// Answer a claim; each exactly once.
    Answer {
        /// Whose.
        waiter: WaiterId,
        /// How.
        answer: Result<Box<Claimed>, Failure>,
    },
    /// Write it down.
    Persist(Change),
    /// Answer [`Event::Record`] once everything before is written down.
    Recorded {
        /// Whose.
        reply: u64,
        /// How.
        result: Result<(), Failure>,
    },
    /// For logs and metrics; changes nothing.
    Note(Note),
}

/// A change of state that a person can follow.
#[derive(Debug, Clone)]
pub struct Transition {
    /// Of which backend.
    pub backend: BackendName,
    /// The slot's owner, as `session 1a2b3c4d`.
    pub owner: String,
    /// Which instance, once it has an id.
    pub instance: Option<InstanceId>,
    /// From which phase.
    pub from: &'static str,
    /// To which.
    pub to: &'static str,
    /// Why.
    pub why: String,
    /// Whether somebody should look into it.
    pub trouble: bool,
    /// What only the operator may read.
    pub private: Option<String>,
}

/// For logs and metrics.
#[derive(Debug, Clone)]
pub enum Note {
    /// A change of state.
    Transition(Box<Transition>),
    /// An instance is in another phase; `None` before its launch and after its end.
    Phase {
        /// Of which backend.
        backend: BackendName,
        /// From.
        from: Option<Phase>,
        /// To.
        to: Option<Phase>,
    },
    /// A start succeeded.
    ColdStart {
        /// Of which backend.
        backend: BackendName,
        /// Its cost by phase.
        cost: ColdStart,
    },
    /// A start failed, or an instance crashed.
    Failed(BackendName),
    /// An instance was cut with so many leases open.
    Cut(BackendName, u32),
    /// A session was given a permit to revive.
    Reviving(BackendName),
    /// So many more (or fewer) wait.
    Waiting(BackendName, i64),
}
