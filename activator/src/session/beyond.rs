//! Entries of sessions for which the table had no room. They live as long as somebody has them in hand, and as long they
//! are found again and can be ended.
//!
//! Invariant: bounded by who has one in hand; nothing here keeps an entry.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
};

use mcp_gateway_api::{ids::SessionKey, record::SessionRef};

use super::Session;

/// Fewest entries among which it pays to look for dead ones.
const FEW: usize = 64;

#[derive(Default)]
pub(super) struct Beyond {
    entries: HashMap<SessionKey, Weak<Session>>,
    prune_at: usize,
}

impl Beyond {
    pub(super) fn get(&self, key: &SessionKey) -> Option<Arc<Session>> {
        self.entries.get(key).and_then(Weak::upgrade)
    }

    pub(super) fn enter(&mut self, about: &SessionRef) -> Arc<Session> {
        if let Some(known) = self.get(&about.key) {
            return known;
        }
        if self.entries.len() >= self.prune_at {
            self.entries.retain(|_, entry| entry.strong_count() > 0);
            self.prune_at = FEW.max(2 * self.entries.len());
        }
        let session = Arc::new(Session::new(about.clone()));
        self.entries.insert(about.key, Arc::downgrade(&session));
        session
    }

    pub(super) fn remove(&mut self, key: &SessionKey) -> Option<Arc<Session>> {
        self.entries.remove(key).and_then(|entry| entry.upgrade())
    }
}
