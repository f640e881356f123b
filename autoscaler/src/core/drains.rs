//! Idleness and retirement: reports in, drains begun, acknowledgements counted.
//!
//! Invariant: an instance in service is ended only when every activator that listened when its drain was published has
//! acknowledged it with no lease, or has left; except that deletion and shutdown cut after their time.

use std::time::Duration;

use mcp_gateway_api::{
    activity::{ActivityReport, DrainAck},
    ids::ActivatorId,
};
use tokio::time::Instant;

use super::{
    Core, Ticket,
    activity::Heard,
    claims::shutting_down,
    instance::{Input, Phase, Retirement},
    peers::Activator,
    planner::{CUT_GRACE, FAREWELL_GRACE, IdleFacts, IdlePlan, plan_idle},
};

impl Core {
    pub(super) fn report(&mut self, report: &ActivityReport) {
        let from = report.activator;
        let Some(activator) = self.activators.get_mut(&from) else {
            return;
        };
        if activator.sequence >= Some(report.sequence) {
            return;
        }
        activator.sequence = Some(report.sequence);
        let mut absent = if report.full {
            activator.leasing.clone()
        } else {
            std::collections::BTreeSet::new()
        };
        for one in &report.instances {
            if let Some(ticket) = self.by_id.get(&one.instance).copied() {
                absent.remove(&ticket);
                self.used(from, ticket, one.leases, one.idle_for);
            }
        }
        for ticket in absent {
            if let Some(instance) = self.instances.get_mut(&ticket) {
                instance.usage.absent(from, self.now);
            }
            if let Some(activator) = self.activators.get_mut(&from) {
                activator.leasing.remove(&ticket);
            }
            self.check_idle(ticket);
        }
    }

    fn used(&mut self, from: ActivatorId, ticket: Ticket, leases: u32, idle_for: Duration) {
        if let Some(instance) = self.instances.get_mut(&ticket) {
            instance.usage.report(from, self.now, leases, idle_for);
            // One that was taken for gone has come back with leases.
            if let Some(drain) = instance.drain.as_mut().filter(|_| leases > 0) {
                drain.expect(from);
            }
        }
        if let Some(Activator { leasing, .. }) = self.activators.get_mut(&from) {
            if leases > 0 {
                leasing.insert(ticket);
            } else {
                leasing.remove(&ticket);
            }
        }
        self.check_idle(ticket);
    }

    pub(super) fn acknowledge(&mut self, ack: &DrainAck) {
        let Some(ticket) = self.by_id.get(&ack.instance).copied() else {
            return;
        };
        let Some(instance) = self.instances.get_mut(&ticket) else {
            return;
        };
        let Some(drain) = &mut instance.drain else {
            return;
        };
        let phase = instance.phase;
        let heard = drain.acknowledge(ack.activator, ack.stamp, ack.leases);
        match heard {
            Heard::Ignored => return,
            Heard::Waiting | Heard::InUse | Heard::Drained => {}
        }
        self.used(ack.activator, ticket, ack.leases, Duration::ZERO);
        if heard == Heard::InUse && phase == Phase::IdleDraining {
            self.fence(ticket);
            self.advance(ticket, Input::Demand, "it is in use".into());
        }
        self.finish_drain(ticket);
    }

    /// Goes on if a drain has nobody left to wait for.
    pub(super) fn finish_drain(&mut self, ticket: Ticket) {
        let Some(instance) = self.instances.get(&ticket) else {
            return;
        };
        // Not everybody has been heard, or it is not known yet whether this leader may keep it.
        let undecided = instance.phase == Phase::IdleDraining && instance.is_unfenced();
        if self.takeover.is_some() || undecided {
            return;
        }
        let drain = instance.drain.as_ref();
        if drain.is_some_and(super::activity::Drain::is_over) {
            self.advance(ticket, Input::Drained, "no lease is left".into());
        }
    }

    /// Drains a ready instance that has been idle long enough, or sets the alarm for when it will have been.
    pub(super) fn check_idle(&mut self, ticket: Ticket) {
        let Some(instance) = self.instances.get(&ticket) else {
            return;
        };
        if instance.phase != Phase::Ready {
            return;
        }
        if self.takeover.is_some() {
            return self.set_alarm(ticket, None);
        }
        let ended = self.slots.get(&instance.slot).is_some_and(|s| s.ended);
        let policy = self.catalog.get(&instance.key.backend);
        let policy = policy.map_or(&instance.backend.policy, |backend| &backend.policy);
        let facts = IdleFacts {
            idle_since: instance
                .usage
                .idle_since(instance.stages.ready.unwrap_or(self.now)),
            given: instance.usage.given(),
            idle_timeout: if ended {
                Duration::ZERO
            } else {
                policy.idle_timeout
            },
        };
        match plan_idle(&facts, self.now) {
            IdlePlan::Busy => self.set_alarm(ticket, None),
            IdlePlan::CheckAt(at) => self.set_alarm(ticket, Some(at)),
            IdlePlan::Drain(idle) => {
                let why = if ended {
                    "its session has ended".into()
                } else {
                    format!("idle for {idle:.0?}").into()
                };
                self.advance(ticket, Input::Idle, why);
            }
        }
    }

    /// Lets an instance go for good.
    pub(super) fn retire(&mut self, ticket: Ticket, why: Retirement, cut_at: Option<Instant>) {
        let Some(instance) = self.instances.get_mut(&ticket) else {
            return;
        };
        instance.cut_at = match (instance.cut_at, cut_at) {
            (Some(old), Some(new)) => Some(old.min(new)),
            (old, new) => old.or(new),
        };
        let (phase, cut_at) = (instance.phase, instance.cut_at);
        if phase == Phase::Retiring {
            self.set_alarm(ticket, cut_at);
        }
        let input = if self.takeover.is_some() {
            Input::Condemn
        } else {
            Input::Retire
        };
        self.advance(ticket, input, why.why().into());
    }

    /// Everything ends: who waits is told, what runs retires and is cut in time.
    pub(super) fn shut_down(&mut self, within: Duration) {
        // Whoever has not been heard is cut like everybody else.
        self.complete();
        let farewell = FAREWELL_GRACE.min(within / 4);
        self.shutdown = Some(farewell);
        let waiters: Vec<_> = {
            let mut ids: Vec<_> = self.waiters.keys().copied().collect();
            ids.sort_unstable();
            ids
        };
        for id in waiters {
            self.answer(id, Err(shutting_down()));
        }
        let spare = within.saturating_sub(farewell + CUT_GRACE);
        let all: Vec<Ticket> = self.instances.keys().copied().collect();
        for ticket in all {
            if let Some(instance) = self.instances.get(&ticket) {
                let limit = instance.backend.policy.drain_timeout.min(spare);
                self.retire(ticket, Retirement::Shutdown, Some(self.now + limit));
            }
        }
        let slots: Vec<_> = self.slots.keys().copied().collect();
        for slot in slots {
            self.poke(slot);
        }
    }
}
