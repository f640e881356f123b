//! The autoscaler's end of the network form: lets activators reach whatever [`Scaler`] leads in this replica.
//!
//! Invariants: nothing is decided here. Only an activator's certificate is served. While this replica does not lead,
//! every call is UNAVAILABLE and names the leader if it is known; a call under way when it stops leading ends so too,
//! because what a deposed leader says counts for nothing. A claim is withdrawn when its caller's stream ends.

use std::{collections::VecDeque, fmt, future::Future, net::SocketAddr, pin::Pin, sync::Arc};

use futures_util::{Stream, stream};
use mcp_gateway_api::{
    activity::{ActivityReport, DrainAck},
    claim::ClaimRequest,
    failure::{Failure, FailureKind},
    record::SessionUpdate,
    scaler::{ActivatorPod, Restatement, Scaler},
    view::ViewEvent,
};
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
};
use tonic::{
    Code, Request, Response, Status, Streaming,
    metadata::MetadataMap,
    transport::server::{Server, TcpIncoming},
};

use crate::{
    authority::{ACTIVATOR_NAME, Credentials, is_named},
    convert::{FromWire, Nonsense, Retelling, ToWire, activator_id, instance_id, view_messages},
    protocol,
    scaler::{self as wire, claim_answer, scaler_server, view_message::What},
};

/// Who leads, as one replica knows it.
#[derive(Clone)]
pub enum Lead {
    /// This replica.
    Here {
        /// Its term.
        epoch: u64,
        /// What decides.
        scaler: Arc<dyn Scaler>,
    },
    /// Another, at that address if it is known; or nobody.
    Elsewhere(Option<SocketAddr>),
}

impl fmt::Debug for Lead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Here { epoch, .. } => write!(f, "Here({epoch})"),
            Self::Elsewhere(address) => write!(f, "Elsewhere({address:?})"),
        }
    }
}

impl Lead {
    fn epoch(&self) -> Option<u64> {
        match self {
            Self::Here { epoch, .. } => Some(*epoch),
            Self::Elsewhere(_) => None,
        }
    }
}

/// The service.
#[derive(Debug, Clone)]
pub struct ScalerServer {
    lead: watch::Receiver<Lead>,
}

impl ScalerServer {
    /// Serves whoever `lead` says.
    #[must_use]
    pub fn new(lead: watch::Receiver<Lead>) -> Self {
        Self { lead }
    }

    /// Serves activators over mutual TLS until `shutdown`.
    ///
    /// # Errors
    /// The credentials are no certificates.
    pub async fn serve(
        self,
        listener: TcpListener,
        credentials: &Credentials,
        shutdown: impl Future<Output = ()>,
    ) -> Result<(), tonic::transport::Error> {
        let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
        let service = scaler_server::ScalerServer::new(self)
            .max_decoding_message_size(protocol::MAX_MESSAGE)
            .max_encoding_message_size(protocol::MAX_MESSAGE);
        Server::builder()
            .tls_config(credentials.server_tls())?
            // A claim is a stream for as long as it waits, and withdrawing is resetting one.
            .max_concurrent_streams(protocol::MAX_STREAMS)
            .http2_max_pending_accept_reset_streams(Some(protocol::MAX_RESETS))
            .initial_stream_window_size(protocol::STREAM_WINDOW)
            .initial_connection_window_size(protocol::CONNECTION_WINDOW)
            .http2_keepalive_interval(Some(protocol::KEEPALIVE))
            .http2_keepalive_timeout(Some(protocol::KEEPALIVE))
            .serve_with_incoming_shutdown(service, incoming, shutdown)
            .await
    }

    /// The present term, for a caller that may ask.
    fn term<T>(&self, request: &Request<T>) -> Result<Term, Status> {
        let certs = request.peer_certs();
        let known = certs
            .as_ref()
            .and_then(|certs| certs.first())
            .is_some_and(|cert| is_named(cert, ACTIVATOR_NAME));
        if !known {
            tracing::warn!(
                peer = ?request.remote_addr(),
                "refused a caller whose certificate is not an activator's"
            );
            return Err(Status::permission_denied(
                "only an activator's certificate may call the autoscaler",
            ));
        }
        let lead = self.lead.borrow().clone();
        match lead {
            Lead::Here { epoch, scaler } => Ok(Term {
                epoch,
                scaler,
                lead: self.lead.clone(),
            }),
            Lead::Elsewhere(address) => Err(not_here(address)),
        }
    }
}

/// One term of this replica.
struct Term {
    epoch: u64,
    scaler: Arc<dyn Scaler>,
    lead: watch::Receiver<Lead>,
}

impl Term {
    /// The answer, unless the term ends first.
    async fn unless_over<T>(&self, answer: impl Future<Output = T>) -> Result<T, Status> {
        tokio::select! {
            biased;
            over = over(self.lead.clone(), self.epoch) => Err(over),
            answer = answer => Ok(answer),
        }
    }

    fn told(&self) -> wire::Told {
        wire::Told { epoch: self.epoch }
    }
}

/// Returns when the term is over, with what to say then.
async fn over(mut lead: watch::Receiver<Lead>, epoch: u64) -> Status {
    let ended = lead.wait_for(|now| now.epoch() != Some(epoch)).await;
    match ended.as_deref() {
        Ok(Lead::Elsewhere(address)) => not_here(*address),
        // Leads again, or ends.
        Ok(Lead::Here { .. }) | Err(_) => not_here(None),
    }
}

fn not_here(leader: Option<SocketAddr>) -> Status {
    let mut metadata = MetadataMap::new();
    if let Some(value) = leader.and_then(|address| address.to_string().parse().ok()) {
        metadata.insert(protocol::LEADER, value);
    }
    let message = "this replica does not lead";
    Status::with_metadata(Code::Unavailable, message, metadata)
}

fn nonsense(why: Nonsense) -> Status {
    Status::invalid_argument(why.to_string())
}

/// A leader that is stopping is none any more: whoever asked waits for the next one, as its budget allows.
fn unless_stopping<T>(answer: Result<T, Failure>) -> Result<Result<T, Failure>, Status> {
    match answer {
        Err(failure) if failure.kind == FailureKind::ShuttingDown => Err(not_here(None)),
        answer => Ok(answer),
    }
}

type Views = Pin<Box<dyn Stream<Item = Result<wire::ViewMessage, Status>> + Send>>;

#[tonic::async_trait]
impl scaler_server::Scaler for ScalerServer {
    type SubscribeStream = Views;

    async fn lead(
        &self,
        request: Request<wire::Nothing>,
    ) -> Result<Response<wire::Leading>, Status> {
        let epoch = self.term(&request)?.epoch;
        Ok(Response::new(wire::Leading { epoch }))
    }

    async fn claim(
        &self,
        request: Request<wire::ClaimRequest>,
    ) -> Result<Response<wire::ClaimAnswer>, Status> {
        let term = self.term(&request)?;
        let claim = ClaimRequest::from_wire(request.into_inner()).map_err(nonsense)?;
        // Dropped with this future when the caller's stream is reset: that is what withdraws.
        let answer = term.unless_over(term.scaler.claim(claim)).await?;
        let answer = match unless_stopping(answer)? {
            Ok(claimed) => claim_answer::Answer::Claimed(claimed.to_wire()),
            Err(failure) => claim_answer::Answer::Failure(failure.to_wire()),
        };
        Ok(Response::new(wire::ClaimAnswer {
            epoch: term.epoch,
            answer: Some(answer),
        }))
    }

    async fn subscribe(
        &self,
        request: Request<wire::Subscription>,
    ) -> Result<Response<Views>, Status> {
        let term = self.term(&request)?;
        let asked = request.into_inner();
        let protocol = protocol::common(asked.protocol, asked.oldest_protocol)
            .map_err(Status::failed_precondition)?;
        if asked.epoch_seen > term.epoch {
            // It has met a later leader: this one has been deposed and does not know it yet.
            return Err(not_here(None));
        }
        let activator = activator_id(&asked.activator).map_err(nonsense)?;
        let pod = asked.pod.map(ActivatorPod::from_wire).transpose();
        let events = match pod.map_err(nonsense)? {
            Some(pod) => term.scaler.subscribe_from(activator, pod),
            None => term.scaler.subscribe(activator),
        };
        let welcome = What::Welcome(wire::Welcome {
            protocol,
            epoch: term.epoch,
        });
        let welcome = wire::ViewMessage {
            what: Some(welcome),
        };
        Ok(Response::new(views(welcome, events, term)))
    }

    async fn tell(&self, request: Request<wire::Tidings>) -> Result<Response<wire::Told>, Status> {
        let term = self.term(&request)?;
        let tidings = request.into_inner();
        let report = tidings.report.map(ActivityReport::from_wire).transpose();
        let acks = tidings.acknowledgements.into_iter();
        let acks: Result<Vec<_>, _> = acks.map(DrainAck::from_wire).collect();
        let (report, acks) = (report.map_err(nonsense)?, acks.map_err(nonsense)?);
        let take = async {
            if let Some(report) = report {
                term.scaler.report(report).await;
            }
            for ack in acks {
                term.scaler.acknowledge(ack).await;
            }
        };
        term.unless_over(take).await?;
        Ok(Response::new(term.told()))
    }

    async fn restate(
        &self,
        request: Request<Streaming<wire::RestatementPart>>,
    ) -> Result<Response<wire::Told>, Status> {
        let term = self.term(&request)?;
        let mut parts = request.into_inner();
        let take = async {
            let whole = retold(&mut parts).await?;
            Ok::<_, Status>(term.scaler.restate(whole).await)
        };
        // One that cannot take it is no leader any more.
        let taken = term.unless_over(take).await??;
        taken.map_err(|_failure| not_here(None))?;
        Ok(Response::new(term.told()))
    }

    async fn leave(&self, request: Request<wire::Leaving>) -> Result<Response<wire::Told>, Status> {
        let term = self.term(&request)?;
        let activator = activator_id(&request.into_inner().activator).map_err(nonsense)?;
        term.unless_over(term.scaler.leave(activator)).await?;
        Ok(Response::new(term.told()))
    }

    async fn lookup(
        &self,
        request: Request<wire::LookupRequest>,
    ) -> Result<Response<wire::LookupAnswer>, Status> {
        let term = self.term(&request)?;
        let instance = instance_id(&request.into_inner().instance).map_err(nonsense)?;
        let found = term.unless_over(term.scaler.lookup(instance)).await?;
        Ok(Response::new(wire::LookupAnswer {
            epoch: term.epoch,
            found: Some(found.to_wire()),
        }))
    }

    async fn record(
        &self,
        request: Request<wire::SessionUpdate>,
    ) -> Result<Response<wire::RecordAnswer>, Status> {
        let term = self.term(&request)?;
        let update = SessionUpdate::from_wire(request.into_inner()).map_err(nonsense)?;
        let kept = term.unless_over(term.scaler.record(update)).await?;
        Ok(Response::new(wire::RecordAnswer {
            epoch: term.epoch,
            failure: unless_stopping(kept)?
                .err()
                .map(|failure| failure.to_wire()),
        }))
    }
}

async fn retold(parts: &mut Streaming<wire::RestatementPart>) -> Result<Restatement, Status> {
    let mut retelling = Retelling::default();
    while let Some(part) = parts.message().await? {
        if let Some(whole) = retelling.take(part).map_err(nonsense)? {
            return Ok(whole);
        }
    }
    Err(Status::invalid_argument(
        "the restatement ended before its last part",
    ))
}

struct Telling {
    next: VecDeque<wire::ViewMessage>,
    events: mpsc::Receiver<ViewEvent>,
    over: Option<Pin<Box<dyn Future<Output = Status> + Send>>>,
}

/// What a subscriber is sent, until the term is over.
fn views(welcome: wire::ViewMessage, events: mpsc::Receiver<ViewEvent>, term: Term) -> Views {
    let telling = Telling {
        next: VecDeque::from([welcome]),
        events,
        over: Some(Box::pin(over(term.lead, term.epoch))),
    };
    Box::pin(stream::unfold(telling, async |mut telling| {
        loop {
            let ended = telling.over.as_mut()?;
            if let Some(message) = telling.next.pop_front() {
                return Some((Ok(message), telling));
            }
            tokio::select! {
                biased;
                status = ended => {
                    telling.over = None;
                    return Some((Err(status), telling));
                }
                event = telling.events.recv() => match event {
                    Some(event) => telling.next.extend(view_messages(&event)),
                    None => {
                        telling.over = None;
                        return Some((Err(not_here(None)), telling));
                    }
                },
            }
        }
    }))
}
