//! Whether a client may have a stream, and for how long: no more than its share, not beyond the life of a session, and not
//! once its backend is gone or no longer its tenant's. Never: asks anybody; what is known here is told by the catalog and the clock.

use std::time::Duration;

use mcp_gateway_api::{
    catalog::CatalogWatch,
    failure::Failure,
    ids::{BackendName, TenantName},
};
use tokio::time::{Instant, sleep_until};

use super::share::Share;
use crate::{caller::Caller, gateway::Gateway};

/// A caller's right to a stream.
pub(crate) struct Right {
    catalog: CatalogWatch,
    backend: BackendName,
    tenant: TenantName,
    until: Instant,
    _share: Share,
}

impl Right {
    /// For a stream that is opened now and may last for `lifetime`.
    ///
    /// # Errors
    /// `Overloaded`: the caller has its share of streams.
    pub(crate) fn new(
        gateway: &Gateway,
        caller: &Caller,
        lifetime: Duration,
    ) -> Result<Self, Failure> {
        Ok(Self {
            _share: gateway.shares.take(caller.principal.id)?,
            catalog: gateway.deps.catalog.clone(),
            backend: caller.backend.name.clone(),
            tenant: caller.principal.tenant.clone(),
            until: Instant::now() + lifetime,
        })
    }

    /// As [`Self::new`], for whatever has no session: as long as a session might last.
    ///
    /// # Errors
    /// As there.
    pub(crate) fn of(gateway: &Gateway, caller: &Caller) -> Result<Self, Failure> {
        Self::new(gateway, caller, caller.backend.policy.session_lifetime)
    }

    /// Whether it holds.
    pub(crate) fn holds(&self) -> bool {
        let catalog = self.catalog.borrow();
        let backend = catalog.get(&self.backend);
        backend.is_some_and(|backend| backend.admits(&self.tenant)) && Instant::now() < self.until
    }

    /// Resolves when it no longer holds. Nothing is lost if the future is dropped.
    pub(crate) async fn over(&mut self) {
        let mut told = true;
        while self.holds() {
            tokio::select! {
                // A registry that is gone changes nothing any more.
                changed = self.catalog.changed(), if told => told = changed.is_ok(),
                () = sleep_until(self.until) => {}
            }
        }
    }
}
