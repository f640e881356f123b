//! Which of a client's GET streams is the session's: the newest. Guards count the open and the parked ones.

use std::sync::Arc;

use super::Session;
use crate::message::RequestId;

/// A client's GET stream in a session; dropped when it ends.
pub struct StreamTicket {
    session: Arc<Session>,
    number: u64,
    parked: bool,
}

impl Session {
    /// A new GET stream of the client; the one before it ends.
    #[must_use]
    pub fn open_stream(self: &Arc<Self>) -> StreamTicket {
        let number = {
            let mut state = self.state.lock();
            state.stream += 1;
            state.streams_open += 1;
            state.stream
        };
        self.changed.notify_waiters();
        StreamTicket {
            session: Arc::clone(self),
            number,
            parked: false,
        }
    }

    /// As [`Session::unanswered`], with those that still could be answered: the client's stream ends now.
    #[must_use]
    pub fn cut(&self) -> Vec<RequestId> {
        let mut state = self.state.lock();
        let waiting = state.pending.unanswered(|_lease| true);
        let mut all = std::mem::take(&mut state.unanswered);
        all.extend(waiting);
        all
    }
}

impl StreamTicket {
    /// Whether a newer stream has taken its place.
    #[must_use]
    pub fn is_replaced(&self) -> bool {
        self.session.state.lock().stream != self.number
    }

    /// Its session.
    #[must_use]
    pub const fn session(&self) -> &Arc<Session> {
        &self.session
    }
}

impl StreamTicket {
    /// Says whether the stream waits for its session to wake: [`Session::begin`] then tells it.
    pub fn park(&mut self, parked: bool) {
        let mut state = self.session.state.lock();
        match (self.parked, parked) {
            (false, true) => state.streams_parked += 1,
            (true, false) => state.streams_parked -= 1,
            (false, false) | (true, true) => {}
        }
        self.parked = parked;
    }
}

impl Drop for StreamTicket {
    fn drop(&mut self) {
        self.park(false);
        self.session.state.lock().streams_open -= 1;
    }
}
