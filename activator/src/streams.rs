//! What a client keeps open while nothing runs: the legacy GET stream and the modern `subscriptions/listen`.
//!
//! Neither holds a lease, so neither keeps an instance. While there is none the stream is parked: kept alive by comments,
//! and attached again after the next wake. Invariants: bytes pass untouched; a message passes on one stream only; nothing
//! is added but keep-alive comments, errors for requests whose server was lost, and, where the gateway itself ends a
//! listen stream, its completion result; and those only between events. Never: wakes anything (but a first listen), or answers a request.

pub(crate) mod attached;
mod get;
pub(crate) mod legacy;
pub(crate) mod listen;
mod place;
pub(crate) mod right;
mod sessionless;
pub(crate) mod share;

use std::{future::Future, io};

use axum::{
    body::Body,
    http::{HeaderMap, HeaderValue, Response, header, response::Parts},
};
use bytes::{Bytes, BytesMut};
use futures_util::stream;
use mcp_gateway_api::failure::Failure;

use crate::{edge::headers, error::error_message, message::RequestId};

/// A comment, which clients ignore.
pub(crate) const KEEP_ALIVE: Bytes = Bytes::from_static(b":\n\n");

/// Something that yields the next bytes of a client's stream; `None` ends it, an error breaks it off.
pub(crate) trait Source: Send + 'static {
    /// The next bytes.
    fn next(&mut self) -> impl Future<Output = Option<io::Result<Bytes>>> + Send;
}

/// A body that asks its source only when the client can take more; dropped with the client's connection.
pub(crate) fn body(source: impl Source) -> Body {
    let chunks = stream::unfold(Some(source), |source| async move {
        let mut source = source?;
        match source.next().await? {
            Ok(bytes) => Some((Ok(bytes), Some(source))),
            Err(error) => Some((Err(error), None)),
        }
    });
    Body::from_stream(chunks)
}

/// A 200 with an event stream: with the server's own headers where it has answered already.
pub(crate) fn event_stream(head: Option<Box<Parts>>, source: impl Source) -> Response<Body> {
    let mut response = Response::new(body(source));
    *response.headers_mut() = head.map_or_else(own_headers, |head| {
        let mut passed = head.headers;
        headers::to_client(&mut passed);
        passed.remove(header::CONTENT_LENGTH);
        passed
    });
    headers::mark_stream(response.headers_mut());
    response
}

fn own_headers() -> HeaderMap {
    let kind = HeaderValue::from_static("text/event-stream");
    HeaderMap::from_iter([(header::CONTENT_TYPE, kind)])
}

pub(crate) fn broken_off() -> io::Error {
    io::Error::new(
        io::ErrorKind::ConnectionAborted,
        "the server was lost within an event",
    )
}

/// One error event for each request.
pub(crate) fn error_events(failure: &Failure, waiting: &[RequestId]) -> Bytes {
    let mut events = BytesMut::new();
    for id in waiting {
        events.extend_from_slice(b"event: message\ndata: ");
        events.extend_from_slice(&error_message(failure, None, Some(id)));
        events.extend_from_slice(b"\n\n");
    }
    events.freeze()
}
