//! `initialize`: the one answer that is read, up to its result, before its headers are sent, because the session id in
//! them says what was negotiated. The bytes pass as they are.

use axum::{
    body::Body,
    http::{HeaderValue, Response},
};
use bytes::Bytes;
use mcp_gateway_api::{
    claim::Purpose,
    failure::{Failure, FailureKind},
    ids::{InstanceId, SessionKey, UpstreamSession},
    record::{SessionNews, SessionUpdate},
    revision::Era,
    slot::SlotKey,
};
use serde::Deserialize;
use tokio::time::Instant;

use super::{
    Answered, Exchange,
    claim::{self, Got, server_timing},
    goodbye::Unclaimed,
    opened::unix_now,
    session, sessionless, slots,
};
use crate::{
    edge::headers::SESSION_ID,
    forward::{self, Marks, Undelivered, response::Tap},
    session::{
        handshake::{Handshake, fingerprint},
        sealed::SealedSession,
    },
};

/// What a server promised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Promise {
    /// The revision it speaks in this session.
    pub revision: Box<str>,
    /// A fingerprint of its capabilities.
    pub capabilities: u64,
}

/// Answers it.
pub(super) async fn answer(x: &Exchange) -> Answered {
    for last in [false, true] {
        let since = Instant::now();
        let got = wait(x).await?;
        let timing = got
            .claimed
            .cold
            .as_ref()
            .and_then(|_| server_timing(&got.claimed, since.elapsed(), None));
        let instance = got.lease.instance();
        let (key, mut life) = (got.claimed.session, got.lease.life());
        // A client that leaves from here on has no use for the session that its server may open.
        let opens = Unclaimed::new(&x.gateway, &got.lease, x.deadline());
        match sessionless::send(x, got.lease, Some(opens)).await {
            Ok(response) => {
                let mut response = seal(x, response, instance, key).await?;
                if let Some(timing) = timing {
                    response.headers_mut().insert("server-timing", timing);
                }
                return Ok(response);
            }
            Err(Undelivered::Unreachable(failure)) => {
                if last || !session::ends_soon(x, &mut life).await {
                    return Err(failure);
                }
            }
            Err(done @ (Undelivered::Failed(_) | Undelivered::Released)) => {
                return Err(done.into_failure());
            }
        }
    }
    Err(forward::lost())
}

async fn wait(x: &Exchange) -> Result<Got, Failure> {
    let caller = &x.caller;
    let slot = SlotKey::of(
        &caller.backend.name,
        caller.backend.policy.isolation,
        &caller.principal.tenant,
        caller.principal.id,
        None,
    );
    let _held = claim::hold(x, &slot)?;
    claim::claim(&x.gateway, caller, Purpose::Initialize, x.arrived).await
}

/// Gives the client a sealed id for the one that the server issued, if it issued one with a result.
async fn seal(
    x: &Exchange,
    response: Response<Tap>,
    instance: InstanceId,
    key: Option<SessionKey>,
) -> Answered {
    if !response.status().is_success() {
        return Ok(forward::into_body(response));
    }
    let marks = response.extensions().get::<Marks>();
    let upstream = marks.and_then(Marks::upstream);
    let (mut head, mut tap) = response.into_parts();
    let chunks = forward::read_ahead(&mut tap, x.gateway.config.max_initialize_answer).await?;
    match (promise(&chunks), upstream) {
        (Some(promise), Some(upstream)) => {
            let key = key.unwrap_or_else(SessionKey::random);
            let id = mint(x, key, instance, upstream, promise)?;
            head.headers.insert(SESSION_ID, id);
            note(x, key, SessionNews::Opened(instance)).await;
            if let Some(unclaimed) = tap.take_unclaimed() {
                unclaimed.claimed();
            }
        }
        // Without an id there is no session: what was started for one is the caller's.
        (Some(_), None) => {
            if let Some(key) = key {
                note(x, key, SessionNews::Sessionless(x.caller.principal.id)).await;
            }
        }
        (None, _) => {}
    }
    tap.unread(chunks);
    Ok(Response::from_parts(head, Body::new(tap)))
}

fn mint(
    x: &Exchange,
    key: SessionKey,
    instance: InstanceId,
    upstream: UpstreamSession,
    promise: Promise,
) -> Result<HeaderValue, Failure> {
    let session = SealedSession {
        key,
        backend: x.caller.backend.name.clone(),
        generation: x.caller.backend.generation,
        tenant: x.caller.principal.tenant.clone(),
        instance,
        upstream,
        issued_at: unix_now(),
        revision: promise.revision,
        capabilities: promise.capabilities,
        handshake: Handshake::of(&x.body),
    };
    let sealed = x.gateway.deps.sealer.seal(&session, x.caller.principal.id);
    let text = sealed.map_err(|error| {
        Failure::new(
            FailureKind::Internal,
            "The server's session cannot be carried by this gateway.",
        )
        .because(error.to_string())
    })?;
    HeaderValue::try_from(text).map_err(|error| {
        Failure::new(FailureKind::Internal, "No session id.").because(error.to_string())
    })
}

/// Tells the control plane how the handshake ended; an open session gets its entry.
async fn note(x: &Exchange, key: SessionKey, news: SessionNews) {
    let session = mcp_gateway_api::record::SessionRef {
        key,
        backend: x.caller.backend.name.clone(),
        tenant: x.caller.principal.tenant.clone(),
        expires_at: unix_now().saturating_add(x.caller.backend.policy.session_lifetime.as_secs()),
    };
    if let SessionNews::Opened(_) = news {
        let _entry = x.gateway.sessions.enter(&session);
    }
    x.gateway
        .deps
        .memory
        .speaks(&slots::memory_key(&x.caller), Era::Legacy, true);
    let noted = x
        .gateway
        .deps
        .scaler
        .record(SessionUpdate { session, news });
    if let Err(failure) = noted.await {
        tracing::warn!(backend = %x.caller.backend.name, why = failure.private, "a handshake was not noted: {failure}");
    }
}

#[derive(Deserialize)]
struct Wire {
    result: WireResult,
}

#[derive(Deserialize)]
struct WireResult {
    #[serde(rename = "protocolVersion")]
    revision: Box<str>,
    #[serde(default)]
    capabilities: serde_json::Value,
}

/// Finds the result in an `initialize` answer, JSON or event stream.
pub(crate) fn promise(chunks: &[Bytes]) -> Option<Promise> {
    let whole = chunks.concat();
    let text = std::str::from_utf8(&whole).ok()?;
    let found = serde_json::from_str(text)
        .ok()
        .or_else(|| events(text).find_map(|data| serde_json::from_str::<Wire>(&data).ok()));
    found.map(|Wire { result }| Promise {
        revision: result.revision,
        capabilities: fingerprint(&result.capabilities),
    })
}

/// The result among the events of a stream that is at hand.
pub(crate) fn result(passed: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Result_<'a> {
        #[serde(borrow)]
        result: &'a serde_json::value::RawValue,
    }
    let has_result = |data: &String| {
        let found = serde_json::from_str::<Result_<'_>>(data);
        found.is_ok_and(|found| !found.result.get().is_empty())
    };
    events(std::str::from_utf8(passed).ok()?).find(has_result)
}

/// The data of each whole event of a stream that is at hand.
fn events(text: &str) -> impl Iterator<Item = String> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    // The three line ends become one; JSON holds none of them raw.
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    let blocks: Vec<String> = text.split("\n\n").map(str::to_owned).collect();
    blocks.into_iter().map(|block| {
        let lines = block.lines().filter_map(|line| line.strip_prefix("data:"));
        let lines: Vec<&str> = lines
            .map(|data| data.strip_prefix(' ').unwrap_or(data))
            .collect();
        lines.join("\n")
    })
}
