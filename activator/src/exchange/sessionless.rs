//! Legacy messages without session id: of servers that issue none, or of clients that forgot theirs, which the server
//! tells them itself (400). The slot is the caller's: principal, tenant or everybody, by isolation.

use std::sync::Arc;

use axum::http::{Method, Response};
use mcp_gateway_api::{claim::Purpose, failure::Failure};
use tokio::time::Instant;

use super::{
    Answered, Exchange, accepted,
    claim::{self, server_timing},
    goodbye::Unclaimed,
    ping, pong, session, slots,
};
use crate::{
    forward::{self, Outbound, Undelivered, answer::Answer, response::Tap},
    lease::Lease,
};

/// Answers it.
pub(super) async fn answer(x: &Exchange) -> Answered {
    if let Some(response) = at_once(x, |lease| send(x, lease, None)).await? {
        return Ok(forward::into_body(response));
    }
    if x.message.is_silent() {
        return Ok(accepted());
    }
    if let Some(id) = ping(&x.message) {
        return Ok(pong(id));
    }
    let (lease, timing) = cold(x, Purpose::Exchange).await?;
    let sent = send(x, lease, None).await;
    let mut response = sent.map_err(Undelivered::into_failure)?;
    if let Some(timing) = timing {
        response.headers_mut().insert("server-timing", timing);
    }
    Ok(forward::into_body(response))
}

/// Sends the message to the instance of the caller's slot, if that can be used right now. `None`: there is none, or it
/// took no connection and has ended.
///
/// # Errors
/// No answer, and the message may have been carried out.
pub(super) async fn at_once(
    x: &Exchange,
    send: impl AsyncFnOnce(Lease) -> Result<Response<Tap>, Undelivered>,
) -> Result<Option<Response<Tap>>, Failure> {
    let Some(lease) = warm(x) else {
        return Ok(None);
    };
    let mut life = lease.life();
    match send(lease).await {
        Ok(response) => Ok(Some(response)),
        Err(Undelivered::Unreachable(failure)) => {
            let ended = session::ends_soon(x, &mut life).await;
            if ended { Ok(None) } else { Err(failure) }
        }
        Err(done @ (Undelivered::Failed(_) | Undelivered::Released)) => Err(done.into_failure()),
    }
}

/// The instance of the caller's slot, if it can be used right now.
fn warm(x: &Exchange) -> Option<Lease> {
    let directory = &x.gateway.deps.directory;
    let open = directory.open_instance(&slots::slot_of(&x.caller))?;
    let lease = directory.lease_until(open.id, x.deadline()).ok()?;
    // An edited backend's old instance is not what the caller asks for now.
    (lease.view().generation == x.caller.backend.generation).then_some(lease)
}

/// Waits for an instance of the caller's slot.
pub(super) async fn cold(
    x: &Exchange,
    purpose: Purpose,
) -> Result<(Lease, Option<http::HeaderValue>), Failure> {
    let slot = slots::slot_of(&x.caller);
    let _held = claim::hold(x, &slot)?;
    let since = Instant::now();
    let got = claim::claim(&x.gateway, &x.caller, purpose, x.arrived).await?;
    let timing = got
        .claimed
        .cold
        .as_ref()
        .and_then(|_| server_timing(&got.claimed, since.elapsed(), None));
    Ok((got.lease, timing))
}

/// Sends a legacy message that is of no session, or the one that opens it.
pub(super) async fn send(
    x: &Exchange,
    lease: Lease,
    opens: Option<Unclaimed>,
) -> Result<Response<Tap>, Undelivered> {
    let answer = Answer {
        lease,
        message: Arc::clone(&x.message),
        begun: None,
        unclaimed: opens,
        deadline: x.deadline(),
        outlives: true,
        news: Vec::new(),
        operation: x.operation(),
    };
    let outbound = Outbound {
        method: Method::POST,
        headers: &x.headers,
        query: x.uri.query(),
        body: x.body.clone(),
        session: None,
        owner: None,
        turn: None,
    };
    forward::send(&x.gateway, outbound, answer).await
}
