//! Passing an exchange on: the request to an instance, the answer back.
//!
//! Invariants: the client's bytes reach the server, and the server's bytes the client, unchanged and unbuffered; an
//! instance is reached only under a lease; a legacy exchange that was sent is read to its end even when its client has
//! left (2025-11-25 `basic/transports`: a disconnect is not a cancel), a modern one is dropped with its client.

pub(crate) mod answer;
pub(crate) mod link;
pub(crate) mod outlive;
pub(crate) mod request;
pub(crate) mod response;
pub(crate) mod upstream;

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    body::Body,
    http::{Method, Response},
};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use mcp_gateway_api::{
    failure::{Failure, FailureKind},
    ids::UpstreamSession,
};

use tokio::sync::oneshot;

use self::{
    answer::Answer,
    link::{Departed, Inbound},
    outlive::Outliving,
    request::{Extras, SentBody},
    response::Tap,
    upstream::SendError,
};
use crate::{
    edge::headers::{self, LOST, SESSION_ID},
    exchange::turn::Turn,
    gateway::Gateway,
};

/// One request on its way to an instance.
pub(crate) struct Outbound<'a> {
    /// POST or DELETE.
    pub method: Method,
    /// The client's headers, as they came.
    pub headers: &'a HeaderMap,
    /// The query of the client's URL.
    pub query: Option<&'a str>,
    /// The body.
    pub body: Bytes,
    /// The session's id on that server.
    pub session: Option<&'a UpstreamSession>,
    /// Whose modern exchange it is, for a bridge.
    pub owner: Option<HeaderValue>,
    /// The session's turn, if the exchange was held: given on when the request is written.
    pub turn: Option<Turn>,
}

/// What a server's answer said to the gateway alone; an extension of the response.
#[derive(Debug, Clone)]
pub(crate) struct Marks {
    /// The session id it carried.
    pub session: Option<HeaderValue>,
    /// A bridge lost the child, and with it the session.
    pub lost: bool,
}

impl Marks {
    /// The session id it carried, if it can be sent again.
    pub(crate) fn upstream(&self) -> Option<UpstreamSession> {
        let id = self.session.as_ref()?.to_str().ok()?;
        Some(UpstreamSession(id.into()))
    }
}

/// Why there is no answer to pass on.
#[derive(Debug)]
pub(crate) enum Undelivered {
    /// No byte of the request reached the instance: another may be asked.
    Unreachable(Failure),
    /// Nothing was sent: the session was let go of there just now, and sleeps.
    Released,
    /// It may have been carried out.
    Failed(Failure),
}

impl Undelivered {
    /// The failure, for a caller that will not ask again.
    pub(crate) fn into_failure(self) -> Failure {
        match self {
            Self::Unreachable(failure) | Self::Failed(failure) => failure,
            Self::Released => lost(),
        }
    }
}

/// Sends a request under `answer`'s lease and returns the answer, its body passing as it comes.
pub(crate) async fn send(
    gateway: &Gateway,
    outbound: Outbound<'_>,
    answer: Answer,
) -> Result<Response<Tap>, Undelivered> {
    let mut passed = headers::to_server(outbound.headers);
    if let Some(owner) = outbound.owner {
        passed.insert(headers::OWNER, owner);
    }
    crate::trace::pass_on(answer.operation.span(), &mut passed);
    let extras = Extras {
        session: outbound.session,
        last_event_id: None,
        query: outbound.query,
    };
    let (turn, written) = match outbound.turn {
        None => (None, None),
        Some(turn) => {
            let (tell, written) = oneshot::channel();
            (Some((turn, written)), Some(tell))
        }
    };
    let body = SentBody::new(outbound.body).telling(written);
    let request = request::build(outbound.method, answer.lease.view(), passed, extras, body);
    let outlives = answer.outlives;
    let sending = deliver(gateway.clone(), request, turn, answer);
    if outlives {
        Outliving::new(gateway, Box::pin(sending)).await
    } else {
        sending.await
    }
}

async fn deliver(
    gateway: Gateway,
    request: http::Request<SentBody>,
    turn: Option<(Turn, oneshot::Receiver<()>)>,
    mut answer: Answer,
) -> Result<Response<Tap>, Undelivered> {
    answer.lease.until(answer.deadline);
    let (mut life, deadline) = (answer.lease.life(), answer.deadline);
    let view = Arc::clone(answer.lease.view());
    let departed = Departed::default();
    let sent = gateway.upstreams.send_watched(&view, request, &departed);
    let called_off = answer.called_off();
    let response = tokio::select! {
        biased;
        sent = sent => sent,
        never = give_on(turn, gateway.config.settle) => match never {},
        never = give_back(&mut answer, called_off) => match never {},
        _ = life.wait_for(|life| life.is_over()) => {
            Err(ended(&departed))
        }
        () = tokio::time::sleep_until(deadline) => {
            return Err(Undelivered::Failed(timed_out()));
        }
        () = gateway.cut.cancelled() => {
            return Err(Undelivered::Failed(shutting_down()));
        }
    };
    match response {
        Ok(response) => Ok(passing(gateway.clone(), response, answer)),
        Err(error) => Err(undelivered(error)),
    }
}

/// It ended meanwhile. A pod that goes away takes its network with it, and no connection is refused any more: what still
/// waits for one has not been sent.
fn ended(departed: &Departed) -> SendError {
    if departed.get() {
        SendError::Broken("it ended before it answered".into())
    } else {
        SendError::Unreachable("it ended before it took a connection".into())
    }
}

/// Gives the lease back once the exchange is called off: a server may leave a cancelled request without any answer.
async fn give_back(answer: &mut Answer, called_off: impl Future<Output = ()>) -> Infallible {
    called_off.await;
    answer.lease.give_back();
    std::future::pending().await
}

/// Gives the session's turn on a moment after the request was written; when this is dropped, because an answer came,
/// at once.
async fn give_on(turn: Option<(Turn, oneshot::Receiver<()>)>, settle: Duration) -> Infallible {
    if let Some((turn, written)) = turn {
        // The body tells by being dropped.
        let _told = written.await;
        tokio::time::sleep(settle).await;
        drop(turn);
    }
    std::future::pending().await
}

fn passing(
    gateway: Gateway,
    response: http::Response<Inbound>,
    mut answer: Answer,
) -> Response<Tap> {
    let (mut head, body) = response.into_parts();
    let marks = Marks {
        session: head.headers.get(SESSION_ID).cloned(),
        lost: head.headers.get(LOST).is_some_and(|what| what == "session"),
    };
    if let Some(begun) = answer.begun.as_ref().filter(|_| marks.lost) {
        begun.session_lost(&gateway);
    }
    if let (Some(unclaimed), Some(issued)) = (&mut answer.unclaimed, marks.upstream()) {
        unclaimed.issued(issued);
    }
    let tap = Tap::new(gateway, &head, body, answer);
    headers::to_client(&mut head.headers);
    if tap.is_stream() {
        head.headers.remove(http::header::CONTENT_LENGTH);
        headers::mark_stream(&mut head.headers);
    }
    // HTTP/1.0 or /1.1 is between each two neighbours.
    head.version = http::Version::default();
    head.extensions.clear();
    if marks.session.is_some() || marks.lost {
        head.extensions.insert(marks);
    }
    Response::from_parts(head, tap)
}

/// Reads an answer up to the response of what was asked (a stream), or whole, at most `most` bytes.
///
/// # Errors
/// `InstanceLost` when it breaks off or goes on for too long.
pub(crate) async fn read_ahead(tap: &mut Tap, most: usize) -> Result<Vec<Bytes>, Failure> {
    let mut chunks = Vec::new();
    let mut size = 0;
    while !(tap.is_stream() && tap.is_answered()) {
        match tap.next().await {
            None => break,
            Some(Err(error)) => return Err(lost().because(error.to_string())),
            Some(Ok(_)) if tap.is_broken() => return Err(lost()),
            Some(Ok(chunk)) => {
                size += chunk.len();
                if size > most {
                    return Err(Failure::new(
                        FailureKind::InstanceLost,
                        "The server's answer is too long to be understood.",
                    ));
                }
                chunks.push(chunk);
            }
        }
    }
    Ok(chunks)
}

/// Any answer as the router wants it.
pub(crate) fn into_body(response: Response<Tap>) -> Response<Body> {
    response.map(Body::new)
}

pub(crate) fn undelivered(error: SendError) -> Undelivered {
    let failure = Failure::new(
        FailureKind::InstanceLost,
        "The server went away before it answered this request.",
    )
    .because(error.to_string());
    match error {
        SendError::Unreachable(_) => Undelivered::Unreachable(failure),
        SendError::Broken(_) => Undelivered::Failed(failure),
    }
}

pub(crate) fn timed_out() -> Failure {
    Failure::new(
        FailureKind::RequestTimeout,
        "The request took longer than the gateway allows.",
    )
}

pub(crate) fn lost() -> Failure {
    Failure::new(
        FailureKind::InstanceLost,
        "The server went away while it was answering.",
    )
}

pub(crate) fn shutting_down() -> Failure {
    Failure::new(FailureKind::ShuttingDown, "The gateway is shutting down.")
        .retry_after(Duration::from_secs(1))
}
