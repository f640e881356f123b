//! How many bytes all request bodies in memory may take together, from the first byte that is read until the last copy of
//! the body is dropped: read, waiting for its server, being written to it, or kept to be sent again.
//!
//! What waits in the [`crate::hold`] is counted there, against its own bounds, and meanwhile not here: a flood for servers
//! that sleep must not refuse those that are awake. Small bodies are free: they take no more than their connection does.
//! Invariant: what is counted is counted until its guard is dropped.

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

use bytes::Bytes;

/// Largest body that is not counted, in bytes: a connection takes as much before it has sent anything.
pub(super) const FREE: usize = 8 << 10;

/// The budget. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Budget(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    most: i64,
    // Less than nothing for a moment, when what was lent is dropped before its body.
    taken: AtomicI64,
}

impl Budget {
    /// At most `most` bytes.
    pub(crate) fn new(most: u64) -> Self {
        Self(Arc::new(Inner {
            most: signed(most),
            taken: AtomicI64::new(0),
        }))
    }

    /// Bytes that bodies take now.
    pub(crate) fn taken(&self) -> u64 {
        self.0.taken.load(Ordering::Relaxed).try_into().unwrap_or(0)
    }

    /// A body of this many bytes is counted elsewhere while the guard lives.
    pub(crate) fn lend(&self, body: usize) -> Lent {
        let bytes = if body > FREE { signed(body as u64) } else { 0 };
        self.0.taken.fetch_sub(bytes, Ordering::Relaxed);
        Lent {
            budget: Arc::clone(&self.0),
            bytes,
        }
    }
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// What is counted elsewhere for a while.
#[derive(Debug)]
pub(crate) struct Lent {
    budget: Arc<Inner>,
    bytes: i64,
}

impl Drop for Lent {
    fn drop(&mut self) {
        // Whatever is free then: the body is there, and was admitted once.
        self.budget.taken.fetch_add(self.bytes, Ordering::Relaxed);
    }
}

/// What one body takes of the budget.
#[derive(Debug)]
pub(super) struct Share {
    budget: Arc<Inner>,
    bytes: i64,
}

impl Share {
    /// Nothing yet.
    pub(super) fn of(budget: &Budget) -> Self {
        Self {
            budget: Arc::clone(&budget.0),
            bytes: 0,
        }
    }

    /// The body has this many bytes now; false, and nothing changes, if that is more than there is room for.
    #[must_use]
    pub(super) fn grow(&mut self, to: usize) -> bool {
        let more = signed(to as u64) - self.bytes;
        let before = self.budget.taken.fetch_add(more, Ordering::Relaxed);
        if before.saturating_add(more) > self.budget.most {
            self.budget.taken.fetch_sub(more, Ordering::Relaxed);
            return false;
        }
        self.bytes += more;
        true
    }

    /// The body, which gives its share back when the last copy of it is dropped.
    pub(super) fn keep(self, body: Bytes) -> Bytes {
        if self.bytes == 0 {
            return body;
        }
        Bytes::from_owner(Kept { body, _share: self })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.taken.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

struct Kept {
    body: Bytes,
    _share: Share,
}

impl AsRef<[u8]> for Kept {
    fn as_ref(&self) -> &[u8] {
        &self.body
    }
}
