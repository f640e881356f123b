//! The activator's table of instances and session records, fed by the control plane's view.
//!
//! Invariants: per instance an event with a lower stamp is ignored, and what is gone never comes back; a drain is applied
//! in the critical section that leases are taken in, and acknowledged only afterwards, again whenever the count falls.
//! Never: starts or stops anything, or takes silence of the control plane for an end.

mod leases;
mod permits;
mod records;
mod report;
mod restate;
#[cfg(test)]
mod tests;

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
};

use mcp_gateway_api::{
    ids::{ActivatorId, InstanceId, SessionKey},
    record::{SessionUpdate, SharedRecord},
    scaler::Scaler,
    slot::SlotKey,
    view::{InstanceView, Lookup, Service, Stamp, ViewEvent},
};
use parking_lot::{Mutex, RwLock};
use tokio::{sync::watch, time::Instant};

use self::{
    permits::Permits,
    records::{Records, Teller},
    restate::Heard,
};
pub(crate) use self::{records::Number, report::Outbox};
use crate::lease::{Entry, Life, State, Terms};

/// Instances remembered as gone; for older ones the leader is asked.
const GONE_REMEMBERED: usize = 4_096;

type RecordListener = Box<dyn Fn(&SharedRecord) + Send + Sync>;

/// The table. Cheap to clone.
#[derive(Clone)]
pub struct Directory {
    inner: Arc<Inner>,
}

struct Inner {
    activator: ActivatorId,
    table: RwLock<HashMap<InstanceId, Arc<Entry>>>,
    /// The newest open instance of each slot; changed with the table, told on `opened`.
    open: RwLock<HashMap<SlotKey, InstanceId>>,
    opened: watch::Sender<()>,
    gone: Mutex<Gone>,
    records: RwLock<Records>,
    record_listeners: RwLock<Vec<RecordListener>>,
    permits: Mutex<Permits>,
    heard: Mutex<Heard>,
    /// Changes with each term whose leader has told all there is.
    terms: watch::Sender<u64>,
    outbox: Arc<Outbox>,
}

#[derive(Default)]
struct Gone {
    order: VecDeque<InstanceId>,
    set: HashSet<InstanceId>,
}

impl Gone {
    fn add(&mut self, id: InstanceId) {
        if self.set.insert(id) {
            self.order.push_back(id);
        }
        while self.order.len() > GONE_REMEMBERED {
            if let Some(old) = self.order.pop_front() {
                self.set.remove(&old);
            }
        }
    }
}

impl Directory {
    /// An empty table; [`Directory::run`] fills it.
    #[must_use]
    pub fn new(activator: ActivatorId) -> Self {
        Self {
            inner: Arc::new(Inner {
                activator,
                table: RwLock::default(),
                open: RwLock::default(),
                opened: watch::Sender::new(()),
                gone: Mutex::default(),
                records: RwLock::default(),
                record_listeners: RwLock::default(),
                permits: Mutex::default(),
                heard: Mutex::default(),
                terms: watch::Sender::new(0),
                outbox: Arc::default(),
            }),
        }
    }

    /// The instance as last heard of.
    #[must_use]
    pub fn view(&self, instance: InstanceId) -> Option<Arc<InstanceView>> {
        self.entry(instance)
            .map(|entry| Arc::clone(&entry.state.lock().view))
    }

    /// Follows an instance's life without leasing it; `None` when it is not in the table (gone or never known).
    #[must_use]
    pub fn watch(&self, instance: InstanceId) -> Option<watch::Receiver<Life>> {
        self.entry(instance).map(|entry| entry.life.subscribe())
    }

    /// What is known of an instance here, else what the leader knows. Keeps the answer.
    pub async fn resolve(&self, scaler: &dyn Scaler, instance: InstanceId) -> Lookup {
        if let Some(view) = self.view(instance) {
            return Lookup::Ready(InstanceView::clone(&view));
        }
        if self.inner.gone.lock().set.contains(&instance) {
            return Lookup::Gone;
        }
        let answer = scaler.lookup(instance).await;
        match &answer {
            Lookup::Ready(view) => self.apply_claimed(view.clone()),
            Lookup::Gone => self.inner.gone.lock().add(instance),
            Lookup::Unknown => {}
        }
        answer
    }

    /// The open instance of a slot, if it has one.
    #[must_use]
    pub fn open_instance(&self, slot: &SlotKey) -> Option<Arc<InstanceView>> {
        let instance = *self.inner.open.read().get(slot)?;
        let view = self.view(instance)?;
        (view.service == Service::Open && view.slot == *slot).then_some(view)
    }

    /// Changes each time an instance opens, or opens again, for use with [`Directory::open_instance`].
    #[must_use]
    pub fn openings(&self) -> watch::Receiver<()> {
        self.inner.opened.subscribe()
    }

    /// The record of a session, if there is news of it.
    #[must_use]
    pub fn record(&self, key: &SessionKey) -> Option<SharedRecord> {
        self.inner.records.read().get(key)
    }

    /// Calls `listener` for each record that is new or changed, from whoever applies it; it must not block.
    pub fn on_record(&self, listener: impl Fn(&SharedRecord) + Send + Sync + 'static) {
        self.inner.record_listeners.write().push(Box::new(listener));
    }

    /// Takes in what this activator itself records, ahead of the view's echo; [`Directory::settle`] is to follow.
    pub fn learn(&self, update: &SessionUpdate) -> Option<Number> {
        // Read, thought about and written under one lock: of two that learn at once neither is lost.
        let learned = self.inner.records.write().learn(update);
        let (number, record) = learned?;
        self.tell_listeners(&record);
        Some(number)
    }

    /// The control plane has answered whether it keeps that piece of news.
    pub(crate) fn settle(&self, key: &SessionKey, number: Number, kept: bool) {
        self.inner.records.write().settle(key, number, kept);
    }

    /// Takes in the instance that a claim answered with, which may be ahead of the view.
    pub fn apply_claimed(&self, view: InstanceView) {
        let mut table = self.inner.table.write();
        if self.inner.gone.lock().set.contains(&view.id) {
            return;
        }
        match table.get(&view.id).map(Arc::clone) {
            Some(entry) => {
                drop(table);
                self.update(&entry, view);
            }
            None => {
                let service = view.service;
                let slot = view.slot.clone();
                let entry = Arc::new(Entry {
                    id: view.id,
                    life: watch::Sender::new(Life::In(service)),
                    state: Mutex::new(State {
                        view: Arc::new(view),
                        leases: 0,
                        terms: Terms::default(),
                        quiet_since: Instant::now(),
                        dirty: true,
                        gone: false,
                    }),
                });
                table.insert(entry.id, Arc::clone(&entry));
                drop(table);
                self.inner.outbox.report_soon(&entry);
                self.served(&entry, service, slot);
            }
        }
    }

    /// Takes in one thing the control plane says.
    pub fn apply(&self, event: ViewEvent) {
        match event {
            ViewEvent::Snapshot {
                stamp,
                complete,
                instances,
                records,
            } => self.apply_snapshot(stamp, complete, instances, records),
            ViewEvent::Instance(view) => self.apply_claimed(view),
            ViewEvent::Gone {
                instance, stamp, ..
            } => self.remove(instance, stamp),
            ViewEvent::Record(record) => {
                let teller = self.inner.heard.lock().teller();
                self.keep_record(record, teller);
            }
            ViewEvent::Forget(key) => {
                self.inner.records.write().forget(&key);
            }
        }
    }

    fn apply_snapshot(
        &self,
        stamp: Stamp,
        complete: bool,
        instances: Vec<InstanceView>,
        records: Vec<SharedRecord>,
    ) {
        let heard = Heard {
            epoch: stamp.epoch,
            complete,
        };
        *self.inner.heard.lock() = heard;
        // Until everybody has been heard what is missing may only be unknown.
        let new_term = complete && *self.inner.terms.borrow() != stamp.epoch;
        if complete {
            let listed: HashSet<InstanceId> = instances.iter().map(|view| view.id).collect();
            self.remove_others(&listed, stamp);
            let listed: HashSet<SessionKey> = records.iter().map(|record| record.key).collect();
            self.inner.records.write().keep_only(&listed, new_term);
        }
        for view in instances {
            self.apply_claimed(view);
        }
        for record in records {
            self.keep_record(record, heard.teller());
        }
        if new_term {
            self.inner.terms.send_replace(stamp.epoch);
        }
    }

    fn remove_others(&self, listed: &HashSet<InstanceId>, stamp: Stamp) {
        let table = self.inner.table.read();
        let missing = table.keys().filter(|id| !listed.contains(id));
        let missing: Vec<InstanceId> = missing.copied().collect();
        drop(table);
        for id in missing {
            self.remove(id, stamp);
        }
    }

    fn entry(&self, instance: InstanceId) -> Option<Arc<Entry>> {
        self.inner.table.read().get(&instance).map(Arc::clone)
    }

    fn update(&self, entry: &Arc<Entry>, view: InstanceView) {
        let (service, slot) = (view.service, view.slot.clone());
        {
            let mut state = entry.state.lock();
            if state.gone || view.stamp <= state.view.stamp {
                return;
            }
            state.view = Arc::new(view);
            entry.life.send_if_modified(|life| {
                let changed = *life != Life::In(service);
                *life = Life::In(service);
                changed
            });
        }
        self.served(entry, service, slot);
    }

    /// An instance's service is new: a drain is acknowledged, an opening told.
    fn served(&self, entry: &Arc<Entry>, service: Service, slot: SlotKey) {
        match service {
            Service::Open => {
                // Under the table's lock, so that what is removed meanwhile leaves nothing here.
                let table = self.inner.table.read();
                if table.contains_key(&entry.id) {
                    self.inner.open.write().insert(slot, entry.id);
                }
                drop(table);
                self.inner.opened.send_replace(());
            }
            Service::IdleDrain | Service::RetireDrain | Service::Cut => {
                self.inner.outbox.acknowledge(entry);
            }
        }
    }

    fn remove(&self, instance: InstanceId, stamp: Stamp) {
        let mut table = self.inner.table.write();
        if let Some(entry) = table.get(&instance) {
            let mut state = entry.state.lock();
            if stamp < state.view.stamp {
                return;
            }
            state.gone = true;
            entry.life.send_replace(Life::Gone);
            drop(state);
            table.remove(&instance);
            self.inner.open.write().retain(|_, open| *open != instance);
        }
        self.inner.gone.lock().add(instance);
        self.inner.permits.lock().void(instance);
    }

    fn keep_record(&self, record: SharedRecord, teller: Teller) {
        let changed = self.inner.records.write().tell(record, teller);
        if let Some(record) = changed {
            self.tell_listeners(&record);
        }
    }

    /// Call now and then: the view is believed again where it had time enough to tell.
    fn tidy(&self) {
        let changed = self.inner.records.write().tidy();
        for record in changed {
            self.tell_listeners(&record);
        }
    }

    fn tell_listeners(&self, record: &SharedRecord) {
        for listener in self.inner.record_listeners.read().iter() {
            listener(record);
        }
    }
}
