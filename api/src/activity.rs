//! What activators tell the autoscaler about use. Absolute numbers, never differences: a lost or repeated report does
//! no harm.

use std::time::Duration;

use crate::{
    ids::{ActivatorId, InstanceId},
    view::Stamp,
};

/// Use of one instance by one activator at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceActivity {
    /// Which.
    pub instance: InstanceId,
    /// Leases held now.
    pub leases: u32,
    /// How long ago the last lease ended (zero while `leases > 0`; since first seen if there never was one).
    pub idle_for: Duration,
}

/// A report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActivityReport {
    /// From whom.
    pub activator: ActivatorId,
    /// Grows with each report of an activator; a lower one is ignored.
    pub sequence: u64,
    /// Whether instances not listed have no lease here (a full report), or are as last reported.
    pub full: bool,
    /// The numbers.
    pub instances: Vec<InstanceActivity>,
}

/// The answer to a drain: from here on this activator takes no new lease on the instance, and holds so many.
///
/// Sent once the drain is applied and again whenever the count falls, until zero.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DrainAck {
    /// From whom.
    pub activator: ActivatorId,
    /// Which instance.
    pub instance: InstanceId,
    /// The stamp of the drain that is acknowledged; one for an older drain is ignored.
    pub stamp: Stamp,
    /// Leases still held.
    pub leases: u32,
}
