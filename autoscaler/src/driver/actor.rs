//! The loop itself: a `select!` over all that can happen, and the carrying out of effects.

use std::{collections::HashMap, sync::Arc};

use mcp_gateway_api::{
    catalog::CatalogWatch,
    failure::{ExitReport, Failure, FailureKind},
    ids::{ClaimId, InstanceId, SessionKey},
    view::ViewEvent,
};
use mcp_gateway_runtime::{EventReceiver, LaunchOrder, Runtime};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, sleep_until},
};

use super::{
    log::log,
    message::{Answer, Aside, Message},
    scaler::{InProcessScaler, session_of},
    subscribers::{Hearing, Subscribers},
};
use crate::{
    core::{
        Core, Ticket, WaiterId,
        event::{Effect, Event, Note},
        records::Change,
    },
    metrics::Metrics,
    store::{Job, Store},
};

/// One who waits for the answer of a claim.
struct Asker {
    reply: oneshot::Sender<Answer>,
    session: Option<(SessionKey, ClaimId)>,
}

/// A shutdown under way.
struct Stopping {
    deadline: Instant,
    reply: oneshot::Sender<usize>,
}

/// The task's state.
pub(super) struct Actor {
    core: Core,
    runtime: Arc<dyn Runtime>,
    scaler: InProcessScaler,
    subscribers: Subscribers,
    store: Option<Store>,
    metrics: Metrics,
    askers: HashMap<WaiterId, Asker>,
    records: HashMap<u64, oneshot::Sender<Result<(), Failure>>>,
    next_record: u64,
    unwritten: Vec<Change>,
    stopping: Option<Stopping>,
}

impl Actor {
    pub(super) fn new(
        core: Core,
        runtime: Arc<dyn Runtime>,
        scaler: InProcessScaler,
        store: Option<Store>,
    ) -> Self {
        Self {
            core,
            runtime,
            subscribers: Subscribers::new(scaler.clone()),
            scaler,
            store,
            metrics: Metrics::default(),
            askers: HashMap::new(),
            records: HashMap::new(),
            next_record: 0,
            unwritten: Vec::new(),
            stopping: None,
        }
    }

    pub(super) async fn run(
        mut self,
        mut inbox: mpsc::Receiver<Message>,
        mut events: EventReceiver,
        mut catalog: CatalogWatch,
    ) {
        let mut runtime_speaks = true;
        let mut catalog_changes = true;
        // A catalog published between the borrow at start and now is not missed.
        catalog.mark_changed();
        let scaler = self.scaler.clone();
        loop {
            for aside in self.scaler.take_asides() {
                self.aside(aside).await;
            }
            if self.is_over() {
                return;
            }
            tokio::select! {
                () = scaler.hear_aside() => {}
                message = inbox.recv() => match message {
                    Some(message) => self.message(message).await,
                    None => return,
                },
                event = events.recv(), if runtime_speaks => match event {
                    Some(event) => self.feed(Event::Runtime(event)).await,
                    None => {
                        runtime_speaks = false;
                        tracing::error!("the runtime has ended: nothing is heard of instances any more");
                    }
                },
                changed = catalog.changed(), if catalog_changes => match changed {
                    Ok(()) => {
                        let new = Arc::clone(&catalog.borrow_and_update());
                        self.feed(Event::Catalog(new)).await;
                    }
                    Err(_) => catalog_changes = false,
                },
                () = until(self.next_deadline()) => self.feed(Event::Tick).await,
            }
        }
    }

    fn next_deadline(&self) -> Option<Instant> {
        let stop = self.stopping.as_ref().map(|stopping| stopping.deadline);
        self.core.next_deadline().into_iter().chain(stop).min()
    }

    /// Whether a shutdown is over; if so its asker is told how.
    fn is_over(&mut self) -> bool {
        let late = |stopping: &Stopping| Instant::now() >= stopping.deadline;
        if !self.core.is_still() && !self.stopping.as_ref().is_some_and(late) {
            return false;
        }
        let Some(stopping) = self.stopping.take() else {
            return false;
        };
        let _ = stopping.reply.send(self.core.alive());
        true
    }

    async fn aside(&mut self, aside: Aside) {
        match aside {
            Aside::Withdrawn(waiter) => {
                self.askers.remove(&waiter);
                self.feed(Event::Withdrawn(waiter)).await;
            }
            Aside::Undelivered { session, claimed } => {
                self.feed(Event::Undelivered { session, claimed }).await;
            }
            Aside::Subscribed {
                activator,
                pod,
                view,
            } => {
                self.feed(match pod {
                    None => Event::Joined(activator),
                    Some(pod) => Event::Subscribed(activator, pod),
                })
                .await;
                // A process that its pod's next one has replaced is told nothing: its stream ends here.
                if self.core.listens_to(activator) {
                    let all = self.core.snapshot();
                    self.subscribers.add(activator, pod.is_some(), view, all);
                }
            }
            Aside::Left(activator) => {
                self.subscribers.forget(activator);
                self.feed(Event::Left(activator)).await;
            }
            Aside::Unsubscribed {
                activator,
                subscription,
            } => match self.subscribers.remove(activator, subscription) {
                Some(Hearing::Near) => self.feed(Event::Left(activator)).await,
                Some(Hearing::Far) => self.feed(Event::Silent(activator)).await,
                None => {}
            },
            Aside::CaughtUp {
                activator,
                subscription,
            } => {
                if self.subscribers.caught_up(activator, subscription) {
                    let all = self.core.snapshot();
                    self.subscribers.tell(activator, all);
                }
            }
        }
    }

    async fn message(&mut self, message: Message) {
        match message {
            Message::Claim {
                waiter,
                request,
                reply,
            } => {
                // Withdrawn before it was read: as if it had never been.
                if reply.is_closed() {
                    return;
                }
                let session = session_of(&request);
                self.askers.insert(waiter, Asker { reply, session });
                self.feed(Event::Claim {
                    waiter,
                    request: *request,
                    fresh: SessionKey::random(),
                })
                .await;
            }
            Message::Launched { ticket, outcome } => {
                self.feed(Event::Launched { ticket, outcome }).await;
            }
            Message::Report(report) => self.feed(Event::Report(report)).await,
            Message::Ack(ack) => self.feed(Event::Ack(ack)).await,
            Message::Lookup { instance, reply } => {
                let _ = reply.send(self.core.lookup(instance));
            }
            Message::Record { update, reply } => {
                self.next_record += 1;
                let name = self.next_record;
                self.records.insert(name, reply);
                let update = *update;
                self.feed(Event::Record {
                    reply: name,
                    update,
                })
                .await;
            }
            Message::Tell(event) => self.feed(*event).await,
            Message::Status(reply) => {
                let _ = reply.send(self.core.status());
            }
            Message::Shutdown { within, reply } => {
                let deadline = Instant::now() + within;
                self.stopping = Some(Stopping { deadline, reply });
                self.feed(Event::Shutdown(within)).await;
            }
        }
    }

    /// One step of the core and all it asks for.
    async fn feed(&mut self, event: Event) {
        let mut effects = self.core.step(Instant::now(), event);
        while !effects.is_empty() {
            let mut undelivered = Vec::new();
            for effect in effects {
                if let Some(back) = self.carry_out(effect).await {
                    undelivered.push(back);
                }
            }
            effects = Vec::new();
            for event in undelivered {
                effects.extend(self.core.step(Instant::now(), event));
            }
        }
        let core = &self.core;
        self.subscribers.keep(|id| core.listens_to(id));
        if !self.unwritten.is_empty() {
            self.write(None).await;
        }
    }

    /// Does one thing; says what came of it at once, if anything.
    async fn carry_out(&mut self, effect: Effect) -> Option<Event> {
        match effect {
            Effect::Launch { ticket, order } => self.launch(ticket, order),
            Effect::Terminate(instance, farewell) => {
                let runtime = Arc::clone(&self.runtime);
                tokio::spawn(async move { runtime.terminate(instance, farewell).await });
            }
            Effect::Mark(instance) => self.mark(instance),
            Effect::Publish(event) => self.publish(&event),
            Effect::Answer { waiter, answer } => return self.answer(waiter, answer),
            Effect::Persist(change) => {
                if self.store.is_some() {
                    self.unwritten.push(change);
                }
            }
            Effect::Recorded { reply, result } => {
                if let Some(reply) = self.records.remove(&reply) {
                    self.recorded(reply, result).await;
                }
            }
            Effect::Note(note) => self.note(&note),
        }
        None
    }

    fn launch(&self, ticket: Ticket, order: Box<LaunchOrder>) {
        let runtime = Arc::clone(&self.runtime);
        let scaler = self.scaler.clone();
        tokio::spawn(async move {
            let launch = tokio::spawn(async move { runtime.launch(*order).await });
            // A runtime that panics must not leave the slot starting for ever.
            let outcome = launch.await.unwrap_or_else(|error| {
                tracing::error!(%error, "a launch did not return");
                Err(ExitReport {
                    summary: "the gateway failed while starting it".into(),
                    ..ExitReport::default()
                })
            });
            scaler.send(Message::Launched { ticket, outcome }).await;
        });
    }

    fn mark(&self, instance: InstanceId) {
        let runtime = Arc::clone(&self.runtime);
        let scaler = self.scaler.clone();
        tokio::spawn(async move {
            let taken = runtime.adopt(instance).await;
            let answer = Box::new(Event::Marked(instance, taken));
            scaler.send(Message::Tell(answer)).await;
        });
    }

    fn publish(&mut self, event: &ViewEvent) {
        self.subscribers.tell_all(event);
    }

    fn answer(&mut self, waiter: WaiterId, answer: Answer) -> Option<Event> {
        let asker = self.askers.remove(&waiter)?;
        match asker.reply.send(answer) {
            Ok(()) | Err(Err(_)) => None,
            Err(Ok(claimed)) => Some(Event::Undelivered {
                session: asker.session,
                claimed,
            }),
        }
    }

    /// Answers once everything before it is written.
    async fn recorded(
        &mut self,
        reply: oneshot::Sender<Result<(), Failure>>,
        result: Result<(), Failure>,
    ) {
        if result.is_err() || self.unwritten.is_empty() {
            let _ = reply.send(result);
            return;
        }
        let (done, written) = oneshot::channel();
        self.write(Some(done)).await;
        tokio::spawn(async move {
            let result = match written.await {
                Ok(Ok(())) => Ok(()),
                Ok(Err(error)) => Err(unwritten(error)),
                Err(_) => Err(unwritten("its writer has ended".into())),
            };
            let _ = reply.send(result);
        });
    }

    async fn write(&mut self, done: Option<oneshot::Sender<Result<(), String>>>) {
        let changes = std::mem::take(&mut self.unwritten);
        if let Some(store) = &self.store {
            store.write(Job { changes, done }).await;
        }
    }

    fn note(&self, note: &Note) {
        self.metrics.note(note);
        match note {
            Note::Transition(transition) => log(transition),
            Note::Phase { .. }
            | Note::ColdStart { .. }
            | Note::Failed(_)
            | Note::Cut(..)
            | Note::Reviving(_)
            | Note::Waiting(..) => {}
        }
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

fn unwritten(error: String) -> Failure {
    Failure::new(
        FailureKind::Internal,
        "What was learned of this session could not be kept.",
    )
    .because(error)
}
