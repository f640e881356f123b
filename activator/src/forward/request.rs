//! The request as it goes to a server: the client's bytes, the client's headers but for those that stay here
//! ([`crate::edge::headers`]), and what the gateway adds.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use axum::http::{HeaderMap, HeaderValue, Method, Request, Uri, header};
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use mcp_gateway_api::{
    ids::UpstreamSession,
    view::{InstanceView, SECRET_HEADER},
};

use tokio::sync::oneshot;

use crate::edge::headers::{LAST_EVENT_ID, SESSION_ID};

/// A request's body. The connection drops it when it has taken it all, or when the request is given up; whoever waits
/// for that is told by the sender's drop.
#[derive(Default)]
pub(crate) struct SentBody {
    bytes: Option<Bytes>,
    // Held for its drop.
    _written: Option<oneshot::Sender<()>>,
}

impl SentBody {
    /// A body of these bytes.
    #[must_use]
    pub(crate) const fn new(bytes: Bytes) -> Self {
        Self {
            bytes: Some(bytes),
            _written: None,
        }
    }

    /// Also tells when it was written.
    #[must_use]
    pub(crate) fn telling(mut self, written: Option<oneshot::Sender<()>>) -> Self {
        self._written = written;
        self
    }
}

impl Body for SentBody {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let bytes = self.bytes.take().filter(|bytes| !bytes.is_empty());
        Poll::Ready(bytes.map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.bytes.as_ref().is_none_or(Bytes::is_empty)
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
    }
}

/// What goes with a request beyond the client's own headers.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Extras<'a> {
    /// The session's id on that server.
    pub(crate) session: Option<&'a UpstreamSession>,
    /// To resume a stream; only an id seen on the current upstream session.
    pub(crate) last_event_id: Option<&'a HeaderValue>,
    /// The query of the client's URL, passed as it is.
    pub(crate) query: Option<&'a str>,
}

/// Builds a request to an instance's endpoint. `headers` are already those of [`crate::edge::headers::to_server`].
#[must_use]
pub(crate) fn build(
    method: Method,
    to: &InstanceView,
    headers: HeaderMap,
    extras: Extras<'_>,
    body: SentBody,
) -> Request<SentBody> {
    let mut request = Request::new(body);
    *request.method_mut() = method;
    *request.uri_mut() = target(&to.endpoint.path, extras.query);
    *request.headers_mut() = headers;
    let headers = request.headers_mut();
    if let Ok(host) = HeaderValue::from_str(&to.endpoint.host) {
        headers.insert(header::HOST, host);
    }
    if let Some(mut secret) = to
        .endpoint
        .secret
        .as_ref()
        .and_then(|secret| HeaderValue::from_str(&secret.0).ok())
    {
        // A bridge in a pod answers nobody else. Marked, so that no `Debug` of a request shows it.
        secret.set_sensitive(true);
        headers.insert(SECRET_HEADER, secret);
    }
    if let Some(session) = extras
        .session
        .and_then(|id| HeaderValue::from_str(&id.0).ok())
    {
        headers.insert(SESSION_ID, session);
    }
    if let Some(id) = extras.last_event_id {
        headers.insert(LAST_EVENT_ID, id.clone());
    }
    request
}

fn target(path: &str, query: Option<&str>) -> Uri {
    let parsed = match query {
        None => path.parse(),
        Some(query) => format!("{path}?{query}").parse(),
    };
    // The registry checked the path when it read the document, and the query came in a valid URI.
    parsed.unwrap_or_else(|_invalid| Uri::from_static("/"))
}
