//! Which leases a session's messages begin and end (the table "What wakes, what counts" of ARCHITECTURE.md).
//!
//! A client's request is pending until its response passes on any stream of the session, it is cancelled, or its time is
//! up; a server's request until the client's answer is posted or the server cancels it. The same id may be pending in
//! both directions.
//! Invariants: bounded by [`MAX_PENDING`]; each entry owns one guard, dropped with it. Pure: time is an argument.

use std::{
    collections::{HashMap, HashSet},
    hash::Hash,
};

use tokio::time::Instant;

use super::strand::Strand;
use crate::{
    message::{Message, RequestId},
    sse::Seen,
};

/// Most requests of a session, both directions together, that are accounted for. Further ones count only while their
/// HTTP exchange lasts.
pub const MAX_PENDING: usize = 1_024;

/// Who asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Asker {
    Client,
    Server,
}

/// The pending requests of one session, each with its guard `G` (a lease).
#[derive(Debug)]
pub struct Pending<G> {
    entries: HashMap<(Asker, RequestId), Entry<G>>,
}

#[derive(Debug)]
struct Entry<G> {
    deadline: Instant,
    guard: G,
    // Its own stream has closed: the response is to pass on another, of this strand.
    elsewhere: Option<Strand>,
}

impl<G> Default for Pending<G> {
    fn default() -> Self {
        Self {
            entries: HashMap::new(),
        }
    }
}

impl<G> Pending<G> {
    /// The client's message is on its way to the server: its requests become pending, its responses and cancellations
    /// end what they name.
    pub fn client_sent(
        &mut self,
        message: &Message,
        deadline: Instant,
        mut guard: impl FnMut() -> G,
    ) {
        for one in message.each() {
            match one {
                Message::Request(r) => self.begin(Asker::Client, &r.id, deadline, &mut guard),
                Message::Response(_) | Message::Notification(_) | Message::Batch(_) => {
                    self.end_named(one);
                }
            }
        }
    }

    /// Ends what a message of the client answers or cancels.
    pub fn end_named(&mut self, message: &Message) {
        if let Some(key) = named(message) {
            self.entries.remove(&key);
        }
    }

    /// The guard of what the client's message answers or cancels, of the first in a batch.
    #[must_use]
    pub fn named_by(&self, message: &Message) -> Option<&G> {
        let mut found = message
            .each()
            .filter_map(|one| self.entries.get(&named(one)?));
        found.next().map(|entry| &entry.guard)
    }

    /// A message of the server passed on some stream of the session. It ends only what is `mine`, the server's; its request
    /// becomes pending if `guard` yields a guard for it.
    pub fn server_sent(
        &mut self,
        seen: &Seen,
        deadline: Instant,
        mine: impl Fn(&G) -> bool,
        guard: impl FnOnce() -> Option<G>,
    ) {
        match seen {
            Seen::Response { id, .. } => self.end_mine(Asker::Client, id.as_ref(), mine),
            Seen::Request { id, .. } => {
                if let Some(guard) = guard() {
                    self.begin(Asker::Server, id, deadline, || guard);
                }
            }
            Seen::Notification { method, request_id } if &**method == "notifications/cancelled" => {
                self.end_mine(Asker::Server, request_id.as_ref(), mine);
            }
            Seen::Notification { .. } => {}
        }
    }

    /// The whole answer to the client's message is there (a JSON body, an error status): none of its requests is pending
    /// any more.
    pub fn answered(&mut self, message: &Message) {
        for request in message.requests() {
            self.end(Asker::Client, Some(&request.id));
        }
    }

    /// The stream that answered the client's message has closed without all its responses: they pass on another.
    pub fn elsewhere(&mut self, message: &Message, strand: Strand) {
        for request in message.requests() {
            let key = (Asker::Client, request.id.clone());
            if let Some(entry) = self.entries.get_mut(&key) {
                entry.elsewhere = Some(strand);
            }
        }
    }

    /// Takes out the client's requests whose responses were to pass on another stream and never will, because their
    /// guards are `lost`.
    #[must_use]
    pub fn unanswered(&mut self, lost: impl Fn(&G) -> bool) -> Vec<(Strand, RequestId)> {
        let waits = |asker: Asker, entry: &Entry<G>| {
            asker == Asker::Client && entry.elsewhere.is_some() && lost(&entry.guard)
        };
        let taken = self
            .entries
            .extract_if(|(asker, _), entry| waits(*asker, entry));
        let told = taken.filter_map(|((_, id), entry)| Some((entry.elsewhere?, id)));
        told.collect()
    }

    /// Whether some request of the client's message is pending.
    #[must_use]
    pub fn awaits(&self, message: &Message) -> bool {
        message.requests().any(|request| {
            self.entries
                .contains_key(&(Asker::Client, request.id.clone()))
        })
    }

    /// Forgets what is overdue, and what `keep` does not want kept.
    pub fn sweep(&mut self, now: Instant, keep: impl Fn(&G) -> bool) {
        self.entries
            .retain(|_, entry| entry.deadline > now && keep(&entry.guard));
    }

    /// Forgets the client's requests that are answered where they were asked.
    pub fn cut(&mut self) {
        self.entries
            .retain(|(asker, _), entry| *asker == Asker::Server || entry.elsewhere.is_some());
    }

    /// Gives back the memory of what is no longer pending.
    pub fn shrink(&mut self) {
        if self.entries.capacity() > 0 && self.entries.is_empty() {
            self.entries = HashMap::new();
        }
    }

    /// Forgets all: the instance is lost.
    pub fn clear(&mut self) {
        self.entries = HashMap::new();
    }

    /// Ends what is pending under the guards named; gives the client's requests among them.
    #[must_use]
    pub fn give_up(&mut self, named: impl Fn(&G) -> bool) -> Vec<RequestId> {
        let taken = self.entries.extract_if(|_, entry| named(&entry.guard));
        let clients = taken.filter(|((asker, _), _)| *asker == Asker::Client);
        clients.map(|((_, id), _)| id).collect()
    }

    /// Whether a request of the client is pending.
    #[must_use]
    pub fn awaits_server(&self) -> bool {
        self.entries
            .keys()
            .any(|(asker, _)| *asker == Asker::Client)
    }

    /// Forgets the server's requests: nobody is there to answer them.
    pub fn end_servers(&mut self) {
        self.entries.retain(|(asker, _), _| *asker == Asker::Client);
    }

    /// How many are pending.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// One guard of those named.
    #[must_use]
    pub fn find(&self, named: impl Fn(&G) -> bool) -> Option<&G> {
        let mut guards = self.entries.values().map(|entry| &entry.guard);
        guards.find(|guard| named(guard))
    }

    /// Forgets what is pending under the guards named.
    pub fn forget(&mut self, named: impl Fn(&G) -> bool) {
        self.entries.retain(|_, entry| !named(&entry.guard));
    }

    /// The session lives at `home` now: what a server asked `of` elsewhere is of use only to a client's request that still
    /// runs there.
    pub fn leave_behind<H: Eq + Hash>(&mut self, home: H, of: impl Fn(&G) -> H) {
        let mut used: HashSet<H> = HashSet::from([home]);
        for ((asker, _), entry) in &self.entries {
            if *asker == Asker::Client {
                used.insert(of(&entry.guard));
            }
        }
        self.entries
            .retain(|_, entry| used.contains(&of(&entry.guard)));
    }

    fn begin(
        &mut self,
        asker: Asker,
        id: &RequestId,
        deadline: Instant,
        guard: impl FnOnce() -> G,
    ) {
        let key = (asker, id.clone());
        if self.entries.len() < MAX_PENDING || self.entries.contains_key(&key) {
            self.entries.insert(
                key,
                Entry {
                    deadline,
                    guard: guard(),
                    elsewhere: None,
                },
            );
        }
    }

    fn end(&mut self, asker: Asker, id: Option<&RequestId>) {
        if let Some(id) = id {
            self.entries.remove(&(asker, id.clone()));
        }
    }

    fn end_mine(&mut self, asker: Asker, id: Option<&RequestId>, mine: impl Fn(&G) -> bool) {
        if let Some(id) = id {
            let key = (asker, id.clone());
            if self.entries.get(&key).is_some_and(|e| mine(&e.guard)) {
                self.entries.remove(&key);
            }
        }
    }
}

/// What a message of the client answers or cancels.
fn named(message: &Message) -> Option<(Asker, RequestId)> {
    match message {
        Message::Response(r) => Some((Asker::Server, r.id.clone()?)),
        Message::Notification(n) if &*n.method == "notifications/cancelled" => {
            Some((Asker::Client, n.params.request_id.clone()?))
        }
        Message::Notification(_) | Message::Request(_) | Message::Batch(_) => None,
    }
}

#[cfg(test)]
mod tests;
