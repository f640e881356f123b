//! Opening the server's stream, and replaying a handshake on it.
//!
//! What is read of the stream meanwhile and is the client's is kept, whole events at a time, and handed on with it.

use std::{sync::Arc, time::Duration};

use axum::http::{HeaderValue, Method, StatusCode, header};
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Uri};
use mcp_gateway_api::{
    backend::Transport,
    failure::{Failure, FailureKind},
    ids::UpstreamSession,
    record::{SessionBinding, SessionRecord},
    view::InstanceView,
};
use serde_json::json;

use crate::{
    caller::Caller,
    exchange::{
        initialize::{Promise, promise},
        opened,
    },
    forward::{
        self,
        request::{Extras, SentBody, build},
    },
    gateway::Gateway,
    lease::Lease,
    message::RequestId,
    session::handshake::Handshake,
    sse::{EventSummary, Seen},
    streams::attached::{self, Asked, Attached, Passed, ask},
};

/// The bridge's path for this transport; a backend of transport `sse` has its own.
const BRIDGE_PATH: &str = "/sse";
/// Longest a server may take for its `endpoint` event, or for an answer in a replay.
const PATIENCE: Duration = Duration::from_secs(30);
/// Most bytes kept while something is awaited.
const MAX_READ: usize = 4 << 20;

/// A server's stream, its `endpoint` event read.
pub(super) struct Dialled {
    pub(super) attached: Box<Attached>,
    pub(super) binding: SessionBinding,
    reader: Pieces,
    /// The client's, not passed yet.
    kept: Vec<Piece>,
}

/// A whole event as its bytes stand, or the bytes of one begun.
pub(super) type Piece = (Bytes, Option<EventSummary>);

/// Cuts what is read into whole events.
#[derive(Default)]
struct Pieces {
    buffer: BytesMut,
    // Where the buffer begins, in bytes from the start of the stream.
    at: u64,
}

impl Pieces {
    fn push(&mut self, bytes: &[u8], events: Vec<EventSummary>) -> Vec<(Bytes, EventSummary)> {
        self.buffer.extend_from_slice(bytes);
        let cut = |event: EventSummary| {
            let length = usize::try_from(event.end.saturating_sub(self.at)).unwrap_or(usize::MAX);
            let piece = self.buffer.split_to(length.min(self.buffer.len()));
            self.at = event.end;
            (piece.freeze(), event)
        };
        events.into_iter().map(cut).collect()
    }
}

/// Opens the server's stream on a leased instance.
///
/// # Errors
/// `InstanceLost` when it gives none.
pub(super) async fn dial(
    gateway: &Gateway,
    caller: &Caller,
    headers: &HeaderMap,
    lease: &Lease,
) -> Result<Dialled, Failure> {
    let view = at_path(lease.view(), caller.backend.launch.transport);
    let mut headers = headers.clone();
    headers.insert(
        header::ACCEPT,
        HeaderValue::from_static("text/event-stream"),
    );
    let request = build(
        Method::GET,
        &view,
        headers,
        Extras::default(),
        SentBody::default(),
    );
    let attached = match ask(gateway, &view, request).await.map_err(attached::lost)? {
        Asked::Stream(_, attached) => attached,
        Asked::Refused(head, _) => {
            return Err(lost(format!(
                "it answered {} to the GET of its stream",
                head.status.as_u16()
            )));
        }
    };
    let mut dialled = Dialled {
        attached,
        binding: SessionBinding {
            instance: view.id,
            upstream: UpstreamSession("".into()),
        },
        reader: Pieces::default(),
        kept: Vec::new(),
    };
    let named = dialled
        .until(|event| event.event.as_deref() == Some("endpoint"))
        .await?;
    let endpoint = named
        .1
        .plain
        .as_deref()
        .and_then(|text| resolve(&view.endpoint.path, text));
    let endpoint =
        endpoint.ok_or_else(|| lost("its endpoint event names no place to post to".into()))?;
    dialled.binding.upstream = UpstreamSession(endpoint.into());
    Ok(dialled)
}

fn at_path(view: &InstanceView, transport: Transport) -> Arc<InstanceView> {
    let mut view = view.clone();
    match transport {
        Transport::Stdio => view.endpoint.path = BRIDGE_PATH.into(),
        Transport::Sse | Transport::StreamableHttp => {}
    }
    Arc::new(view)
}

/// The path and query to post to. Whatever host the server believes to have, it is reached where it is.
fn resolve(stream: &str, named: &str) -> Option<String> {
    let named = named.trim();
    if named.starts_with('/') || named.contains("://") {
        let uri: Uri = named.parse().ok()?;
        return Some(uri.path_and_query()?.to_string());
    }
    let folder = stream.rsplit_once('/').map_or("", |(folder, _)| folder);
    let path = if named.starts_with('?') {
        format!("{stream}{named}")
    } else {
        format!("{folder}/{named}")
    };
    path.parse::<Uri>().ok().map(|_valid| path)
}

fn lost(why: String) -> Failure {
    Failure::new(FailureKind::InstanceLost, "The server gave no stream.").because(why)
}

/// What a POST to the server's endpoint is sent as.
pub(super) fn posting(
    view: &InstanceView,
    binding: &SessionBinding,
    headers: HeaderMap,
    body: SentBody,
) -> http::Request<SentBody> {
    let mut view = view.clone();
    let target: Result<Uri, _> = binding.upstream.0.parse();
    let query = target.as_ref().ok().and_then(|uri| uri.query());
    if let Ok(uri) = &target {
        view.endpoint.path = uri.path().into();
    }
    let extras = Extras {
        query,
        ..Extras::default()
    };
    build(Method::POST, &view, headers, extras, body)
}

impl Dialled {
    /// Everything, for the reader of the client's stream.
    pub(super) fn into_parts(mut self) -> (Box<Attached>, SessionBinding, Vec<Piece>) {
        if !self.reader.buffer.is_empty() {
            self.kept.push((self.reader.buffer.freeze(), None));
        }
        (self.attached, self.binding, self.kept)
    }

    /// Reads on until an event is the one awaited; what comes before and after it is kept.
    async fn until(
        &mut self,
        is_it: impl Fn(&EventSummary) -> bool,
    ) -> Result<(Bytes, EventSummary), Failure> {
        let read = async {
            let mut found = None;
            while found.is_none() {
                match self.attached.next().await {
                    Passed::Bytes(bytes, events) => {
                        for (piece, event) in self.reader.push(&bytes, events) {
                            if found.is_none() && is_it(&event) {
                                found = Some((piece, event));
                            } else {
                                self.kept.push((piece, Some(event)));
                            }
                        }
                    }
                    Passed::Service(_) => {}
                    Passed::Ended | Passed::Lost => {
                        return Err(lost("its stream ended at once".into()));
                    }
                }
                let kept: usize = self.kept.iter().map(|(piece, _)| piece.len()).sum();
                if kept + self.reader.buffer.len() > MAX_READ {
                    return Err(lost("it says too much before it answers".into()));
                }
            }
            found.ok_or_else(|| lost("nothing was found".into()))
        };
        let read = tokio::time::timeout(PATIENCE, read).await;
        read.unwrap_or_else(|_elapsed| Err(lost("it does not answer".into())))
    }

    /// Replays the handshake, and restores what the record says.
    ///
    /// # Errors
    /// `SessionGone` when the server promises something else now; `InstanceLost` when another try may do.
    pub(super) async fn replay(
        &mut self,
        gateway: &Gateway,
        lease: &Lease,
        headers: &HeaderMap,
        what: Replay<'_>,
    ) -> Result<(), Failure> {
        let params = what.handshake.params().ok_or_else(opened::gone)?;
        let body = format!(
            r#"{{"jsonrpc":"2.0","id":"gateway-revival","method":"initialize","params":{params}}}"#
        );
        let (answer, _) = self
            .exchange(gateway, lease, headers, body, Some("\"gateway-revival\""))
            .await?;
        let now = promise(&[answer])
            .ok_or_else(|| opened::gone().because("initialize gave no result"))?;
        if what.promised.is_some_and(|before| *before != now) {
            return Err(opened::gone().because("the server promises something else now"));
        }
        let initialized = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
        self.exchange(gateway, lease, headers, initialized.into(), None)
            .await?;
        let Some(record) = what.record else {
            return Ok(());
        };
        let level = record
            .log_level
            .as_ref()
            .map(|level| ("logging/setLevel", json!({ "level": level })));
        let uris = record
            .subscriptions
            .iter()
            .map(|uri| ("resources/subscribe", json!({ "uri": uri })));
        for (number, (method, params)) in level.into_iter().chain(uris).enumerate() {
            let id = format!("gateway-revival-{number}");
            let body = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
            let id = format!("\"{id}\"");
            self.exchange(gateway, lease, headers, body.to_string(), Some(&id))
                .await?;
        }
        Ok(())
    }

    /// Posts a message of the replay and, if it has an id, waits for its answer, which the client is not to see.
    async fn exchange(
        &mut self,
        gateway: &Gateway,
        lease: &Lease,
        headers: &HeaderMap,
        body: String,
        id: Option<&str>,
    ) -> Result<(Bytes, EventSummary), Failure> {
        let mut headers = headers.clone();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/json"),
        );
        let request = posting(
            lease.view(),
            &self.binding,
            headers,
            SentBody::new(body.into()),
        );
        let sent = gateway.upstreams.send(lease.view(), request).await;
        let response = sent.map_err(|error| forward::undelivered(error).into_failure())?;
        if response.status() == StatusCode::NOT_FOUND || !response.status().is_success() {
            return Err(lost(format!(
                "it answered {} to the replay",
                response.status().as_u16()
            )));
        }
        match id.and_then(|raw| RequestId::parse(raw).ok()) {
            Some(id) => self.until(|event| answers(event, &id)).await,
            None => Ok((Bytes::new(), EventSummary::default())),
        }
    }
}

/// What a revival must bring back.
pub(super) struct Replay<'a> {
    /// The client's.
    pub handshake: &'a Handshake,
    /// What the server promised in the first place, if its answer had passed.
    pub promised: Option<&'a Promise>,
    /// Log level and subscriptions.
    pub record: Option<&'a SessionRecord>,
}

/// Whether an event carries the answer to a request.
pub(super) fn answers(event: &EventSummary, id: &RequestId) -> bool {
    event.messages.iter().any(|seen| match seen {
        Seen::Response {
            id: Some(answered), ..
        } => answered == id,
        Seen::Response { id: None, .. } | Seen::Request { .. } | Seen::Notification { .. } => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_to_post_to_is_resolved_against_the_stream() {
        for (named, path) in [
            ("/messages?session_id=1", "/messages?session_id=1"),
            ("http://localhost:9/m?x=1", "/m?x=1"),
            ("messages/?s=1", "/api/messages/?s=1"),
            ("?s=1", "/api/sse?s=1"),
        ] {
            assert_eq!(resolve("/api/sse", named).as_deref(), Some(path), "{named}");
        }
        assert_eq!(resolve("/sse", "http://"), None);
        assert_eq!(resolve("/sse", "a b"), None);
    }

    #[test]
    fn pieces_are_whole_events_however_the_bytes_come() {
        let text =
            b"event: endpoint\ndata: /m\n\n: x\n\ndata: {\"id\":1,\"result\":1}\n\ndata: par";
        for size in 1..text.len() {
            let (mut scanner, mut pieces) = (crate::sse::Scanner::new(), Pieces::default());
            let mut whole = Vec::new();
            for chunk in text.chunks(size) {
                let events = scanner.push(chunk);
                whole.extend(pieces.push(chunk, events));
            }
            let texts: Vec<_> = whole.iter().map(|(piece, _)| &**piece).collect();
            assert_eq!(texts, [&text[..26], &text[26..58]]);
            assert_eq!(&pieces.buffer[..], b"data: par");
        }
    }
}
