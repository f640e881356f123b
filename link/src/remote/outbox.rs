//! What a leader is still to be told of use: pure.
//!
//! Invariants: only the newest of each instance is kept, numbers are absolute. What was told counts as told only when it
//! was answered, and only as far as it has not changed since. After a (re)subscription all of it is due, as a full
//! report; before the activator has given a full report of its own, none is made up.

use std::{collections::BTreeMap, time::Duration};

use mcp_gateway_api::{
    activity::{ActivityReport, DrainAck, InstanceActivity},
    ids::{ActivatorId, InstanceId},
};
use tokio::time::Instant;

#[cfg(test)]
mod tests;

/// Counts changes.
type Version = u64;

#[derive(Debug)]
struct Known {
    leases: u32,
    /// When it was said, and how long it had been idle then.
    said: Instant,
    idle_for: Duration,
    /// The change that it waits to be told since; `None`: told.
    due: Option<Version>,
}

/// What is to be told.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    version: Version,
    from: Option<ActivatorId>,
    sequence: u64,
    /// The activator has said all it uses at least once.
    whole: bool,
    /// Since which change a full report is due.
    full_due: Option<Version>,
    known: BTreeMap<InstanceId, Known>,
    acks: BTreeMap<InstanceId, (DrainAck, Version)>,
}

/// One telling.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tidings {
    /// Use, if any is due.
    pub(super) report: Option<ActivityReport>,
    /// Acknowledgements.
    pub(super) acks: Vec<DrainAck>,
    as_of: Version,
}

impl Outbox {
    /// The activator reports. One that was overtaken says nothing new.
    pub(super) fn report(&mut self, now: Instant, report: ActivityReport) {
        if self.from == Some(report.activator) && report.sequence < self.sequence {
            return;
        }
        self.version += 1;
        self.from = Some(report.activator);
        self.sequence = report.sequence;
        if report.full {
            self.known.clear();
            self.whole = true;
            self.full_due = Some(self.version);
        }
        for one in report.instances {
            let known = Known {
                leases: one.leases,
                said: now,
                idle_for: one.idle_for,
                due: Some(self.version),
            };
            self.known.insert(one.instance, known);
        }
    }

    /// The activator acknowledges a drain.
    pub(super) fn acknowledge(&mut self, ack: DrainAck) {
        let older = |kept: &(DrainAck, Version)| ack.stamp < kept.0.stamp;
        if self.acks.get(&ack.instance).is_some_and(older) {
            return;
        }
        self.version += 1;
        self.acks.insert(ack.instance, (ack, self.version));
    }

    /// The control plane has said that it is gone: nobody wants to hear of it any more.
    pub(super) fn gone(&mut self, instance: InstanceId) {
        self.known.remove(&instance);
        self.acks.remove(&instance);
    }

    /// A leader listens anew, and may know nothing.
    pub(super) fn subscribed(&mut self) {
        if self.whole {
            self.version += 1;
            self.full_due = Some(self.version);
        }
    }

    /// What is to be told now.
    pub(super) fn due(&self, now: Instant) -> Option<Tidings> {
        let full = self.full_due.is_some();
        let wanted = self
            .known
            .iter()
            .filter(|(_, known)| full || known.due.is_some());
        let instances: Vec<_> = wanted
            .map(|(instance, known)| InstanceActivity {
                instance: *instance,
                leases: known.leases,
                // It has gone on being idle while it waited to be told.
                idle_for: match known.leases {
                    0 => known.idle_for + now.saturating_duration_since(known.said),
                    _ => known.idle_for,
                },
            })
            .collect();
        let report = self.from.filter(|_| full || !instances.is_empty());
        let report = report.map(|activator| ActivityReport {
            activator,
            sequence: self.sequence,
            full,
            instances,
        });
        let acks: Vec<_> = self.acks.values().map(|(ack, _)| ack.clone()).collect();
        (report.is_some() || !acks.is_empty()).then_some(Tidings {
            report,
            acks,
            as_of: self.version,
        })
    }

    /// A leader has answered.
    pub(super) fn told(&mut self, tidings: &Tidings) {
        let told = |since: Version| since <= tidings.as_of;
        if self.full_due.is_some_and(told) {
            self.full_due = None;
        }
        for known in self.known.values_mut() {
            if known.due.is_some_and(told) {
                known.due = None;
            }
        }
        self.acks.retain(|_, (_, since)| !told(*since));
    }
}
