//! What is shown of the core: to activators, and to those who watch it for leaks.

use std::sync::Arc;

use mcp_gateway_api::{
    ids::InstanceId,
    view::{InstanceView, Lookup, ViewEvent},
};

use super::{Core, instance::Instance};

impl Core {
    /// What is known of an instance. What is not known is gone, once the view is complete; on one machine it always is.
    #[must_use]
    pub fn lookup(&self, id: InstanceId) -> Lookup {
        let Some(instance) = self.by_id.get(&id).and_then(|t| self.instances.get(t)) else {
            return if self.is_complete() {
                Lookup::Gone
            } else {
                Lookup::Unknown
            };
        };
        match instance.view() {
            Some(view) => Lookup::Ready(view),
            None if instance.phase.is_ending() => Lookup::Gone,
            None => Lookup::Unknown,
        }
    }

    /// All that activators may know.
    #[must_use]
    pub fn snapshot(&self) -> ViewEvent {
        ViewEvent::Snapshot {
            stamp: self.stamp,
            complete: self.is_complete(),
            instances: self
                .instances
                .values()
                .filter_map(Instance::view)
                .collect::<Vec<InstanceView>>(),
            records: self.records.iter().map(Arc::clone).collect(),
        }
    }

    /// How much is kept, by what: what the simulation watches for leaks.
    #[must_use]
    pub fn sizes(&self) -> [(&'static str, usize); 12] {
        [
            ("slots", self.slots.len()),
            ("keys", self.by_key.len()),
            ("offers", self.offers.len()),
            ("starved", self.starved.len()),
            ("instances", self.instances.len()),
            ("ids", self.by_id.len()),
            ("ending", self.ending),
            ("launches", self.in_flight.len()),
            ("strays", self.strays.len()),
            ("waiters", self.waiters.len()),
            ("revivals", self.revivals.len()),
            (
                "timers",
                self.timers.len() - usize::from(self.records_alarm.is_some()),
            ),
        ]
    }
}
