//! Session records as values: what news makes of a record, and how many there may be.
//!
//! Invariants: bounded for each tenant and in the whole; a record expires with its sealed id; an ended record keeps
//! nothing but that it ended, and makes room for one of a session that lives. Never does IO: the driver writes what [`Change`] says.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use mcp_gateway_api::{
    failure::{Failure, FailureKind},
    ids::{SessionKey, TenantName},
    record::{
        MAX_RECORD_TEXT, MAX_SUBSCRIPTIONS, SessionNews, SessionRecord, SessionRef, SessionUpdate,
        SharedRecord,
    },
    view::Stamp,
};

/// What is to be written down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A new or changed record.
    Put(SharedRecord),
    /// A record is no longer needed.
    Remove(SessionKey),
}

/// How many there may be.
#[derive(Debug, Clone, Copy)]
pub struct RecordLimits {
    /// In the whole.
    pub total: usize,
    /// For each tenant.
    pub per_tenant: usize,
}

impl Default for RecordLimits {
    fn default() -> Self {
        Self {
            total: 1_000_000,
            per_tenant: 250_000,
        }
    }
}

/// All records.
#[derive(Debug)]
pub struct Records {
    limits: RecordLimits,
    by_key: HashMap<SessionKey, SharedRecord>,
    by_expiry: BTreeSet<(u64, SessionKey)>,
    per_tenant: HashMap<TenantName, usize>,
    /// Of sessions that have ended, by when they expire.
    ended: HashMap<TenantName, BTreeSet<(u64, SessionKey)>>,
}

impl Records {
    /// None yet.
    #[must_use]
    pub fn new(limits: RecordLimits) -> Self {
        Self {
            limits,
            by_key: HashMap::new(),
            by_expiry: BTreeSet::new(),
            per_tenant: HashMap::new(),
            ended: HashMap::new(),
        }
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_key.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }

    /// One.
    #[must_use]
    pub fn get(&self, key: &SessionKey) -> Option<&SharedRecord> {
        self.by_key.get(key)
    }

    /// All, in the order in which they expire.
    pub fn iter(&self) -> impl Iterator<Item = &SharedRecord> {
        self.by_expiry
            .iter()
            .filter_map(|(_, key)| self.by_key.get(key))
    }

    /// Unix seconds at which the first expires.
    #[must_use]
    pub fn first_expiry(&self) -> Option<u64> {
        self.by_expiry.first().map(|(at, _)| *at)
    }

    /// Takes a record in as it is (at start), whatever the bounds say.
    pub fn restore(&mut self, record: SessionRecord) {
        self.put(Arc::new(record));
    }

    /// Applies news, known as of `stamp`; `None` when they change nothing.
    ///
    /// # Errors
    /// The session has ended, the bounds are reached, or a text is too long.
    pub fn apply(
        &mut self,
        update: &SessionUpdate,
        stamp: Stamp,
    ) -> Result<Option<SharedRecord>, Failure> {
        let old = self.by_key.get(&update.session.key);
        if old.is_none() {
            self.room(&update.session)?;
        }
        let mut record = old.map_or_else(
            || SessionRecord::new(&update.session),
            |old| old.as_ref().clone(),
        );
        if record.ended {
            return match update.news {
                SessionNews::Ended => Ok(None),
                SessionNews::Opened(_)
                | SessionNews::Sessionless(_)
                | SessionNews::Revived(_)
                | SessionNews::RevivalFailed { .. }
                | SessionNews::Asleep
                | SessionNews::LogLevel(_)
                | SessionNews::Subscribed(_)
                | SessionNews::Unsubscribed(_) => Err(gone()),
            };
        }
        change(&mut record, &update.news)?;
        if old.is_some_and(|old| **old == record) || (old.is_none() && is_blank(&record)) {
            return Ok(None);
        }
        record.stamp = stamp;
        let record = Arc::new(record);
        self.put(Arc::clone(&record));
        Ok(Some(record))
    }

    /// That a session of the same tenant has ended, if a record of this one had no room but for that: the mark that would
    /// expire first. Its id comes to life again should its owner use it, which is less harm than that living sessions
    /// cannot be revived.
    #[must_use]
    pub fn in_the_way_of(&self, session: &SessionRef) -> Option<SessionKey> {
        if self.by_key.contains_key(&session.key) || self.room(session).is_ok() {
            return None;
        }
        let (_, key) = self.ended.get(&session.tenant)?.first()?;
        Some(*key)
    }

    /// Drops one.
    pub fn remove(&mut self, key: &SessionKey) -> bool {
        let Some(record) = self.by_key.remove(key) else {
            return false;
        };
        self.by_expiry.remove(&(record.expires_at, *key));
        self.unmark(&record);
        if let Some(count) = self.per_tenant.get_mut(&record.tenant) {
            *count -= 1;
            if *count == 0 {
                self.per_tenant.remove(&record.tenant);
            }
        }
        true
    }

    /// Drops one that has expired, if any.
    pub fn pop_expired(&mut self, unix_now: u64) -> Option<SessionKey> {
        let (at, key) = *self.by_expiry.first()?;
        if at > unix_now {
            return None;
        }
        self.remove(&key);
        Some(key)
    }

    fn room(&self, session: &SessionRef) -> Result<(), Failure> {
        let mine = self.per_tenant.get(&session.tenant).copied().unwrap_or(0);
        if self.by_key.len() < self.limits.total && mine < self.limits.per_tenant {
            return Ok(());
        }
        Err(Failure::new(
            FailureKind::Capacity,
            "Too many sessions have to be remembered.",
        )
        .because(format!(
            "{mine} session records of tenant {}, {} in the whole",
            session.tenant,
            self.by_key.len()
        )))
    }

    fn put(&mut self, record: SharedRecord) {
        let (key, expires_at, ended) = (record.key, record.expires_at, record.ended);
        let tenant = record.tenant.clone();
        match self.by_key.insert(key, record) {
            Some(old) => {
                self.by_expiry.remove(&(old.expires_at, key));
                self.unmark(&old);
            }
            None => *self.per_tenant.entry(tenant.clone()).or_default() += 1,
        }
        self.by_expiry.insert((expires_at, key));
        if ended {
            let marks = self.ended.entry(tenant).or_default();
            marks.insert((expires_at, key));
        }
    }

    fn unmark(&mut self, record: &SessionRecord) {
        if let Some(marks) = self.ended.get_mut(&record.tenant) {
            marks.remove(&(record.expires_at, record.key));
            if marks.is_empty() {
                self.ended.remove(&record.tenant);
            }
        }
    }
}

/// The failure of a session that is no more.
pub(super) fn gone() -> Failure {
    Failure::new(FailureKind::SessionGone, "This session has ended.")
}

fn is_blank(record: &SessionRecord) -> bool {
    !record.ended
        && record.binding.is_none()
        && record.log_level.is_none()
        && record.subscriptions.is_empty()
}

fn change(record: &mut SessionRecord, news: &SessionNews) -> Result<(), Failure> {
    match news {
        SessionNews::Opened(_)
        | SessionNews::Sessionless(_)
        | SessionNews::RevivalFailed { retry: true } => {}
        SessionNews::Revived(binding) => record.binding = Some(Some(binding.clone())),
        SessionNews::Asleep => record.binding = Some(None),
        SessionNews::LogLevel(level) => record.log_level = Some(short(level)?),
        SessionNews::Subscribed(uri) => {
            let uri = short(uri)?;
            if !record.subscriptions.contains(&uri) {
                if record.subscriptions.len() >= MAX_SUBSCRIPTIONS {
                    return Err(too_much("more subscriptions than are remembered"));
                }
                record.subscriptions.push(uri);
            }
        }
        SessionNews::Unsubscribed(uri) => record.subscriptions.retain(|kept| kept != uri),
        SessionNews::Ended | SessionNews::RevivalFailed { retry: false } => {
            record.ended = true;
            record.binding = None;
            record.log_level = None;
            record.subscriptions = Vec::new();
        }
    }
    Ok(())
}

fn short(text: &str) -> Result<String, Failure> {
    if text.len() > MAX_RECORD_TEXT {
        return Err(too_much("a text longer than is remembered"));
    }
    Ok(text.to_owned())
}

fn too_much(what: &str) -> Failure {
    Failure::new(
        FailureKind::Overloaded,
        format!("This session has {what}; after a pause of its server that part would be lost."),
    )
}
