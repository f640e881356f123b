//! The port in which activator and autoscaler meet. It has an in-process form and, later, a network form.

use std::str::FromStr;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::{
    activity::{ActivityReport, DrainAck},
    claim::{ClaimRequest, Claimed},
    failure::Failure,
    ids::{ActivatorId, InstanceId, SessionKey},
    record::{SessionUpdate, SharedRecord},
    view::{InstanceView, Lookup, ViewEvent},
};

/// The UID of a pod in which activators run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PodUid(pub u128);

/// A text that is no pod's UID.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected the UID of a pod: 32 hexadecimal digits, with or without hyphens")]
pub struct InvalidPodUid;

impl FromStr for PodUid {
    type Err = InvalidPodUid;

    /// Reads a UID as Kubernetes writes it.
    fn from_str(text: &str) -> Result<Self, InvalidPodUid> {
        let digits: String = text.chars().filter(|c| *c != '-').take(33).collect();
        let fine = digits.len() == 32 && digits.bytes().all(|b| b.is_ascii_hexdigit());
        let number = fine.then(|| u128::from_str_radix(&digits, 16).ok());
        number.flatten().map(Self).ok_or(InvalidPodUid)
    }
}

/// Whether an activator may be heard of from its pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// A process runs in it, or nobody knows.
    Runs,
    /// Its process has ended, and will be started again: none holds a lease meanwhile.
    Down,
}

/// The pod that an activator runs in, and which of the pod's processes it is (§11). An [`ActivatorId`] names the process
/// alone; the pod tells a leader whom it has not heard yet, and which leases a restarted container has lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ActivatorPod {
    /// Which pod.
    pub uid: PodUid,
    /// Grows with each process of the pod: Unix nanoseconds at its start. A higher one voids the leases of a lower one.
    pub incarnation: u64,
}

/// Everything an activator knows, for a leader that knows less: one message, so that a leader has all of it or none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restatement {
    /// The term of the leader that it is for, as its snapshot's stamp said: another leader ignores it.
    pub epoch: u64,
    /// A full report.
    pub report: ActivityReport,
    /// Its table, with the stamps it was told.
    pub instances: Vec<InstanceView>,
    /// The session records as the view told them, without own news that was not kept yet.
    pub records: Vec<SharedRecord>,
    /// What it knows to be gone, as far as it remembers: it would not use one of these again.
    pub gone: Vec<InstanceId>,
    /// The permits to revive that it holds.
    pub permits: Vec<Permit>,
}

/// A permit to revive a session that a claim was answered with ([`crate::claim::Standing::Revive`]) and that has been
/// neither used nor given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Permit {
    /// Which session.
    pub session: SessionKey,
    /// Where it is revived.
    pub instance: InstanceId,
}

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

    /// As [`Scaler::subscribe`], for an activator in another process: when the receiver is dropped it is silent, not
    /// gone. Its leases count, and drains wait for it, until its pod is gone, another process of its pod subscribes, it
    /// has said goodbye, or ten minutes have passed.
    fn subscribe_from(
        &self,
        activator: ActivatorId,
        _pod: ActivatorPod,
    ) -> mpsc::Receiver<ViewEvent> {
        self.subscribe(activator)
    }

    /// Says everything this activator knows: due after each snapshot that is not complete, which is how a new leader
    /// asks for it. Idempotent.
    ///
    /// # Errors
    /// Nobody was told: to be said again, as it stands then, unless the view is complete meanwhile.
    async fn restate(&self, restatement: Restatement) -> Result<(), Failure> {
        self.report(restatement.report).await;
        Ok(())
    }

    /// Goodbye: this activator holds no lease and takes none any more.
    async fn leave(&self, _activator: ActivatorId) {}
}
