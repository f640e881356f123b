//! Which pods there are: by id, by name, by slot. The one place that knows; shared by the watch, agents' home and
//! launches.
//!
//! Invariants: a pod is here from the answer of its create call (or the first list) until its `Exited` was said; a name
//! that is being created is reserved, so that its number is not given twice and its agent's call waits for the answer.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use k8s_openapi::api::core::v1::Pod;
use mcp_gateway_api::{ids::InstanceId, view::InstanceSecret};
use mcp_gateway_link::token::LaunchToken;
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};

use super::{names::Facts, pods::Input, seen::Seen};

/// What the watch last said of a pod.
#[derive(Debug, Clone)]
pub(crate) enum Watched {
    /// It is there.
    Here(Arc<Seen>),
    /// It is not; its last state, if that was told.
    Gone(Option<Arc<Seen>>),
}

/// What agents are asked beyond their welcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Drain(pub(crate) std::time::Duration);

/// A pod, as everybody but its own task sees it.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) id: InstanceId,
    pub(crate) name: String,
    pub(crate) uid: String,
    pub(crate) slot_hash: String,
    pub(crate) facts: Facts,
    /// What requests to its bridge must bear, if it is one.
    pub(crate) secret: Option<InstanceSecret>,
    /// What its agent is told at its first call; taken then. Pods of another leader have none.
    pub(crate) orders: Mutex<Option<Box<mcp_gateway_link::agent::Orders>>>,
    /// The token it was created with, until it is spent.
    pub(crate) token: Mutex<Option<LaunchToken>>,
    pub(crate) watched: watch::Sender<Watched>,
    /// How long it has to end, once it was told to.
    pub(crate) told: watch::Sender<Option<std::time::Duration>>,
    /// To its own task.
    pub(crate) inbox: mpsc::Sender<Input>,
    /// To its agent, while it is connected: the newest connection counts.
    pub(crate) agent: watch::Sender<Option<Drain>>,
}

/// The last event of a pod that came before the answer of the create call.
#[derive(Debug)]
struct Early {
    id: InstanceId,
    watched: Watched,
    /// The pod itself, in case the call is not answered at all.
    pod: Option<Box<Pod>>,
}

#[derive(Debug, Default)]
struct Inner {
    by_id: HashMap<InstanceId, Arc<Entry>>,
    /// Names being created.
    creating: HashMap<String, (String, u64)>,
    early: HashMap<String, Early>,
    numbers: HashMap<String, BTreeSet<u64>>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Table {
    inner: Mutex<Inner>,
    /// Changes when a create call was answered.
    answered: watch::Sender<u64>,
}

/// What to do with an event of the watch.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It was handed to whom it concerns.
    Known,
    /// A pod of this installation that nobody here made.
    Stray,
}

impl Default for Table {
    fn default() -> Self {
        Self {
            inner: Mutex::default(),
            answered: watch::Sender::new(0),
        }
    }
}

impl Table {
    /// The number of a slot's next pod, at least `least`: one more than the highest there is; reserved until
    /// [`Self::created`] or [`Self::not_created`].
    pub(crate) fn reserve(&self, slot_hash: &str, least: u64, name: impl Fn(u64) -> String) -> u64 {
        let mut inner = self.inner.lock();
        let numbers = inner.numbers.entry(slot_hash.to_owned()).or_default();
        let next = numbers.last().map_or(1, |last| last + 1).max(least);
        numbers.insert(next);
        inner
            .creating
            .insert(name(next), (slot_hash.to_owned(), next));
        next
    }

    /// The create call was answered, or the pod was found: it exists. `false` if it is here already.
    pub(crate) fn created(&self, entry: Arc<Entry>) -> bool {
        let mut inner = self.inner.lock();
        inner.creating.remove(&entry.name);
        if let Some(early) = inner.early.remove(&entry.name)
            && early.id == entry.id
        {
            entry.watched.send_replace(early.watched);
        }
        let numbers = inner.numbers.entry(entry.slot_hash.clone()).or_default();
        numbers.insert(entry.facts.number);
        let new = !inner.by_id.contains_key(&entry.id);
        if new {
            inner.by_id.insert(entry.id, entry);
        }
        drop(inner);
        self.answered.send_modify(|n| *n += 1);
        new
    }

    /// The create call failed. Gives the pod of that name that was seen all the same: the call's answer was lost, or
    /// somebody else made it.
    pub(crate) fn not_created(&self, name: &str) -> Option<Box<Pod>> {
        let mut inner = self.inner.lock();
        let early = inner.early.remove(name);
        if let Some((slot, number)) = inner.creating.remove(name) {
            free(&mut inner.numbers, &slot, number);
        }
        drop(inner);
        self.answered.send_modify(|n| *n += 1);
        early?.pod
    }

    /// Its `Exited` was said.
    pub(crate) fn forget(&self, entry: &Entry) {
        let mut inner = self.inner.lock();
        inner.by_id.remove(&entry.id);
        free(&mut inner.numbers, &entry.slot_hash, entry.facts.number);
    }

    pub(crate) fn get(&self, id: InstanceId) -> Option<Arc<Entry>> {
        self.inner.lock().by_id.get(&id).cloned()
    }

    pub(crate) fn ids(&self) -> HashSet<InstanceId> {
        self.inner.lock().by_id.keys().copied().collect()
    }

    /// Waits until no pod of that name is being created.
    pub(crate) async fn settled(&self, name: &str) {
        let mut answered = self.answered.subscribe();
        while self.inner.lock().creating.contains_key(name) {
            if answered.changed().await.is_err() {
                return;
            }
        }
    }

    /// The watch saw a pod.
    pub(crate) fn seen(&self, seen: Seen, pod: &Pod) -> Verdict {
        let mut inner = self.inner.lock();
        if let Some(entry) = inner.by_id.get(&seen.id) {
            entry.watched.send_replace(Watched::Here(Arc::new(seen)));
            return Verdict::Known;
        }
        if inner.creating.contains_key(&seen.name) {
            let early = Early {
                id: seen.id,
                watched: Watched::Here(Arc::new(seen.clone())),
                pod: Some(Box::new(pod.clone())),
            };
            inner.early.insert(seen.name, early);
            return Verdict::Known;
        }
        Verdict::Stray
    }

    /// The watch says that a pod is gone.
    pub(crate) fn gone(&self, id: InstanceId, last: Option<Seen>) {
        let mut inner = self.inner.lock();
        let last = last.map(Arc::new);
        if let Some(entry) = inner.by_id.get(&id) {
            entry.watched.send_replace(Watched::Gone(last));
        } else if let Some(seen) = last
            && inner.creating.contains_key(&seen.name)
        {
            let name = seen.name.clone();
            let early = Early {
                id,
                watched: Watched::Gone(Some(seen)),
                pod: None,
            };
            inner.early.insert(name, early);
        }
    }
}

fn free(numbers: &mut HashMap<String, BTreeSet<u64>>, slot: &str, number: u64) {
    if let Some(taken) = numbers.get_mut(slot) {
        taken.remove(&number);
        if taken.is_empty() {
            numbers.remove(slot);
        }
    }
}

#[cfg(test)]
mod tests;
