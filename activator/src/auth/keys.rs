//! Static API keys, sent as `Authorization: Bearer mgk_…`.
//!
//! Invariants: a presented key is compared by its digest in constant time; a verdict never outlives the table it was
//! found in (the cache belongs to the table and is swapped with it); the key itself is kept nowhere.

use std::{fmt, sync::Arc};

use arc_swap::ArcSwap;
use axum::http::{HeaderMap, header::AUTHORIZATION};
use mcp_gateway_api::{
    failure::{Failure, FailureKind},
    principal::Principal,
};
use moka::sync::Cache;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::{Authenticate, file::KeyFile};

/// The `issuer` of principals that a key file knows.
const ISSUER: &str = "keys";
/// Verdicts remembered; only good ones, so strangers cannot push them out.
const VERDICTS: u64 = 10_000;

type Fingerprint = [u8; 32];

struct Table {
    keys: Vec<(Fingerprint, Principal)>,
    verdicts: Cache<Fingerprint, Principal>,
}

/// Knows callers by the keys of a [`KeyFile`].
pub struct StaticKeys {
    table: ArcSwap<Table>,
}

impl fmt::Debug for StaticKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StaticKeys")
            .field("keys", &self.table.load().keys.len())
            .finish()
    }
}

impl StaticKeys {
    /// Knows the keys of this file.
    #[must_use]
    pub fn new(file: &KeyFile) -> Self {
        Self {
            table: ArcSwap::from_pointee(Table::of(file)),
        }
    }

    /// Replaces what is known; keys that are no longer there stop working with the next request.
    pub fn replace(&self, file: &KeyFile) {
        self.table.store(Arc::new(Table::of(file)));
    }

    /// How many keys are known.
    #[must_use]
    pub fn count(&self) -> usize {
        self.table.load().keys.len()
    }
}

impl Table {
    fn of(file: &KeyFile) -> Self {
        let principal =
            |entry: &super::KeyEntry| Principal::new(ISSUER, entry.tenant.clone(), &entry.subject);
        Self {
            keys: file
                .keys
                .iter()
                .map(|entry| (entry.sha256, principal(entry)))
                .collect(),
            verdicts: Cache::new(VERDICTS),
        }
    }

    fn find(&self, presented: &Fingerprint) -> Option<Principal> {
        if let Some(known) = self.verdicts.get(presented) {
            return Some(known);
        }
        // All of the table is walked, so that the time taken tells nothing of where a match was.
        let found = self.keys.iter().fold(None, |found, (key, principal)| {
            if bool::from(key.ct_eq(presented)) {
                Some(principal)
            } else {
                found
            }
        })?;
        self.verdicts.insert(*presented, found.clone());
        Some(found.clone())
    }
}

impl Authenticate for StaticKeys {
    fn authenticate(&self, headers: &HeaderMap) -> Result<Principal, Failure> {
        let key = bearer(headers)?;
        let fingerprint: Fingerprint = Sha256::digest(key.as_bytes()).into();
        self.table
            .load()
            .find(&fingerprint)
            .ok_or_else(|| unauthenticated("The API key is not one this gateway knows."))
    }
}

/// The credential of the one `Authorization` header (RFC 6750 §2.1).
fn bearer(headers: &HeaderMap) -> Result<&str, Failure> {
    let mut all = headers.get_all(AUTHORIZATION).iter();
    let Some(value) = all.next() else {
        return Err(unauthenticated(
            "An API key is required: send it as 'Authorization: Bearer mgk_…'.",
        ));
    };
    if all.next().is_some() {
        return Err(unauthenticated(
            "There is more than one Authorization header: send exactly one.",
        ));
    }
    value
        .to_str()
        .ok()
        .and_then(|text| text.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, key)| key.trim())
        .filter(|key| !key.is_empty())
        .ok_or_else(|| {
            unauthenticated(
                "The Authorization header is not of the form 'Bearer mgk_…': send an API key.",
            )
        })
}

fn unauthenticated(public: &str) -> Failure {
    Failure::new(FailureKind::Unauthenticated, public)
}
