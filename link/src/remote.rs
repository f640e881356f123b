//! The activator's end of the network form: a [`Scaler`] that is whichever replica leads.
//!
//! Invariants: what a leader of a lower term than the highest heard of says is not believed. A claim waits out its
//! budget while nobody leads. Use and acknowledgements are kept, the newest of each instance, until a leader has
//! answered; after each subscription all of them are told again. Nothing here grows but with the activator's own table.

use std::{fmt, future::Future, net::SocketAddr, sync::Arc, time::Duration};

use async_trait::async_trait;
use mcp_gateway_api::{
    activity::{ActivityReport, DrainAck},
    claim::{ClaimRequest, Claimed},
    failure::{Failure, FailureKind},
    ids::{ActivatorId, InstanceId},
    record::SessionUpdate,
    scaler::{ActivatorPod, Restatement, Scaler},
    view::{Lookup, ViewEvent},
};
use parking_lot::Mutex;
use tokio::{
    sync::{Notify, mpsc, watch},
    time::{Instant, timeout_at},
};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{Code, Response, Status};

use crate::{
    authority::Credentials,
    convert::{FromWire, ToWire, activator_bytes, instance_bytes, restatement_parts},
    protocol,
    scaler::{self as wire, claim_answer},
};

mod backoff;
mod finder;
mod outbox;
mod subscription;
mod teller;

use backoff::Backoff;
use finder::{Client, Finder};
use outbox::Outbox;

/// How the autoscaler is reached.
#[derive(Debug, Clone)]
pub struct RemoteConfig {
    /// Who this activator is ([`crate::authority::ACTIVATOR_NAME`]) and whom it trusts.
    pub credentials: Credentials,
    /// The pod it runs in.
    pub pod: ActivatorPod,
    /// A leader that answers no ping for so long is looked for anew.
    pub keepalive: Duration,
    /// How long news of a session, and a restatement, may wait for a leader.
    pub patience: Duration,
    /// How long the question for an instance may wait for a leader.
    pub lookup: Duration,
    /// Events that may wait for the reader of the view.
    pub view_queue: usize,
}

impl RemoteConfig {
    /// The usual numbers.
    #[must_use]
    pub fn new(credentials: Credentials, pod: ActivatorPod) -> Self {
        Self {
            credentials,
            pod,
            keepalive: protocol::KEEPALIVE,
            patience: Duration::from_secs(20),
            lookup: Duration::from_secs(3),
            view_queue: 256,
        }
    }
}

/// How much later than a claim's budget its answer is still awaited: the leader, too, answers when the budget has passed,
/// and its sentence says more.
const GRACE: Duration = Duration::from_millis(500);

/// The autoscaler, wherever it leads. Ends its tasks when dropped.
pub struct RemoteScaler {
    inner: Arc<Inner>,
    _ends: DropGuard,
}

struct Inner {
    config: RemoteConfig,
    finder: Finder,
    outbox: Mutex<Outbox>,
    /// Something is to be told.
    due: Notify,
    ended: CancellationToken,
}

impl fmt::Debug for RemoteScaler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteScaler")
            .field("leader", &self.inner.finder.current())
            .finish_non_exhaustive()
    }
}

impl RemoteScaler {
    /// Begins to look for the leader among the replicas' addresses, which may change.
    ///
    /// # Errors
    /// The credentials are no certificates.
    ///
    /// # Panics
    /// Outside a Tokio runtime.
    pub fn connect(
        config: RemoteConfig,
        replicas: watch::Receiver<Vec<SocketAddr>>,
    ) -> Result<Self, tonic::transport::Error> {
        let ended = CancellationToken::new();
        let finder = Finder::new(&config)?;
        let inner = Arc::new(Inner {
            config,
            finder,
            outbox: Mutex::new(Outbox::default()),
            due: Notify::new(),
            ended: ended.clone(),
        });
        let (searching, telling) = (Arc::clone(&inner), Arc::clone(&inner));
        tokio::spawn(ended.clone().run_until_cancelled_owned(async move {
            searching.finder.search(replicas).await;
        }));
        tokio::spawn(ended.clone().run_until_cancelled_owned(async move {
            teller::run(&telling).await;
        }));
        Ok(Self {
            inner,
            _ends: ended.drop_guard(),
        })
    }
}

impl RemoteScaler {
    /// The highest term that any leader has named; 0 until one was found.
    #[must_use]
    pub fn heard(&self) -> u64 {
        self.inner.finder.heard()
    }
}

/// An answer that says in which term it was given.
trait Dated {
    fn epoch(&self) -> u64;
}

macro_rules! dated {
    ($($answer:ident),+) => {
        $(impl Dated for wire::$answer {
            fn epoch(&self) -> u64 {
                self.epoch
            }
        })+
    };
}

dated!(ClaimAnswer, Told, LookupAnswer, RecordAnswer);

/// Why nobody answered.
#[derive(Debug)]
enum Unanswered {
    /// The time was over; the last trouble.
    Timeout(Option<String>),
    /// The leader does not understand, or does not want, the question: asking again changes nothing.
    Refused(String),
}

impl Unanswered {
    fn why(self) -> String {
        match self {
            Self::Timeout(None) => "no leader was found".into(),
            Self::Timeout(Some(last)) => format!("no leader answered: {last}"),
            Self::Refused(why) => format!("the leader refused: {why}"),
        }
    }
}

impl Inner {
    /// Asks the leader, each leader in turn, until one has answered.
    async fn ask<T, F>(&self, until: Instant, call: impl Fn(Client) -> F) -> Result<T, Unanswered>
    where
        T: Dated,
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let mut trouble = None;
        let attempts = async {
            let mut pause = Backoff::default();
            loop {
                let leader = self.finder.leader().await;
                match call(leader.client.clone()).await {
                    Ok(answer) if self.finder.believes(answer.get_ref().epoch()) => {
                        return Ok(answer.into_inner());
                    }
                    Ok(_) => trouble = Some("its term is over".to_owned()),
                    Err(status) if is_final(status.code()) => {
                        return Err(Unanswered::Refused(status.message().to_owned()));
                    }
                    Err(status) => {
                        self.finder.hint(&status);
                        trouble = Some(status.message().to_owned());
                    }
                }
                self.finder.lost(&leader);
                tokio::time::sleep(pause.next()).await;
            }
        };
        match timeout_at(until, attempts).await {
            Ok(answer) => answer,
            Err(_elapsed) => Err(Unanswered::Timeout(trouble)),
        }
    }
}

/// Whether the same question would get the same answer from any leader. Everything else, broken connections among it,
/// is tried again.
fn is_final(code: Code) -> bool {
    matches!(
        code,
        Code::InvalidArgument
            | Code::PermissionDenied
            | Code::FailedPrecondition
            | Code::Unimplemented
            | Code::OutOfRange
            | Code::ResourceExhausted
    )
}

fn nobody_answers(why: Unanswered) -> Failure {
    let refused = matches!(why, Unanswered::Refused(_));
    let why = why.why();
    if refused {
        return Failure::new(
            FailureKind::Internal,
            "The gateway could not ask for an instance.",
        )
        .because(why);
    }
    Failure::new(
        FailureKind::HoldTimeout,
        "The gateway's control plane did not answer in time; try again shortly.",
    )
    .because(why)
    .retry_after(Duration::from_secs(2))
}

fn not_understood(why: impl fmt::Display) -> Failure {
    Failure::new(
        FailureKind::Internal,
        "The gateway's control plane was not understood.",
    )
    .because(why.to_string())
}

#[async_trait]
impl Scaler for RemoteScaler {
    async fn claim(&self, request: ClaimRequest) -> Result<Claimed, Failure> {
        let until = Instant::now() + request.budget;
        let ask = async |mut leader: Client| {
            let mut request = request.to_wire();
            let left = until.saturating_duration_since(Instant::now());
            request.budget_ns = u64::try_from(left.as_nanos()).unwrap_or(u64::MAX);
            leader.claim(request).await
        };
        let answer = self.inner.ask(until + GRACE, ask).await;
        let answer: wire::ClaimAnswer = answer.map_err(nobody_answers)?;
        match answer.answer {
            Some(claim_answer::Answer::Claimed(claimed)) => {
                Claimed::from_wire(claimed).map_err(not_understood)
            }
            Some(claim_answer::Answer::Failure(failure)) => {
                Err(Failure::from_wire(failure).unwrap_or_else(not_understood))
            }
            None => Err(not_understood("the answer is of an unknown kind")),
        }
    }

    fn subscribe(&self, activator: ActivatorId) -> mpsc::Receiver<ViewEvent> {
        self.subscribe_from(activator, self.inner.config.pod)
    }

    async fn report(&self, report: ActivityReport) {
        self.inner.outbox.lock().report(Instant::now(), report);
        self.inner.due.notify_one();
    }

    async fn acknowledge(&self, ack: DrainAck) {
        self.inner.outbox.lock().acknowledge(ack);
        self.inner.due.notify_one();
    }

    async fn lookup(&self, instance: InstanceId) -> Lookup {
        let until = Instant::now() + self.inner.config.lookup;
        let instance = instance_bytes(instance);
        let ask = async |mut leader: Client| {
            let instance = instance.clone();
            leader.lookup(wire::LookupRequest { instance }).await
        };
        let answer: Result<wire::LookupAnswer, _> = self.inner.ask(until, ask).await;
        let found = answer.ok().and_then(|answer| answer.found);
        let found = found.and_then(|found| Lookup::from_wire(found).ok());
        // What is not understood is not known either, and so neither ends nor revives a session.
        found.unwrap_or(Lookup::Unknown)
    }

    async fn record(&self, update: SessionUpdate) -> Result<(), Failure> {
        let until = Instant::now() + self.inner.config.patience;
        let update = update.to_wire();
        let ask = async |mut leader: Client| leader.record(update.clone()).await;
        let answer: Result<wire::RecordAnswer, _> = self.inner.ask(until, ask).await;
        match answer.map_err(nobody_answers)?.failure {
            None => Ok(()),
            Some(failure) => Err(Failure::from_wire(failure).unwrap_or_else(not_understood)),
        }
    }

    fn subscribe_from(
        &self,
        activator: ActivatorId,
        pod: ActivatorPod,
    ) -> mpsc::Receiver<ViewEvent> {
        let (view, events) = mpsc::channel(self.inner.config.view_queue.max(1));
        let (inner, ended) = (Arc::clone(&self.inner), self.inner.ended.clone());
        tokio::spawn(ended.run_until_cancelled_owned(async move {
            subscription::run(&inner, activator, pod, view).await;
        }));
        events
    }

    async fn restate(&self, restatement: Restatement) -> Result<(), Failure> {
        let until = Instant::now() + self.inner.config.patience;
        let parts = restatement_parts(&restatement);
        let ask =
            async |mut leader: Client| leader.restate(tokio_stream::iter(parts.clone())).await;
        let told: Result<wire::Told, _> = self.inner.ask(until, ask).await;
        told.map(drop).map_err(nobody_answers)
    }

    async fn leave(&self, activator: ActivatorId) {
        let until = Instant::now() + self.inner.config.lookup;
        let activator = activator_bytes(activator);
        let ask = async |mut leader: Client| {
            let activator = activator.clone();
            leader.leave(wire::Leaving { activator }).await
        };
        let told: Result<wire::Told, _> = self.inner.ask(until, ask).await;
        if let Err(why) = told {
            tracing::warn!(
                why = why.why(),
                "a leader was not told that this activator ends"
            );
        }
    }
}
