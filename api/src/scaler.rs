//! The port in which activator and autoscaler meet. It has an in-process form and, later, a network form.

use async_trait::async_trait;
use tokio::sync::mpsc;

use crate::{
    activity::{ActivityReport, DrainAck},
    claim::{ClaimRequest, Claimed},
    failure::Failure,
    ids::{ActivatorId, InstanceId},
    record::SessionUpdate,
    view::{Lookup, ViewEvent},
};

/// The autoscaler as an activator sees it.
///
/// Order of leasing and draining, on which "no request is lost by scaling" rests: a lease is taken only on an instance
/// whose `service` is `Open` in the activator's own table; a drain is applied in the same critical section that leases
/// are taken in, and only then acknowledged; the autoscaler terminates only what every live activator has acknowledged
/// with zero.
#[async_trait]
pub trait Scaler: Send + Sync {
    /// Asks for an instance and waits for it. Dropping the future withdraws the asker; a start goes on without it,
    /// except in a `session` slot that nobody waits for any more.
    ///
    /// # Errors
    /// The start failed, there is no room, the budget passed, the session has ended.
    async fn claim(&self, request: ClaimRequest) -> Result<Claimed, Failure>;

    /// Begins to listen: a snapshot first, then changes in order. A reader that falls behind by more than the channel
    /// holds is sent a new snapshot. From here on this activator's acknowledgement is awaited by drains, until the
    /// receiver is dropped.
    fn subscribe(&self, activator: ActivatorId) -> mpsc::Receiver<ViewEvent>;

    /// Reports use. Never waits for a decision.
    async fn report(&self, report: ActivityReport);

    /// Acknowledges a drain.
    async fn acknowledge(&self, ack: DrainAck);

    /// Asks about an instance that the own view does not know.
    async fn lookup(&self, instance: InstanceId) -> Lookup;

    /// Writes what was learned of a session; returns when it is kept.
    ///
    /// # Errors
    /// The tenant's records are full, or the leader is away.
    async fn record(&self, update: SessionUpdate) -> Result<(), Failure>;
}
