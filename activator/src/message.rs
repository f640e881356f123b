//! What a POST body says, as far as the gateway needs to know: shallow, and never written back.
//!
//! Invariants: classifying never changes, re-serialises or keeps the body; what is taken out of it is bounded. Ids are
//! compared as JSON values, so that `1`, `1.0` and `1e0` are one id and `"a"` and `"\u0061"` are too.
//! Never: judges whether params are valid (the server does), trusts anything it reads for security.

mod id;

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

pub use self::id::{MAX_ID, RequestId};

/// Longest text taken out of `params`, in bytes; longer ones are as if absent.
pub const MAX_TEXT: usize = 4_096;
/// Most messages in a batch.
pub const MAX_BATCH: usize = 1_024;
/// The `_meta` key of the revision (2026-07-28 `basic/index.mdx`).
pub const META_VERSION: &str = "io.modelcontextprotocol/protocolVersion";

/// The few things the gateway reads from `params`. Each is absent when the body lacks it, gives it another type, or
/// makes it too long.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Params {
    /// `params.name`: tool or prompt.
    pub name: Option<Box<str>>,
    /// `params.uri`: resource.
    pub uri: Option<Box<str>>,
    /// `params.level` of `logging/setLevel`.
    pub level: Option<Box<str>>,
    /// `params.protocolVersion` of `initialize`.
    pub protocol_version: Option<Box<str>>,
    /// `params.requestId` of `notifications/cancelled`.
    pub request_id: Option<RequestId>,
    /// `params._meta.progressToken`.
    pub progress_token: Option<RequestId>,
    /// `params._meta["io.modelcontextprotocol/protocolVersion"]`: its presence makes a message modern.
    pub meta_version: Option<Box<str>>,
    /// `params._meta.traceparent`.
    pub traceparent: Option<Box<str>>,
}

/// A client's request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Its id.
    pub id: RequestId,
    /// Its method.
    pub method: Box<str>,
    /// What is read of its params.
    pub params: Box<Params>,
}

/// A notification.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notification {
    /// Its method.
    pub method: Box<str>,
    /// What is read of its params.
    pub params: Box<Params>,
}

/// The answer to a server's request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// The id it answers; an error may have none.
    pub id: Option<RequestId>,
    /// Whether it carries `error`.
    pub is_error: bool,
}

/// What a body says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// One request.
    Request(Request),
    /// One notification.
    Notification(Notification),
    /// One response.
    Response(Response),
    /// Several (2025-03-26); never empty, never nested.
    Batch(Vec<Message>),
}

impl Message {
    /// All single messages in it, in order.
    pub fn each(&self) -> impl Iterator<Item = &Self> {
        match self {
            Self::Batch(items) => items.iter(),
            Self::Request(_) | Self::Notification(_) | Self::Response(_) => {
                std::slice::from_ref(self).iter()
            }
        }
    }

    /// All requests in it, in order.
    pub fn requests(&self) -> impl Iterator<Item = &Request> {
        self.each().filter_map(|m| match m {
            Self::Request(r) => Some(r),
            Self::Notification(_) | Self::Response(_) | Self::Batch(_) => None,
        })
    }

    /// The first request, if any: the one whose id an error of the gateway carries.
    #[must_use]
    pub fn request(&self) -> Option<&Request> {
        self.requests().next()
    }

    /// Whether it holds only notifications and responses: nothing that is answered.
    #[must_use]
    pub fn is_silent(&self) -> bool {
        self.request().is_none()
    }

    /// Whether it is a batch.
    #[must_use]
    pub const fn is_batch(&self) -> bool {
        matches!(self, Self::Batch(_))
    }

    /// The method of a single request or notification.
    #[must_use]
    pub fn method(&self) -> Option<&str> {
        match self {
            Self::Request(r) => Some(&r.method),
            Self::Notification(n) => Some(&n.method),
            Self::Response(_) | Self::Batch(_) => None,
        }
    }

    /// What is read of the params of a single request or notification.
    #[must_use]
    pub fn params(&self) -> Option<&Params> {
        match self {
            Self::Request(r) => Some(&r.params),
            Self::Notification(n) => Some(&n.params),
            Self::Response(_) | Self::Batch(_) => None,
        }
    }
}

/// Why a body is not a JSON-RPC message. The sentences are safe to show.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Not JSON, or a member stands twice.
    #[error("the body is not valid JSON")]
    Json,
    /// JSON, but neither a request, a notification nor a response.
    #[error("the body is not a JSON-RPC 2.0 message")]
    Shape,
    /// An id that is no string and no number, or too long a one.
    #[error("a JSON-RPC id must be a string or a number")]
    Id,
    /// An empty, nested or too long batch.
    #[error("a batch must hold 1 to 1024 messages, none of them a batch")]
    Batch,
}

impl Malformed {
    /// The JSON-RPC code to answer with: parse error or invalid request.
    #[must_use]
    pub const fn code(self) -> i32 {
        match self {
            Self::Json => -32_700,
            Self::Shape | Self::Id | Self::Batch => -32_600,
        }
    }
}

// An explicit null is present: only so does `"id": null` differ from no id.
fn present<'de, D: Deserializer<'de>>(from: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(from).map(Some)
}

#[derive(Deserialize)]
struct Wire<'a> {
    #[serde(borrow, default, deserialize_with = "present")]
    jsonrpc: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    id: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    method: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    params: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    result: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    error: Option<&'a RawValue>,
}

#[derive(Deserialize, Default)]
struct WireParams<'a> {
    #[serde(borrow, default, deserialize_with = "present")]
    name: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    uri: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    level: Option<&'a RawValue>,
    #[serde(
        borrow,
        default,
        deserialize_with = "present",
        rename = "protocolVersion"
    )]
    protocol_version: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present", rename = "requestId")]
    request_id: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present", rename = "_meta")]
    meta: Option<&'a RawValue>,
}

#[derive(Deserialize, Default)]
struct WireMeta<'a> {
    #[serde(
        borrow,
        default,
        deserialize_with = "present",
        rename = "progressToken"
    )]
    progress_token: Option<&'a RawValue>,
    #[serde(
        borrow,
        default,
        deserialize_with = "present",
        rename = "io.modelcontextprotocol/protocolVersion"
    )]
    version: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    traceparent: Option<&'a RawValue>,
}

/// Says what a body is.
///
/// # Errors
/// It is no JSON-RPC message, or one out of bounds.
pub fn classify(body: &[u8]) -> Result<Message, Malformed> {
    let text = std::str::from_utf8(body).map_err(|_unspecific| Malformed::Json)?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if text.trim_start().starts_with('[') {
        return batch(text);
    }
    single(text)
}

fn batch(text: &str) -> Result<Message, Malformed> {
    let items: Vec<&RawValue> =
        serde_json::from_str(text).map_err(|_unspecific| Malformed::Json)?;
    if items.is_empty() || items.len() > MAX_BATCH {
        return Err(Malformed::Batch);
    }
    let one = |raw: &&RawValue| {
        if raw.get().starts_with('[') {
            Err(Malformed::Batch)
        } else {
            single(raw.get())
        }
    };
    items
        .iter()
        .map(one)
        .collect::<Result<_, _>>()
        .map(Message::Batch)
}

fn single(text: &str) -> Result<Message, Malformed> {
    if !text.trim_start().starts_with('{') {
        let json = serde_json::from_str::<&RawValue>(text).is_ok();
        return Err(if json {
            Malformed::Shape
        } else {
            Malformed::Json
        });
    }
    let wire: Wire<'_> = serde_json::from_str(text).map_err(|_unspecific| Malformed::Json)?;
    if wire.jsonrpc.and_then(text_of).as_deref() != Some("2.0") {
        return Err(Malformed::Shape);
    }
    match (wire.method, wire.result, wire.error) {
        (Some(method), None, None) => call(method, wire.id, wire.params),
        (None, Some(_), None) => Ok(Message::Response(Response {
            id: Some(required_id(wire.id)?),
            is_error: false,
        })),
        (None, None, Some(_)) => Ok(Message::Response(Response {
            id: match wire.id.filter(|raw| raw.get() != "null") {
                Some(raw) => Some(RequestId::parse(raw.get())?),
                None => None,
            },
            is_error: true,
        })),
        (Some(_), Some(_), _)
        | (Some(_), _, Some(_))
        | (None, Some(_), Some(_))
        | (None, None, None) => Err(Malformed::Shape),
    }
}

fn call(
    method: &RawValue,
    id: Option<&RawValue>,
    raw_params: Option<&RawValue>,
) -> Result<Message, Malformed> {
    let method = text_of(method).ok_or(Malformed::Shape)?;
    let params = Box::new(raw_params.map(params).unwrap_or_default());
    Ok(match id {
        Some(_) => Message::Request(Request {
            id: required_id(id)?,
            method,
            params,
        }),
        None => Message::Notification(Notification { method, params }),
    })
}

fn required_id(raw: Option<&RawValue>) -> Result<RequestId, Malformed> {
    RequestId::parse(raw.ok_or(Malformed::Id)?.get())
}

fn params(raw: &RawValue) -> Params {
    // Whatever does not read is absent: params are the server's to judge.
    let wire: WireParams<'_> = serde_json::from_str(raw.get()).unwrap_or_default();
    let meta: WireMeta<'_> = wire
        .meta
        .and_then(|raw| serde_json::from_str(raw.get()).ok())
        .unwrap_or_default();
    let id = |raw: &RawValue| RequestId::parse(raw.get()).ok();
    Params {
        name: wire.name.and_then(text_of),
        uri: wire.uri.and_then(text_of),
        level: wire.level.and_then(text_of),
        protocol_version: wire.protocol_version.and_then(text_of),
        request_id: wire.request_id.and_then(id),
        progress_token: meta.progress_token.and_then(id),
        meta_version: meta.version.and_then(text_of),
        traceparent: meta.traceparent.and_then(text_of),
    }
}

fn text_of(raw: &RawValue) -> Option<Box<str>> {
    if raw.get().len() > MAX_TEXT {
        return None;
    }
    serde_json::from_str(raw.get()).ok()
}

#[cfg(test)]
mod tests;
