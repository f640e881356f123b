//! One upstream event stream, read along with, and the life of the instance it comes from.
//!
//! Dropping it closes the upstream connection. Holds no lease.

use std::{io, sync::Arc, time::Duration};

use crate::forward::link::Inbound;
use axum::{
    body::Body,
    http::{Request, Response, StatusCode, response::Parts},
};
use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use mcp_gateway_api::{
    failure::Failure,
    ids::InstanceId,
    view::{InstanceView, Service},
};
use tokio::sync::watch;

use crate::{
    edge::headers,
    forward::{self, request::SentBody, undelivered, upstream::SendError},
    gateway::Gateway,
    lease::Life,
    sse::{EventSummary, Scanner},
};

/// Largest refusal of a stream that is passed on, in bytes.
const MAX_REFUSAL: usize = 1 << 20;
/// How long after a stream's end word of its instance's end may still come.
const DIES_WITHIN: Duration = Duration::from_secs(1);

/// An upstream stream.
pub(crate) struct Attached {
    instance: InstanceId,
    body: Inbound,
    scanner: Scanner,
    life: watch::Receiver<Life>,
}

/// What an upstream stream did.
pub(crate) enum Passed {
    /// Bytes, and the events that end in them.
    Bytes(Bytes, Vec<EventSummary>),
    /// The server ended it.
    Ended,
    /// The connection or the instance is lost, or the instance is cut.
    Lost,
    /// The instance goes on, but its service is another.
    Service(Service),
}

/// What a server answered when asked for a stream.
pub(crate) enum Asked {
    /// A stream.
    Stream(Box<Parts>, Box<Attached>),
    /// Something else.
    Refused(Box<Parts>, Inbound),
}

impl Attached {
    /// Takes the stream over.
    pub(crate) fn new(instance: InstanceId, body: Inbound, life: watch::Receiver<Life>) -> Self {
        Self {
            instance,
            body,
            scanner: Scanner::new(),
            life,
        }
    }

    /// From which instance.
    pub(crate) const fn instance(&self) -> InstanceId {
        self.instance
    }

    /// Whether it stands between two events.
    pub(crate) fn at_boundary(&self) -> bool {
        self.scanner.at_boundary()
    }

    /// The next thing that happens. Nothing is lost if the future is dropped.
    pub(crate) async fn next(&mut self) -> Passed {
        loop {
            if self.life.borrow_and_update().is_over() {
                return Passed::Lost;
            }
            tokio::select! {
                biased;
                changed = self.life.changed() => {
                    let now = *self.life.borrow_and_update();
                    return match now {
                        Life::In(service) if changed.is_ok() && !now.is_over() => Passed::Service(service),
                        Life::In(_) | Life::Gone => Passed::Lost,
                    };
                }
                frame = self.body.frame() => match frame.map(|frame| frame.map(http_body::Frame::into_data)) {
                    Some(Ok(Ok(bytes))) => {
                        let events = self.scanner.push(&bytes);
                        return Passed::Bytes(bytes, events);
                    }
                    // Trailers mean nothing here.
                    Some(Ok(Err(_))) => {}
                    Some(Err(_)) => return Passed::Lost,
                    None => return Passed::Ended,
                }
            }
        }
    }

    /// After an end: whether the instance ends too, so that the end was not the server's decision about the stream.
    pub(crate) async fn dies(&mut self) -> bool {
        let drains = |life: &Life| *life != Life::In(Service::Open);
        tokio::time::timeout(DIES_WITHIN, self.life.wait_for(drains))
            .await
            .is_ok()
    }
}

/// Asks an instance for a stream.
pub(crate) async fn ask(
    gateway: &Gateway,
    view: &InstanceView,
    request: Request<SentBody>,
) -> Result<Asked, SendError> {
    let lost = || SendError::Unreachable("it is not in the table".into());
    let life = gateway.deps.directory.watch(view.id).ok_or_else(lost)?;
    let mut over = life.clone();
    let response = tokio::select! {
        response = gateway.upstreams.send(view, request) => response?,
        _ = over.wait_for(|life| life.is_over()) => return Err(lost()),
    };
    let (head, body) = response.into_parts();
    if head.status == StatusCode::OK && headers::is_event_stream(&head.headers) {
        let attached = Attached::new(view.id, body, life);
        Ok(Asked::Stream(Box::new(head), Box::new(attached)))
    } else {
        Ok(Asked::Refused(Box::new(head), body))
    }
}

/// A refusal as the client may see it.
///
/// # Errors
/// `InstanceLost` when it breaks off or is longer than a refusal may be.
pub(crate) async fn pass_on(head: Box<Parts>, body: Inbound) -> Result<Response<Body>, Failure> {
    let whole = Limited::new(body, MAX_REFUSAL).collect().await;
    let whole = whole.map_err(|error| {
        let broken = SendError::Broken(io::Error::other(error).to_string());
        undelivered(broken).into_failure()
    })?;
    let mut response = Response::new(Body::from(whole.to_bytes()));
    *response.status_mut() = head.status;
    *response.headers_mut() = head.headers;
    headers::to_client(response.headers_mut());
    response.headers_mut().remove(http::header::CONTENT_LENGTH);
    Ok(response)
}

/// The instance of a view, unless it is about to end.
pub(crate) fn lives(gateway: &Gateway, instance: InstanceId) -> Option<Arc<InstanceView>> {
    let view = gateway.deps.directory.view(instance)?;
    match view.service {
        Service::Open | Service::RetireDrain => Some(view),
        Service::IdleDrain | Service::Cut => None,
    }
}

/// The failure when a server cannot be asked.
pub(crate) fn lost(error: SendError) -> Failure {
    forward::undelivered(error).into_failure()
}
