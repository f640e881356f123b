//! The port in its form for one process: a handle that any number of activators share.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use async_trait::async_trait;
use mcp_gateway_api::{
    activity::{ActivityReport, DrainAck},
    claim::{ClaimRequest, Claimed, Purpose},
    failure::{Failure, FailureKind},
    ids::{ActivatorId, ClaimId, InstanceId, SessionKey},
    record::SessionUpdate,
    scaler::{ActivatorPod, PodUid, Presence, Restatement, Scaler},
    status::Status,
    view::{Lookup, ViewEvent},
};
use mcp_gateway_runtime::Runtime;
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc, oneshot};

use super::message::{Answer, Aside, Message};
use crate::core::{WaiterId, event::Event};

/// Most instances whose last words a status asks the runtime for.
const MAX_TAILS: usize = 64;

/// The autoscaler of the same process. Cheap to clone.
#[derive(Clone)]
pub struct InProcessScaler {
    shared: Arc<Shared>,
}

struct Shared {
    inbox: mpsc::Sender<Message>,
    asides: Mutex<Vec<Aside>>,
    said: Notify,
    waiters: AtomicU64,
    runtime: Arc<dyn Runtime>,
    view_queue: usize,
}

impl fmt::Debug for InProcessScaler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InProcessScaler").finish_non_exhaustive()
    }
}

impl InProcessScaler {
    pub(super) fn new(
        inbox: mpsc::Sender<Message>,
        runtime: Arc<dyn Runtime>,
        view_queue: usize,
    ) -> Self {
        let shared = Shared {
            inbox,
            asides: Mutex::new(Vec::new()),
            said: Notify::new(),
            waiters: AtomicU64::new(0),
            runtime,
            view_queue: view_queue.max(2),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// The whole state, as this loop knows it. Empty after shutdown.
    pub async fn summary(&self) -> Status {
        let (reply, answer) = oneshot::channel();
        if !self.send(Message::Status(reply)).await {
            return Status::default();
        }
        answer.await.unwrap_or_default()
    }

    /// The same for people, with the last stderr lines of what runs: in a cluster each is read from its node.
    pub async fn status(&self) -> Status {
        let mut status = self.summary().await;
        let slots = status.backends.iter_mut().flat_map(|b| &mut b.slots);
        let instances = slots.filter_map(|slot| slot.instance.as_mut());
        for instance in instances.take(MAX_TAILS) {
            if let Ok(id) = u128::from_str_radix(&instance.id, 16) {
                let id = InstanceId(id);
                instance.stderr_tail = self.shared.runtime.stderr_tail(id).await;
            }
        }
        status
    }

    /// Names the pods in which activators run: now, and again whenever that changes. A leader that took over waits for
    /// each of them in which a process runs (§11); one that is named no more is gone, with its leases.
    pub async fn expect(&self, pods: BTreeMap<PodUid, Presence>) {
        self.tell(Event::Expected(pods)).await;
    }

    async fn tell(&self, event: Event) {
        // After the end nobody decides anything any more.
        self.send(Message::Tell(Box::new(event))).await;
    }

    fn listen(
        &self,
        activator: ActivatorId,
        pod: Option<ActivatorPod>,
    ) -> mpsc::Receiver<ViewEvent> {
        let (view, events) = mpsc::channel(self.shared.view_queue);
        self.say_aside(Aside::Subscribed {
            activator,
            pod,
            view,
        });
        events
    }

    /// Says something; `false` when the loop has ended.
    pub(super) async fn send(&self, message: Message) -> bool {
        self.shared.inbox.send(message).await.is_ok()
    }

    pub(super) fn say_aside(&self, aside: Aside) {
        self.shared.asides.lock().push(aside);
        self.shared.said.notify_one();
    }

    pub(super) fn take_asides(&self) -> Vec<Aside> {
        std::mem::take(&mut *self.shared.asides.lock())
    }

    /// Returns when something may have been said aside.
    pub(super) async fn hear_aside(&self) {
        self.shared.said.notified().await;
    }
}

/// Withdraws a claim when it is dropped before its answer has been taken.
struct Pending<'a> {
    scaler: &'a InProcessScaler,
    waiter: WaiterId,
    session: Option<(SessionKey, ClaimId)>,
    answer: oneshot::Receiver<Answer>,
    taken: bool,
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        if self.taken {
            return;
        }
        self.answer.close();
        let aside = match self.answer.try_recv() {
            // It was answered, but nobody read it.
            Ok(Ok(claimed)) => Aside::Undelivered {
                session: self.session,
                claimed,
            },
            Ok(Err(_)) | Err(_) => Aside::Withdrawn(self.waiter),
        };
        self.scaler.say_aside(aside);
    }
}

#[async_trait]
impl Scaler for InProcessScaler {
    async fn claim(&self, request: ClaimRequest) -> Result<Claimed, Failure> {
        let (reply, answer) = oneshot::channel();
        let waiter = WaiterId(self.shared.waiters.fetch_add(1, Ordering::Relaxed));
        let mut pending = Pending {
            scaler: self,
            waiter,
            session: session_of(&request),
            answer,
            taken: false,
        };
        let request = Box::new(request);
        let message = Message::Claim {
            waiter,
            request,
            reply,
        };
        if !self.send(message).await {
            return Err(stopped());
        }
        let answer = (&mut pending.answer).await;
        pending.taken = true;
        match answer {
            Ok(Ok(claimed)) => Ok(*claimed),
            Ok(Err(failure)) => Err(failure),
            Err(_) => Err(stopped()),
        }
    }

    fn subscribe(&self, activator: ActivatorId) -> mpsc::Receiver<ViewEvent> {
        self.listen(activator, None)
    }

    fn subscribe_from(
        &self,
        activator: ActivatorId,
        pod: ActivatorPod,
    ) -> mpsc::Receiver<ViewEvent> {
        self.listen(activator, Some(pod))
    }

    async fn restate(&self, restatement: Restatement) -> Result<(), Failure> {
        // After the end nobody asks for it any more.
        self.tell(Event::Restated(Box::new(restatement))).await;
        Ok(())
    }

    async fn leave(&self, activator: ActivatorId) {
        self.say_aside(Aside::Left(activator));
    }

    async fn report(&self, report: ActivityReport) {
        // After shutdown nobody decides anything any more.
        self.send(Message::Report(report)).await;
    }

    async fn acknowledge(&self, ack: DrainAck) {
        self.send(Message::Ack(ack)).await;
    }

    async fn lookup(&self, instance: InstanceId) -> Lookup {
        let (reply, answer) = oneshot::channel();
        if !self.send(Message::Lookup { instance, reply }).await {
            return Lookup::Unknown;
        }
        answer.await.unwrap_or(Lookup::Unknown)
    }

    async fn record(&self, update: SessionUpdate) -> Result<(), Failure> {
        let (reply, answer) = oneshot::channel();
        let update = Box::new(update);
        if !self.send(Message::Record { update, reply }).await {
            return Err(stopped());
        }
        answer.await.unwrap_or_else(|_| Err(stopped()))
    }
}

/// For which session a claim is, and which claim.
pub(super) fn session_of(request: &ClaimRequest) -> Option<(SessionKey, ClaimId)> {
    match &request.purpose {
        Purpose::Session { session, .. } => Some((session.key, request.id)),
        Purpose::Initialize | Purpose::Exchange | Purpose::Probe => None,
    }
}

fn stopped() -> Failure {
    Failure::new(FailureKind::ShuttingDown, "The gateway is shutting down.")
        .retry_after(std::time::Duration::from_secs(5))
}
