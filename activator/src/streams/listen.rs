//! The modern `subscriptions/listen` (2026-07-28 `basic/patterns/subscriptions`).
//!
//! The request wakes its slot like any other; the stream that answers it holds no lease. When the instance drains or is
//! lost the stream is parked, and it is listened for again, with the same JSON-RPC id, once the slot has an instance
//! again; the second acknowledgement is swallowed, for the client has had the first. Where the gateway itself ends the
//! stream it does so with the completion result that carries the subscription's id.

use std::{future::Future, io, pin::Pin, sync::Arc};

use axum::http::{HeaderMap, HeaderValue, Method};
use bytes::{Bytes, BytesMut};
use mcp_gateway_api::{
    claim::Purpose,
    failure::Failure,
    ids::InstanceId,
    slot::SlotKey,
    view::{InstanceView, Service},
};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

use super::{
    KEEP_ALIVE, Source,
    attached::{self, Asked, Attached, Passed, ask, pass_on},
    broken_off, event_stream,
    right::Right,
};
use crate::{
    edge::headers::{self, OWNER},
    exchange::{Answered, Exchange, claim, slots},
    forward::{
        self,
        request::{Extras, SentBody, build},
        upstream::SendError,
    },
    gateway::Gateway,
    lease::Lease,
    message::RequestId,
    sse::{EventSummary, Seen},
};

/// Longest acknowledgement that can be swallowed, in bytes.
const MAX_ACK: usize = 64 << 10;
const ACKNOWLEDGED: &str = "notifications/subscriptions/acknowledged";

/// Answers a listen request.
pub(crate) async fn answer(x: &Exchange) -> Answered {
    let Some(id) = x.id().cloned() else {
        // Only a request is routed here.
        return Err(Failure::new(
            mcp_gateway_api::failure::FailureKind::BadRequest,
            "A listen request must have an id.",
        ));
    };
    let slot = slots::slot_of(&x.caller);
    let asked = Ask::of(x);
    let right = Right::of(&x.gateway, &x.caller)?;
    let mut tried = None;
    loop {
        let (lease, timing) = lease(x, &slot, tried).await?;
        let view = Arc::clone(lease.view());
        let answered = tokio::select! {
            answered = ask(&x.gateway, &view, asked.request(&view)) => answered,
            () = sleep_until(x.deadline()) => return Err(forward::timed_out()),
            () = x.gateway.cut.cancelled() => return Err(forward::shutting_down()),
        };
        match answered {
            Ok(Asked::Stream(head, attached)) => {
                let stream = Listen::new(x, right, slot, id, asked, attached);
                let mut response = event_stream(Some(head), stream);
                timing.map(|timing| response.headers_mut().insert("server-timing", timing));
                return Ok(response);
            }
            Ok(Asked::Refused(head, body)) => return pass_on(head, body).await,
            // Once more when the instance had just ended: no byte of the request was read.
            Err(SendError::Unreachable(_)) if tried.is_none() => tried = Some(view.id),
            Err(error) => return Err(attached::lost(error)),
        }
    }
}

/// The slot's instance: at once if it runs, else by waiting for it.
async fn lease(
    x: &Exchange,
    slot: &SlotKey,
    but: Option<InstanceId>,
) -> Result<(Lease, Option<HeaderValue>), Failure> {
    let directory = &x.gateway.deps.directory;
    let current = |view: &Arc<InstanceView>| view.generation == x.caller.backend.generation;
    let runs = directory.open_instance(slot).filter(current);
    if let Some(view) = runs.filter(|view| Some(view.id) != but)
        && let Ok(lease) = directory.lease(view.id)
    {
        return Ok((lease, None));
    }
    let _held = claim::hold(x, slot)?;
    let since = Instant::now();
    let got = claim::claim(&x.gateway, &x.caller, Purpose::Exchange, x.arrived).await?;
    let timing = claim::server_timing(&got.claimed, since.elapsed(), None);
    Ok((got.lease, timing))
}

/// What the client asked for, to ask again after each wake.
#[derive(Clone)]
struct Ask {
    headers: HeaderMap,
    // For a bridge alone: other servers have no business with it.
    owner: Option<HeaderValue>,
    query: Option<Box<str>>,
    body: Bytes,
}

impl Ask {
    fn of(x: &Exchange) -> Self {
        Self {
            headers: headers::to_server(&x.headers),
            owner: slots::owner_of(&x.caller),
            query: x.uri.query().map(Into::into),
            body: x.body.clone(),
        }
    }

    fn request(&self, view: &InstanceView) -> http::Request<SentBody> {
        let extras = Extras {
            query: self.query.as_deref(),
            ..Extras::default()
        };
        let mut headers = self.headers.clone();
        let owner = self.owner.clone();
        if let Some(owner) = owner.filter(|_| view.endpoint.is_bridge()) {
            headers.insert(OWNER, owner);
        }
        let body = SentBody::new(self.body.clone());
        build(Method::POST, view, headers, extras, body)
    }
}

type Opening = Pin<Box<dyn Future<Output = Result<Asked, SendError>> + Send>>;

enum Place {
    Parked,
    Opening(InstanceId, Opening),
    Attached(Box<Attached>),
}

enum Step {
    Opened(InstanceId, Result<Asked, SendError>),
    Passed(Passed),
}

impl Place {
    async fn step(&mut self) -> Step {
        match self {
            Self::Parked => std::future::pending().await,
            Self::Opening(instance, opening) => {
                let asked = opening.await;
                Step::Opened(*instance, asked)
            }
            Self::Attached(attached) => Step::Passed(attached.next().await),
        }
    }

    fn at_boundary(&self) -> bool {
        match self {
            Self::Parked | Self::Opening(..) => true,
            Self::Attached(attached) => attached.at_boundary(),
        }
    }
}

struct Listen {
    gateway: Gateway,
    slot: SlotKey,
    id: RequestId,
    asked: Ask,
    place: Place,
    right: Right,
    openings: watch::Receiver<()>,
    // While the acknowledgement of a repeated listen is read: what has come of it.
    swallowing: Option<BytesMut>,
    // The instance drains: parked at the next boundary.
    leaving: bool,
    completed: bool,
    // Gave no stream, or lost it: not asked again.
    refused: Option<InstanceId>,
    last: Instant,
}

impl Listen {
    fn new(
        x: &Exchange,
        right: Right,
        slot: SlotKey,
        id: RequestId,
        asked: Ask,
        attached: Box<Attached>,
    ) -> Self {
        Self {
            gateway: x.gateway.clone(),
            slot,
            id,
            asked,
            place: Place::Attached(attached),
            right,
            openings: x.gateway.deps.directory.openings(),
            swallowing: None,
            leaving: false,
            completed: false,
            refused: None,
            last: Instant::now(),
        }
    }

    fn is_over(&self) -> bool {
        self.gateway.cut.is_cancelled() || !self.right.holds()
    }

    /// Whether bytes of ours would stand between two events of what the client has read.
    fn at_boundary(&self) -> bool {
        self.swallowing.is_some() || self.place.at_boundary()
    }

    fn parked(&self) -> bool {
        matches!(self.place, Place::Parked)
    }

    fn park(&mut self) {
        self.place = Place::Parked;
        self.swallowing = None;
        self.leaving = false;
    }

    /// Listens again if the slot has an instance again.
    fn settle(&mut self) {
        if self.leaving && self.place.at_boundary() {
            self.park();
        }
        if !self.parked() {
            return;
        }
        self.openings.mark_unchanged();
        let view = self.gateway.deps.directory.open_instance(&self.slot);
        if let Some(view) = view.filter(|view| Some(view.id) != self.refused) {
            let (gateway, request) = (self.gateway.clone(), self.asked.request(&view));
            let instance = view.id;
            let opening = async move { ask(&gateway, &view, request).await };
            self.place = Place::Opening(instance, Box::pin(opening));
        }
    }

    fn stepped(&mut self, step: Step) -> Option<Next> {
        match step {
            Step::Opened(_, Ok(Asked::Stream(_, attached))) => {
                self.swallowing = Some(BytesMut::new());
                self.place = Place::Attached(attached);
                None
            }
            Step::Opened(instance, Ok(Asked::Refused(..)) | Err(_)) => {
                self.refused = Some(instance);
                self.park();
                None
            }
            Step::Passed(Passed::Bytes(bytes, events)) => self.passed(bytes, &events),
            Step::Passed(Passed::Service(service)) => {
                self.leaving = service != Service::Open;
                None
            }
            Step::Passed(Passed::Lost) if self.at_boundary() => {
                self.lost();
                None
            }
            Step::Passed(Passed::Lost) => Some(Next::Give(Err(broken_off()))),
            Step::Passed(Passed::Ended) => Some(Next::Ended),
        }
    }

    fn lost(&mut self) {
        if let Place::Attached(attached) = &self.place {
            self.refused = Some(attached.instance());
        }
        self.park();
    }

    fn passed(&mut self, bytes: Bytes, events: &[EventSummary]) -> Option<Next> {
        self.completed |= events.iter().any(|event| completes(event, &self.id));
        let bytes = match self.swallowing.take() {
            None => bytes,
            Some(mut so_far) => {
                so_far.extend_from_slice(&bytes);
                match events.first() {
                    None if so_far.len() < MAX_ACK => {
                        self.swallowing = Some(so_far);
                        return None;
                    }
                    None => so_far.freeze(),
                    Some(first) => after_ack(so_far.freeze(), first),
                }
            }
        };
        self.last = Instant::now();
        (!bytes.is_empty()).then_some(Next::Give(Ok(bytes)))
    }

    /// The server ended the stream: for good with its result, else perhaps with its own end.
    async fn ended(&mut self) -> bool {
        if self.completed {
            return true;
        }
        let boundary = self.at_boundary();
        match std::mem::replace(&mut self.place, Place::Parked) {
            Place::Attached(mut attached) => {
                let instance = attached.instance();
                let dies = attached.dies().await;
                self.park();
                self.refused = Some(instance);
                !(boundary && dies)
            }
            Place::Opening(..) | Place::Parked => false,
        }
    }

    /// The result with which the gateway ends the stream.
    fn completion(&self) -> Bytes {
        let id = self.id.raw();
        Bytes::from(format!(
            "event: message\ndata: {{\"jsonrpc\":\"2.0\",\"id\":{id},\"result\":{{\"resultType\":\"complete\",\"_meta\":{{\"io.modelcontextprotocol/subscriptionId\":{id}}}}}}}\n\n"
        ))
    }
}

enum Next {
    Give(io::Result<Bytes>),
    Ended,
}

fn completes(event: &EventSummary, id: &RequestId) -> bool {
    let ours = |seen: &Seen| match seen {
        Seen::Response {
            id: Some(answered), ..
        } => answered == id,
        Seen::Response { id: None, .. } | Seen::Request { .. } | Seen::Notification { .. } => false,
    };
    event.messages.iter().any(ours)
}

/// What follows the acknowledgement; all of it, if the first event is none.
fn after_ack(mut bytes: Bytes, first: &EventSummary) -> Bytes {
    let is_ack = |seen: &Seen| match seen {
        Seen::Notification { method, .. } => &**method == ACKNOWLEDGED,
        Seen::Request { .. } | Seen::Response { .. } => false,
    };
    if !first.messages.iter().any(is_ack) {
        return bytes;
    }
    let end = usize::try_from(first.end).unwrap_or(usize::MAX);
    bytes.split_off(end.min(bytes.len()))
}

impl Source for Listen {
    async fn next(&mut self) -> Option<io::Result<Bytes>> {
        loop {
            if self.is_over() {
                let completed = std::mem::replace(&mut self.completed, true);
                return (!completed && self.at_boundary()).then(|| Ok(self.completion()));
            }
            self.settle();
            let (parked, due) = (self.parked(), self.last + self.gateway.config.keep_alive);
            let cut = self.gateway.cut.clone();
            tokio::select! {
                biased;
                () = cut.cancelled() => {}
                () = self.right.over() => {}
                Ok(()) = self.openings.changed(), if parked => {}
                step = self.place.step() => match self.stepped(step) {
                    Some(Next::Give(given)) => return Some(given),
                    Some(Next::Ended) if self.ended().await => return None,
                    Some(Next::Ended) | None => {}
                },
                () = sleep_until(due) => {
                    self.last = Instant::now();
                    if self.at_boundary() {
                        return Some(Ok(KEEP_ALIVE));
                    }
                }
            }
        }
    }
}
