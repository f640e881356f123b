//! The permit to revive a session, as a guard: dropped unused it is given back, so that the session does not wait for it to
//! run out.

use mcp_gateway_api::{
    claim::{Claimed, Purpose, Standing},
    record::{SessionNews, SessionRef, SessionUpdate},
};

use super::news;
use crate::gateway::Gateway;

/// A permit. The directory knows of it until the control plane has answered what came of it.
pub(crate) struct Permit {
    gateway: Gateway,
    /// Which session's; taken once it is known what came of it.
    session: Option<SessionRef>,
}

impl Permit {
    /// The permit that a claim was answered with, if it was.
    pub(crate) fn of(gateway: &Gateway, purpose: &Purpose, claimed: &Claimed) -> Option<Self> {
        let (Purpose::Session { session, .. }, Standing::Revive) = (purpose, &claimed.standing)
        else {
            return None;
        };
        let directory = &gateway.deps.directory;
        directory.permitted(session.key, claimed.instance.id);
        Some(Self {
            gateway: gateway.clone(),
            session: Some(session.clone()),
        })
    }

    /// What came of it has been said.
    pub(crate) fn used(mut self) {
        self.session = None;
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(session) = self.session.take() {
            // Should this not be heard, the permit runs out by itself.
            let news = SessionNews::RevivalFailed { retry: true };
            news::record(&self.gateway, SessionUpdate { session, news });
        }
    }
}
