//! The backends have changed: what starts differently retires, what only scales differently is looked at again, what is
//! gone is cut in time.

use std::{collections::BTreeSet, sync::Arc};

use mcp_gateway_api::{backend::Backend, catalog::Catalog, ids::BackendName};

use super::{
    Core, SlotId, Ticket,
    instance::Retirement,
    slot::{self, SlotInput},
};

/// What a new catalog means for a backend of the old one.
enum Fate {
    Same,
    Policy,
    Edited,
    Deleted,
}

fn fate(old: &Arc<Backend>, new: Option<&Arc<Backend>>) -> Fate {
    match new {
        None => Fate::Deleted,
        Some(new) if Arc::ptr_eq(old, new) => Fate::Same,
        Some(new) if old.generation != new.generation => Fate::Edited,
        Some(new) if old.policy != new.policy => Fate::Policy,
        Some(_) => Fate::Same,
    }
}

impl Core {
    pub(super) fn replace_catalog(&mut self, catalog: Arc<Catalog>) {
        let old = std::mem::replace(&mut self.catalog, catalog);
        for (name, backend) in &old.backends {
            match fate(backend, self.catalog.get(name)) {
                Fate::Same => {}
                Fate::Policy => self.policy_changed(name),
                Fate::Edited => self.backend_changed(name, Retirement::Edited, backend),
                Fate::Deleted => self.backend_changed(name, Retirement::Deleted, backend),
            }
        }
    }

    fn slots_of(&self, name: &BackendName) -> BTreeSet<SlotId> {
        self.tallies
            .get(name)
            .map_or_else(BTreeSet::new, |tally| tally.slots.clone())
    }

    fn policy_changed(&mut self, name: &BackendName) {
        for id in self.slots_of(name) {
            if let Some(current) = self.slots.get(&id).and_then(|s| s.phase.current()) {
                self.check_idle(current);
            }
            // Isolation is part of the generation: every waiter still sits where it belongs.
            self.poke(id);
        }
    }

    fn backend_changed(&mut self, name: &BackendName, why: Retirement, old: &Backend) {
        let cut_at = match why {
            Retirement::Edited | Retirement::Doubled | Retirement::Ended => None,
            Retirement::Deleted | Retirement::Shutdown => Some(self.now + old.policy.drain_timeout),
        };
        if let Some(tally) = self.tallies.get_mut(name) {
            tally.sessionless = false;
        }
        let slots = self.slots_of(name);
        let mut waiters = BTreeSet::new();
        for id in &slots {
            if let Some(slot) = self.slots.get_mut(id) {
                // Those who wait are seated anew below; nothing is launched for them here under the old isolation.
                waiters.append(&mut slot.waiters.clone());
                slot.phase = slot::step(slot.phase, SlotInput::Forgive);
                slot.failures = 0;
            }
        }
        let seated: Vec<_> = waiters.iter().copied().collect();
        for id in seated {
            self.unseat(id);
        }
        for id in &slots {
            let Some(slot) = self.slots.get(id) else {
                continue;
            };
            let all: Vec<Ticket> = slot
                .leaving
                .iter()
                .copied()
                .chain(slot.phase.current())
                .collect();
            for ticket in all {
                self.retire(ticket, why, cut_at);
            }
        }
        self.place_all(waiters);
        for id in slots {
            self.poke(id);
        }
        if self.catalog.get(name).is_none()
            && self.tallies.get(name).is_some_and(|t| t.slots.is_empty())
        {
            self.tallies.remove(name);
        }
    }
}
