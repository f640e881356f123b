//! What must hold between the parts of the core at any time. Looks at everything: for tests and the simulation.

use super::{Core, claims::Place, slot::SlotPhase};

impl Core {
    /// Checks that the parts agree with each other.
    ///
    /// # Errors
    /// The first thing that does not hold, in words.
    pub fn audit(&self) -> Result<(), String> {
        self.audit_slots()?;
        self.audit_instances()?;
        self.audit_waiters()?;
        self.audit_counts()
    }

    fn audit_slots(&self) -> Result<(), String> {
        for (key, id) in &self.by_key {
            hold(
                self.slots.get(id).is_some_and(|s| s.key == *key),
                "a key names another slot",
            )?;
        }
        hold(
            self.by_key.len() == self.slots.len(),
            "two slots have one key",
        )?;
        for (id, slot) in &self.slots {
            let current = slot.phase.current();
            if let Some(ticket) = current {
                let one = self.instances.get(&ticket);
                let fits =
                    one.is_some_and(|i| i.phase.is_current() && i.slot == *id && i.key == slot.key);
                hold(fits, "a slot's current instance is not its own")?;
            }
            for ticket in &slot.leaving {
                let one = self.instances.get(ticket);
                hold(
                    one.is_some_and(|i| !i.phase.is_current() && i.slot == *id),
                    "a leaving instance is current",
                )?;
            }
            let idle = slot.phase == SlotPhase::Cold && slot.leaving.is_empty();
            hold(!(idle && slot.waiters.is_empty()), "a void slot is kept")?;
            hold(
                !idle || slot.starved || self.takeover.is_some(),
                "a cold slot with waiters does nothing",
            )?;
            hold(
                slot.starved == self.starved.contains(id),
                "starved slots differ",
            )?;
            let offered = slot.provisional.as_ref().is_some_and(|p| {
                self.offers
                    .get(&(slot.key.backend.clone(), p.principal))
                    .is_some_and(|o| o.contains(id))
            });
            hold(slot.provisional.is_some() == offered, "offers differ")?;
        }
        hold(
            self.starved.iter().all(|id| self.slots.contains_key(id)),
            "a starved slot is gone",
        )?;
        let offers = self.offers.values().flatten();
        hold(
            offers.copied().all(|id| self.slots.contains_key(&id)),
            "an offered slot is gone",
        )
    }

    fn audit_instances(&self) -> Result<(), String> {
        for (ticket, one) in &self.instances {
            let slot = self.slots.get(&one.slot).ok_or("an instance has no slot")?;
            let current = slot.phase.current() == Some(*ticket);
            hold(
                current != slot.leaving.contains(ticket),
                "an instance is not exactly once in its slot",
            )?;
            hold(
                one.launched.is_some() != self.in_flight.contains(ticket),
                "a launch is answered and not",
            )?;
            if let Some(id) = one.id() {
                hold(
                    self.by_id.get(&id) == Some(ticket),
                    "an id names another instance",
                )?;
            }
        }
        hold(
            self.by_id.values().all(|t| self.instances.contains_key(t)),
            "an id names nothing",
        )?;
        hold(
            self.in_flight
                .iter()
                .all(|t| self.instances.contains_key(t)),
            "a launch is nobody's",
        )
    }

    fn audit_waiters(&self) -> Result<(), String> {
        for (id, waiter) in &self.waiters {
            let seated = match waiter.place {
                Place::Arriving => false,
                Place::Slot(slot) => self
                    .slots
                    .get(&slot)
                    .is_some_and(|s| s.waiters.contains(id)),
                Place::Revival(key) => self
                    .revivals
                    .get(&key)
                    .is_some_and(|r| r.queue.contains(id)),
            };
            hold(seated, "a waiter sits nowhere")?;
        }
        let seats = self.slots.values().map(|s| s.waiters.len()).sum::<usize>()
            + self.revivals.values().map(|r| r.queue.len()).sum::<usize>();
        hold(seats == self.waiters.len(), "a seat is nobody's")
    }

    fn audit_counts(&self) -> Result<(), String> {
        let ending = self
            .instances
            .values()
            .filter(|i| i.phase.is_ending())
            .count();
        hold(ending == self.ending, "ending is miscounted")?;
        for (name, tally) in &self.tallies {
            let mine = || self.slots.iter().filter(|(_, s)| s.key.backend == *name);
            hold(
                mine().all(|(id, _)| tally.slots.contains(id)),
                "a tally lacks a slot",
            )?;
            hold(
                mine().count() == tally.slots.len(),
                "a tally has a slot too many",
            )?;
            let occupied = mine().filter(|(_, s)| s.occupied).count();
            hold(occupied == tally.occupied, "occupied slots are miscounted")?;
            let waiting = self
                .waiters
                .values()
                .filter(|w| w.request.backend == *name)
                .count();
            hold(waiting == tally.waiting, "those who wait are miscounted")?;
        }
        hold(
            self.instances.len() <= self.settings.max_instances.max(self.found),
            "there are more instances than there may be",
        )
    }
}

fn hold(holds: bool, otherwise: &'static str) -> Result<(), String> {
    if holds {
        Ok(())
    } else {
        Err(otherwise.to_owned())
    }
}
