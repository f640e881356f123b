//! What is said to the loop.

use std::time::Duration;

use mcp_gateway_api::{
    activity::{ActivityReport, DrainAck},
    claim::{ClaimRequest, Claimed},
    failure::{ExitReport, Failure},
    ids::{ActivatorId, ClaimId, InstanceId, SessionKey},
    record::SessionUpdate,
    scaler::ActivatorPod,
    status::Status,
    view::{Lookup, ViewEvent},
};
use mcp_gateway_runtime::Launched;
use tokio::sync::{mpsc, oneshot};

use crate::core::{Ticket, WaiterId, event::Event};

/// The answer of a claim on its way.
pub(super) type Answer = Result<Box<Claimed>, Failure>;

/// In order, through the bounded inbox.
#[derive(Debug)]
pub(super) enum Message {
    Claim {
        waiter: WaiterId,
        request: Box<ClaimRequest>,
        reply: oneshot::Sender<Answer>,
    },
    Launched {
        ticket: Ticket,
        outcome: Result<Launched, ExitReport>,
    },
    Report(ActivityReport),
    Ack(DrainAck),
    Lookup {
        instance: InstanceId,
        reply: oneshot::Sender<Lookup>,
    },
    Record {
        update: Box<SessionUpdate>,
        reply: oneshot::Sender<Result<(), Failure>>,
    },
    /// Something else that the core is to know.
    Tell(Box<Event>),
    Status(oneshot::Sender<Status>),
    Shutdown {
        within: Duration,
        reply: oneshot::Sender<usize>,
    },
}

/// What is said where waiting is impossible (in a drop, in a plain function): at most one entry for each claim and each
/// subscription, so it needs no bound of its own. Read before any message.
#[derive(Debug)]
pub(super) enum Aside {
    Withdrawn(WaiterId),
    Undelivered {
        session: Option<(SessionKey, ClaimId)>,
        claimed: Box<Claimed>,
    },
    Subscribed {
        activator: ActivatorId,
        /// Of one in another process.
        pod: Option<ActivatorPod>,
        view: mpsc::Sender<ViewEvent>,
    },
    /// It said goodbye.
    Left(ActivatorId),
    /// The receiver of that subscription was dropped.
    Unsubscribed {
        activator: ActivatorId,
        subscription: u64,
    },
    /// A subscriber that had fallen behind has read everything.
    CaughtUp {
        activator: ActivatorId,
        subscription: u64,
    },
}
