//! What goes wrong: activators that leave, strangers, crashes, edits and deletions at the worst moment.

use super::*;

impl World {
    pub(super) fn join(&mut self) {
        if self.form == Form::Cluster {
            return self.join_from_pod();
        }
        let id = ActivatorId(self.rng.random());
        self.activators.insert(id, Activator::new(id, None));
        self.feed(Event::Joined(id));
        let all = self.snapshot();
        self.view(id, 1, all);
        self.later(REPORT_EVERY, Act::FullReport(id));
    }

    pub(super) fn leave(&mut self) {
        let Some(id) = self.some_activator() else {
            return;
        };
        self.checks.counts.activators_left += 1;
        self.die(id);
        let after = ms(&mut self.rng, 50);
        self.later(after, Act::Core(Event::Left(id)));
    }

    /// An activator's process ends, and its clients lose their connections.
    pub(super) fn die(&mut self, id: ActivatorId) {
        self.activators.remove(&id);
        let asked = self.pending.iter_mut().filter(|(_, p)| p.activator == id);
        let mut waiting = vec![];
        for (waiter, pending) in asked {
            if !pending.left {
                pending.left = true;
                waiting.push(*waiter);
            }
        }
        for waiter in waiting {
            self.feed(Event::Withdrawn(waiter));
        }
    }

    pub(super) fn some_activator(&mut self) -> Option<ActivatorId> {
        let n = self.rng.random_range(0..self.activators.len().max(1));
        self.activators.keys().nth(n).copied()
    }

    pub(super) fn chaos(&mut self) {
        let of = self.rng.random_range(0..clients::NAMES.len());
        if self.form == Form::Cluster && self.rng.random_ratio(1, 2) {
            return self.cluster_chaos();
        }
        match self.rng.random_range(0..12) {
            0..2 => {
                if self.form == Form::OneMachine {
                    self.leave();
                    self.join();
                }
            }
            2..4 => {
                let stray = self.runtime.stray(&mut self.rng);
                self.checks.counts.strays += 1;
                self.feed(Event::Runtime(stray));
            }
            4..7 => {
                let n = self.rng.random_range(0..self.runtime.alive.len().max(1));
                if let Some(id) = self.runtime.alive.keys().nth(n).copied() {
                    self.happen(Happening::Crash(id));
                }
            }
            7..9 => self.edit(of),
            9..11 => {
                let Some(old) = self.catalog.get(&clients::name(of)).cloned() else {
                    return self.change_back(of);
                };
                let backend = clients::backend(of, old.generation.0, &mut self.rng);
                self.checks.counts.policies += 1;
                self.change(of, Some(backend));
            }
            _ if self.catalog.get(&clients::name(of)).is_some() => {
                self.checks.counts.deletions += 1;
                self.change(of, None);
                let after = ms(&mut self.rng, 8_000);
                self.later(after, Act::Restore(of));
            }
            _ => self.change_back(of),
        }
    }

    /// A drain is disturbed by demand, and what came of that by an edit.
    pub(super) fn disturb(&mut self, slot: &SlotKey) {
        if self.rng.random_ratio(1, 3) {
            let after = ms(&mut self.rng, 30);
            self.later(after, Act::Demand(slot.clone()));
            if self.rng.random_ratio(1, 4) {
                let of = clients::NAMES
                    .iter()
                    .position(|n| *n == slot.backend.as_str());
                let after = ms(&mut self.rng, 1_500);
                self.later(after, Act::Edit(of.expect("it is one of them")));
            }
        }
    }

    pub(super) fn demand(&mut self, slot: &SlotKey) {
        let Some(at) = self.some_activator() else {
            return;
        };
        let of = clients::NAMES
            .iter()
            .position(|n| *n == slot.backend.as_str());
        let tenant = match &slot.owner {
            Owner::Tenant(tenant) => tenant.clone(),
            Owner::Session(_) | Owner::Principal(_) | Owner::Nobody => {
                clients::principal(&mut self.rng).tenant
            }
        };
        let principal = principal_of(&tenant, "ann");
        self.claim(
            at,
            of.expect("it is one of them"),
            &principal,
            Purpose::Exchange,
        );
    }

    pub(super) fn edit(&mut self, of: usize) {
        if self.catalog.get(&clients::name(of)).is_some() {
            self.generation += 1;
            let backend = clients::backend(of, self.generation, &mut self.rng);
            self.checks.counts.edits += 1;
            self.change(of, Some(backend));
        }
    }

    pub(super) fn change_back(&mut self, of: usize) {
        let backend = clients::backend(of, self.generation, &mut self.rng);
        self.change(of, Some(backend));
    }

    pub(super) fn change(&mut self, of: usize, backend: Option<Backend>) {
        match backend {
            Some(backend) => self
                .catalog
                .backends
                .insert(clients::name(of), Arc::new(backend)),
            None => self.catalog.backends.remove(&clients::name(of)),
        };
        self.feed(Event::Catalog(Arc::new(self.catalog.clone())));
    }
}
