//! An activator without clients.

use super::*;

/// An activator that keeps the rule of leases: it knows what it was told, and acknowledges drains.
pub(in crate::driver) struct FakeActivator {
    pub(in crate::driver) id: ActivatorId,
    scaler: InProcessScaler,
    events: mpsc::Receiver<ViewEvent>,
    pub(in crate::driver) known: HashMap<InstanceId, InstanceView>,
    pub(in crate::driver) gone: Vec<InstanceId>,
    pub(in crate::driver) leases: HashMap<InstanceId, u32>,
    sequence: u64,
}

impl FakeActivator {
    pub(in crate::driver) fn new(bench: &Bench) -> Self {
        let id = ActivatorId::random();
        Self::listening(bench, id, bench.scaler.subscribe(id))
    }

    /// In another process.
    pub(in crate::driver) fn far(bench: &Bench, pod: ActivatorPod) -> Self {
        let id = ActivatorId::random();
        Self::listening(bench, id, bench.scaler.subscribe_from(id, pod))
    }

    fn listening(bench: &Bench, id: ActivatorId, events: mpsc::Receiver<ViewEvent>) -> Self {
        Self {
            id,
            scaler: bench.scaler.clone(),
            events,
            known: HashMap::new(),
            gone: vec![],
            leases: HashMap::new(),
            sequence: 0,
        }
    }

    /// Reads one event, and acknowledges it if it is a drain.
    pub(in crate::driver) async fn read(&mut self) -> ViewEvent {
        self.read_or_end().await.expect("the loop runs")
    }

    /// As [`Self::read`]; `None` when the stream has ended.
    pub(in crate::driver) async fn read_or_end(&mut self) -> Option<ViewEvent> {
        let event = self.events.recv().await?;
        match &event {
            ViewEvent::Snapshot { instances, .. } => {
                self.known = instances.iter().map(|i| (i.id, i.clone())).collect();
                for view in instances.iter().filter(|i| i.service != Service::Open) {
                    self.acknowledge(view.id).await;
                }
            }
            ViewEvent::Instance(view) => {
                self.known.insert(view.id, view.clone());
                if view.service != Service::Open {
                    self.acknowledge(view.id).await;
                }
            }
            ViewEvent::Gone { instance, .. } => {
                self.known.remove(instance);
                self.gone.push(*instance);
            }
            ViewEvent::Record(_) | ViewEvent::Forget(_) => {}
        }
        Some(event)
    }

    /// Says everything it knows: what it was told by the leader of the term before, and what is given.
    pub(in crate::driver) async fn restate(&mut self, all: Restatement) {
        self.sequence += 1;
        let uses = all.instances.iter().map(|view| InstanceActivity {
            instance: view.id,
            leases: self.leases.get(&view.id).copied().unwrap_or(0),
            idle_for: Duration::ZERO,
        });
        let report = ActivityReport {
            activator: self.id,
            sequence: self.sequence,
            full: true,
            instances: uses.collect(),
        };
        let all = Restatement { report, ..all };
        self.scaler.restate(all).await.unwrap();
    }

    pub(in crate::driver) async fn read_until(&mut self, mut done: impl FnMut(&Self) -> bool) {
        while !done(self) {
            self.read().await;
        }
    }

    pub(in crate::driver) async fn acknowledge(&self, instance: InstanceId) {
        let ack = DrainAck {
            activator: self.id,
            instance,
            stamp: self.known[&instance].stamp,
            leases: self.leases.get(&instance).copied().unwrap_or(0),
        };
        self.scaler.acknowledge(ack).await;
    }

    pub(in crate::driver) async fn lease(&mut self, instance: InstanceId, leases: u32) {
        self.leases.insert(instance, leases);
        self.sequence += 1;
        let report = ActivityReport {
            activator: self.id,
            sequence: self.sequence,
            full: false,
            instances: vec![InstanceActivity {
                instance,
                leases,
                idle_for: Duration::ZERO,
            }],
        };
        self.scaler.report(report).await;
    }
}
