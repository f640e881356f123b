//! The permits to revive that this activator holds (`Standing::Revive`): a new leader is told of them, so that it gives
//! nobody a second one. Pure.
//!
//! Invariant: one is held from the claim's answer until the control plane has answered what came of it, its instance is
//! gone, or its time is over.

use std::collections::HashMap;

use mcp_gateway_api::{
    ids::{InstanceId, SessionKey},
    record::REVIVAL_PERMIT,
    scaler::Permit,
};
use tokio::time::Instant;

/// All of them: no more than sessions that wait for their revival.
#[derive(Debug, Default)]
pub(super) struct Permits(HashMap<SessionKey, (InstanceId, Instant)>);

impl Permits {
    pub(super) fn add(&mut self, session: SessionKey, on: InstanceId, now: Instant) {
        self.0.insert(session, (on, now));
    }

    pub(super) fn remove(&mut self, session: &SessionKey) {
        self.0.remove(session);
    }

    /// An instance is gone, and every permit for it.
    pub(super) fn void(&mut self, instance: InstanceId) {
        self.0.retain(|_, (on, _)| *on != instance);
    }

    /// Those that still count.
    pub(super) fn held(&mut self, now: Instant) -> Vec<Permit> {
        self.0
            .retain(|_, (_, since)| now.saturating_duration_since(*since) < REVIVAL_PERMIT);
        let held = self.0.iter().map(|(session, (instance, _))| Permit {
            session: *session,
            instance: *instance,
        });
        held.collect()
    }
}
