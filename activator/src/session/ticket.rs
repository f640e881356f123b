//! Which of a client's streams is the session's: of each strand the newest. Guards count the open and the parked ones.

use std::sync::Arc;

use super::{Session, state::Guard, strand::Strand};
use crate::message::RequestId;

/// A client's GET stream in a session; dropped when it ends.
pub struct StreamTicket {
    session: Arc<Session>,
    strand: Strand,
    number: u64,
    parked: bool,
}

impl Session {
    /// A new GET stream of the client; the one before it of the same strand ends.
    #[must_use]
    pub fn open_stream(self: &Arc<Self>, strand: Strand) -> StreamTicket {
        let number = {
            let mut state = self.state.lock();
            state.streams_open += 1;
            state.strands.open(strand)
        };
        self.changed.notify_waiters();
        StreamTicket {
            session: Arc::clone(self),
            strand,
            number,
            parked: false,
        }
    }

    /// Resolves when the client follows the strand on a stream of its own: whoever reads it otherwise must stop, because
    /// servers answer 409 while there is another reader, or give that one what the client should get.
    pub async fn taken_over(&self, strand: Strand) {
        loop {
            let changed = self.changed();
            if self.state.lock().strands.is_followed(strand) {
                return;
            }
            changed.await;
        }
    }
}

impl StreamTicket {
    /// Whether a newer stream has taken its place.
    #[must_use]
    pub fn is_replaced(&self) -> bool {
        let state = self.session.state.lock();
        !state.strands.is_newest(self.strand, self.number)
    }

    /// Whether what it follows belongs to an upstream session that is no more: nothing will come any more.
    #[must_use]
    pub fn is_void(&self) -> bool {
        !self.session.state.lock().strands.is_current(self.strand)
    }

    /// What it follows.
    #[must_use]
    pub const fn strand(&self) -> Strand {
        self.strand
    }

    /// Its session.
    #[must_use]
    pub const fn session(&self) -> &Arc<Session> {
        &self.session
    }

    /// Requests whose responses were to pass on this stream and were lost with the instance. Each is given once.
    #[must_use]
    pub fn unanswered(&self) -> Vec<RequestId> {
        let mut state = self.session.state.lock();
        state.keep_unanswered(Guard::is_over);
        state.take_unanswered(self.strand)
    }

    /// As [`Self::unanswered`], with those that still could be answered: the client's stream ends now.
    #[must_use]
    pub fn cut(&self) -> Vec<RequestId> {
        let mut state = self.session.state.lock();
        state.keep_unanswered(|_guard| true);
        state.take_unanswered(self.strand)
    }

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
        let mut state = self.session.state.lock();
        state.streams_open -= 1;
        state.strands.close(self.number);
    }
}
