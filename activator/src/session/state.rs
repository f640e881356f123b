//! What is under a session's lock.

use std::{collections::VecDeque, time::Duration};

use mcp_gateway_api::record::SessionBinding;
use tokio::time::Instant;

use super::activity::Pending;
use crate::{
    lease::Lease,
    message::{Message, RequestId},
};

/// Event ids remembered for each session, as hashes.
pub(super) const EVENTS_REMEMBERED: usize = 256;

/// Requests remembered for each session whose responses were lost with their instance.
const UNANSWERED_REMEMBERED: usize = 64;

/// How long a server's request keeps its instance while its client has neither a stream open nor a request of its own: it
/// has left without a word, and a server that gives up tells only a stream that is no longer there.
pub(super) const UNATTENDED: Duration = Duration::from_secs(30);

pub(super) struct State {
    pub(super) binding: Option<SessionBinding>,
    pub(super) pending: Pending<Lease>,
    pub(super) events: VecDeque<u64>,
    // Whose responses were to pass on another stream and were lost with the instance.
    pub(super) unanswered: Vec<RequestId>,
    // The newest client stream's number; an older stream that sees another number ends.
    pub(super) stream: u64,
    pub(super) streams_open: u32,
    pub(super) streams_parked: u32,
    pub(super) used_at: Instant,
    // Since when nobody has been there to answer the server's requests.
    pub(super) unattended_since: Option<Instant>,
    // Where it lived until it was let go of for being idle: whoever found it there just before must look again.
    pub(super) released: Option<SessionBinding>,
}

impl State {
    /// Whether the binding changed. Event ids and pending requests belong to the one before.
    pub(super) fn bind(&mut self, binding: Option<&SessionBinding>) -> bool {
        if self.binding.as_ref() == binding {
            return false;
        }
        self.keep_unanswered();
        self.binding = binding.cloned();
        self.pending.clear();
        self.events = VecDeque::new();
        true
    }

    /// Ends the server's requests that nobody is there to answer.
    pub(super) fn give_up_unattended(&mut self, now: Instant) {
        if self.streams_open > 0 || self.pending.awaits_server() {
            self.unattended_since = None;
            return;
        }
        let since = *self.unattended_since.get_or_insert(now);
        if now.saturating_duration_since(since) >= UNATTENDED {
            self.pending.end_servers();
        }
    }

    /// A message goes upstream; whether that is news to somebody.
    pub(super) fn begin(
        &mut self,
        binding: &SessionBinding,
        lease: &Lease,
        message: &Message,
        deadline: Instant,
    ) -> bool {
        let tell = self.bind(Some(binding)) || self.streams_parked > 0 || cancels(message);
        self.pending
            .client_sent(message, deadline, || lease.another());
        self.used_at = Instant::now();
        self.unattended_since = None;
        tell
    }

    /// Whether there is something to tell.
    pub(super) fn keep_unanswered(&mut self) -> bool {
        let lost = self.pending.unanswered(Lease::is_over);
        let room = UNANSWERED_REMEMBERED.saturating_sub(self.unanswered.len());
        self.unanswered.extend(lost.into_iter().take(room));
        !self.unanswered.is_empty()
    }

    pub(super) fn saw(&mut self, event_id: &str) {
        if self.events.len() == EVENTS_REMEMBERED {
            self.events.pop_front();
        }
        self.events.push_back(hash(event_id));
    }
}

pub(super) fn hash(event_id: &str) -> u64 {
    use std::hash::{BuildHasher, RandomState};
    static KEYS: std::sync::LazyLock<RandomState> = std::sync::LazyLock::new(RandomState::new);
    KEYS.hash_one(event_id)
}

fn cancels(message: &Message) -> bool {
    message.each().any(
        |one| matches!(one, Message::Notification(n) if &*n.method == "notifications/cancelled"),
    )
}
