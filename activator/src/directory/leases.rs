//! The leases that the directory gives, and takes back.

use std::sync::Arc;

use mcp_gateway_api::ids::InstanceId;
use tokio::time::Instant;

use super::Directory;
use crate::lease::{Entry, Lease, NotNow};

impl Directory {
    /// Takes a lease. The warm path: two short locks, no allocation.
    ///
    /// # Errors
    /// The instance is gone, draining or not known.
    pub fn lease(&self, instance: InstanceId) -> Result<Lease, NotNow> {
        self.take_lease(instance, None)
    }

    /// As [`Self::lease`], for no longer than until `ends`: then it is given back, whoever holds it.
    ///
    /// # Errors
    /// As there.
    pub fn lease_until(&self, instance: InstanceId, ends: Instant) -> Result<Lease, NotNow> {
        self.take_lease(instance, Some(ends))
    }

    fn take_lease(&self, instance: InstanceId, until: Option<Instant>) -> Result<Lease, NotNow> {
        match self.entry(instance) {
            Some(entry) => Lease::take(entry, Arc::clone(&self.inner.outbox), until),
            None if self.inner.gone.lock().set.contains(&instance) => Err(NotNow::Gone),
            None => Err(NotNow::Unknown),
        }
    }

    /// What goes for a lease on an instance that retires and keeps nothing; see [`Lease::visit`].
    pub(crate) fn visit(&self, instance: InstanceId) -> Option<Lease> {
        Lease::visit(self.entry(instance)?, Arc::clone(&self.inner.outbox))
    }

    /// Gives back the leases whose terms are over, and those with a term on instances that are cut. Call each second.
    pub fn give_back_overdue(&self, now: Instant) {
        for entry in self.entries() {
            entry.give_back_overdue(&self.inner.outbox, now);
        }
    }

    /// Gives back every lease that has a term: all exchanges end now.
    pub fn give_back_all(&self) {
        for entry in self.entries() {
            entry.give_back(&self.inner.outbox, |_ends| true);
        }
    }

    pub(super) fn entries(&self) -> Vec<Arc<Entry>> {
        let table = self.inner.table.read();
        table.values().map(Arc::clone).collect()
    }

    /// Leases held now on all instances.
    #[must_use]
    pub fn leases(&self) -> u64 {
        let table = self.inner.table.read();
        let each = table
            .values()
            .map(|entry| u64::from(entry.state.lock().leases));
        each.sum()
    }
}
