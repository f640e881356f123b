//! Session records as this activator knows them: what the view says of a session, and on top of that what was recorded
//! here and has not come back with the view.
//!
//! Invariants: own news stays on top until the view's record contains it, or the view has told something later and the
//! control plane has had it for so long that the view must have told; so the echo of something older takes nothing back.
//! An ended session stays ended until the leader forgets it. What the view told is kept apart from everything else: a new
//! leader is told of nothing that no leader has written. Pure: whoever owns the table locks it, and tells listeners.

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
    /// What the view told, with own news on top that there was no room to keep apart.
    base: Option<SharedRecord>,
    /// Oldest first.
    own: Vec<Own>,
    /// What the view told, and nothing else.
    told: Option<SharedRecord>,
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
    /// The control plane has had it for so long that what the view tells now counts more.
    Settled,
    /// The control plane does not have it.
    Refused,
    /// It is time that only the view counts.
    Old,
}

/// Who tells what the view tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Teller {
    /// A leader that has not heard everybody yet: it may know less than its predecessor told.
    Beginner,
    /// A leader that knows all there is to know.
    Knower,
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
            base: None,
            own: Vec::new(),
            told: None,
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
        if own.standing == Standing::Refused {
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
    pub(super) fn tell(&mut self, record: SharedRecord, teller: Teller) -> Option<SharedRecord> {
        let key = record.key;
        let Some(known) = self.known.get_mut(&key) else {
            let known = Known {
                shown: Arc::clone(&record),
                base: Some(Arc::clone(&record)),
                own: Vec::new(),
                told: Some(Arc::clone(&record)),
            };
            self.known.insert(key, known);
            return Some(record);
        };
        known.hear(record, teller);
        let changed = known.show();
        if known.own.is_empty() {
            self.ahead.remove(&key);
        }
        changed
    }

    /// All that the view told, as it was told.
    pub(super) fn told(&self) -> Vec<SharedRecord> {
        let told = self.known.values().filter_map(|known| known.told.clone());
        told.collect()
    }

    /// Sessions of which there is news that the view ought to have told and has not: with a leader went what only it
    /// knew, and what none was there to be told.
    pub(super) fn untold(&self) -> Vec<SessionKey> {
        let untold = |key: &&SessionKey| !self.untold_of(key).is_empty();
        self.ahead.iter().filter(untold).copied().collect()
    }

    /// That news of one session, oldest first. What is on its way is none of it.
    pub(super) fn untold_of(&self, key: &SessionKey) -> Vec<(Number, SessionUpdate)> {
        let own = self.known.get(key).map_or(&[][..], |known| &known.own);
        let untold = own.iter().filter(|own| match own.standing {
            Standing::Kept | Standing::Settled => !own.heard,
            Standing::Refused => true,
            Standing::Sent | Standing::Old => false,
        });
        untold.map(|own| (own.number, own.update.clone())).collect()
    }

    /// The leader needs this record no more.
    pub(super) fn forget(&mut self, key: &SessionKey) {
        self.known.remove(key);
        self.ahead.remove(key);
    }

    /// The view has listed all there are: what it did not list is known only as far as it is own news. What a leader of
    /// a `new_term` does not list it may never have heard.
    pub(super) fn keep_only(&mut self, listed: &HashSet<SessionKey>, new_term: bool) {
        self.known.retain(|key, known| {
            if !listed.contains(key) && !known.own.is_empty() {
                (known.told, known.base) = (None, None);
                known.heard(!new_term);
                known.show();
            }
            listed.contains(key) || !known.own.is_empty()
        });
    }

    /// Now and then, seconds apart: news that the control plane has had since the last time is own news no longer if the
    /// view has told something since. The records that are others now.
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
            one.own
                .retain(|own| !(own.heard && own.standing == Standing::Settled));
            changed.extend(one.show());
            for own in &mut one.own {
                if own.standing == Standing::Kept {
                    own.standing = Standing::Settled;
                }
            }
            let ahead = !one.own.is_empty();
            if !ahead && one.base.is_none() {
                known.remove(key);
            }
            ahead
        });
        changed
    }
}

impl Known {
    /// The oldest own news becomes part of what it is laid upon, unless the view had occasion to say so itself.
    fn retire(&mut self) {
        let own = self.own.remove(0);
        if !own.heard
            && let Some(next) = learned(self.base.as_deref(), &own.update)
        {
            self.base = Some(Arc::new(next));
        }
    }

    /// The view tells a record. One that knows less than was known before takes nothing back.
    fn hear(&mut self, record: SharedRecord, teller: Teller) {
        let later = match (&self.told, teller) {
            (Some(before), Teller::Beginner) => {
                let (before, record) = (before.as_ref().clone(), record.as_ref().clone());
                Arc::new(before.join(record))
            }
            (Some(_), Teller::Knower) | (None, _) => record,
        };
        let before = self.told.replace(Arc::clone(&later));
        let is_news = before.is_none_or(|before| before.stamp <= later.stamp && before != later);
        self.base = Some(later);
        self.heard(is_news);
    }

    /// The view has told something, perhaps anew: own news that it contains is done with.
    fn heard(&mut self, is_news: bool) {
        let told = self.told.as_deref();
        let contained = |own: &&Own| told.is_some_and(|told| contains(told, &own.update));
        let done = self.own.iter().take_while(contained).count();
        self.own.drain(..done);
        for own in &mut self.own {
            own.heard |= is_news;
        }
        if is_news {
            self.own.retain(|own| own.standing != Standing::Settled);
        }
    }

    /// Sums up; the record if it is another now.
    fn show(&mut self) -> Option<SharedRecord> {
        let mut sum = self.base.clone();
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
