//! `POST /adapters/{backend}/messages`: a message into a channel.
//!
//! An awake server gets it at once. For a sleeping one a request wakes it, in turn: claim, open its stream, replay the
//! handshake if there was one, hand the stream to the client's, post. What wakes nothing is answered here.

use std::sync::Arc;

use axum::{
    body::Body,
    extract::{Request, State},
    http::Response,
    response::IntoResponse,
};
use bytes::Bytes;
use mcp_gateway_api::{failure::Failure, record::SessionBinding, slot::SlotKey};
use tokio::time::Instant;
use tracing::Instrument as _;

use super::{
    channel::{Channel, ToStream},
    dial, speaks,
    wake::wake,
};
use crate::{
    caller::Caller,
    edge::headers,
    error::Refusal,
    exchange::{
        Answered, Exchange, accepted,
        claim::{self, hold_timeout},
        news::Awaited,
        opened, ping,
        turn::Turn,
    },
    forward::{self, outlive::Outliving, request::SentBody},
    gateway::Gateway,
    lease::Lease,
    message::{self, Message, RequestId},
    session::{Session, handshake::Handshake},
    streams::attached::pass_on,
    trace,
};

/// How often a message looks for its server.
const TRIES: usize = 3;

/// The gateway's own answer to a `ping` of a sleeping server, as the stream carries it.
fn pong(id: &RequestId) -> Bytes {
    let id = id.raw();
    Bytes::from(format!(
        "event: message\ndata: {{\"jsonrpc\":\"2.0\",\"id\":{id},\"result\":{{}}}}\n\n"
    ))
}

/// The handler.
pub(crate) async fn post(
    State(gateway): State<Gateway>,
    caller: Caller,
    request: Request,
) -> Response<Body> {
    let arrived = Instant::now();
    let (head, body) = request.into_parts();
    let found = speaks(&caller).and_then(|()| {
        let query = head.uri.query().unwrap_or_default();
        let mut members = query.split('&').filter_map(|member| member.split_once('='));
        let name = members
            .find(|(key, _)| *key == "session_id")
            .map(|(_, name)| name);
        name.and_then(|name| Channel::find(&gateway, &caller, name))
            .ok_or_else(opened::gone)
    });
    let channel = match found {
        Ok(channel) => channel,
        Err(failure) => return Refusal::from(failure).into_response(),
    };
    let token = gateway.tasks.token();
    let body = match crate::body::read(&gateway, &head.headers, body).await {
        Ok(body) => body,
        Err(failure) => return Refusal::from(failure).into_response(),
    };
    let message = match message::classify(&body) {
        Ok(message) => Arc::new(message),
        Err(malformed) => return Refusal::from(malformed).into_response(),
    };
    let x = Arc::new(Exchange {
        span: trace::span(&message, &caller.backend.name, &head.headers),
        _token: token,
        gateway,
        caller,
        headers: head.headers,
        uri: head.uri,
        body,
        message,
        arrived,
    });
    let span = x.span.clone();
    let answered = answer(&x, &channel).instrument(span).await;
    answered.unwrap_or_else(|failure| Refusal::from(failure).of(x.id()).into_response())
}

/// An awake server.
pub(super) struct Ready {
    /// On its instance.
    pub(super) lease: Lease,
    /// Where the channel's session lives.
    pub(super) binding: SessionBinding,
    /// Its entry.
    pub(super) session: Arc<Session>,
    /// The channel's turn, given on once the message is taken.
    pub(super) turn: Option<Turn>,
}

async fn answer(x: &Arc<Exchange>, channel: &Arc<Channel>) -> Answered {
    let called_off = cancelled(&x.message)
        .filter(|id| x.gateway.turns.cancel(&channel.key, id))
        .count();
    if called_off > 0 && called_off == x.message.each().count() {
        return Ok(accepted());
    }
    // Again only when the server's stream ended between finding it and using it.
    for _ in 0..TRIES {
        let ready = match ready(x, channel).await? {
            Found::Ready(ready) => ready,
            Found::Answered => return Ok(accepted()),
        };
        if begin(x, channel, &ready) {
            // A client that leaves before the 202 has not cancelled: the message is delivered and accounted for.
            let sending = Box::pin(send(Arc::clone(x), ready));
            return Outliving::new(&x.gateway, sending).await;
        }
    }
    Err(forward::lost())
}

enum Found {
    Ready(Ready),
    /// Nothing is to be sent.
    Answered,
}

async fn ready(x: &Arc<Exchange>, channel: &Arc<Channel>) -> Result<Found, Failure> {
    let warm = !x.gateway.turns.is_busy(&channel.key);
    let found = match warm.then(|| awake(x, channel)).flatten() {
        Some(ready) => Some(ready),
        None if x.message.is_silent() => behind(x, channel).await?,
        None => match ping(&x.message) {
            Some(id) => {
                channel.tell(ToStream::Say(pong(id))).await;
                None
            }
            None => cold(x, channel).await?,
        },
    };
    Ok(found.map_or(Found::Answered, Found::Ready))
}

/// The message is pending from here on; false when the server's stream is no longer the one that was found.
fn begin(x: &Exchange, channel: &Channel, ready: &Ready) -> bool {
    {
        // Under the lock that the stream detaches under: either that sees the message, or this sees that it is gone.
        let mut state = channel.state.lock();
        if state.upstream.as_ref() != Some(&ready.binding) {
            return false;
        }
        let (binding, lease) = (&ready.binding, &ready.lease);
        let begun = ready
            .session
            .begin_unless_released(binding, lease, &x.message, x.deadline());
        if begun.is_none() {
            // Let go of in this very moment; the stream has not heard it yet.
            state.detach();
            return false;
        }
    }
    remember(x, channel, &ready.session);
    true
}

fn cancelled(message: &Message) -> impl Iterator<Item = &RequestId> {
    message.each().filter_map(|one| match one {
        Message::Notification(n) if &*n.method == "notifications/cancelled" => {
            n.params.request_id.as_ref()
        }
        Message::Notification(_)
        | Message::Request(_)
        | Message::Response(_)
        | Message::Batch(_) => None,
    })
}

/// The server whose stream is attached, if it can be used right now.
pub(super) fn awake(x: &Exchange, channel: &Channel) -> Option<Ready> {
    let (binding, session) = {
        let state = channel.state.lock();
        (state.upstream.clone()?, state.session.clone()?)
    };
    let leased = x.gateway.deps.directory.lease(binding.instance).ok();
    let lease = leased.or_else(|| session.beside(binding.instance))?;
    (!lease.is_over()).then_some(Ready {
        lease,
        binding,
        session,
        turn: None,
    })
}

/// What wakes nothing waits for a wake that is under way.
///
/// # Errors
/// `Overloaded`: no more may wait.
async fn behind(x: &Exchange, channel: &Channel) -> Result<Option<Ready>, Failure> {
    if !x.gateway.turns.is_busy(&channel.key) {
        return Ok(None);
    }
    let _held = claim::hold(x, &slot_of(x, channel))?;
    let place = x.gateway.turns.queue(channel.key, &x.message);
    let until = x.arrived + x.caller.backend.policy.hold_timeout;
    let turn = tokio::select! {
        turn = tokio::time::timeout_at(until, place.turn()) => turn.ok(),
        () = channel.closed.cancelled() => None,
        () = x.gateway.closing.cancelled() => None,
    };
    let ready = turn.and_then(|turn| {
        let turn = Some(turn);
        awake(x, channel).map(|ready| Ready { turn, ..ready })
    });
    Ok(ready)
}

/// What its messages wait for.
fn slot_of(x: &Exchange, channel: &Channel) -> SlotKey {
    let known = channel.state.lock().about.as_ref().map(|about| about.key);
    SlotKey::of(
        &x.caller.backend.name,
        x.caller.backend.policy.isolation,
        &x.caller.principal.tenant,
        x.caller.principal.id,
        known,
    )
}

/// Waits for an instance; `None` when the client called the request off meanwhile.
async fn cold(x: &Arc<Exchange>, channel: &Arc<Channel>) -> Result<Option<Ready>, Failure> {
    let policy = &x.caller.backend.policy;
    let _held = claim::hold(x, &slot_of(x, channel))?;
    let place = x.gateway.turns.queue(channel.key, &x.message);
    let called_off = place.cancelled();
    let work = async {
        let until = x.arrived + policy.hold_timeout;
        let turn = tokio::time::timeout_at(until, place.turn()).await;
        let turn = turn.map_err(|_elapsed| hold_timeout())?;
        let ready = match awake(x, channel) {
            Some(ready) => ready,
            None => wake(x, channel).await?,
        };
        let going = turn.commit();
        Ok(going.then_some(Ready {
            turn: Some(turn),
            ..ready
        }))
    };
    tokio::select! {
        biased;
        () = called_off.cancelled() => Ok(None),
        () = channel.closed.cancelled() => Err(opened::gone()),
        () = x.gateway.closing.cancelled() => Err(forward::shutting_down()),
        ready = work => ready,
    }
}

/// Takes a message's requests off what is pending, unless it was delivered.
struct Undelivered<'a> {
    session: Arc<Session>,
    message: &'a Message,
    delivered: bool,
}

impl Drop for Undelivered<'_> {
    fn drop(&mut self) {
        if !self.delivered {
            self.session.answered(self.message);
        }
    }
}

async fn send(x: Arc<Exchange>, ready: Ready) -> Answered {
    let deadline = x.deadline();
    let mut lease = ready.lease;
    // The server may never end its answer.
    lease.until(deadline);
    let mut pending = Undelivered {
        session: ready.session,
        message: &x.message,
        delivered: false,
    };
    let passed = headers::to_server(&x.headers);
    let body = SentBody::new(x.body.clone());
    let request = dial::posting(lease.view(), &ready.binding, passed, body);
    let sent = tokio::select! {
        sent = x.gateway.upstreams.send(lease.view(), request) => {
            sent.map_err(|error| forward::undelivered(error).into_failure())
        }
        () = tokio::time::sleep_until(deadline) => Err(forward::timed_out()),
        () = x.gateway.cut.cancelled() => Err(forward::shutting_down()),
    };
    // Answers of this transport come at once: from here on the next message may go.
    drop(ready.turn);
    let (head, body) = sent?.into_parts();
    pending.delivered = head.status.is_success();
    pass_on(Box::new(head), body).await
}

/// What a revival will need of this message.
fn remember(x: &Exchange, channel: &Channel, session: &Session) {
    if let Message::Request(request) = &*x.message
        && &*request.method == "initialize"
    {
        let mut state = channel.state.lock();
        state.handshake = Handshake::of(&x.body);
        state.opening = Some(request.id.clone());
    }
    for awaited in Awaited::of(&x.message, session.about()) {
        channel.expect(awaited);
    }
}
