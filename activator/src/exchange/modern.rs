//! Modern exchanges (2026-07-28): each stands alone. `Mcp-Session-Id` and `Last-Event-ID` mean nothing and go nowhere;
//! the client's disconnect is its cancellation and reaches the server at once.
//!
//! The discover probe of a sleeping server is answered from memory, whatever `ttlMs` says, while the instance starts: a
//! refusal or more than ten seconds would make SDKs fall back an era.

use std::sync::Arc;

use axum::{
    body::Body,
    http::{HeaderValue, Method, Response, StatusCode, header},
};
use mcp_gateway_api::{
    claim::Purpose,
    failure::Failure,
    revision::{Era, Revision},
};

use super::{
    Answered, Exchange, accepted, claim,
    news::{Awaited, News},
    sessionless::{at_once, cold},
    slots,
};
use crate::{
    era::VERSION,
    forward::{self, Outbound, Undelivered, answer::Answer, response::Tap},
    lease::Lease,
    memory::{self, AnswerBody},
    message::{Message, Request},
};

/// Answers it.
pub(super) async fn answer(x: &Exchange) -> Answered {
    if let Some(response) = at_once(x, |lease| send(x, lease)).await? {
        return Ok(forward::into_body(response));
    }
    if x.message.is_silent() {
        return Ok(accepted());
    }
    let probe = probe(&x.message);
    if let Some(known) = probe.and_then(|request| remembered(x, request)) {
        start_in_background(x);
        return Ok(known);
    }
    let purpose = if probe.is_some() {
        Purpose::Probe
    } else {
        Purpose::Exchange
    };
    let (lease, timing) = cold(x, purpose).await?;
    let sent = send(x, lease).await;
    let mut response = sent.map_err(Undelivered::into_failure)?;
    if let Some(timing) = timing {
        response.headers_mut().insert("server-timing", timing);
    }
    Ok(forward::into_body(response))
}

/// The request, if it is a probe.
fn probe(message: &Message) -> Option<&Request> {
    match message {
        Message::Request(request) if &*request.method == "server/discover" => Some(request),
        Message::Request(_)
        | Message::Notification(_)
        | Message::Response(_)
        | Message::Batch(_) => None,
    }
}

fn remembered(x: &Exchange, request: &Request) -> Option<Response<Body>> {
    let known = x.gateway.deps.memory.get(&slots::memory_key(&x.caller))?;
    let answer = match (known.discover, known.rejection) {
        (Some(result), _) => {
            // A probe that contradicts itself, or names a revision the server does not list, is the server's to answer.
            let listed = agreed(x, request).is_some_and(|version| lists(&result, version));
            listed.then_some(result)
        }
        (None, rejection) => rejection,
    }?;
    let (kind, text) = answer.render(&request.id);
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = StatusCode::from_u16(answer.status).ok()?;
    if let Some(kind) = kind.and_then(|kind| HeaderValue::from_str(kind).ok()) {
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
    }
    Some(response)
}

/// The revision a probe names, if its headers and its body say the same of it.
fn agreed<'a>(x: &'a Exchange, request: &Request) -> Option<&'a str> {
    let stated = x.headers.get(VERSION)?.to_str().ok()?;
    let method = x.headers.get("mcp-method")?.to_str().ok()?;
    let same =
        request.params.meta_version.as_deref() == Some(stated) && method == "server/discover";
    same.then_some(stated)
}

/// Whether a refusal tells of the server and not of this one probe. A probe that contradicts itself or leaves out what
/// must be in it is refused by every server, and the codes −32020 … −32099 are known only to one that speaks modern.
fn tells_of_the_server(x: &Exchange, request: &Request, refusal: &[u8]) -> bool {
    let modern = agreed(x, request).and_then(|version| version.parse::<Revision>().ok());
    let modern = modern.is_some_and(|revision| revision.era() == Era::Modern);
    let capabilities = b"io.modelcontextprotocol/clientCapabilities".as_slice();
    let whole = x
        .body
        .windows(capabilities.len())
        .any(|part| part == capabilities);
    let parsed: Option<serde_json::Value> = serde_json::from_slice(refusal).ok();
    let code = parsed.and_then(|refusal| refusal.get("error")?.get("code")?.as_i64());
    modern && whole && !code.is_some_and(|code| (-32_099..=-32_020).contains(&code))
}

fn lists(answer: &memory::Answer, version: &str) -> bool {
    let AnswerBody::Result(result) = &answer.body else {
        return false;
    };
    let parsed: Option<serde_json::Value> = serde_json::from_str(result).ok();
    let versions = parsed
        .as_ref()
        .and_then(|result| result.get("supportedVersions")?.as_array());
    versions.is_some_and(|list| list.iter().any(|one| one == version))
}

fn start_in_background(x: &Exchange) {
    let (gateway, caller, arrived) = (x.gateway.clone(), x.caller.clone(), x.arrived);
    let slot = slots::slot_of(&caller);
    let Ok(held) = claim::hold(x, &slot) else {
        // So much waits already that the start is under way, or there is no room for it.
        return;
    };
    x.gateway.tasks.spawn(async move {
        match claim::claim(&gateway, &caller, Purpose::Probe, arrived).await {
            // The lease is given back at once: the start alone was wanted.
            Ok(_lease) => {}
            Err(failure) => {
                tracing::debug!(backend = %caller.backend.name, why = failure.private, "the start for a probe failed: {failure}");
            }
        }
        drop(held);
    });
}

fn discovered(x: &Exchange, probe: &Request) -> Awaited {
    Awaited {
        id: probe.id.clone(),
        news: News::Discovered(slots::memory_key(&x.caller)),
    }
}

async fn send(x: &Exchange, lease: Lease) -> Result<Response<Tap>, Undelivered> {
    let probing = probe(&x.message).is_some();
    let bridged = lease.view().endpoint.is_bridge();
    let answer = Answer {
        lease,
        message: Arc::clone(&x.message),
        begun: None,
        unclaimed: None,
        deadline: x.deadline(),
        outlives: false,
        news: probe(&x.message)
            .map(|request| discovered(x, request))
            .into_iter()
            .collect(),
        operation: x.operation(),
    };
    let outbound = Outbound {
        method: Method::POST,
        headers: &x.headers,
        query: x.uri.query(),
        body: x.body.clone(),
        session: None,
        owner: slots::owner_of(&x.caller).filter(|_| bridged),
        turn: None,
    };
    let response = forward::send(&x.gateway, outbound, answer).await?;
    if probing && response.status().is_client_error() {
        return refused(x, response).await.map_err(Undelivered::Failed);
    }
    Ok(response)
}

/// A refused probe is remembered too: a client that falls back then does so at once, also while the server sleeps.
async fn refused(x: &Exchange, response: Response<Tap>) -> Result<Response<Tap>, Failure> {
    let (head, mut tap) = response.into_parts();
    let chunks = forward::read_ahead(&mut tap, memory::MAX_ANSWER).await?;
    let key = slots::memory_key(&x.caller);
    let kind = head
        .headers
        .get(header::CONTENT_TYPE)
        .and_then(|v| v.to_str().ok());
    let too_many =
        head.status == StatusCode::TOO_MANY_REQUESTS || head.status == StatusCode::REQUEST_TIMEOUT;
    let refusal = chunks.concat();
    let telling =
        probe(&x.message).is_some_and(|request| tells_of_the_server(x, request, &refusal));
    // A bridge whose server has not said which era it speaks lets clients go on, for this once.
    let for_now = head
        .headers
        .get(header::CACHE_CONTROL)
        .is_some_and(|value| value == "no-store");
    if telling && !too_many && !for_now && tap.is_over() {
        x.gateway
            .deps
            .memory
            .rejected(&key, head.status.as_u16(), kind, &refusal);
        x.gateway.deps.memory.speaks(&key, Era::Modern, false);
    }
    tap.unread(chunks);
    Ok(Response::from_parts(head, tap))
}
