//! Session records as this activator knows them: what the view says of a session, and on top of that what was recorded
//! here and has not come back with the view.
//!
//! Invariants: own news stays on top until the view's record contains it, or the control plane has had it for so long
//! that the view must have told; so the echo of something older takes nothing back. An ended session stays ended until
//! the leader forgets it. Pure: whoever owns the table locks it, and tells listeners.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
};

use mcp_gateway_api::{
    ids::SessionKey,
    record::{
        MAX_RECORD_TEXT, MAX_SUBSCRIPTIONS, SessionNews, SessionRecord, SessionUpdate, SharedRecord,
    },
};

/// Most news of one session kept apart from what the view says.
const MOST_OWN: usize = 128;
/// News that the control plane did not take and that is remembered here all the same.
const MOST_REFUSED: usize = 4_096;

/// Which piece of own news.
pub(crate) type Number = u64;

/// All records.
#[derive(Default)]
pub(super) struct Records {
    known: HashMap<SessionKey, Known>,
    /// Sessions with own news that the view has not told yet.
    ahead: HashSet<SessionKey>,
    refused: VecDeque<SessionKey>,
    last: Number,
}

struct Known {
    /// The sum of the two below.
    shown: SharedRecord,
    told: Option<SharedRecord>,
    /// Oldest first.
    own: Vec<Own>,
}

struct Own {
    number: Number,
    update: SessionUpdate,
    standing: Standing,
    /// The view has told something of the session since.
    heard: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// On its way to the control plane.
    Sent,
    /// The control plane has it; the view will tell.
    Kept,
    /// The control plane does not have it.
    Refused,
    /// It is time that only the view counts.
    Old,
}

impl Records {
    /// What is known of a session beyond its sealed id.
    pub(super) fn get(&self, key: &SessionKey) -> Option<SharedRecord> {
        self.known.get(key).map(|known| Arc::clone(&known.shown))
    }

    /// Takes own news in; `None` when it changes nothing. [`Records::settle`] is to follow.
    pub(super) fn learn(&mut self, update: &SessionUpdate) -> Option<(Number, SharedRecord)> {
        let key = update.session.key;
        let shown = self.known.get(&key).map(|known| &*known.shown);
        let next = learned(shown, update).filter(|next| shown != Some(next))?;
        let next = Arc::new(next);
        let known = self.known.entry(key).or_insert_with(|| Known {
            shown: Arc::clone(&next),
            told: None,
            own: Vec::new(),
        });
        known.shown = Arc::clone(&next);
        if known.own.len() >= MOST_OWN {
            known.own[0].heard = false;
            known.retire();
        }
        self.last += 1;
        known.own.push(Own {
            number: self.last,
            update: update.clone(),
            standing: Standing::Sent,
            heard: false,
        });
        self.ahead.insert(key);
        Some((self.last, next))
    }

    /// The control plane has answered: whether it keeps that piece of news.
    pub(super) fn settle(&mut self, key: &SessionKey, number: Number, kept: bool) {
        let known = self.known.get_mut(key);
        let own = known.and_then(|known| known.own.iter_mut().find(|own| own.number == number));
        let Some(own) = own else { return };
        if kept {
            own.standing = Standing::Kept;
            return;
        }
        own.standing = Standing::Refused;
        self.refused.push_back(*key);
        if self.refused.len() > MOST_REFUSED
            && let Some(oldest) = self.refused.pop_front()
            && let Some(known) = self.known.get_mut(&oldest)
            && let Some(own) = known
                .own
                .iter_mut()
                .find(|own| own.standing == Standing::Refused)
        {
            own.standing = Standing::Old;
        }
    }

    /// Takes in what the view says of a session; the record if it is another now.
    pub(super) fn tell(&mut self, record: SharedRecord) -> Option<SharedRecord> {
        let key = record.key;
        let Some(known) = self.known.get_mut(&key) else {
            let known = Known {
                shown: Arc::clone(&record),
                told: Some(Arc::clone(&record)),
                own: Vec::new(),
            };
            self.known.insert(key, known);
            return Some(record);
        };
        known.told = Some(record);
        known.heard();
        let changed = known.show();
        if known.own.is_empty() {
            self.ahead.remove(&key);
        }
        changed
    }

    /// The leader needs this record no more.
    pub(super) fn forget(&mut self, key: &SessionKey) {
        self.known.remove(key);
        self.ahead.remove(key);
    }

    /// The view has listed all there are: what it did not list is known only as far as it is own news.
    pub(super) fn keep_only(&mut self, listed: &HashSet<SessionKey>) {
        self.known.retain(|key, known| {
            if !listed.contains(key) && !known.own.is_empty() {
                known.told = None;
                known.heard();
                known.show();
            }
            listed.contains(key) || !known.own.is_empty()
        });
    }

    /// Now and then, seconds apart: news that the control plane has had since the last time is own news no longer. The
    /// records that are others now.
    pub(super) fn tidy(&mut self) -> Vec<SharedRecord> {
        let mut changed = Vec::new();
        let known = &mut self.known;
        self.ahead.retain(|key| {
            let Some(one) = known.get_mut(key) else {
                return false;
            };
            while one
                .own
                .first()
                .is_some_and(|own| own.standing == Standing::Old)
            {
                one.retire();
            }
            changed.extend(one.show());
            for own in &mut one.own {
                if own.standing == Standing::Kept {
                    own.standing = Standing::Old;
                }
            }
            let ahead = !one.own.is_empty();
            if !ahead && one.told.is_none() {
                known.remove(key);
            }
            ahead
        });
        changed
    }
}

impl Known {
    /// The oldest own news becomes part of what the view says, unless the view had occasion to say so itself.
    fn retire(&mut self) {
        let own = self.own.remove(0);
        if !own.heard
            && let Some(next) = learned(self.told.as_deref(), &own.update)
        {
            self.told = Some(Arc::new(next));
        }
    }

    /// The view has told something: own news that it contains is done with.
    fn heard(&mut self) {
        let told = self.told.as_deref();
        let contained = |own: &&Own| told.is_some_and(|told| contains(told, &own.update));
        let done = self.own.iter().take_while(contained).count();
        self.own.drain(..done);
        for own in &mut self.own {
            own.heard = true;
        }
    }

    /// Sums up; the record if it is another now.
    fn show(&mut self) -> Option<SharedRecord> {
        let mut sum = self.told.clone();
        for own in &self.own {
            if let Some(next) = learned(sum.as_deref(), &own.update) {
                sum = Some(Arc::new(next));
            }
        }
        let sum = sum?;
        // What has ended is not brought back by older news.
        if sum == self.shown || self.shown.ended && !sum.ended {
            return None;
        }
        self.shown = Arc::clone(&sum);
        Some(sum)
    }
}

fn contains(record: &SessionRecord, update: &SessionUpdate) -> bool {
    learned(Some(record), update).is_none_or(|next| next == *record)
}

/// A record after a piece of news; `None` when the news makes no difference to it.
fn learned(old: Option<&SessionRecord>, update: &SessionUpdate) -> Option<SessionRecord> {
    if old.is_some_and(|old| old.ended) {
        return None;
    }
    let mut record = old
        .cloned()
        .unwrap_or_else(|| SessionRecord::new(&update.session));
    match &update.news {
        SessionNews::Opened(_)
        | SessionNews::Sessionless(_)
        | SessionNews::RevivalFailed { retry: true } => return None,
        SessionNews::Revived(binding) => record.binding = Some(Some(binding.clone())),
        SessionNews::Asleep => record.binding = Some(None),
        SessionNews::LogLevel(level) if level.len() <= MAX_RECORD_TEXT => {
            record.log_level = Some(level.clone());
        }
        SessionNews::Subscribed(uri)
            if uri.len() <= MAX_RECORD_TEXT
                && record.subscriptions.len() < MAX_SUBSCRIPTIONS
                && !record.subscriptions.contains(uri) =>
        {
            record.subscriptions.push(uri.clone());
        }
        SessionNews::LogLevel(_) | SessionNews::Subscribed(_) => return None,
        SessionNews::Unsubscribed(uri) => record.subscriptions.retain(|known| known != uri),
        SessionNews::Ended | SessionNews::RevivalFailed { retry: false } => {
            record = SessionRecord {
                ended: true,
                ..SessionRecord::new(&update.session)
            };
        }
    }
    Some(record)
}

#[cfg(test)]
mod tests;
