//! Taking turns: exchanges of one session that find it asleep go upstream in the order in which they came, each when the
//! one before it was written. And calling off: an exchange that still waits ends when its client cancels it.
//!
//! Invariant: a session is in the table exactly while somebody waits or holds the turn; a warm session costs one look at
//! an empty table.

use std::sync::{
    Arc,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};

use dashmap::DashMap;
use mcp_gateway_api::ids::SessionKey;
use parking_lot::Mutex;
use tokio::sync::OwnedMutexGuard;
use tokio_util::sync::CancellationToken;

use crate::message::{Message, RequestId};

/// All sessions with waiters.
#[derive(Default)]
pub(crate) struct Turns {
    queues: Arc<DashMap<SessionKey, Arc<Queue>>>,
    // Of all sessions, so that a warm exchange need not look into the table.
    waiting: Arc<AtomicUsize>,
}

#[derive(Default)]
struct Queue {
    turn: Arc<tokio::sync::Mutex<()>>,
    waiting: AtomicUsize,
    // Requests that wait. Should a client use an id twice each is its own, and a cancellation means both.
    held: Mutex<Vec<Held>>,
    places: AtomicU64,
}

struct Held {
    place: u64,
    id: RequestId,
    cancelled: CancellationToken,
}

/// A place in a session's queue.
pub(crate) struct Place {
    turns: Arc<DashMap<SessionKey, Arc<Queue>>>,
    all: Arc<AtomicUsize>,
    key: SessionKey,
    queue: Arc<Queue>,
    number: u64,
    cancelled: CancellationToken,
}

/// The turn itself, given on when dropped.
pub(crate) struct Turn {
    // Given on before the place is left.
    _turn: OwnedMutexGuard<()>,
    _place: Place,
}

impl Turns {
    /// Whether exchanges of the session wait, behind which a new one must queue.
    pub(crate) fn is_busy(&self, key: &SessionKey) -> bool {
        self.waiting.load(Ordering::Acquire) > 0 && self.queues.contains_key(key)
    }

    /// Queues up.
    pub(crate) fn queue(&self, key: SessionKey, message: &Message) -> Place {
        self.waiting.fetch_add(1, Ordering::AcqRel);
        let queue = {
            let entry = self.queues.entry(key).or_default();
            // Counted under the table's lock, so that a leaver never removes a queue somebody has just joined.
            entry.waiting.fetch_add(1, Ordering::AcqRel);
            Arc::clone(&entry)
        };
        let cancelled = CancellationToken::new();
        // One request of a batch cannot be called off without the others: its cancellation follows it upstream.
        let number = queue.places.fetch_add(1, Ordering::Relaxed);
        match message {
            Message::Request(request) => queue.held.lock().push(Held {
                place: number,
                id: request.id.clone(),
                cancelled: cancelled.clone(),
            }),
            Message::Notification(_) | Message::Response(_) | Message::Batch(_) => {}
        }
        Place {
            turns: Arc::clone(&self.queues),
            all: Arc::clone(&self.waiting),
            key,
            queue,
            number,
            cancelled,
        }
    }

    /// Calls off a waiting request; whether there was one.
    pub(crate) fn cancel(&self, key: &SessionKey, id: &RequestId) -> bool {
        let queue = self.queues.get(key).map(|queue| Arc::clone(&queue));
        let Some(queue) = queue else { return false };
        let mut held = queue.held.lock();
        let called_off = held.extract_if(.., |one| one.id == *id);
        called_off.map(|one| one.cancelled.cancel()).count() > 0
    }
}

impl Place {
    /// Resolves when the client has called the exchange off.
    pub(crate) fn cancelled(&self) -> CancellationToken {
        self.cancelled.clone()
    }

    /// It can be called off here no longer.
    fn leave(&self) {
        let mut held = self.queue.held.lock();
        held.retain(|one| one.place != self.number);
    }

    /// Waits for the turn. From here on the exchange can no longer be called off here only if [`Turn::commit`] says so.
    pub(crate) async fn turn(self) -> Turn {
        let turn = Arc::clone(&self.queue.turn).lock_owned().await;
        Turn {
            _turn: turn,
            _place: self,
        }
    }
}

impl Turn {
    /// The exchange goes upstream now: a cancellation must follow it there. False when it was called off before.
    pub(crate) fn commit(&self) -> bool {
        let place = &self._place;
        place.leave();
        !place.cancelled.is_cancelled()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.leave();
        self.queue.waiting.fetch_sub(1, Ordering::AcqRel);
        self.turns.remove_if(&self.key, |_key, queue| {
            queue.waiting.load(Ordering::Acquire) == 0
        });
        self.all.fetch_sub(1, Ordering::AcqRel);
    }
}
