//! Legacy sessions as this activator sees them while it has something to do for them.
//!
//! A session's truth is in its sealed id and its record; what is here may be forgotten at any time when nothing is
//! pending: the entry only holds the leases of unanswered requests, the event ids seen, and the client's open stream.
//! Invariants: an ended session never comes back here; the entries are bounded.
//! Never: routes (that is `directory`), or ends a session on its own account.

pub mod activity;
pub mod handshake;
pub mod keyring;
pub mod sealed;
#[cfg(test)]
mod tests;

use std::{collections::VecDeque, sync::Arc, time::Duration};

use dashmap::DashMap;
use mcp_gateway_api::{
    ids::{InstanceId, SessionKey},
    record::{SessionBinding, SessionRef},
};
use parking_lot::Mutex;
use tokio::{sync::Notify, time::Instant};
use tokio_util::sync::CancellationToken;

use self::activity::Pending;
use crate::{
    directory::Directory,
    lease::Lease,
    message::{Message, RequestId},
    sse::{EventSummary, Seen},
};

/// Event ids remembered for each session, as hashes.
const EVENTS_REMEMBERED: usize = 256;

/// All sessions with something to do. Cheap to clone.
#[derive(Clone)]
pub struct Sessions {
    table: Arc<DashMap<SessionKey, Arc<Session>>>,
    most: usize,
}

/// One session.
pub struct Session {
    about: SessionRef,
    state: Mutex<State>,
    ended: CancellationToken,
    changed: Notify,
}

struct State {
    binding: Option<SessionBinding>,
    pending: Pending<Lease>,
    events: VecDeque<u64>,
    // The newest client stream's number; an older stream that sees another number ends.
    stream: u64,
    streams_open: u32,
    streams_parked: u32,
    used_at: Instant,
}

/// A client's GET stream in a session; dropped when it ends.
pub struct StreamTicket {
    session: Arc<Session>,
    number: u64,
    parked: bool,
}

impl Sessions {
    /// An empty table of at most `most` sessions with nothing pending.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self {
            table: Arc::default(),
            most,
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

    /// The session's entry, made if need be.
    #[must_use]
    pub fn enter(&self, about: &SessionRef) -> Arc<Session> {
        if let Some(known) = self.get(&about.key) {
            return known;
        }
        if self.table.len() >= self.most {
            self.forget_quiet(Duration::ZERO);
        }
        let entry = self.table.entry(about.key);
        Arc::clone(&entry.or_insert_with(|| Arc::new(Session::new(about.clone()))))
    }

    /// The session's entry, if there is one.
    #[must_use]
    pub fn get(&self, key: &SessionKey) -> Option<Arc<Session>> {
        self.table.get(key).map(|found| Arc::clone(&found))
    }

    /// The session has ended: its streams close, its leases are given back.
    pub fn end(&self, key: &SessionKey) {
        if let Some((_, session)) = self.table.remove(key) {
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
                state.pending.sweep(now, |lease| !lease.is_over());
                state.used_at = now;
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

    /// Sessions with nothing pending, with how long that is so, for the `sessionIdleTimeout` sweep.
    pub fn for_each_quiet(&self, mut act: impl FnMut(&Arc<Session>, Duration)) {
        let now = Instant::now();
        for session in self.table.iter() {
            if let Some(quiet) = session.quiet_for(now) {
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
                stream: 0,
                streams_open: 0,
                streams_parked: 0,
                used_at: Instant::now(),
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
        let mut state = self.state.lock();
        let tell = state.bind(Some(binding)) || state.streams_parked > 0;
        state
            .pending
            .client_sent(message, deadline, || lease.another());
        state.used_at = Instant::now();
        drop(state);
        if tell {
            self.changed.notify_waiters();
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

    /// The client's requests that are pending, for whoever must answer them with an error; none is afterwards.
    #[must_use]
    pub fn give_up(&self) -> Vec<RequestId> {
        let mut state = self.state.lock();
        let asked = state.pending.asked_by_client();
        state.pending.clear();
        asked
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

    /// The instance let go of it, or is lost: nothing is pending, streams park.
    pub fn asleep(&self) {
        let mut state = self.state.lock();
        state.pending.clear();
        let moved = state.bind(None);
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

impl State {
    /// Whether the binding changed. Event ids and pending requests belong to the one before.
    fn bind(&mut self, binding: Option<&SessionBinding>) -> bool {
        if self.binding.as_ref() == binding {
            return false;
        }
        self.binding = binding.cloned();
        self.pending.clear();
        self.events = VecDeque::new();
        true
    }

    fn saw(&mut self, event_id: &str) {
        if self.events.len() == EVENTS_REMEMBERED {
            self.events.pop_front();
        }
        self.events.push_back(hash(event_id));
    }
}

fn hash(event_id: &str) -> u64 {
    use std::hash::{BuildHasher, RandomState};
    static KEYS: std::sync::LazyLock<RandomState> = std::sync::LazyLock::new(RandomState::new);
    KEYS.hash_one(event_id)
}
