//! What is under a session's lock.

use std::time::Duration;

use mcp_gateway_api::{
    ids::{InstanceId, UpstreamSession},
    record::SessionBinding,
};
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

/// What keeps the instance of a pending message.
pub(super) struct Guard {
    pub(super) lease: Lease,
    // The message is of this upstream session, by its name there and by its number here.
    pub(super) upstream: UpstreamSession,
    pub(super) home: u64,
}

impl Guard {
    pub(super) fn is_over(&self) -> bool {
        self.lease.is_over()
    }

    pub(super) fn is_at(&self, binding: &SessionBinding) -> bool {
        self.lease.instance() == binding.instance && self.upstream == binding.upstream
    }
}

pub(super) struct State {
    pub(super) binding: Option<SessionBinding>,
    // Which upstream session the binding is, counted.
    pub(super) home: u64,
    pub(super) pending: Pending<Guard>,
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
    /// Whether the binding changed. Event ids belong to the one before, and so do pending requests: lost with it, or, if the
    /// session goes on elsewhere while the instance before retires, answered there, by it or by its end.
    pub(super) fn bind(&mut self, binding: Option<&SessionBinding>) -> bool {
        if self.binding.as_ref() == binding {
            return false;
        }
        self.keep_unanswered(|_guard| true);
        if binding.is_none() {
            let lost = self.home;
            self.pending.forget(|guard| guard.home == lost);
        }
        self.binding = binding.cloned();
        self.home += 1;
        self.leave_behind();
        self.strands.renew();
        // Only just come here: not to be let go of for having been idle before.
        self.used_at = Instant::now();
        true
    }

    /// Ends what servers asked elsewhere for the sake of nothing that still runs there.
    pub(super) fn leave_behind(&mut self) {
        let home = self.home;
        if self.pending.find(|guard| guard.home != home).is_some() {
            self.pending.leave_behind(home, |guard| guard.home);
        }
    }

    /// The upstream session that an event is of: the one of now, or one before in which something still runs.
    pub(super) fn home_of(&self, (on, strand): (InstanceId, Strand)) -> Option<u64> {
        let here = self.binding.as_ref().is_some_and(|b| b.instance == on);
        if here && self.strands.is_current(strand) {
            return Some(self.home);
        }
        let before = |guard: &Guard| guard.home != self.home && guard.lease.instance() == on;
        self.pending.find(before).map(|guard| guard.home)
    }

    /// For a server's request: another lease of `lease`, or of any message's that is pending there.
    pub(super) fn guard(&self, home: u64, lease: Option<&Lease>) -> Option<Guard> {
        let there = self.pending.find(|guard| guard.home == home);
        let lease = lease.or(there.map(|guard| &guard.lease))?;
        let upstream = if home == self.home {
            &self.binding.as_ref()?.upstream
        } else {
            &there?.upstream
        };
        Some(Guard {
            lease: lease.another(),
            upstream: upstream.clone(),
            home,
        })
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
        self.pending.client_sent(message, deadline, || Guard {
            lease: lease.another(),
            upstream: binding.upstream.clone(),
            home: self.home,
        });
        self.used_at = Instant::now();
        self.unattended_since = None;
        (self.strands.begin(), tell)
    }

    /// Takes out what was to be answered elsewhere and is `lost`; whether there is something to tell.
    pub(super) fn keep_unanswered(&mut self, lost: impl Fn(&Guard) -> bool) -> bool {
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
