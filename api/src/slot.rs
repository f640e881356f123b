//! The unit of scaling.

use serde::{Deserialize, Serialize};

use crate::{
    ids::{BackendName, SessionKey, TenantName},
    policy::Isolation,
    principal::PrincipalId,
};

/// Who a slot belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Owner {
    /// A legacy session (isolation `session`).
    Session(SessionKey),
    /// A principal: modern exchanges and servers without session ids, under isolation `session`.
    Principal(PrincipalId),
    /// A tenant.
    Tenant(TenantName),
    /// Nobody: shared by all.
    Nobody,
}

/// (backend, owner). One instance per slot today; the types of the autoscaler allow more.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SlotKey {
    /// Of which server.
    pub backend: BackendName,
    /// For whom.
    pub owner: Owner,
}

impl SlotKey {
    /// The slot of a session (`Some`) or of an exchange without one (`None`).
    #[must_use]
    pub fn of(
        backend: &BackendName,
        isolation: Isolation,
        tenant: &TenantName,
        principal: PrincipalId,
        session: Option<SessionKey>,
    ) -> Self {
        let owner = match (isolation, session) {
            (Isolation::Session, Some(key)) => Owner::Session(key),
            (Isolation::Session, None) => Owner::Principal(principal),
            (Isolation::Tenant, _) => Owner::Tenant(tenant.clone()),
            (Isolation::Shared, _) => Owner::Nobody,
        };
        Self {
            backend: backend.clone(),
            owner,
        }
    }
}
