//! The table of sessions: entries made when there is something to do, forgotten when nothing is.
//!
//! Invariants: an ended session never comes back here; the entries are bounded. Never: looks into the control plane.

use std::{sync::Arc, time::Duration};

use dashmap::DashMap;
use mcp_gateway_api::{ids::SessionKey, record::SessionRef};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::{Session, beyond::Beyond, state::Guard};
use crate::directory::Directory;

/// Between two searches for entries to forget in a full table.
pub(super) const MAKE_ROOM: Duration = Duration::from_secs(1);

/// All sessions with something to do. Cheap to clone.
#[derive(Clone)]
pub struct Sessions {
    table: Arc<DashMap<SessionKey, Arc<Session>>>,
    most: usize,
    room_made: Arc<Mutex<Option<Instant>>>,
    beyond: Arc<Mutex<Beyond>>,
}

impl Sessions {
    /// An empty table of at most `most` sessions with nothing pending.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self {
            table: Arc::default(),
            most,
            room_made: Arc::default(),
            beyond: Arc::default(),
        }
    }

    /// Ends sessions here whose records say that they ended elsewhere.
    pub fn follow(&self, directory: &Directory) {
        let sessions = self.clone();
        directory.on_record(move |record| {
            if record.ended {
                sessions.end(&record.key);
            } else if let Some(session) = sessions.get(&record.key) {
                session.changed.notify_waiters();
            }
        });
    }

    /// The session's entry, made if need be. Should the table be full of busy ones, one that lives only while somebody has it
    /// in hand.
    #[must_use]
    pub fn enter(&self, about: &SessionRef) -> Arc<Session> {
        if let Some(known) = self.get(&about.key) {
            return known;
        }
        if self.table.len() >= self.most && !self.make_room() {
            return self.beyond.lock().enter(about);
        }
        let entry = self.table.entry(about.key);
        Arc::clone(&entry.or_insert_with(|| Arc::new(Session::new(about.clone()))))
    }

    /// As [`Self::enter`], unless the session has `ended`, which is looked at last: an end that comes before that look is
    /// seen by it, and one that comes after finds the entry.
    #[must_use]
    pub fn enter_unless(
        &self,
        about: &SessionRef,
        ended: impl FnOnce() -> bool,
    ) -> Option<Arc<Session>> {
        let session = self.enter(about);
        if ended() {
            self.end(&about.key);
            return None;
        }
        Some(session)
    }

    fn make_room(&self) -> bool {
        let now = Instant::now();
        let mut made = self.room_made.lock();
        if made.is_none_or(|at| now.saturating_duration_since(at) >= MAKE_ROOM) {
            *made = Some(now);
            self.forget_quiet(Duration::ZERO);
        }
        self.table.len() < self.most
    }

    /// The session's entry, if there is one.
    #[must_use]
    pub fn get(&self, key: &SessionKey) -> Option<Arc<Session>> {
        let found = self.table.get(key).map(|found| Arc::clone(&found));
        found.or_else(|| self.beyond.lock().get(key))
    }

    /// The session has ended: its streams close, its leases are given back.
    pub fn end(&self, key: &SessionKey) {
        let found = self.table.remove(key).map(|(_, session)| session);
        if let Some(session) = found.or_else(|| self.beyond.lock().remove(key)) {
            session.ended.cancel();
            session.state.lock().pending.clear();
            session.changed.notify_waiters();
        }
    }

    /// Ends what is overdue in every session and gives back leases of lost instances. Call each second.
    pub fn sweep(&self, now: Instant) {
        for session in self.table.iter() {
            let mut state = session.state.lock();
            if !state.pending.is_empty() {
                let tell = state.keep_unanswered(Guard::is_over) && state.streams_open > 0;
                if tell {
                    session.changed.notify_waiters();
                }
                state.pending.sweep(now, |guard| !guard.is_over());
                state.leave_behind();
                state.give_up_unattended(now);
                state.used_at = now;
            } else {
                state.pending.shrink();
            }
        }
    }

    /// The exchanges that run end now. What is to be answered on another stream, or by the client, goes on elsewhere.
    pub fn cut(&self) {
        for session in self.table.iter() {
            session.state.lock().pending.cut();
        }
    }

    /// Forgets sessions that have had nothing pending and no stream for `quiet`; nothing is lost by it.
    pub fn forget_quiet(&self, quiet: Duration) {
        let now = Instant::now();
        self.table.retain(|_, session| {
            // A second owner is an exchange that has the entry in hand.
            Arc::strong_count(session) > 1
                || session.quiet_for(now).is_none_or(|for_| for_ < quiet)
                || session.state.lock().streams_open > 0
        });
    }

    /// Sessions that live on an instance and have had nothing pending for `least` or longer, with how long that is so,
    /// for the `sessionIdleTimeout` sweep.
    pub fn for_each_quiet(&self, least: Duration, mut act: impl FnMut(&Arc<Session>, Duration)) {
        let now = Instant::now();
        for session in self.table.iter() {
            let quiet = session.quiet_for(now).filter(|quiet| *quiet >= least);
            if let Some(quiet) = quiet.filter(|_| session.state.lock().binding.is_some()) {
                act(&session, quiet);
            }
        }
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }
}
