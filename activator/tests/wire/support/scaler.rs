//! An autoscaler of one slot that does what the test says.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::atomic::{AtomicUsize, Ordering},
};

use async_trait::async_trait;
use mcp_gateway_api::{
    activity::{ActivityReport, DrainAck},
    claim::{ClaimRequest, Claimed, ColdStart, Purpose, Standing},
    failure::{Failure, FailureKind},
    ids::{ActivatorId, Generation, InstanceId, SessionKey},
    record::{SessionNews, SessionRecord, SessionUpdate},
    scaler::Scaler,
    slot::{Owner, SlotKey},
    view::{Endpoint, InstanceSecret, InstanceView, Lookup, Reach, Service, Stamp, ViewEvent},
};
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};

pub struct FakeScaler {
    upstream: Mutex<SocketAddr>,
    secret: Mutex<Option<InstanceSecret>>,
    up: watch::Sender<bool>,
    writes: watch::Sender<bool>,
    state: Mutex<State>,
    pub starts: AtomicUsize,
    pub withdrawn: AtomicUsize,
}

#[derive(Default)]
struct State {
    current: Option<InstanceView>,
    /// Drains, and another takes its place at the next claim.
    retiring: Option<InstanceView>,
    /// By activator, what it last said of that.
    drained: HashMap<ActivatorId, bool>,
    gone: Vec<InstanceId>,
    sequence: u64,
    listeners: Vec<mpsc::Sender<ViewEvent>>,
    claims: Vec<ClaimRequest>,
    updates: Vec<SessionUpdate>,
    records: HashMap<SessionKey, SessionRecord>,
    acks: Vec<DrainAck>,
    reports: Vec<ActivityReport>,
    left: Vec<ActivatorId>,
    fail: Option<Failure>,
    lose_answers: Option<Failure>,
}

/// Counts a claim whose asker went away.
struct Withdrawn<'a>(&'a AtomicUsize, bool);

impl Drop for Withdrawn<'_> {
    fn drop(&mut self) {
        if !self.1 {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
}

impl FakeScaler {
    pub fn new(upstream: SocketAddr) -> Self {
        Self {
            upstream: Mutex::new(upstream),
            secret: Mutex::default(),
            up: watch::Sender::new(true),
            writes: watch::Sender::new(true),
            state: Mutex::default(),
            starts: AtomicUsize::new(0),
            withdrawn: AtomicUsize::new(0),
        }
    }

    /// Claims wait from now on.
    pub fn hold_claims(&self) {
        self.up.send_replace(false);
    }

    /// Claims are answered again.
    pub fn release_claims(&self) {
        self.up.send_replace(true);
    }

    /// News of sessions waits to be written from now on.
    pub fn hold_records(&self) {
        self.writes.send_replace(false);
    }

    /// News is written again.
    pub fn release_records(&self) {
        self.writes.send_replace(true);
    }

    /// News is kept from now on, and whoever said it hears this; `None`: that it was kept.
    pub fn lose_answers(&self, instead: Option<Failure>) {
        self.state.lock().lose_answers = instead;
    }

    /// Every claim fails with this.
    pub fn fail_claims(&self, failure: Failure) {
        self.state.lock().fail = Some(failure);
    }

    /// The next instance is a bridge in a pod, which lets in only who bears this.
    pub fn bridge_in_a_pod(&self, secret: &str) {
        *self.secret.lock() = Some(InstanceSecret(secret.into()));
    }

    /// The next instance is somewhere else.
    pub fn move_upstream(&self, to: SocketAddr) {
        *self.upstream.lock() = to;
    }

    pub fn claims(&self) -> Vec<ClaimRequest> {
        self.state.lock().claims.clone()
    }

    pub fn updates(&self) -> Vec<SessionNews> {
        self.state
            .lock()
            .updates
            .iter()
            .map(|u| u.news.clone())
            .collect()
    }

    pub fn acks(&self) -> Vec<DrainAck> {
        self.state.lock().acks.clone()
    }

    /// Who has said goodbye.
    pub fn left(&self) -> Vec<ActivatorId> {
        self.state.lock().left.clone()
    }

    /// The leases last reported, or acknowledged, for the current instance.
    pub fn leases(&self) -> Option<u32> {
        let state = self.state.lock();
        let id = state.current.as_ref()?.id;
        let mut seen = state.reports.iter().rev().flat_map(|r| &r.instances);
        seen.find(|one| one.instance == id).map(|one| one.leases)
    }

    /// The current instance is gone for good.
    pub fn lose(&self) {
        let mut state = self.state.lock();
        if let Some(view) = state.current.take() {
            state.gone.push(view.id);
            let stamp = state.next();
            state.publish(ViewEvent::Gone {
                instance: view.id,
                why: "it ended".into(),
                stamp,
            });
        }
    }

    /// Says that the current instance is to be drained, or used again.
    pub fn service(&self, service: Service) {
        let mut state = self.state.lock();
        let stamp = state.next();
        if let Some(view) = state.current.as_mut() {
            view.service = service;
            view.stamp = stamp;
            let view = view.clone();
            state.publish(ViewEvent::Instance(view));
        }
    }

    /// The current instance retires: it ends when every activator has let go of it, and the next claim starts another.
    pub fn retire(&self) -> InstanceId {
        self.service(Service::RetireDrain);
        let mut state = self.state.lock();
        state.retiring = state.current.take();
        state.retiring.as_ref().expect("an instance").id
    }

    /// Whether it has ended.
    pub fn is_gone(&self, instance: InstanceId) -> bool {
        self.state.lock().gone.contains(&instance)
    }

    /// Whether so many activators have let go of the instance that retires.
    pub fn drained(&self, activators: usize) -> bool {
        let state = self.state.lock();
        state.drained.values().filter(|drained| **drained).count() == activators
    }

    fn standing(state: &State, purpose: &Purpose, on: InstanceId) -> Result<Standing, Failure> {
        let Purpose::Session { session, bound } = purpose else {
            return Ok(Standing::Fresh);
        };
        let record = state.records.get(&session.key);
        if record.is_some_and(|record| record.ended) {
            return Err(Failure::new(
                FailureKind::SessionGone,
                "The session has ended.",
            ));
        }
        match record.and_then(|record| record.binding.clone()) {
            Some(Some(binding)) if binding.instance == on => Ok(Standing::Bound(binding)),
            None if *bound == Some(on) => Ok(Standing::Fresh),
            Some(_) | None => Ok(Standing::Revive),
        }
    }
}

impl State {
    fn next(&mut self) -> Stamp {
        self.sequence += 1;
        Stamp {
            epoch: 1,
            sequence: self.sequence,
        }
    }

    fn publish(&mut self, event: ViewEvent) {
        self.listeners
            .retain(|listener| listener.try_send(event.clone()).is_ok());
    }
}

#[async_trait]
impl Scaler for FakeScaler {
    async fn claim(&self, request: ClaimRequest) -> Result<Claimed, Failure> {
        self.state.lock().claims.push(request.clone());
        let mut withdrawn = Withdrawn(&self.withdrawn, false);
        let mut up = self.up.subscribe();
        let ready = tokio::time::timeout(request.budget, up.wait_for(|up| *up)).await;
        withdrawn.1 = true;
        if ready.is_err() {
            return Err(Failure::new(FailureKind::HoldTimeout, "Still starting.")
                .retry_after(std::time::Duration::from_secs(3)));
        }
        let mut state = self.state.lock();
        if let Some(failure) = state.fail.clone() {
            return Err(failure);
        }
        let fresh = state.current.is_none();
        if fresh {
            self.starts.fetch_add(1, Ordering::SeqCst);
            let address = *self.upstream.lock();
            let view = InstanceView {
                id: InstanceId::random(),
                slot: SlotKey {
                    backend: request.backend.clone(),
                    owner: Owner::Tenant(request.tenant.clone()),
                },
                tenant: request.tenant.clone(),
                generation: Generation(1),
                endpoint: Endpoint {
                    secret: self.secret.lock().clone(),
                    reach: Reach::Tcp(address),
                    host: format!("localhost:{}", address.port()).into(),
                    path: "/mcp".into(),
                },
                service: Service::Open,
                stamp: state.next(),
            };
            state.current = Some(view.clone());
            state.publish(ViewEvent::Instance(view));
        }
        let stamp = state.next();
        let mut instance = state.current.clone().expect("just made");
        if instance.service == Service::IdleDrain {
            instance.service = Service::Open;
            instance.stamp = stamp;
            state.current = Some(instance.clone());
        }
        Ok(Claimed {
            session: matches!(request.purpose, Purpose::Initialize).then(SessionKey::random),
            standing: Self::standing(&state, &request.purpose, instance.id)?,
            instance,
            cold: fresh.then(ColdStart::default),
        })
    }

    fn subscribe(&self, activator: ActivatorId) -> mpsc::Receiver<ViewEvent> {
        let (sender, receiver) = mpsc::channel(1_024);
        let mut state = self.state.lock();
        let stamp = state.next();
        state.drained.insert(activator, false);
        let instances = state.current.iter().chain(&state.retiring);
        let instances = instances.cloned().collect();
        let records = state
            .records
            .values()
            .cloned()
            .map(std::sync::Arc::new)
            .collect();
        sender
            .try_send(ViewEvent::Snapshot {
                stamp,
                complete: true,
                instances,
                records,
            })
            .expect("room for the first");
        state.listeners.push(sender);
        receiver
    }

    async fn report(&self, report: ActivityReport) {
        self.state.lock().reports.push(report);
    }

    async fn acknowledge(&self, ack: DrainAck) {
        let mut state = self.state.lock();
        let retiring = state.retiring.clone();
        if let Some(view) = retiring.filter(|view| view.id == ack.instance) {
            state.drained.insert(ack.activator, ack.leases == 0);
            if state.drained.values().all(|drained| *drained) {
                state.retiring = None;
                state.gone.push(view.id);
                let stamp = state.next();
                state.publish(ViewEvent::Gone {
                    instance: view.id,
                    why: "it has retired".into(),
                    stamp,
                });
            }
        }
        state.acks.push(ack);
    }

    async fn leave(&self, activator: ActivatorId) {
        self.state.lock().left.push(activator);
    }

    async fn lookup(&self, instance: InstanceId) -> Lookup {
        let state = self.state.lock();
        let mut known = state.current.iter().chain(&state.retiring);
        match known.find(|view| view.id == instance) {
            Some(view) => Lookup::Ready(view.clone()),
            None => Lookup::Gone,
        }
    }

    async fn record(&self, update: SessionUpdate) -> Result<(), Failure> {
        let mut writes = self.writes.subscribe();
        let writes = writes.wait_for(|writes| *writes).await;
        drop(writes.expect("the sender is self's"));
        let mut state = self.state.lock();
        state.updates.push(update.clone());
        let mut record = state
            .records
            .get(&update.session.key)
            .cloned()
            .unwrap_or_else(|| SessionRecord::new(&update.session));
        match update.news {
            SessionNews::Opened(_)
            | SessionNews::Sessionless(_)
            | SessionNews::RevivalFailed { retry: true } => return Ok(()),
            SessionNews::Revived(binding) => record.binding = Some(Some(binding)),
            SessionNews::RevivalFailed { retry: false } | SessionNews::Ended => record.ended = true,
            SessionNews::Asleep => record.binding = Some(None),
            SessionNews::LogLevel(level) => record.log_level = Some(level),
            SessionNews::Subscribed(uri) => record.subscriptions.push(uri),
            SessionNews::Unsubscribed(uri) => record.subscriptions.retain(|known| *known != uri),
        }
        state.records.insert(record.key, record.clone());
        state.publish(ViewEvent::Record(std::sync::Arc::new(record)));
        state.lose_answers.clone().map_or(Ok(()), Err)
    }
}
