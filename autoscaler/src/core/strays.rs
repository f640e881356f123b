//! Runtime events of instances whose launch has not been answered yet.
//!
//! The answer of a launch and the first events of its instance come by different roads, so an event may be first. It is
//! kept until every launch that was under way when it came has been answered; if none of them was its own, the instance
//! is nobody's and is terminated. Invariant: bounded by what one runtime can say in that time, and by [`MAX_STRAYS`].

use std::collections::BTreeMap;

use mcp_gateway_api::ids::InstanceId;
use mcp_gateway_runtime::RuntimeEvent;

use super::Ticket;

/// Most instances whose events are kept; the next unknown one is terminated at once.
const MAX_STRAYS: usize = 1_024;
/// Most events kept of one instance, warnings beyond them are dropped.
const MAX_EVENTS: usize = 16;

#[derive(Debug)]
struct Stray {
    /// The latest launch that may be its own.
    until: Ticket,
    events: Vec<RuntimeEvent>,
}

/// The events.
#[derive(Debug, Default)]
pub(super) struct Strays {
    by_id: BTreeMap<InstanceId, Stray>,
}

impl Strays {
    /// Keeps an event; `false` when there is no room for it.
    pub(super) fn keep(&mut self, id: InstanceId, until: Ticket, event: RuntimeEvent) -> bool {
        if self.by_id.len() >= MAX_STRAYS && !self.by_id.contains_key(&id) {
            return false;
        }
        let stray = self.by_id.entry(id).or_insert_with(|| Stray {
            until,
            events: Vec::new(),
        });
        let is_warning = matches!(event, RuntimeEvent::Warning(..) | RuntimeEvent::Waits(..));
        // Each of the other kinds comes once; losing one would strand the instance.
        if !is_warning || stray.events.len() < MAX_EVENTS {
            stray.events.push(event);
        }
        true
    }

    /// The events of an instance that is now known.
    pub(super) fn claim(&mut self, id: InstanceId) -> Vec<RuntimeEvent> {
        self.by_id
            .remove(&id)
            .map_or_else(Vec::new, |stray| stray.events)
    }

    /// Those that belong to no launch any more, given the earliest that is still under way. Those that have exited
    /// need no terminating.
    pub(super) fn settle(&mut self, earliest: Option<Ticket>) -> Vec<InstanceId> {
        let mut orphans = Vec::new();
        self.by_id.retain(|id, stray| {
            let may_be_known = earliest.is_some_and(|ticket| ticket <= stray.until);
            let exited = stray
                .events
                .iter()
                .any(|event| matches!(event, RuntimeEvent::Exited(..)));
            if !may_be_known && !exited {
                orphans.push(*id);
            }
            may_be_known
        });
        orphans
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }
}
