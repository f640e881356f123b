//! Who is calling. Session ids and modern slots are bound to it.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::ids::TenantName;

/// (issuer or key store, tenant, subject).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Principal {
    /// `anonymous`, `keys`, or an OIDC issuer's URL.
    pub issuer: Arc<str>,
    /// Whom the caller works for.
    pub tenant: TenantName,
    /// Who it is, unique within issuer and tenant.
    pub subject: Arc<str>,
    /// Derived from the three above; what slots and session ids carry.
    pub id: PrincipalId,
}

impl Principal {
    /// Makes a principal and its id.
    #[must_use]
    pub fn new(issuer: &str, tenant: TenantName, subject: &str) -> Self {
        let id = PrincipalId::of(issuer, &tenant, subject);
        Self {
            issuer: issuer.into(),
            tenant,
            subject: subject.into(),
            id,
        }
    }

    /// The caller where neither keys nor OIDC are configured.
    #[must_use]
    pub fn anonymous() -> Self {
        Self::new("anonymous", TenantName::default(), "anonymous")
    }
}

/// A principal as 128 bits of SHA-256 over its length-prefixed parts: comparable, loggable, not reversible by reading.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PrincipalId(pub [u8; 16]);

impl PrincipalId {
    fn of(issuer: &str, tenant: &TenantName, subject: &str) -> Self {
        let mut hash = Sha256::new();
        for part in [issuer, tenant.as_str(), subject] {
            // Lengths keep ("a", "bc") and ("ab", "c") apart.
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part.as_bytes());
        }
        let digest = hash.finalize();
        let mut id = [0; 16];
        id.iter_mut().zip(digest).for_each(|(to, from)| *to = from);
        Self(id)
    }
}

impl fmt::Debug for PrincipalId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().take(4).try_for_each(|b| write!(f, "{b:02x}"))
    }
}
