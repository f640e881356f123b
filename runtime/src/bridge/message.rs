//! One JSON-RPC message, read shallowly and changed by splicing.
//!
//! Invariants: nothing but the spliced values and line breaks (which JSON allows only between tokens) ever changes, so
//! that numbers, key order and unknown members reach the other side as they were written. Duplicate members of the
//! parts that are read are refused: two readers must not see two messages. Never builds a tree of values, never panics.

use std::{borrow::Cow, ops::Range};

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

mod key;
#[cfg(test)]
mod tests;

pub(super) use key::Key;

/// Why a text is no JSON-RPC message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Malformed {
    /// It is not JSON.
    #[error("the body is not JSON")]
    Json,
    /// It is JSON but no message: no object, bad or repeated members.
    #[error("the body is not a JSON-RPC message")]
    Shape,
}

/// What kind of message it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    /// It wants an answer.
    Request,
    /// It wants none.
    Notification,
    /// It answers; with the error's code when it is an error.
    Response {
        /// `Some` for errors.
        error: Option<i64>,
    },
}

fn present<'de: 'a, 'a, D: Deserializer<'de>>(d: D) -> Result<Option<&'a RawValue>, D::Error> {
    // `Option` alone would read `"id": null` as an absent id.
    <&RawValue>::deserialize(d).map(Some)
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(default)]
    jsonrpc: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "present")]
    id: Option<&'a RawValue>,
    #[serde(default)]
    method: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    params: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    result: Option<&'a RawValue>,
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
}

#[derive(Deserialize, Default)]
struct Params<'a> {
    #[serde(borrow, default, rename = "_meta")]
    meta: Option<&'a RawValue>,
    #[serde(borrow, default)]
    name: Option<&'a RawValue>,
    #[serde(borrow, default)]
    uri: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "taskId")]
    task: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "requestId")]
    request: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "progressToken")]
    token: Option<&'a RawValue>,
}

/// The members of `_meta` that mean something to the bridge, as raw JSON.
#[derive(Deserialize, Default)]
pub(super) struct Meta<'a> {
    #[serde(borrow, default, rename = "progressToken")]
    token: Option<&'a RawValue>,
    #[serde(
        borrow,
        default,
        rename = "io.modelcontextprotocol/protocolVersion",
        deserialize_with = "present"
    )]
    version: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "io.modelcontextprotocol/clientCapabilities")]
    capabilities: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "io.modelcontextprotocol/logLevel")]
    log_level: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "io.modelcontextprotocol/subscriptionId")]
    subscription: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct WithMeta<'a> {
    #[serde(borrow, default, rename = "_meta")]
    meta: Option<&'a RawValue>,
}

#[derive(Deserialize, Default)]
struct ErrorCode<'a> {
    #[serde(borrow, default)]
    code: Option<&'a RawValue>,
}

/// A message and where its interesting values stand in its text.
pub(super) struct Message<'a> {
    text: &'a str,
    /// Whether it says that it is JSON-RPC 2.0.
    pub(super) declared: bool,
    /// What it is.
    pub(super) kind: Kind,
    id: Option<&'a RawValue>,
    method: Cow<'a, str>,
    params: Option<Params<'a>>,
    meta: Option<Meta<'a>>,
    result: Option<&'a RawValue>,
    error: Option<&'a RawValue>,
}

impl std::fmt::Debug for Message<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Arguments and results are the user's, not the log's.
        f.debug_struct("Message")
            .field("kind", &self.kind)
            .field("method", &self.method)
            .finish_non_exhaustive()
    }
}

fn object<'a, T: Deserialize<'a>>(raw: &'a str) -> Option<T> {
    // Derived structs would also accept an array by position.
    if raw.trim_start().starts_with('{') {
        serde_json::from_str(raw).ok()
    } else {
        None
    }
}

impl<'a> Message<'a> {
    /// Reads one message.
    pub(super) fn parse(text: &'a str) -> Result<Self, Malformed> {
        let Some(env) = object::<Envelope<'a>>(text) else {
            let json = serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok();
            return Err(if json {
                Malformed::Shape
            } else {
                Malformed::Json
            });
        };
        let is_id = |id: &RawValue| Key::of(id.get()).is_some();
        // Hand-written servers send odd error objects; one that is no error at all would leave a client waiting.
        let error = env.error.map(|e| {
            let code = object::<ErrorCode<'a>>(e.get()).and_then(|e| e.code);
            code.and_then(|c| c.get().parse().ok()).unwrap_or_default()
        });
        let kind = match (&env.method, env.id) {
            (Some(_), Some(id)) if is_id(id) => Kind::Request,
            (Some(_), None) => Kind::Notification,
            (None, Some(id)) if env.result.is_some() || error.is_some() => {
                if !is_id(id) && id.get() != "null" {
                    return Err(Malformed::Shape);
                }
                Kind::Response { error }
            }
            (Some(_) | None, Some(_)) | (None, None) => return Err(Malformed::Shape),
        };
        let params = match env.params {
            Some(p) if p.get().starts_with('{') => {
                Some(object::<Params<'a>>(p.get()).ok_or(Malformed::Shape)?)
            }
            Some(_) | None => None,
        };
        let meta_raw = match (&params, env.result) {
            (Some(params), _) => params.meta,
            (None, Some(result)) if result.get().starts_with('{') => {
                object::<WithMeta<'a>>(result.get()).and_then(|r| r.meta)
            }
            (None, Some(_) | None) => None,
        };
        let meta = match meta_raw {
            Some(raw) if raw.get().starts_with('{') => {
                Some(object::<Meta<'a>>(raw.get()).ok_or(Malformed::Shape)?)
            }
            Some(_) | None => None,
        };
        Ok(Self {
            text,
            declared: env.jsonrpc.is_some_and(|v| v == "2.0"),
            kind,
            id: env.id,
            method: env.method.unwrap_or_default(),
            params,
            meta,
            result: env.result,
            error: env.error,
        })
    }

    /// The items of a batch, or `None` when the text is no array.
    pub(super) fn batch(text: &'a str) -> Option<Result<Vec<Self>, Malformed>> {
        if !text.trim_start().starts_with('[') {
            return None;
        }
        Some(
            serde_json::from_str::<Vec<&'a RawValue>>(text)
                .map_err(|_not_json| Malformed::Json)
                .and_then(|items| items.into_iter().map(|i| Self::parse(i.get())).collect()),
        )
    }

    /// The whole text.
    pub(super) const fn text(&self) -> &'a str {
        self.text
    }

    /// The method; empty for responses.
    pub(super) fn method(&self) -> &str {
        &self.method
    }

    /// The id as written.
    pub(super) fn id(&self) -> Option<&'a str> {
        self.id.map(RawValue::get)
    }

    /// The result as written.
    pub(super) fn result(&self) -> Option<&'a str> {
        self.result.map(RawValue::get)
    }

    /// The error object as written.
    pub(super) fn error(&self) -> Option<&'a str> {
        self.error.map(RawValue::get)
    }

    /// Whether there is a `_meta` object.
    pub(super) const fn has_meta(&self) -> bool {
        self.meta.is_some()
    }

    /// `_meta`'s protocol version as written.
    pub(super) fn version(&self) -> Option<&'a str> {
        self.meta.as_ref()?.version.map(RawValue::get)
    }

    /// Whether `_meta` declares client capabilities.
    pub(super) fn has_capabilities(&self) -> bool {
        self.meta
            .as_ref()
            .is_some_and(|m| m.capabilities.is_some_and(|c| c.get().starts_with('{')))
    }

    /// Whether `_meta` asks for log messages.
    pub(super) fn wants_logs(&self) -> bool {
        self.meta.as_ref().is_some_and(|m| m.log_level.is_some())
    }

    /// The parameter that `Mcp-Name` mirrors for this method (2026-07-28 transports, SEP-2663), decoded. The outer
    /// `Option` says whether the method has one.
    pub(super) fn mirrored_name(&self) -> Option<Option<String>> {
        let params = self.params.as_ref();
        let raw = match self.method() {
            "tools/call" | "prompts/get" => params.and_then(|p| p.name),
            "resources/read" => params.and_then(|p| p.uri),
            "tasks/get" | "tasks/update" | "tasks/cancel" => params.and_then(|p| p.task),
            _ => return None,
        };
        Some(raw.and_then(|r| serde_json::from_str(r.get()).ok()))
    }

    /// The progress token: of a request in `_meta`, of `notifications/progress` in `params`.
    pub(super) fn token(&self) -> Option<&'a str> {
        self.token_raw().map(RawValue::get)
    }

    fn token_raw(&self) -> Option<&'a RawValue> {
        if self.kind == Kind::Notification {
            self.params.as_ref()?.token
        } else {
            self.meta.as_ref()?.token
        }
    }

    /// `params.requestId` of `notifications/cancelled`.
    pub(super) fn cancelled(&self) -> Option<&'a str> {
        self.params.as_ref()?.request.map(RawValue::get)
    }

    /// `_meta`'s subscription id, in a notification's params or a response's result.
    pub(super) fn subscription(&self) -> Option<&'a str> {
        self.meta.as_ref()?.subscription.map(RawValue::get)
    }

    fn span(&self, raw: &RawValue) -> Range<usize> {
        // All raw values borrow from `text`, so the distance of the pointers is the offset.
        let start = raw.get().as_ptr() as usize - self.text.as_ptr() as usize;
        start..start + raw.get().len()
    }

    /// Begins an edit.
    pub(super) fn edit(&self) -> Edit<'_, 'a> {
        Edit {
            message: self,
            splices: Vec::new(),
        }
    }

    /// The text on one line, otherwise as it is.
    pub(super) fn line(&self) -> String {
        one_line(self.text)
    }
}

/// Line breaks stand only between tokens in JSON, where a blank means the same. Both framings (lines on stdio, `data:`
/// in server-sent events) end at them.
fn one_line(text: &str) -> String {
    text.trim().replace(['\n', '\r'], " ")
}

/// Replacements of whole values in a message.
pub(super) struct Edit<'m, 'a> {
    message: &'m Message<'a>,
    splices: Vec<(Range<usize>, String)>,
}

impl Edit<'_, '_> {
    fn replace(mut self, raw: Option<&RawValue>, with: &str) -> Self {
        if let Some(raw) = raw {
            self.splices.push((self.message.span(raw), with.to_owned()));
        }
        self
    }

    /// Another id.
    pub(super) fn id(self, with: &str) -> Self {
        let raw = self.message.id;
        self.replace(raw, with)
    }

    /// Another progress token, if there is one.
    pub(super) fn token(self, with: &str) -> Self {
        let raw = self.message.token_raw();
        self.replace(raw, with)
    }

    /// Another `params.requestId`, if there is one.
    pub(super) fn cancelled(self, with: &str) -> Self {
        let raw = self.message.params.as_ref().and_then(|p| p.request);
        self.replace(raw, with)
    }

    /// Another subscription id, if there is one.
    pub(super) fn subscription(self, with: &str) -> Self {
        let raw = self.message.meta.as_ref().and_then(|m| m.subscription);
        self.replace(raw, with)
    }

    /// The changed text, on one line.
    pub(super) fn line(mut self) -> String {
        self.splices.sort_by_key(|(range, _)| range.start);
        let text = self.message.text;
        let mut out = String::with_capacity(text.len() + 32);
        let mut at = 0;
        for (range, with) in &self.splices {
            out.push_str(&text[at..range.start]);
            out.push_str(with);
            at = range.end;
        }
        out.push_str(&text[at..]);
        one_line(&out)
    }
}
