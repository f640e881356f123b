//! What request headers must say, and what they say about the era. Pure.

use base64::{Engine, engine::general_purpose::STANDARD};
use http::{HeaderMap, StatusCode, header};
use mcp_gateway_api::revision::{Era, Revision};

use super::{
    message::{Kind, Message},
    refusal::{Refusal, code},
};

#[cfg(test)]
mod tests;

/// Revision of the exchange.
pub(super) const VERSION: &str = "mcp-protocol-version";
/// Session id (legacy).
pub(super) const SESSION: &str = "mcp-session-id";
const METHOD: &str = "mcp-method";
const NAME: &str = "mcp-name";

/// A header's value, if it is there once and is text.
pub(super) fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok().map(str::trim)
}

/// Refuses what two readers could read differently.
pub(super) fn check_single(headers: &HeaderMap) -> Result<(), Refusal> {
    for name in [VERSION, METHOD, NAME, SESSION] {
        if headers.get_all(name).iter().nth(1).is_some() {
            return Err(Refusal::bad(
                code::HEADER_MISMATCH,
                format!("the header {name} stands more than once"),
            ));
        }
    }
    Ok(())
}

/// Whether a media type is accepted. Without `Accept` everything is (RFC 9110 §12.5.1).
pub(super) fn accepts(headers: &HeaderMap, kind: &str, subtype: &str) -> bool {
    let mut any = false;
    for value in headers.get_all(header::ACCEPT) {
        any = true;
        let Ok(value) = value.to_str() else { continue };
        for range in value.split(',') {
            let range = range.split(';').next().unwrap_or_default().trim();
            if let Some((k, s)) = range.split_once('/')
                && (k == "*" || k.eq_ignore_ascii_case(kind))
                && (s == "*" || s.eq_ignore_ascii_case(subtype))
            {
                return true;
            }
        }
    }
    !any
}

/// A POST must take both kinds of answer, since the server chooses (all revisions, "Sending Messages").
pub(super) fn check_post(headers: &HeaderMap) -> Result<(), Refusal> {
    if !accepts(headers, "application", "json") || !accepts(headers, "text", "event-stream") {
        return Err(Refusal::new(
            StatusCode::NOT_ACCEPTABLE,
            code::MEDIA_TYPE,
            "Accept must list both application/json and text/event-stream",
        ));
    }
    let json = text(headers, header::CONTENT_TYPE.as_str()).is_some_and(|t| {
        let essence = t.split(';').next().unwrap_or_default().trim();
        essence.eq_ignore_ascii_case("application/json")
    });
    if json {
        Ok(())
    } else {
        Err(Refusal::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            code::MEDIA_TYPE,
            "Content-Type must be application/json",
        ))
    }
}

/// Whether a request belongs to the modern era, in the order on which SDKs agree: the version header if there is one;
/// else whatever only a legacy client sends; else the body's `_meta`.
pub(super) fn is_modern(headers: &HeaderMap, single: Option<&Message<'_>>) -> bool {
    if let Some(version) = text(headers, VERSION) {
        return version
            .parse::<Revision>()
            .map_or(true, |r| r.era() == Era::Modern);
    }
    let Some(message) = single else {
        return false;
    };
    !headers.contains_key(SESSION)
        && message.method() != "initialize"
        && !matches!(message.kind, Kind::Response { .. })
        && message.version().is_some()
}

/// Checks a modern request: `_meta` is complete and the headers mirror the body (2026-07-28 Streamable HTTP, "Server
/// Validation"; the order is `mcp`'s on `PyPI`).
pub(super) fn check_modern(headers: &HeaderMap, message: &Message<'_>) -> Result<(), Refusal> {
    let id = message.id();
    if !message.has_meta() || message.version().is_none() || !message.has_capabilities() {
        return Err(Refusal::bad(
            code::INVALID_PARAMS,
            "params._meta must hold io.modelcontextprotocol/protocolVersion and io.modelcontextprotocol/clientCapabilities",
        )
        .to(id));
    }
    let mismatch = |name: &str, what: &str| {
        Err(Refusal::bad(
            code::HEADER_MISMATCH,
            format!("the header {name} does not match {what}"),
        )
        .to(id))
    };
    let version = message
        .version()
        .and_then(|v| serde_json::from_str::<String>(v).ok());
    if version.is_none() || text(headers, VERSION) != version.as_deref() {
        return mismatch(VERSION, "the protocol version in params._meta");
    }
    if text(headers, METHOD) != Some(message.method()) {
        return mismatch(METHOD, "the method");
    }
    if let Some(Some(name)) = message.mirrored_name()
        && text(headers, NAME).and_then(decoded).as_deref() != Some(name.as_str())
    {
        return mismatch(NAME, "the name, URI or task id in params");
    }
    Ok(())
}

/// Decodes `=?base64?…?=`; `None` if that is malformed (SEP-2243).
fn decoded(value: &str) -> Option<String> {
    let Some(inner) = value
        .strip_prefix("=?base64?")
        .and_then(|v| v.strip_suffix("?="))
    else {
        return Some(value.to_owned());
    };
    // The standard engine refuses what is not canonical.
    String::from_utf8(STANDARD.decode(inner).ok()?).ok()
}

/// The HTTP status of a modern answer (2026-07-28 Streamable HTTP, status table).
pub(super) const fn status_of(error: Option<i64>) -> StatusCode {
    match error {
        Some(-32601) => StatusCode::NOT_FOUND,
        Some(-32700 | -32600 | -32020 | -32021 | -32022) => StatusCode::BAD_REQUEST,
        Some(_) | None => StatusCode::OK,
    }
}
