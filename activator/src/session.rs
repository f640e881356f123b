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
pub(crate) mod strand;
mod table;
#[cfg(test)]
mod tests;
mod ticket;

use std::time::Duration;

use mcp_gateway_api::{
    ids::InstanceId,
    record::{SessionBinding, SessionRef},
};
use parking_lot::Mutex;
use tokio::{sync::Notify, time::Instant};
use tokio_util::sync::CancellationToken;

use self::{
    activity::Pending,
    state::{Guard, State},
    strand::Strands,
};
pub use self::{strand::Strand, table::Sessions, ticket::StreamTicket};
use crate::{
    lease::Lease,
    message::{Message, RequestId},
    sse::{EventSummary, Seen},
};

/// One session.
pub struct Session {
    about: SessionRef,
    state: Mutex<State>,
    ended: CancellationToken,
    changed: Notify,
}

impl Session {
    fn new(about: SessionRef) -> Self {
        Self {
            about,
            state: Mutex::new(State {
                binding: None,
                home: 0,
                pending: Pending::default(),
                strands: Strands::default(),
                unanswered: Vec::new(),
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
    /// until `deadline`. Parked streams of the session attach. Gives the strand of the answer.
    pub fn begin(
        &self,
        binding: &SessionBinding,
        lease: &Lease,
        message: &Message,
        deadline: Instant,
    ) -> Strand {
        let begun = self.state.lock().begin(binding, lease, message, deadline);
        self.begun(begun)
    }

    /// As [`Self::begin`], unless the session has been let go of there meanwhile: `None`, and nothing has begun.
    #[must_use]
    pub fn begin_unless_released(
        &self,
        binding: &SessionBinding,
        lease: &Lease,
        message: &Message,
        deadline: Instant,
    ) -> Option<Strand> {
        let mut state = self.state.lock();
        if state.released.as_ref() == Some(binding) {
            return None;
        }
        let begun = state.begin(binding, lease, message, deadline);
        drop(state);
        Some(self.begun(begun))
    }

    fn begun(&self, (strand, tell): (Strand, bool)) -> Strand {
        if tell {
            self.changed.notify_waiters();
        }
        strand
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
        let there = |guard: &Guard| guard.lease.instance() == instance;
        state.pending.find(there).map(|guard| guard.lease.another())
    }

    /// Where what the message answers or cancels is pending, with a lease beside it, if that is not `at`: the session has
    /// moved while it ran, and nobody else waits for the message.
    #[must_use]
    pub fn runs_behind(
        &self,
        message: &Message,
        at: Option<&SessionBinding>,
    ) -> Option<(Lease, SessionBinding)> {
        let state = self.state.lock();
        let guard = state.pending.named_by(message)?;
        let behind = !guard.is_over() && !at.is_some_and(|at| guard.is_at(at));
        behind.then(|| {
            let binding = SessionBinding {
                instance: guard.lease.instance(),
                upstream: guard.upstream.clone(),
            };
            (guard.lease.another(), binding)
        })
    }

    /// The message goes to where the session lives no more: what it answers or cancels there has ended.
    pub fn told_behind(&self, message: &Message) {
        let mut state = self.state.lock();
        message.each().for_each(|one| state.pending.end_named(one));
        state.used_at = Instant::now();
        state.unattended_since = None;
        drop(state);
        self.changed.notify_waiters();
    }

    /// The session is lost on this instance: whatever is pending there ends. Gives the client's requests, for whoever
    /// must answer them with an error.
    #[must_use]
    pub fn lost(&self, instance: InstanceId) -> Vec<RequestId> {
        let mut state = self.state.lock();
        let waiting = state
            .pending
            .give_up(|guard| guard.lease.instance() == instance);
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

    /// An event passed on a stream of the session; a server's request in it takes another lease of `lease`, or of any
    /// pending request's.
    pub fn observe(
        &self,
        from: (InstanceId, Strand),
        event: &EventSummary,
        lease: Option<&Lease>,
        deadline: Instant,
    ) {
        let mut state = self.state.lock();
        let Some(home) = state.home_of(from) else {
            return;
        };
        if let Some(id) = event.id.as_deref().filter(|_| home == state.home) {
            state.strands.saw(from.1, id);
        }
        for seen in &event.messages {
            let guard = match seen {
                Seen::Request { .. } => state.guard(home, lease),
                Seen::Notification { .. } | Seen::Response { .. } => None,
            };
            let mine = |guard: &Guard| guard.home == home;
            state.pending.server_sent(seen, deadline, mine, || guard);
        }
        state.used_at = Instant::now();
    }

    /// The whole answer to `message` is there, on no stream: a JSON body, an error, a 202.
    pub fn answered(&self, message: &Message) {
        let mut state = self.state.lock();
        state.pending.answered(message);
        state.used_at = Instant::now();
    }

    /// The stream that answered `message` has closed without all its responses: they pass on another of that strand.
    pub fn elsewhere(&self, message: &Message, strand: Strand) {
        let mut state = self.state.lock();
        state.pending.elsewhere(message, strand);
        let left = !state.strands.is_current(strand);
        let home = state.home;
        // Nothing of an upstream session that was left passes on another stream.
        let tell = left && state.keep_unanswered(|guard| guard.home != home);
        drop(state);
        if tell {
            self.changed.notify_waiters();
        }
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

    /// As [`Self::asleep`], if it still is where this strand came from; whether it was.
    #[must_use]
    pub fn lost_with(&self, strand: Strand) -> bool {
        let mut state = self.state.lock();
        let moved = state.strands.is_current(strand) && state.bind(None);
        drop(state);
        if moved {
            self.changed.notify_waiters();
        }
        moved
    }

    /// As [`Self::asleep`], if it still lives there; whether it did.
    #[must_use]
    pub fn lost_at(&self, binding: &SessionBinding) -> bool {
        let mut state = self.state.lock();
        let moved = state.binding.as_ref() == Some(binding) && state.bind(None);
        drop(state);
        if moved {
            self.changed.notify_waiters();
        }
        moved
    }

    /// The strand that carried an event, if it was seen on the session's current upstream session.
    #[must_use]
    pub fn strand_of(&self, event_id: &str) -> Option<Strand> {
        self.state.lock().strands.of(event_id)
    }

    /// A strand of the current upstream session that began at another activator, or here before a restart.
    #[must_use]
    pub fn strand_from_elsewhere(&self, binding: &SessionBinding) -> Strand {
        let mut state = self.state.lock();
        // First, because what began before the session is known to live somewhere belongs to no upstream session of it:
        // to this activator the resumption may be the first that it hears of the session.
        if state.binding.is_none() {
            state.bind(Some(binding));
        }
        state.strands.begin()
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
