//! How many streams one principal may have open: a client that only opens streams must not take everybody's.
//!
//! Invariant: what is counted is counted until its guard is dropped.

use std::{collections::HashMap, sync::Arc, time::Duration};

use mcp_gateway_api::{
    failure::{Failure, FailureKind},
    principal::PrincipalId,
};
use parking_lot::Mutex;

/// The open streams of all principals.
pub(crate) struct Shares {
    most: usize,
    taken: Arc<Mutex<HashMap<PrincipalId, usize>>>,
}

/// One open stream.
pub(crate) struct Share {
    principal: PrincipalId,
    taken: Arc<Mutex<HashMap<PrincipalId, usize>>>,
}

impl Shares {
    /// At most `most` for each principal.
    pub(crate) fn new(most: usize) -> Self {
        Self {
            most,
            taken: Arc::default(),
        }
    }

    /// One more.
    ///
    /// # Errors
    /// `Overloaded`: the principal has as many as it may.
    pub(crate) fn take(&self, principal: PrincipalId) -> Result<Share, Failure> {
        let mut taken = self.taken.lock();
        let mine = taken.get(&principal).copied().unwrap_or(0);
        if mine >= self.most {
            return Err(
                Failure::new(FailureKind::Overloaded, "You have too many streams open.")
                    .retry_after(Duration::from_secs(5)),
            );
        }
        taken.insert(principal, mine + 1);
        Ok(Share {
            principal,
            taken: Arc::clone(&self.taken),
        })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut taken = self.taken.lock();
        if let Some(mine) = taken.get_mut(&self.principal) {
            *mine -= 1;
            if *mine == 0 {
                taken.remove(&self.principal);
            }
        }
    }
}
