//! A modelled activator: its own table, and the rule of leases (`trait Scaler`): leased only what is open in the own
//! table; a drain is applied and acknowledged in one go.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use mcp_gateway_api::{
    activity::{ActivityReport, DrainAck, InstanceActivity},
    ids::{ActivatorId, InstanceId, SessionKey},
    record::{REVIVAL_PERMIT, SharedRecord},
    scaler::{ActivatorPod, Permit, Restatement},
    slot::SlotKey,
    view::{InstanceView, Service, Stamp, ViewEvent},
};
use tokio::time::Instant;

pub(crate) struct Entry {
    pub(crate) view: InstanceView,
    pub(crate) leases: u32,
    pub(crate) idle_since: Instant,
}

pub(crate) struct Activator {
    pub(crate) id: ActivatorId,
    /// Of one in another process than the leader.
    pub(crate) pod: Option<ActivatorPod>,
    /// Nothing gets through between the leader and it.
    pub(crate) cut_off: bool,
    /// It listens to the present leader.
    pub(crate) listens: bool,
    /// How often it has begun to.
    pub(crate) subscription: u64,
    /// The highest term it has heard of: what an earlier leader says is ignored.
    pub(crate) epoch: u64,
    /// The leader wants to be told everything.
    pub(crate) is_asked: bool,
    /// It has just been asked.
    pub(crate) is_new_to_leader: bool,
    /// What it will never use again, and in which term it heard so.
    pub(crate) gone: BTreeMap<InstanceId, u64>,
    pub(crate) permits: BTreeMap<SessionKey, (InstanceId, Instant)>,
    pub(crate) table: BTreeMap<InstanceId, Entry>,
    /// Of everything ever heard of, so that news overtaken by later news is known as such.
    stamps: BTreeMap<InstanceId, Stamp>,
    pub(crate) records: BTreeMap<SessionKey, SharedRecord>,
    sequence: u64,
}

impl Activator {
    pub(crate) fn new(id: ActivatorId, pod: Option<ActivatorPod>) -> Self {
        Self {
            id,
            pod,
            cut_off: false,
            listens: false,
            subscription: 0,
            epoch: 0,
            is_asked: false,
            is_new_to_leader: false,
            gone: BTreeMap::new(),
            permits: BTreeMap::new(),
            table: BTreeMap::new(),
            stamps: BTreeMap::new(),
            records: BTreeMap::new(),
            sequence: 0,
        }
    }

    /// Applies news; says what to acknowledge.
    pub(crate) fn apply(&mut self, epoch: u64, event: ViewEvent, now: Instant) -> Vec<DrainAck> {
        if epoch < self.epoch {
            return vec![];
        }
        self.epoch = epoch;
        match event {
            ViewEvent::Snapshot {
                stamp,
                complete,
                instances,
                records,
            } => {
                self.is_asked = !complete;
                self.is_new_to_leader = !complete;
                for record in records {
                    self.keep(record);
                }
                if complete {
                    let listed: BTreeSet<_> = instances.iter().map(|view| view.id).collect();
                    let missing = self.table.keys().filter(|id| !listed.contains(id));
                    for id in missing.copied().collect::<Vec<_>>() {
                        self.lose(id, stamp);
                    }
                }
                let acks = instances
                    .into_iter()
                    .filter_map(|view| self.know(view, now));
                acks.collect()
            }
            ViewEvent::Instance(view) => self.know(view, now).into_iter().collect(),
            ViewEvent::Gone {
                instance, stamp, ..
            } => {
                self.lose(instance, stamp);
                vec![]
            }
            ViewEvent::Record(record) => {
                self.keep(record);
                vec![]
            }
            ViewEvent::Forget(key) => {
                self.records.remove(&key);
                vec![]
            }
        }
    }

    fn lose(&mut self, id: InstanceId, stamp: Stamp) {
        if self.is_news(id, stamp) {
            self.table.remove(&id);
            self.gone.entry(id).or_insert(stamp.epoch);
            self.permits.retain(|_, (on, _)| *on != id);
        }
    }

    fn keep(&mut self, record: SharedRecord) {
        let known = self.records.get(&record.key);
        if known.is_none_or(|known| known.stamp <= record.stamp) {
            self.records.insert(record.key, record);
        }
    }

    fn is_news(&mut self, instance: InstanceId, stamp: Stamp) -> bool {
        let known = self.stamps.entry(instance).or_default();
        let news = *known < stamp;
        if news {
            *known = stamp;
        }
        news
    }

    pub(crate) fn know(&mut self, view: InstanceView, now: Instant) -> Option<DrainAck> {
        let (id, drains) = (view.id, view.service != Service::Open);
        if self.gone.contains_key(&id) || !self.is_news(id, view.stamp) {
            return None;
        }
        match self.table.get_mut(&id) {
            Some(entry) => entry.view = view,
            None => {
                let entry = Entry {
                    view,
                    leases: 0,
                    idle_since: now,
                };
                self.table.insert(id, entry);
            }
        }
        drains.then(|| self.ack(id)).flatten()
    }

    fn ack(&self, id: InstanceId) -> Option<DrainAck> {
        let entry = self.table.get(&id)?;
        Some(DrainAck {
            activator: self.id,
            instance: id,
            stamp: entry.view.stamp,
            leases: entry.leases,
        })
    }

    pub(crate) fn is_open(&self, id: InstanceId) -> bool {
        self.table
            .get(&id)
            .is_some_and(|e| e.view.service == Service::Open)
    }

    pub(crate) fn open_for(&self, slot: &SlotKey) -> Option<InstanceId> {
        let mut open = self
            .table
            .values()
            .filter(|e| e.view.service == Service::Open);
        open.find(|e| e.view.slot == *slot).map(|e| e.view.id)
    }

    pub(crate) fn lease(&mut self, id: InstanceId) -> bool {
        match self.table.get_mut(&id) {
            Some(entry) if entry.view.service == Service::Open => {
                entry.leases += 1;
                true
            }
            Some(_) | None => false,
        }
    }

    /// Ends a lease; says what to acknowledge.
    pub(crate) fn release(&mut self, id: InstanceId, now: Instant) -> Option<DrainAck> {
        let entry = self.table.get_mut(&id)?;
        entry.leases = entry.leases.checked_sub(1).expect("a lease was held");
        if entry.leases == 0 {
            entry.idle_since = now;
        }
        let drains = entry.view.service != Service::Open;
        drains.then(|| self.ack(id)).flatten()
    }

    /// All drains are acknowledged again, to whoever listens now.
    pub(crate) fn acks(&self) -> Vec<DrainAck> {
        let drains = self
            .table
            .values()
            .filter(|e| e.view.service != Service::Open);
        drains.filter_map(|e| self.ack(e.view.id)).collect()
    }

    pub(crate) fn restate(&mut self, now: Instant) -> Restatement {
        self.permits
            .retain(|_, (_, since)| now - *since < REVIVAL_PERMIT);
        Restatement {
            epoch: self.epoch,
            report: self.report(true, None, now),
            instances: self.table.values().map(|e| e.view.clone()).collect(),
            records: self.records.values().cloned().collect(),
            gone: self.gone.keys().copied().collect(),
            permits: self
                .permits
                .iter()
                .map(|(session, (instance, _))| Permit {
                    session: *session,
                    instance: *instance,
                })
                .collect(),
        }
    }

    pub(crate) fn leased(&self) -> impl Iterator<Item = InstanceId> {
        let leased = self.table.values().filter(|e| e.leases > 0);
        leased.map(|e| e.view.id)
    }

    pub(crate) fn leases(&self, id: InstanceId) -> u32 {
        self.table.get(&id).map_or(0, |entry| entry.leases)
    }

    pub(crate) fn report(
        &mut self,
        full: bool,
        only: Option<InstanceId>,
        now: Instant,
    ) -> ActivityReport {
        self.sequence += 1;
        let listed = self
            .table
            .values()
            .filter(|e| only.is_none_or(|id| id == e.view.id));
        ActivityReport {
            activator: self.id,
            sequence: self.sequence,
            full,
            instances: listed
                .map(|entry| InstanceActivity {
                    instance: entry.view.id,
                    leases: entry.leases,
                    idle_for: if entry.leases > 0 {
                        Duration::ZERO
                    } else {
                        now.saturating_duration_since(entry.idle_since)
                    },
                })
                .collect(),
        }
    }
}
