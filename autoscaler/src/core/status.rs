//! The state in words and numbers, for people. Looks at everything: asked for by a person, never by the loop.

use mcp_gateway_api::{
    ids::BackendName,
    status::{BackendStatus, FailureStatus, InstanceStatus, SlotStatus, Status},
    view::Reach,
};
use tokio::time::Instant;

use super::{
    Core, SlotId, Tally, Ticket,
    instance::{Instance, Phase},
    slot::{Slot, SlotPhase, owner_label},
};

impl Core {
    /// The state. What instances wrote to stderr is not in it: the core does not know it.
    #[must_use]
    pub fn status(&self) -> Status {
        let mut names: std::collections::BTreeSet<&BackendName> =
            self.catalog.backends.keys().collect();
        names.extend(self.tallies.keys());
        Status {
            backends: names
                .into_iter()
                .map(|name| self.backend_status(name))
                .collect(),
            instances: count(self.instances.len()),
            max_instances: count(self.settings.max_instances),
            session_records: self.records.len() as u64,
            draining: self.shutdown.is_some(),
        }
    }

    fn backend_status(&self, name: &BackendName) -> BackendStatus {
        let none = Tally::default();
        let tally = self.tallies.get(name).unwrap_or(&none);
        let slots: Vec<_> = tally
            .slots
            .iter()
            .flat_map(|id| self.slot_status(*id))
            .collect();
        let telling = ["ready", "starting", "draining", "backoff"];
        let state = telling
            .into_iter()
            .find(|phase| slots.iter().any(|slot| slot.phase == *phase));
        BackendStatus {
            name: name.to_string(),
            state: state.unwrap_or("cold").to_owned(),
            waiting: count(tally.waiting),
            starts: tally.starts,
            failures: tally.failures,
            last_failure: tally.last_failure.as_ref().map(|last| FailureStatus {
                ago_ms: millis(self.now, last.at),
                exit: last.exit.clone(),
                log: last.log.clone(),
                in_a_row: last.in_a_row,
            }),
            slots,
        }
    }

    /// The slot with its current instance, and one more line for each that is leaving.
    fn slot_status(&self, id: SlotId) -> Vec<SlotStatus> {
        let Some(slot) = self.slots.get(&id) else {
            return Vec::new();
        };
        let current = self.slot_line(slot);
        let leaving = slot.leaving.iter().filter_map(|ticket| {
            let instance = self.instances.get(ticket)?;
            Some(SlotStatus {
                owner: owner_label(&instance.key.owner),
                phase: "draining".to_owned(),
                instance: Some(self.instance_status(instance)),
                ..SlotStatus::default()
            })
        });
        let leaving: Vec<_> = leaving.collect();
        let shown = !leaving.is_empty() && slot.phase == SlotPhase::Cold;
        (!shown)
            .then_some(current)
            .into_iter()
            .chain(leaving)
            .collect()
    }

    fn slot_line(&self, slot: &Slot) -> SlotStatus {
        let instance = slot.phase.current().and_then(|t| self.get(t));
        let phase = match (slot.phase, instance.map(|i| i.phase)) {
            (SlotPhase::Serving(_), Some(Phase::IdleDraining)) => "draining",
            (phase, _) => phase.label(),
        };
        let next_try = match slot.phase {
            SlotPhase::Backoff { until } => Some(until),
            SlotPhase::Cold | SlotPhase::Starting(_) | SlotPhase::Serving(_) => None,
        };
        let idle_drain = instance.filter(|i| i.phase == Phase::Ready);
        SlotStatus {
            owner: owner_label(&slot.key.owner),
            phase: phase.to_owned(),
            waiting: count(slot.waiters.len()),
            instance: instance.map(|instance| self.instance_status(instance)),
            next_try_ms: next_try.map(|at| millis(at, self.now)),
            idle_drain_ms: idle_drain
                .and_then(|i| i.alarm)
                .map(|at| millis(at, self.now)),
        }
    }

    fn get(&self, ticket: Ticket) -> Option<&Instance> {
        self.instances.get(&ticket)
    }

    fn instance_status(&self, instance: &Instance) -> InstanceStatus {
        let phase = match instance.phase {
            Phase::Launching | Phase::Starting | Phase::Adopted => "starting",
            Phase::Ready => "ready",
            Phase::IdleDraining | Phase::Doomed | Phase::Retiring | Phase::Cut => "draining",
            Phase::Abandoned | Phase::Stopping => "stopping",
        };
        let reach = instance.endpoint.as_ref().map(|e| match e.reach {
            Reach::Tcp(address) => address.to_string(),
            Reach::InProcess => "in-process".to_owned(),
        });
        let launched = instance.launched.as_ref();
        InstanceStatus {
            id: instance.id().map(|id| id.to_string()).unwrap_or_default(),
            phase: phase.to_owned(),
            endpoint: reach,
            pid: launched.and_then(|launched| launched.pid),
            leases: instance.usage.leases(),
            age_ms: millis(self.now, instance.stages.asked),
            cold_start_ms: instance.stages.total().map(|t| t.as_millis() as u64),
            log: launched.and_then(|launched| launched.log.clone()),
            warnings: instance.warnings.clone(),
            stderr_tail: Vec::new(),
        }
    }
}

fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

fn millis(later: Instant, earlier: Instant) -> u64 {
    u64::try_from(later.saturating_duration_since(earlier).as_millis()).unwrap_or(u64::MAX)
}
