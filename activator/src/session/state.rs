//! What is under a session's lock.

use std::time::Duration;

use mcp_gateway_api::record::SessionBinding;
use tokio::time::Instant;

use super::{
    activity::Pending,
    strand::{Strand, Strands},
};
use crate::{
    lease::Lease,
    message::{Message, RequestId},
};

/// Requests remembered for each session whose responses were lost with their instance.
const UNANSWERED_REMEMBERED: usize = 64;

/// How long a server's request keeps its instance while its client has neither a stream open nor a request of its own: it
/// has left without a word, and a server that gives up tells only a stream that is no longer there.
pub(super) const UNATTENDED: Duration = Duration::from_secs(30);

pub(super) struct State {
    pub(super) binding: Option<SessionBinding>,
    pub(super) pending: Pending<Lease>,
    pub(super) strands: Strands,
    // Whose responses were to pass on another stream, by strand, and were lost with the instance.
    pub(super) unanswered: Vec<(Strand, RequestId)>,
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
        self.keep_unanswered(|_lease| true);
        self.binding = binding.cloned();
        self.pending.clear();
        self.strands.renew();
        // Only just come here: not to be let go of for having been idle before.
        self.used_at = Instant::now();
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

    /// A message goes upstream: the strand of its answer, and whether that is news to somebody.
    pub(super) fn begin(
        &mut self,
        binding: &SessionBinding,
        lease: &Lease,
        message: &Message,
        deadline: Instant,
    ) -> (Strand, bool) {
        let tell = self.bind(Some(binding)) || self.streams_parked > 0 || cancels(message);
        self.pending
            .client_sent(message, deadline, || lease.another());
        self.used_at = Instant::now();
        self.unattended_since = None;
        (self.strands.begin(), tell)
    }

    /// Takes out what was to be answered elsewhere and is `lost`; whether there is something to tell.
    pub(super) fn keep_unanswered(&mut self, lost: impl Fn(&Lease) -> bool) -> bool {
        let lost = self.pending.unanswered(lost);
        let room = UNANSWERED_REMEMBERED.saturating_sub(self.unanswered.len());
        self.unanswered.extend(lost.into_iter().take(room));
        !self.unanswered.is_empty()
    }

    /// What a client's stream of this strand is to tell as unanswered: its own, and on the passive stream also that of
    /// strands nobody follows.
    pub(super) fn take_unanswered(&mut self, strand: Strand) -> Vec<RequestId> {
        let strands = &self.strands;
        let here = |of: Strand| of == strand || strand == Strand::GET && !strands.is_followed(of);
        let taken = self.unanswered.extract_if(.., |(of, _)| here(*of));
        taken.map(|(_, id)| id).collect()
    }
}

fn cancels(message: &Message) -> bool {
    message.each().any(
        |one| matches!(one, Message::Notification(n) if &*n.method == "notifications/cancelled"),
    )
}
