//! Legacy sessions as this activator sees them while it has something to do for them.
//!
//! A session's truth is in its sealed id and its record; what is here may be forgotten at any time when nothing is
//! pending: the entry only holds the leases of unanswered requests, the event ids seen, and the client's open stream.
//! Invariants: an ended session never comes back here; the entries are bounded.
//! Never: routes (that is `directory`), or ends a session on its own account.

pub mod activity;
mod beyond;
pub mod handshake;
pub mod keyring;
pub mod sealed;
mod state;
#[cfg(test)]
mod tests;
mod ticket;

use std::{collections::VecDeque, sync::Arc, time::Duration};

use dashmap::DashMap;
use mcp_gateway_api::{
    ids::{InstanceId, SessionKey},
    record::{SessionBinding, SessionRef},
};
use parking_lot::Mutex;
use tokio::{sync::Notify, time::Instant};
use tokio_util::sync::CancellationToken;

pub use self::ticket::StreamTicket;
use self::{
    activity::Pending,
    beyond::Beyond,
    state::{State, hash},
};
use crate::{
    directory::Directory,
    lease::Lease,
    message::{Message, RequestId},
    sse::{EventSummary, Seen},
};

/// Between two searches for entries to forget in a full table.
const MAKE_ROOM: Duration = Duration::from_secs(1);

/// All sessions with something to do. Cheap to clone.
#[derive(Clone)]
pub struct Sessions {
    table: Arc<DashMap<SessionKey, Arc<Session>>>,
    most: usize,
    room_made: Arc<Mutex<Option<Instant>>>,
    beyond: Arc<Mutex<Beyond>>,
}

/// One session.
pub struct Session {
    about: SessionRef,
    state: Mutex<State>,
    ended: CancellationToken,
    changed: Notify,
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
                let tell = state.keep_unanswered() && state.streams_open > 0;
                if tell {
                    session.changed.notify_waiters();
                }
                state.pending.sweep(now, |lease| !lease.is_over());
                state.give_up_unattended(now);
                state.used_at = now;
            } else {
                state.pending.shrink();
            }
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

impl Session {
    fn new(about: SessionRef) -> Self {
        Self {
            about,
            state: Mutex::new(State {
                binding: None,
                pending: Pending::default(),
                events: VecDeque::new(),
                unanswered: Vec::new(),
                stream: 0,
                streams_open: 0,
                streams_parked: 0,
                used_at: Instant::now(),
                unattended_since: None,
                released: None,
            }),
            ended: CancellationToken::new(),
            changed: Notify::new(),
        }
    }

    /// What records of it need.
    #[must_use]
    pub const fn about(&self) -> &SessionRef {
        &self.about
    }

    /// Cancelled when the session ends.
    #[must_use]
    pub const fn ended(&self) -> &CancellationToken {
        &self.ended
    }

    /// Where it lived when an exchange last went upstream; `None` when asleep or not known here.
    #[must_use]
    pub fn binding(&self) -> Option<SessionBinding> {
        self.state.lock().binding.clone()
    }

    /// Resolves at the next change of the binding or the session's end. Make the future before looking.
    pub fn changed(&self) -> impl Future<Output = ()> + '_ {
        self.changed.notified()
    }

    /// The client's message goes upstream now, to `binding`: its requests are pending, each with a lease of its own,
    /// until `deadline`. Parked streams of the session attach.
    pub fn begin(
        &self,
        binding: &SessionBinding,
        lease: &Lease,
        message: &Message,
        deadline: Instant,
    ) {
        let tell = self.state.lock().begin(binding, lease, message, deadline);
        if tell {
            self.changed.notify_waiters();
        }
    }

    /// As [`Self::begin`], unless the session has been let go of there meanwhile: false, and nothing has begun.
    #[must_use]
    pub fn begin_unless_released(
        &self,
        binding: &SessionBinding,
        lease: &Lease,
        message: &Message,
        deadline: Instant,
    ) -> bool {
        let mut state = self.state.lock();
        if state.released.as_ref() == Some(binding) {
            return false;
        }
        let tell = state.begin(binding, lease, message, deadline);
        drop(state);
        if tell {
            self.changed.notify_waiters();
        }
        true
    }

    /// Lets go of where it lives, if nothing is pending there and nothing has been for `quiet`; gives back where that
    /// was. In the one critical section that messages begin in: a message either keeps the session or finds it asleep.
    #[must_use]
    pub fn release(&self, quiet: Duration) -> Option<SessionBinding> {
        let mut state = self.state.lock();
        let idle = Instant::now().saturating_duration_since(state.used_at);
        if !state.pending.is_empty() || idle < quiet {
            return None;
        }
        let binding = state.binding.clone()?;
        let _moved = state.bind(None);
        state.released = Some(binding.clone());
        drop(state);
        self.changed.notify_waiters();
        Some(binding)
    }

    /// Whether it was let go of there.
    #[must_use]
    pub fn is_released_from(&self, binding: &SessionBinding) -> bool {
        self.state.lock().released.as_ref() == Some(binding)
    }

    /// Whether a request of `message` is pending.
    #[must_use]
    pub fn awaits(&self, message: &Message) -> bool {
        self.state.lock().pending.awaits(message)
    }

    /// Resolves when no request of `message` is pending any more: cancelled, ended with the session, or answered.
    pub async fn called_off(&self, message: &Message) {
        loop {
            let changed = self.changed();
            if !self.awaits(message) {
                return;
            }
            changed.await;
        }
    }

    /// A stream attaches to where the session lives, before any exchange of it went there from here.
    pub fn lives_on(&self, binding: &SessionBinding) {
        let mut state = self.state.lock();
        if state.binding.is_none() {
            state.bind(Some(binding));
        }
    }

    /// A lease beside those of the session's pending requests on this instance, even while it drains.
    #[must_use]
    pub fn beside(&self, instance: InstanceId) -> Option<Lease> {
        let state = self.state.lock();
        let lease = state.pending.any_guard()?;
        (lease.instance() == instance).then(|| lease.another())
    }

    /// The session is lost on this instance: whatever is pending there ends. Gives the client's requests, for whoever
    /// must answer them with an error.
    #[must_use]
    pub fn lost(&self, instance: InstanceId) -> Vec<RequestId> {
        let mut state = self.state.lock();
        let waiting = state.pending.give_up(|lease| lease.instance() == instance);
        let lives_there = state
            .binding
            .as_ref()
            .is_some_and(|b| b.instance == instance);
        let moved = lives_there && state.bind(None);
        drop(state);
        if moved {
            self.changed.notify_waiters();
        }
        waiting
    }

    /// An event passed on some stream of the session that lives at `on`; a server's request in it takes another lease of
    /// `lease`, or of any pending request's.
    pub fn observe(
        &self,
        on: InstanceId,
        event: &EventSummary,
        lease: Option<&Lease>,
        deadline: Instant,
    ) {
        let mut state = self.state.lock();
        if state.binding.as_ref().is_none_or(|b| b.instance != on) {
            return;
        }
        if let Some(id) = event.id.as_deref() {
            state.saw(id);
        }
        let State { pending, .. } = &mut *state;
        for seen in &event.messages {
            let guard = match seen {
                Seen::Request { .. } => lease.or(pending.any_guard()).map(Lease::another),
                Seen::Notification { .. } | Seen::Response { .. } => None,
            };
            pending.server_sent(seen, deadline, || guard);
        }
        state.used_at = Instant::now();
    }

    /// The whole answer to `message` is there, on no stream: a JSON body, an error, a 202.
    pub fn answered(&self, message: &Message) {
        let mut state = self.state.lock();
        state.pending.answered(message);
        state.used_at = Instant::now();
    }

    /// The stream that answered `message` has closed without all its responses: they pass on another.
    pub fn elsewhere(&self, message: &Message) {
        self.state.lock().pending.elsewhere(message);
    }

    /// Requests whose responses were to pass on another stream and were lost with the instance, to be told so on the
    /// stream the client has open. Each is given once.
    #[must_use]
    pub fn unanswered(&self) -> Vec<RequestId> {
        let mut state = self.state.lock();
        state.keep_unanswered();
        std::mem::take(&mut state.unanswered)
    }

    /// The instance let go of it, or is lost: nothing is pending, streams park.
    pub fn asleep(&self) {
        let mut state = self.state.lock();
        let moved = state.bind(None);
        state.pending.clear();
        drop(state);
        if moved {
            self.changed.notify_waiters();
        }
    }

    /// Whether an event of this id was seen on the session's current upstream session.
    #[must_use]
    pub fn has_seen(&self, event_id: &str) -> bool {
        self.state.lock().events.contains(&hash(event_id))
    }

    /// How long nothing has been pending; `None` while something is.
    #[must_use]
    pub fn quiet_for(&self, now: Instant) -> Option<Duration> {
        let state = self.state.lock();
        state
            .pending
            .is_empty()
            .then(|| now.saturating_duration_since(state.used_at))
    }
}
