//! One message of a client, from its classification to its answer: a file for each row of the table "What wakes, what
//! counts" (ARCHITECTURE.md).
//!
//! [`row`] decides, purely, which row a message belongs to; the row's file acts. Invariant: only [`claim`] ever asks for
//! an instance, so what does not go through it wakes nothing.

pub(crate) mod claim;
pub(crate) mod delete;
pub(crate) mod goodbye;
pub(crate) mod initialize;
pub(crate) mod modern;
pub(crate) mod news;
pub(crate) mod opened;
pub(crate) mod permit;
mod ready;
pub(crate) mod session;
pub(crate) mod sessionless;
pub(crate) mod silent;
pub(crate) mod slots;
#[cfg(test)]
mod tests;
pub(crate) mod turn;

use std::sync::Arc;

use axum::{
    body::Body,
    extract::{Request, State},
    http::{HeaderMap, Method, Response, StatusCode, Uri, header},
    response::IntoResponse,
};
use bytes::Bytes;
use mcp_gateway_api::{
    backend::Transport,
    failure::{Failure, FailureKind},
};
use tokio::time::Instant;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tracing::{Instrument, Span};

use crate::{
    caller::Caller,
    edge::headers::SESSION_ID,
    era::{self, Spoken},
    error::{Refusal, label},
    forward::shutting_down,
    gateway::Gateway,
    message::{self, Message, RequestId},
    metrics::Operation,
    trace,
};

/// A message and what came with it.
pub(crate) struct Exchange {
    pub gateway: Gateway,
    pub caller: Caller,
    pub headers: HeaderMap,
    pub uri: Uri,
    pub body: Bytes,
    pub message: Arc<Message>,
    pub arrived: Instant,
    pub span: Span,
    /// Counted, while it lives, among what a shutdown waits for.
    pub _token: TaskTrackerToken,
}

impl Exchange {
    /// When it has taken too long.
    pub(crate) fn deadline(&self) -> Instant {
        self.arrived + self.caller.backend.policy.request_timeout
    }

    /// The id an error of the gateway carries.
    pub(crate) fn id(&self) -> Option<&RequestId> {
        match &*self.message {
            Message::Request(request) => Some(&request.id),
            Message::Notification(_) | Message::Response(_) | Message::Batch(_) => None,
        }
    }

    /// The beginning of its measurement.
    pub(crate) fn operation(&self) -> Operation {
        Operation::begin(self.message.method(), self.arrived).within(&self.span)
    }
}

/// What a row answers.
pub(crate) type Answered = Result<Response<Body>, Failure>;

/// The rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Row {
    /// `initialize`.
    Initialize,
    /// A request, or a batch with one, in a session.
    Session,
    /// Notifications and posted responses in a session.
    SessionSilent,
    /// A legacy message without session id.
    Sessionless,
    /// A modern `subscriptions/listen`.
    Listen,
    /// Any other modern message.
    Modern,
}

/// Says which row a message belongs to. Pure.
pub(crate) fn row(spoken: &Spoken, message: &Message, has_session: bool) -> Row {
    let method = match message {
        Message::Request(request) => Some(&*request.method),
        Message::Notification(_) | Message::Response(_) | Message::Batch(_) => None,
    };
    match spoken {
        Spoken::Modern { .. } if method == Some("subscriptions/listen") => Row::Listen,
        Spoken::Modern { .. } => Row::Modern,
        Spoken::Legacy { .. } if method == Some("initialize") => Row::Initialize,
        Spoken::Legacy { .. } if has_session && message.is_silent() => Row::SessionSilent,
        Spoken::Legacy { .. } if has_session => Row::Session,
        Spoken::Legacy { .. } => Row::Sessionless,
    }
}

/// `POST /adapters/{backend}/mcp`.
pub(crate) async fn post(
    State(gateway): State<Gateway>,
    caller: Caller,
    request: Request,
) -> Response<Body> {
    let arrived = Instant::now();
    if caller.backend.launch.transport == Transport::Sse {
        return Refusal::from(Failure::new(
            FailureKind::Method,
            "This backend speaks 2024-11-05: open its stream with GET first.",
        ))
        .into_response();
    }
    // From here on a replica that leaves waits for it, its body too.
    let token = gateway.tasks.token();
    let (head, body) = request.into_parts();
    let body = match crate::body::read(&gateway, &head.headers, body).await {
        Ok(body) => body,
        Err(failure) => return Refusal::from(failure).into_response(),
    };
    let message = match message::classify(&body) {
        Ok(message) => Arc::new(message),
        Err(malformed) => return Refusal::from(malformed).into_response(),
    };
    let exchange = Exchange {
        span: trace::span(&message, &caller.backend.name, &head.headers),
        _token: token,
        gateway,
        caller,
        headers: head.headers,
        uri: head.uri,
        body,
        message,
        arrived,
    };
    let span = exchange.span.clone();
    let answered = act(&exchange, &head.method).instrument(span).await;
    answered.unwrap_or_else(|failure| {
        exchange.span.record("otel.status_code", "ERROR");
        exchange.span.record("error.type", label(failure.kind));
        Refusal::from(failure).of(exchange.id()).into_response()
    })
}

async fn act(exchange: &Exchange, method: &Method) -> Answered {
    if exchange.gateway.closing.is_cancelled() && !exchange.message.is_silent() {
        return Err(shutting_down());
    }
    let spoken = era::classify(method, &exchange.headers, Some(&exchange.message));
    let has_session = exchange.headers.contains_key(SESSION_ID);
    match row(&spoken, &exchange.message, has_session) {
        Row::Initialize => initialize::answer(exchange).await,
        Row::Session => session::answer(exchange).await,
        Row::SessionSilent => silent::answer(exchange).await,
        Row::Sessionless => sessionless::answer(exchange).await,
        Row::Listen => crate::streams::listen::answer(exchange).await,
        Row::Modern => modern::answer(exchange).await,
    }
}

/// 202 without a body: taken, or not needed by anybody.
pub(crate) fn accepted() -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::ACCEPTED;
    response
}

/// The gateway's own answer to a `ping` of a sleeping server.
pub(crate) fn pong(id: &RequestId) -> Response<Body> {
    let text = format!(r#"{{"jsonrpc":"2.0","id":{},"result":{{}}}}"#, id.raw());
    let mut response = Response::new(Body::from(text));
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        http::HeaderValue::from_static("application/json"),
    );
    response
}

/// The id of a single `ping`.
pub(crate) fn ping(message: &Message) -> Option<&RequestId> {
    match message {
        Message::Request(request) if &*request.method == "ping" => Some(&request.id),
        Message::Request(_)
        | Message::Notification(_)
        | Message::Response(_)
        | Message::Batch(_) => None,
    }
}
