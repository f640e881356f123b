//! Legacy messages without session id: of servers that issue none, or of clients that forgot theirs, which the server
//! tells them itself (400). The slot is the caller's: principal, tenant or everybody, by isolation.

use std::sync::Arc;

use axum::http::{Method, Response};
use mcp_gateway_api::claim::Purpose;
use tokio::time::Instant;

use super::{
    Answered, Exchange, accepted,
    claim::{self, server_timing},
    ping, pong, session, slots,
};
use crate::{
    forward::{self, Outbound, Undelivered, answer::Answer, response::Tap},
    lease::Lease,
};

/// Answers it.
pub(super) async fn answer(x: &Exchange) -> Answered {
    if let Some(lease) = warm(x) {
        let mut life = lease.life();
        match send(x, lease).await {
            Ok(response) => return Ok(forward::into_body(response)),
            Err(Undelivered::Unreachable(failure)) => {
                if !session::ends_soon(x, &mut life).await {
                    return Err(failure);
                }
            }
            Err(done @ (Undelivered::Failed(_) | Undelivered::Released)) => {
                return Err(done.into_failure());
            }
        }
    }
    if x.message.is_silent() {
        return Ok(accepted());
    }
    if let Some(id) = ping(&x.message) {
        return Ok(pong(id));
    }
    let (lease, timing) = cold(x, Purpose::Exchange).await?;
    let sent = send(x, lease).await;
    let mut response = sent.map_err(Undelivered::into_failure)?;
    if let Some(timing) = timing {
        response.headers_mut().insert("server-timing", timing);
    }
    Ok(forward::into_body(response))
}

/// The instance of the caller's slot, if it can be used right now.
pub(super) fn warm(x: &Exchange) -> Option<Lease> {
    let directory = &x.gateway.deps.directory;
    let open = directory.open_instance(&slots::slot_of(&x.caller))?;
    let lease = directory.lease(open.id).ok()?;
    // An edited backend's old instance is not what the caller asks for now.
    (lease.view().generation == x.caller.backend.generation).then_some(lease)
}

/// Waits for an instance of the caller's slot.
pub(super) async fn cold(
    x: &Exchange,
    purpose: Purpose,
) -> Result<(Lease, Option<http::HeaderValue>), mcp_gateway_api::failure::Failure> {
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

async fn send(x: &Exchange, lease: Lease) -> Result<Response<Tap>, Undelivered> {
    let answer = Answer {
        lease,
        message: Arc::clone(&x.message),
        begun: None,
        unclaimed: None,
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
