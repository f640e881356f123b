//! Who is calling: the seam behind which anonymous use, static keys and, later, OIDC stand.
//!
//! Runs before a session is looked up and before anything wakes, once for every request, so it never blocks: whatever
//! needs the disk or the network happens beforehand and is swapped in. It never logs what a caller presented.

use axum::http::HeaderMap;
use mcp_gateway_api::{failure::Failure, principal::Principal};

mod file;
mod keys;
#[cfg(test)]
mod tests;

pub use file::{KeyEntry, KeyFile, KeyFileError, NewKey};
pub use keys::StaticKeys;

/// Tells who is calling by a request's headers.
pub trait Authenticate: Send + Sync {
    /// The caller.
    ///
    /// # Errors
    /// `Unauthenticated` when a credential is missing or wrong; answered 401 with `WWW-Authenticate: Bearer`.
    fn authenticate(&self, headers: &HeaderMap) -> Result<Principal, Failure>;
}

/// Everybody is the one anonymous principal of the default tenant. Whatever credential is sent is ignored.
#[derive(Debug, Clone)]
pub struct Anonymous(Principal);

impl Default for Anonymous {
    fn default() -> Self {
        Self(Principal::anonymous())
    }
}

impl Authenticate for Anonymous {
    fn authenticate(&self, _headers: &HeaderMap) -> Result<Principal, Failure> {
        Ok(self.0.clone())
    }
}
