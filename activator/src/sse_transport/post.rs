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
use mcp_gateway_api::{
    claim::{Purpose, Standing},
    failure::{Failure, FailureKind},
    ids::SessionKey,
    policy::OnIdle,
    record::{SessionBinding, SessionNews, SessionRef, SessionUpdate},
    slot::SlotKey,
};
use tokio::time::Instant;

use super::{
    channel::{Channel, ToStream},
    dial::{self, Dialled, Replay},
    speaks,
};
use crate::{
    caller::Caller,
    edge::headers,
    error::Refusal,
    exchange::{
        Answered, Exchange, accepted,
        claim::{self, Got, hold_timeout},
        news::News,
        opened::{self, unix_now},
        ping,
        turn::Turn,
    },
    forward,
    gateway::Gateway,
    lease::Lease,
    message::{self, Message, RequestId},
    session::{Session, handshake::Handshake},
    streams::attached::pass_on,
};

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
    let body = match crate::body::read(&gateway.config, &head.headers, body).await {
        Ok(body) => body,
        Err(failure) => return Refusal::from(failure).into_response(),
    };
    let message = match message::classify(&body) {
        Ok(message) => Arc::new(message),
        Err(malformed) => return Refusal::from(malformed).into_response(),
    };
    let x = Arc::new(Exchange {
        _token: gateway.tasks.token(),
        gateway,
        caller,
        headers: head.headers,
        uri: head.uri,
        body,
        message,
        arrived,
    });
    let answered = answer(&x, &channel).await;
    answered.unwrap_or_else(|failure| Refusal::from(failure).of(x.id()).into_response())
}

/// An awake server.
struct Ready {
    lease: Lease,
    binding: SessionBinding,
    session: Arc<Session>,
    // Kept until the message is written.
    _turn: Option<Turn>,
}

async fn answer(x: &Arc<Exchange>, channel: &Arc<Channel>) -> Answered {
    let called_off = cancelled(&x.message)
        .filter(|id| x.gateway.turns.cancel(&channel.key, id))
        .count();
    if called_off > 0 && called_off == x.message.each().count() {
        return Ok(accepted());
    }
    let warm = (!x.gateway.turns.is_busy(&channel.key))
        .then(|| awake(x, channel))
        .flatten();
    let ready = match warm {
        Some(ready) => ready,
        None if x.message.is_silent() => match behind(x, channel).await {
            Some(ready) => ready,
            None => return Ok(accepted()),
        },
        None => match ping(&x.message) {
            Some(id) => {
                channel.tell(ToStream::Say(pong(id))).await;
                return Ok(accepted());
            }
            None => match cold(x, channel).await? {
                Some(ready) => ready,
                None => return Ok(accepted()),
            },
        },
    };
    send(x, channel, ready).await
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
fn awake(x: &Exchange, channel: &Channel) -> Option<Ready> {
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
        _turn: None,
    })
}

/// What wakes nothing waits for a wake that is under way.
async fn behind(x: &Exchange, channel: &Channel) -> Option<Ready> {
    if !x.gateway.turns.is_busy(&channel.key) {
        return None;
    }
    let place = x.gateway.turns.queue(channel.key, &x.message);
    let until = x.arrived + x.caller.backend.policy.hold_timeout;
    let turn = tokio::select! {
        turn = tokio::time::timeout_at(until, place.turn()) => turn.ok()?,
        () = channel.closed.cancelled() => return None,
        () = x.gateway.closing.cancelled() => return None,
    };
    let ready = awake(x, channel)?;
    Some(Ready {
        _turn: Some(turn),
        ..ready
    })
}

/// Waits for an instance; `None` when the client called the request off meanwhile.
async fn cold(x: &Arc<Exchange>, channel: &Arc<Channel>) -> Result<Option<Ready>, Failure> {
    let policy = &x.caller.backend.policy;
    let known = channel.state.lock().about.as_ref().map(|about| about.key);
    let (tenant, principal) = (&x.caller.principal.tenant, x.caller.principal.id);
    let slot = SlotKey::of(
        &x.caller.backend.name,
        policy.isolation,
        tenant,
        principal,
        known,
    );
    let _held = claim::hold(x, &slot)?;
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
            _turn: Some(turn),
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

/// Has the turn: claims, opens the server's stream, replays if there is something to replay, hands the stream over.
async fn wake(x: &Arc<Exchange>, channel: &Arc<Channel>) -> Result<Ready, Failure> {
    let (about, bound, handshake) = {
        let state = channel.state.lock();
        let session = state.session.as_ref();
        let bound = session
            .and_then(|session| session.binding())
            .or_else(|| state.upstream.clone());
        (state.about.clone(), bound, state.handshake.clone())
    };
    let begins = x.message.method() == Some("initialize");
    let replays = about.is_some() && !begins;
    if replays && (x.caller.backend.policy.on_idle == OnIdle::Expire || handshake.is_none()) {
        channel.end(&x.gateway);
        return Err(opened::gone());
    }
    let purpose = about
        .clone()
        .map_or(Purpose::Initialize, |session| Purpose::Session {
            session,
            bound: bound.map(|binding| binding.instance),
        });
    let got = claim::claim(&x.gateway, &x.caller, purpose, x.arrived).await?;
    let woken = Woken {
        x: Arc::clone(x),
        channel: Arc::clone(channel),
        opens: about.is_none(),
        about: about.unwrap_or_else(|| begin(x, &got)),
        handshake: handshake.filter(|_| replays),
        got,
    };
    // A task of its own: half a session on the new instance would be of no use, should this client leave now.
    let settled = x.gateway.tasks.spawn(woken.settle()).await;
    settled.unwrap_or_else(|_panicked_or_shut_down| Err(forward::lost()))
}

/// An instance was claimed for the channel; what comes now is finished in any case.
struct Woken {
    x: Arc<Exchange>,
    channel: Arc<Channel>,
    opens: bool,
    about: SessionRef,
    handshake: Option<Handshake>,
    got: Got,
}

impl Woken {
    async fn settle(self) -> Result<Ready, Failure> {
        let attached = attach(&self).await;
        let news = match &attached {
            Ok(dialled) if self.opens => Some(SessionNews::Opened(dialled.binding.instance)),
            Ok(dialled) => Some(SessionNews::Revived(dialled.binding.clone())),
            Err(failure) => (self.got.claimed.standing == Standing::Revive).then_some(
                SessionNews::RevivalFailed {
                    retry: failure.kind != FailureKind::SessionGone,
                },
            ),
        };
        let gateway = &self.x.gateway;
        if let Some(news) = news {
            let session = self.about.clone();
            let update = SessionUpdate { session, news };
            let kept = gateway.deps.scaler.record(update.clone()).await;
            gateway.deps.directory.learn(&update);
            if attached.is_ok() {
                kept?;
            }
        }
        match attached {
            Ok(dialled) => self.hand_over(dialled).await,
            Err(failure) => {
                if failure.kind == FailureKind::SessionGone {
                    self.channel.end(gateway);
                }
                Err(failure)
            }
        }
    }

    /// The client's stream reads the server's from here on.
    async fn hand_over(self, dialled: Dialled) -> Result<Ready, Failure> {
        let (gateway, channel) = (&self.x.gateway, &self.channel);
        let (attached, binding, read) = dialled.into_parts();
        let session = gateway.sessions.enter(&self.about);
        session.lives_on(&binding);
        {
            let mut state = channel.state.lock();
            state.about = Some(self.about);
            state.session = Some(Arc::clone(&session));
            state.upstream = Some(binding.clone());
        }
        let attach = ToStream::Attach {
            attached,
            binding: binding.clone(),
            read,
        };
        if !channel.tell(attach).await {
            // The client closed its stream meanwhile; what it would have ended is known only now.
            channel.end(gateway);
            return Err(opened::gone());
        }
        Ok(Ready {
            lease: self.got.lease,
            binding,
            session,
            _turn: None,
        })
    }
}

fn begin(x: &Exchange, got: &Got) -> SessionRef {
    SessionRef {
        key: got.claimed.session.unwrap_or_else(SessionKey::random),
        backend: x.caller.backend.name.clone(),
        tenant: x.caller.principal.tenant.clone(),
        expires_at: unix_now().saturating_add(x.caller.backend.policy.session_lifetime.as_secs()),
    }
}

async fn attach(woken: &Woken) -> Result<Dialled, Failure> {
    let Woken {
        x, channel, got, ..
    } = woken;
    let mut dialled = dial::dial(&x.gateway, &x.caller, &channel.headers, &got.lease).await?;
    if let Some(handshake) = &woken.handshake {
        let promised = channel.state.lock().promise.clone();
        let record = x.gateway.deps.directory.record(&woken.about.key);
        let what = Replay {
            handshake,
            promised: promised.as_ref(),
            record: record.as_deref(),
        };
        let replayed = dialled
            .replay(&x.gateway, &got.lease, &channel.headers, what)
            .await;
        let outcome = if replayed.is_ok() {
            "revived"
        } else {
            "failed"
        };
        crate::metrics::revived(&x.caller.backend.name, outcome);
        replayed?;
    }
    Ok(dialled)
}

async fn send(x: &Exchange, channel: &Channel, ready: Ready) -> Answered {
    let deadline = x.deadline();
    remember(x, channel, &ready.session);
    ready
        .session
        .begin(&ready.binding, &ready.lease, &x.message, deadline);
    let passed = headers::to_server(&x.headers);
    let request = dial::posting(ready.lease.view(), &ready.binding, passed, x.body.clone());
    let sent = tokio::select! {
        sent = x.gateway.upstreams.send(ready.lease.view(), request) => {
            sent.map_err(|error| forward::undelivered(error).into_failure())
        }
        () = tokio::time::sleep_until(deadline) => Err(forward::timed_out()),
        () = x.gateway.cut.cancelled() => Err(forward::shutting_down()),
    };
    let response = match sent {
        Ok(response) => response,
        Err(failure) => {
            ready.session.answered(&x.message);
            return Err(failure);
        }
    };
    let (head, body) = response.into_parts();
    if !head.status.is_success() {
        ready.session.answered(&x.message);
    }
    pass_on(Box::new(head), body).await
}

/// What a revival will need of this message.
fn remember(x: &Exchange, channel: &Channel, session: &Session) {
    let Message::Request(request) = &*x.message else {
        return;
    };
    if &*request.method == "initialize" {
        let mut state = channel.state.lock();
        state.handshake = Handshake::of(&x.body);
        state.opening = Some(request.id.clone());
    } else if let Some(news) = News::of(&x.message, session.about()) {
        channel.expect(request.id.clone(), news);
    }
}
