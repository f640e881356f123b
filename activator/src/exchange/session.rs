//! A request, or a batch with one, in a legacy session.
//!
//! Warm: the instance that holds the session is leased and asked at once. Otherwise the exchange queues for the
//! session's turn, and whoever has the turn claims, revives if the claim permits it, and goes upstream before the next.

use std::sync::Arc;

use axum::{
    body::Body,
    http::{Method, Response, StatusCode},
};
use mcp_gateway_api::{
    claim::{Claimed, Purpose, Standing},
    failure::{Failure, FailureKind},
    policy::OnIdle,
    record::SessionBinding,
    slot::SlotKey,
    view::Lookup,
};
use tokio::time::Instant;

use super::{
    Answered, Exchange, accepted,
    claim::{self, Got, hold_timeout, server_timing},
    news::{self, Awaited},
    opened::{self, Opened},
    ping, pong,
    ready::{Ready, lease_now, warm},
};
use crate::{
    caller::Caller,
    edge::headers::SESSION_ID,
    forward::{
        self, Marks, Outbound, Undelivered,
        answer::{Answer, Begun},
        response::Tap,
    },
    gateway::Gateway,
    lease::Life,
    revive,
};

/// Why one may not.
enum Stop {
    Failed(Failure),
    /// Its client cancelled it while it waited.
    CalledOff,
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// Answers it.
pub(super) async fn answer(x: &Exchange) -> Answered {
    let opened = opened::open(&x.gateway, &x.caller, &x.headers)?;
    // Again when no byte reached the instance, when a bridge lost the session's child, or when the session was let go of
    // in this very moment.
    for last in [false, false, true] {
        let ready = match warm(x, &opened) {
            Some(ready) => ready,
            None => match ping(&x.message) {
                Some(id) => {
                    let lost = expired(&x.gateway, &x.caller, &opened).await;
                    return lost.map_or_else(|| Ok(pong(id)), Err);
                }
                None => match cold(x, &opened).await {
                    Ok(ready) => ready,
                    Err(Stop::CalledOff) => return Ok(accepted()),
                    Err(Stop::Failed(failure)) => return Err(failure),
                },
            },
        };
        let (mut life, asked) = (ready.lease.life(), ready.binding.clone());
        match send(x, &opened, ready, Method::POST).await {
            // That it sleeps is on its way to the control plane, and written before the claim that follows. Should the next
            // child be lost as well, the session has still not ended.
            Ok(response) if is_lost(&response) && revives(x) => {
                if last {
                    break;
                }
            }
            // What is said of where it was means nothing any more: it goes where the session is.
            Ok(response) if is_unknown(&response) && has_moved(x, &opened, &asked) => {
                if last {
                    break;
                }
            }
            Ok(response) => return Ok(finish(x, &opened, response)),
            Err(Undelivered::Released) if !last => {}
            Err(Undelivered::Unreachable(_)) if !last && ends_soon(x, &mut life).await => {}
            Err(undelivered) => return Err(undelivered.into_failure()),
        }
    }
    Err(forward::lost())
}

fn is_unknown(response: &Response<Tap>) -> bool {
    response.status() == StatusCode::NOT_FOUND
}

/// Whether the session lives elsewhere by now, or sleeps, and has not ended.
fn has_moved(x: &Exchange, opened: &Opened, asked: &SessionBinding) -> bool {
    let moved = opened.binding(&x.gateway).as_ref() != Some(asked);
    moved && revives(x) && !opened.session.ended().is_cancelled()
}

fn revives(x: &Exchange) -> bool {
    x.caller.backend.policy.on_idle == OnIdle::Revive
}

/// Whether a bridge says that the session's child is gone.
pub(super) fn is_lost(response: &Response<Tap>) -> bool {
    is_unknown(response)
        && response
            .extensions()
            .get::<Marks>()
            .is_some_and(|marks| marks.lost)
}

/// An instance that takes no connection is about to be reported gone: worth a moment's wait.
pub(super) async fn ends_soon(x: &Exchange, life: &mut tokio::sync::watch::Receiver<Life>) -> bool {
    let over = life.wait_for(|life| life.is_over());
    tokio::time::timeout(x.gateway.config.lost_grace, over)
        .await
        .is_ok()
}

/// Gives a response its last touches; a 404 of the server that has the session ends it.
fn finish(x: &Exchange, opened: &Opened, mut response: Response<Tap>) -> Response<Body> {
    if is_unknown(&response) {
        opened.end(&x.gateway);
    }
    show_id(opened, &mut response);
    forward::into_body(response)
}

/// Where the server repeats its session id, the client sees its own.
pub(super) fn show_id(opened: &Opened, response: &mut Response<Tap>) {
    if response
        .extensions()
        .get::<Marks>()
        .is_some_and(|marks| marks.session.is_some())
    {
        response
            .headers_mut()
            .insert(SESSION_ID, opened.shown.clone());
    }
}

/// Sends the message to the instance.
pub(super) async fn send(
    x: &Exchange,
    opened: &Opened,
    ready: Ready,
    method: Method,
) -> Result<Response<Tap>, Undelivered> {
    let deadline = x.deadline();
    let (session, message) = (&opened.session, &x.message);
    let begun = if ready.behind {
        session.told_behind(message);
        None
    } else {
        let begun = session.begin_unless_released(&ready.binding, &ready.lease, message, deadline);
        let strand = begun.ok_or(Undelivered::Released)?;
        Some(Begun::new(Arc::clone(session), strand, Arc::clone(message)))
    };
    let answer = Answer {
        lease: ready.lease,
        message: Arc::clone(message),
        begun,
        unclaimed: None,
        deadline,
        outlives: true,
        news: Awaited::of(message, &opened.about),
        operation: x.operation(),
    };
    let outbound = Outbound {
        method,
        headers: &x.headers,
        query: x.uri.query(),
        body: x.body.clone(),
        session: Some(&ready.binding.upstream),
        owner: None,
        turn: ready.turn,
    };
    let mut response = forward::send(&x.gateway, outbound, answer).await?;
    if let Some(timing) = ready.timing {
        response.headers_mut().insert("server-timing", timing);
    }
    Ok(response)
}

async fn cold(x: &Exchange, opened: &Opened) -> Result<Ready, Stop> {
    if let Some(failure) = expired(&x.gateway, &x.caller, opened).await {
        return Err(Stop::Failed(failure));
    }
    let policy = &x.caller.backend.policy;
    let slot = SlotKey::of(
        &x.caller.backend.name,
        policy.isolation,
        &x.caller.principal.tenant,
        x.caller.principal.id,
        Some(opened.about.key),
    );
    let _held = claim::hold(x, &slot)?;
    let place = x.gateway.turns.queue(opened.about.key, &x.message);
    let cancelled = place.cancelled();
    let work = async {
        let until = x.arrived + policy.hold_timeout;
        let turn = tokio::time::timeout_at(until, place.turn()).await;
        let turn = turn.map_err(|_elapsed| hold_timeout())?;
        let mut ready = wake(x, opened).await?;
        if !turn.commit() {
            return Err(Stop::CalledOff);
        }
        ready.turn = Some(turn);
        Ok(ready)
    };
    tokio::select! {
        biased;
        () = cancelled.cancelled() => Err(Stop::CalledOff),
        () = opened.session.ended().cancelled() => Err(Stop::Failed(opened::gone())),
        () = x.gateway.closing.cancelled() => Err(Stop::Failed(forward::shutting_down())),
        ready = work => ready,
    }
}

/// Under `onIdle: expire`, and where nothing can be replayed, a lost instance ends the session, waking nothing.
pub(crate) async fn expired(
    gateway: &Gateway,
    caller: &Caller,
    opened: &Opened,
) -> Option<Failure> {
    if caller.backend.policy.on_idle == OnIdle::Revive && opened.sealed.handshake.is_some() {
        return None;
    }
    let lost = match opened.binding(gateway) {
        None => true,
        Some(binding) => {
            let scaler = &*gateway.deps.scaler;
            let found = gateway.deps.directory.resolve(scaler, binding.instance);
            found.await == Lookup::Gone
        }
    };
    lost.then(|| {
        opened.end(gateway);
        opened::gone()
    })
}

/// Has the turn: finds the session awake after all, or claims and, if permitted, revives. An instance lost during the
/// replay is replaced once: nothing of the client's has reached it.
async fn wake(x: &Exchange, opened: &Opened) -> Result<Ready, Failure> {
    let waiting_since = Instant::now();
    for last in [false, true] {
        if let Ok(Some(ready)) = lease_now(x, opened) {
            return Ok(ready);
        }
        news::written(&x.gateway, opened.about.key).await;
        let purpose = Purpose::Session {
            session: opened.about.clone(),
            bound: opened.binding(&x.gateway).map(|binding| binding.instance),
        };
        let mut got = claim::claim(&x.gateway, &x.caller, purpose, x.arrived).await?;
        let (mut life, claimed_at) = (got.lease.life(), Instant::now());
        match standing(x, opened, &mut got).await {
            Ok(binding) => {
                let revived = got.claimed.standing == Standing::Revive;
                let handshake = revived.then(|| claimed_at.elapsed());
                return Ok(Ready {
                    timing: server_timing(&got.claimed, waiting_since.elapsed(), handshake),
                    lease: got.lease,
                    binding,
                    turn: None,
                    behind: false,
                });
            }
            Err(failure) => {
                drop(got.lease);
                let lost = failure.kind == FailureKind::InstanceLost;
                if last || !lost || !ends_soon(x, &mut life).await {
                    return Err(failure);
                }
            }
        }
    }
    Err(forward::lost())
}

async fn standing(x: &Exchange, opened: &Opened, got: &mut Got) -> Result<SessionBinding, Failure> {
    let Claimed {
        standing, instance, ..
    } = &got.claimed;
    match standing {
        Standing::Bound(binding) => Ok(binding.clone()),
        Standing::Revive => {
            x.span.record("mcp_gateway.revived", true);
            revive::revive(x, opened, &got.lease, got.permit.take()).await
        }
        // It never left; only its id, or its record, says by which name it goes there.
        Standing::Fresh => opened
            .binding(&x.gateway)
            .filter(|binding| binding.instance == instance.id)
            .ok_or_else(|| opened::gone().because("the claim bound the session to nothing")),
    }
}
