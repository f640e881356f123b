//! One instance: its state machine, and what is known of it.
//!
//! Invariants: [`step()`] is pure and total. `Stopping` is entered from `Ready` only through a drain; an instance that is
//! not yet, or no longer, in service is ended at once. Nothing leaves the machine except by `Exited`, so an instance is
//! never forgotten while it may still run.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use mcp_gateway_api::{
    backend::Backend,
    claim::ColdStart,
    ids::{ActivatorId, InstanceId, SessionKey, TenantName},
    slot::SlotKey,
    view::{Endpoint, InstanceView, Service, Stamp},
};
use mcp_gateway_runtime::Launched;
use tokio::time::Instant;

use super::{
    SlotId,
    activity::{Drain, Usage},
};

mod step;
pub use step::step;

/// Where an instance is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Phase {
    /// The runtime has been asked, and has not answered.
    Launching,
    /// Given up while the runtime had not answered: ended as soon as it does.
    Abandoned,
    /// It exists, and does not accept requests yet.
    Starting,
    /// Found at takeover: activators use it by what an earlier leader said, and that leader may have ordered its end
    /// (`core::adoption`).
    Adopted,
    /// Found at takeover while it started, and to go: activators may know better than that it starts.
    Doomed,
    /// Leases may be taken.
    Ready,
    /// No new leases; demand brings it back.
    IdleDraining,
    /// No new leases, for good.
    Retiring,
    /// Retiring, and what is still open is cut.
    Cut,
    /// The runtime has been told to end it.
    Stopping,
}

/// What can happen to an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    /// The runtime answered the launch.
    Created,
    /// It accepts requests.
    Accepts,
    /// It accepts requests, and an earlier leader may have ordered its end.
    Found,
    /// It was found, and is to go once everybody has been heard.
    Condemn,
    /// Its start is not wanted any more, or took too long.
    GaveUp,
    /// Nobody has used it for its idle time.
    Idle,
    /// Somebody wants it.
    Demand,
    /// It is to go: edit, deletion, shutdown.
    Retire,
    /// Its drain has lasted long enough.
    CutDue,
    /// Every activator has acknowledged the drain with no lease.
    Drained,
    /// It is gone, or the runtime refused to launch it.
    Exited,
}

/// What a change of phase makes the core do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// Nothing.
    Nothing,
    /// Tell the activators.
    Publish,
    /// Tell the activators that it is gone, and end it.
    Depart,
    /// End it; no activator ever knew it.
    Terminate,
}

/// The outcome of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// As it was.
    Stay,
    /// A new phase.
    To(Phase, Act),
    /// The end.
    Gone,
}

impl Phase {
    /// As logs, metrics and status say it.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Launching | Self::Starting => "starting",
            Self::Adopted => "found",
            Self::Ready => "ready",
            Self::IdleDraining => "draining",
            Self::Retiring | Self::Doomed => "retiring",
            Self::Cut => "cut",
            Self::Abandoned | Self::Stopping => "stopping",
        }
    }

    /// What activators are told, in the phases that they know of.
    #[must_use]
    pub const fn service(self) -> Option<Service> {
        match self {
            Self::Ready => Some(Service::Open),
            Self::IdleDraining => Some(Service::IdleDrain),
            Self::Retiring => Some(Service::RetireDrain),
            Self::Cut => Some(Service::Cut),
            Self::Launching
            | Self::Abandoned
            | Self::Starting
            | Self::Adopted
            | Self::Doomed
            | Self::Stopping => None,
        }
    }

    /// Whether it may be its slot's one instance; otherwise a successor may be launched beside it.
    #[must_use]
    pub const fn is_current(self) -> bool {
        match self {
            Self::Launching | Self::Starting | Self::Adopted | Self::Ready | Self::IdleDraining => {
                true
            }
            Self::Abandoned | Self::Doomed | Self::Retiring | Self::Cut | Self::Stopping => false,
        }
    }

    /// Whether its end has been ordered.
    #[must_use]
    pub const fn is_ending(self) -> bool {
        match self {
            Self::Abandoned | Self::Stopping => true,
            Self::Launching
            | Self::Starting
            | Self::Adopted
            | Self::Doomed
            | Self::Ready
            | Self::IdleDraining
            | Self::Retiring
            | Self::Cut => false,
        }
    }
}

/// Why an instance retires.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retirement {
    /// Its backend's document changed what would start: no deadline.
    Edited,
    /// Its backend is gone: cut after `drainTimeout`.
    Deleted,
    /// The gateway stops: cut after `drainTimeout` or earlier.
    Shutdown,
    /// Its slot has a later one: no deadline.
    Doubled,
    /// An earlier leader has ended it: no deadline.
    Ended,
}

impl Retirement {
    /// For the log, and for the sentence on an open stream.
    #[must_use]
    pub const fn why(self) -> &'static str {
        match self {
            Self::Edited => "its backend was edited",
            Self::Deleted => "its backend was removed",
            Self::Shutdown => "the gateway is shutting down",
            Self::Doubled => "its slot has a later instance",
            Self::Ended => "an earlier leader has ended it",
        }
    }
}

/// When it passed the stages of its start.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stages {
    /// The launch call.
    pub(super) asked: Instant,
    /// Its answer.
    pub(super) created: Option<Instant>,
    /// The process runs.
    pub(super) running: Option<Instant>,
    /// It accepts requests.
    pub(super) ready: Option<Instant>,
}

impl Stages {
    /// The cost of the start to somebody who arrived at `arrived`.
    pub(super) fn cost(&self, arrived: Instant) -> ColdStart {
        let created = self.created.unwrap_or(self.asked);
        let running = self.running.unwrap_or(created);
        let ready = self.ready.unwrap_or(running);
        ColdStart {
            claim: self.asked.saturating_duration_since(arrived),
            create: created.saturating_duration_since(self.asked),
            start: running.saturating_duration_since(created),
            serve: ready.saturating_duration_since(running),
        }
    }

    /// From the launch call to accepting requests.
    pub(super) fn total(&self) -> Option<Duration> {
        self.ready
            .map(|at| at.saturating_duration_since(self.asked))
    }
}

/// All that is known of one instance.
#[derive(Debug)]
pub(super) struct Instance {
    pub(super) slot: SlotId,
    pub(super) key: SlotKey,
    pub(super) tenant: TenantName,
    /// As it was launched; its policy may have changed since.
    pub(super) backend: Arc<Backend>,
    pub(super) phase: Phase,
    pub(super) stages: Stages,
    pub(super) launched: Option<Launched>,
    pub(super) endpoint: Option<Endpoint>,
    pub(super) stamp: Stamp,
    pub(super) usage: Usage,
    pub(super) drain: Option<Drain>,
    /// When a retire drain is cut.
    pub(super) cut_at: Option<Instant>,
    pub(super) alarm: Option<Instant>,
    /// Permits to revive sessions here.
    pub(super) permits: BTreeSet<SessionKey>,
    /// Sentences for the operator, bounded.
    pub(super) warnings: Vec<String>,
    /// What its start waits for outside of it, as clients may read it.
    pub(super) waits_for: Option<String>,
    /// Of one that an earlier leader launched.
    pub(super) adopted: Option<Adopted>,
    /// Activators that know it to be gone: they never lease it again, and acknowledge no drain of it.
    pub(super) forsaken: BTreeSet<ActivatorId>,
}

/// What is known of an instance beyond its own life because an earlier leader launched it.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Adopted {
    /// Nothing that an earlier leader still has under way can end it.
    pub(super) fenced: bool,
    /// The runtime has been asked to see to that.
    pub(super) asked: bool,
    /// The latest that activators were told of it by an earlier leader.
    pub(super) told: Stamp,
}

impl Instance {
    /// Its identity, once launched.
    pub(super) fn id(&self) -> Option<InstanceId> {
        self.launched.as_ref().map(|launched| launched.instance)
    }

    /// Whether an earlier leader may have ordered its end.
    pub(super) fn is_unfenced(&self) -> bool {
        self.adopted.is_some_and(|adopted| !adopted.fenced)
    }

    /// As activators see it; `None` while, or since, it is nobody's business.
    pub(super) fn view(&self) -> Option<InstanceView> {
        Some(InstanceView {
            id: self.id()?,
            slot: self.key.clone(),
            tenant: self.tenant.clone(),
            generation: self.backend.generation,
            endpoint: self.endpoint.clone()?,
            service: self.phase.service()?,
            stamp: self.stamp,
        })
    }
}
