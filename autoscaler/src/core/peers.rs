//! The activators: who listens, who is silent, who is gone.
//!
//! Invariant: an activator's leases count until it is *known* to be gone: it says goodbye, its pod is gone, another
//! process of its pod listens, or it has been silent for [`PARTITION`]. Silence alone ends nothing.

use std::collections::{BTreeMap, BTreeSet};

use mcp_gateway_api::{
    ids::ActivatorId,
    scaler::{ActivatorPod, PodUid, Presence},
};
use tokio::time::Instant;

use super::{Core, Ticket, planner::PARTITION, timers::Timer};

/// One activator.
#[derive(Debug, Default)]
pub(super) struct Activator {
    pub(super) sequence: Option<u64>,
    /// Where it holds leases by its last word.
    pub(super) leasing: BTreeSet<Ticket>,
    /// Absent for one in this process.
    pod: Option<ActivatorPod>,
    /// Until when it may be silent, if it is.
    silent: Option<Instant>,
    /// It has said all it knows.
    pub(super) restated: bool,
}

impl Core {
    /// An activator of this process.
    pub(super) fn join(&mut self, id: ActivatorId) {
        // It is as new as this core: it knows nothing that could be restated.
        self.activators.entry(id).or_default().restated = true;
        self.await_ack(id);
        self.check_complete();
    }

    /// An activator of another process; a process of the same pod that began before it is gone.
    pub(super) fn subscribed(&mut self, id: ActivatorId, pod: ActivatorPod) {
        if let Some((incarnation, before)) = self.pods.get(&pod.uid).copied() {
            if incarnation > pod.incarnation {
                return;
            }
            if before != id {
                self.leave(before);
            }
        }
        self.pods.insert(pod.uid, (pod.incarnation, id));
        let one = self.activators.entry(id).or_default();
        one.pod = Some(pod);
        self.timers.set(&mut one.silent, None, Timer::Silence(id));
        self.await_ack(id);
    }

    /// Whether anything this activator says is heard. One whose pod runs a later process is not.
    #[must_use]
    pub fn listens_to(&self, id: ActivatorId) -> bool {
        self.activators.contains_key(&id)
    }

    pub(super) fn silent(&mut self, id: ActivatorId) {
        let until = Some(self.now + PARTITION);
        if let Some(one) = self.activators.get_mut(&id) {
            self.timers.set(&mut one.silent, until, Timer::Silence(id));
        }
    }

    pub(super) fn silent_too_long(&mut self, id: ActivatorId) {
        if let Some(one) = self.activators.get_mut(&id) {
            one.silent = None;
            self.leave(id);
        }
    }

    pub(super) fn expected(&mut self, pods: BTreeMap<PodUid, Presence>) {
        let before = self.expected.replace(pods);
        let gone = before.into_iter().flatten().filter(|(uid, _)| {
            let expected = self.expected.as_ref();
            expected.is_some_and(|now| !now.contains_key(uid))
        });
        let gone: Vec<ActivatorId> = gone
            .filter_map(|(uid, _)| self.pods.get(&uid).map(|(_, id)| *id))
            .collect();
        for id in gone {
            self.leave(id);
        }
        self.check_complete();
    }

    /// It is gone, and its leases with it.
    pub(super) fn leave(&mut self, id: ActivatorId) {
        let Some(mut one) = self.activators.remove(&id) else {
            return;
        };
        self.timers.set(&mut one.silent, None, Timer::Silence(id));
        if let Some(pod) = one.pod
            && self.pods.get(&pod.uid).is_some_and(|(_, last)| *last == id)
        {
            self.pods.remove(&pod.uid);
        }
        let all: Vec<Ticket> = self.instances.keys().copied().collect();
        for ticket in all {
            if let Some(instance) = self.instances.get_mut(&ticket) {
                instance.usage.leave(id, self.now);
                if let Some(drain) = &mut instance.drain {
                    drain.leave(id);
                }
            }
            self.finish_drain(ticket);
            self.check_idle(ticket);
        }
        self.check_complete();
    }

    /// While the view is incomplete a drain may have begun before this one was known to exist.
    fn await_ack(&mut self, id: ActivatorId) {
        if self.takeover.is_none() {
            return;
        }
        for instance in self.instances.values_mut() {
            if let Some(drain) = &mut instance.drain {
                drain.expect(id);
            }
        }
    }

    /// Whether everybody has been heard; if so the view is complete.
    pub(super) fn check_complete(&mut self) {
        let Some(expected) = self.expected.as_ref().filter(|_| self.takeover.is_some()) else {
            return;
        };
        // From a pod whose process crashes again and again nobody may be heard for long.
        let heard = |(uid, presence): (&PodUid, &Presence)| {
            *presence == Presence::Down || self.pods.contains_key(uid)
        };
        if expected.iter().all(heard) && self.activators.values().all(|one| one.restated) {
            self.complete();
        }
    }
}
