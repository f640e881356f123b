//! Which headers pass, in either direction. Everything end-to-end that is not named here passes untouched, in order and
//! with its value as it was (`Accept` and unknown `Mcp-Param-*` above all).
//!
//! Never passed to a server: hop-by-hop headers, credentials (`Authorization`, `Cookie`), `Origin`, what proxies say
//! about the client, and every `X-Mcp-*`, which only the gateway may set. Never passed to a client: hop-by-hop headers,
//! `Set-Cookie` (all backends share one origin), CORS headers, the server's own session id, the bridge's marks, and where
//! a server would have its clients go: it knows neither the name nor the path under which they reach it.

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use mcp_gateway_api::failure::{Failure, FailureKind};

/// `Mcp-Session-Id`.
pub const SESSION_ID: HeaderName = HeaderName::from_static("mcp-session-id");
/// `MCP-Protocol-Version`.
pub const PROTOCOL_VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");
/// `Last-Event-ID`.
pub const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// To a bridge: whose modern exchange this is.
pub const OWNER: HeaderName = HeaderName::from_static("x-mcp-gateway-owner");
/// From a bridge: `session` when a child was lost and its session with it.
pub const LOST: HeaderName = HeaderName::from_static("x-mcp-gateway-lost");
/// `X-Accel-Buffering`.
pub const ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

static ONCE: [(HeaderName, &str); 6] = [
    (SESSION_ID, "Mcp-Session-Id"),
    (PROTOCOL_VERSION, "MCP-Protocol-Version"),
    (HeaderName::from_static("mcp-method"), "Mcp-Method"),
    (HeaderName::from_static("mcp-name"), "Mcp-Name"),
    (LAST_EVENT_ID, "Last-Event-ID"),
    (header::AUTHORIZATION, "Authorization"),
];

/// Refuses headers that decide where a request goes and stand more than once.
///
/// # Errors
/// `BadRequest`, naming the header.
pub fn refuse_duplicates(headers: &HeaderMap) -> Result<(), Failure> {
    // Almost no request repeats any header: one comparison settles those.
    if headers.len() == headers.keys_len() {
        return Ok(());
    }
    let twice = ONCE
        .iter()
        .find(|(name, _shown)| headers.get_all(name).iter().nth(1).is_some());
    twice.map_or(Ok(()), |(_name, shown)| {
        Err(Failure::new(
            FailureKind::BadRequest,
            format!("The header {shown} stands more than once."),
        ))
    })
}

fn is_hop_by_hop(name: &HeaderName) -> bool {
    *name == header::CONNECTION
        || *name == header::TRANSFER_ENCODING
        || *name == header::CONTENT_LENGTH
        || *name == header::TE
        || *name == header::TRAILER
        || *name == header::UPGRADE
        || *name == header::PROXY_AUTHENTICATE
        || *name == header::PROXY_AUTHORIZATION
        || matches!(
            name.as_str(),
            "keep-alive" | "proxy-connection" | "http2-settings"
        )
}

fn sends_elsewhere(name: &HeaderName) -> bool {
    *name == header::LOCATION || *name == header::CONTENT_LOCATION || *name == header::REFRESH
}

fn stays_with_us(name: &HeaderName) -> bool {
    *name == header::HOST
        || *name == header::ORIGIN
        || *name == header::AUTHORIZATION
        || *name == header::COOKIE
        || *name == header::EXPECT
        || *name == header::FORWARDED
        || *name == SESSION_ID
        || *name == LAST_EVENT_ID
        || name.as_str().starts_with("x-mcp-")
        || name.as_str().starts_with("x-forwarded-")
        || *name == header::ACCEPT_ENCODING
}

/// The headers named by `Connection`, which are hop-by-hop too.
fn nominated(headers: &HeaderMap) -> Vec<HeaderName> {
    let values = headers.get_all(header::CONNECTION).iter();
    let texts = values.filter_map(|value| value.to_str().ok());
    texts
        .flat_map(|text| text.split(','))
        .map(str::trim)
        .filter(|name| {
            !name.eq_ignore_ascii_case("close") && !name.eq_ignore_ascii_case("keep-alive")
        })
        .filter_map(|name| name.parse().ok())
        // `Connection: mcp-method` must not strip what the protocol needs.
        .filter(|name: &HeaderName| !name.as_str().starts_with("mcp-"))
        .filter(|name| *name != header::ACCEPT && *name != header::CONTENT_TYPE)
        .collect()
}

/// The headers of a client's request as its server may see them, without `Host`, session id and `Last-Event-ID`, which
/// the caller adds as they are to be.
///
/// `Accept-Encoding` stays here, so that servers answer in plain bytes which can be followed event by event.
#[must_use]
pub fn to_server(headers: &HeaderMap) -> HeaderMap {
    let nominated = nominated(headers);
    let mut passed = HeaderMap::with_capacity(headers.keys_len() + 4);
    for (name, value) in headers {
        if !(is_hop_by_hop(name) || stays_with_us(name) || nominated.contains(name)) {
            passed.append(name, value.clone());
        }
    }
    passed
}

/// The headers of a server's answer as its client may see them, without the session id.
pub fn to_client(headers: &mut HeaderMap) {
    let nominated = nominated(headers);
    let out: Vec<HeaderName> = headers
        .keys()
        .filter(|name| {
            // The length of a body that passes untouched is the client's to know.
            (is_hop_by_hop(name) && **name != header::CONTENT_LENGTH)
                || **name == header::SET_COOKIE
                || **name == SESSION_ID
                || **name == LOST
                || sends_elsewhere(name)
                || name.as_str().starts_with("access-control-")
                || nominated.contains(name)
        })
        .cloned()
        .collect();
    for name in out {
        headers.remove(name);
    }
}

/// Whether an answer is an event stream.
#[must_use]
pub fn is_event_stream(headers: &HeaderMap) -> bool {
    media_type(headers).is_some_and(|kind| kind.eq_ignore_ascii_case("text/event-stream"))
}

/// Whether a request's body says it is JSON.
#[must_use]
pub fn is_json(headers: &HeaderMap) -> bool {
    media_type(headers).is_some_and(|kind| kind.eq_ignore_ascii_case("application/json"))
}

fn media_type(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    value.split(';').next().map(str::trim)
}

/// What every event stream carries so that no proxy holds it back.
pub fn mark_stream(headers: &mut HeaderMap) {
    headers.insert(ACCEL_BUFFERING, HeaderValue::from_static("no"));
    headers.insert(
        header::CACHE_CONTROL,
        HeaderValue::from_static("no-cache, no-transform"),
    );
}
