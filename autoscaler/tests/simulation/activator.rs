//! A modelled activator: its own table, and the rule of leases (`trait Scaler`): leased only what is open in the own
//! table; a drain is applied and acknowledged in one go.

use std::{collections::BTreeMap, time::Duration};

use mcp_gateway_api::{
    activity::{ActivityReport, DrainAck, InstanceActivity},
    ids::{ActivatorId, InstanceId, SessionKey},
    record::SharedRecord,
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
    pub(crate) table: BTreeMap<InstanceId, Entry>,
    /// Of everything ever heard of, so that news overtaken by later news is known as such.
    stamps: BTreeMap<InstanceId, Stamp>,
    pub(crate) records: BTreeMap<SessionKey, SharedRecord>,
    sequence: u64,
}

impl Activator {
    pub(crate) fn new(id: ActivatorId) -> Self {
        Self {
            id,
            table: BTreeMap::new(),
            stamps: BTreeMap::new(),
            records: BTreeMap::new(),
            sequence: 0,
        }
    }

    /// Applies news; says what to acknowledge.
    pub(crate) fn apply(&mut self, event: ViewEvent, now: Instant) -> Vec<DrainAck> {
        match event {
            ViewEvent::Snapshot {
                instances, records, ..
            } => {
                for record in records {
                    self.records.insert(record.key, record);
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
                if self.is_news(instance, stamp) {
                    self.table.remove(&instance);
                }
                vec![]
            }
            ViewEvent::Record(record) => {
                self.records.insert(record.key, record);
                vec![]
            }
            ViewEvent::Forget(key) => {
                self.records.remove(&key);
                vec![]
            }
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
        if !self.is_news(id, view.stamp) {
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
