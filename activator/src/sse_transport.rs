//! 2024-11-05 HTTP+SSE: a stream that carries all of the server's messages, and a place to post the client's.
//!
//! The stream is the session. Opening it sends our own `endpoint` event and wakes nothing; the first POST launches the
//! server, opens its stream and pipes that into the client's. A pending request holds a lease, the stream does not: when
//! the instance idles out the client's stream stays, and the next POST revives, by replaying the handshake that this
//! channel remembers. The client's closing its stream ends the session.
//! Invariants: the server's `endpoint` event never reaches the client; a channel is its principal's only; what the server
//! sends passes as it is. Never: converts into another transport.

pub(crate) mod channel;
pub(crate) mod dial;
pub(crate) mod post;
pub(crate) mod stream;
mod wake;

use axum::{
    body::Body,
    extract::State,
    http::{HeaderMap, Response},
    response::IntoResponse,
};
use mcp_gateway_api::{
    backend::Transport,
    failure::{Failure, FailureKind},
};

use self::{channel::Channel, stream::ChannelStream};
use crate::{
    caller::Caller,
    error::Refusal,
    gateway::Gateway,
    streams::{event_stream, right::Right},
};

/// `GET /adapters/{backend}/sse`.
pub(crate) async fn get(
    State(gateway): State<Gateway>,
    caller: Caller,
    headers: HeaderMap,
) -> Response<Body> {
    let opened = open(&gateway, &caller, &headers);
    opened.unwrap_or_else(|failure| Refusal::from(failure).into_response())
}

/// Opens a stream; wakes nothing.
///
/// # Errors
/// The backend speaks another transport, or too many streams are open.
pub(crate) fn open(
    gateway: &Gateway,
    caller: &Caller,
    headers: &HeaderMap,
) -> Result<Response<Body>, Failure> {
    speaks(caller)?;
    let right = Right::of(gateway, caller)?;
    let (channel, inbox) = Channel::open(gateway, caller, headers)?;
    let endpoint = endpoint(gateway, caller);
    let stream = ChannelStream::new(gateway.clone(), channel, inbox, right, endpoint);
    Ok(event_stream(None, stream))
}

/// Refuses a backend that is served over Streamable HTTP only.
///
/// # Errors
/// `UnknownBackend`.
fn speaks(caller: &Caller) -> Result<(), Failure> {
    match caller.backend.launch.transport {
        Transport::Sse | Transport::Stdio => Ok(()),
        Transport::StreamableHttp => Err(Failure::new(
            FailureKind::UnknownBackend,
            "This backend does not speak the 2024-11-05 transport. Use its /mcp URL.",
        )),
    }
}

/// Where to post, relative to the root, as far as the channel's own name: clients refuse another origin.
fn endpoint(gateway: &Gateway, caller: &Caller) -> String {
    let public = gateway.config.public_url.as_deref();
    let prefix = public
        .and_then(|url| url.parse::<http::Uri>().ok())
        .map(|url| url.path().trim_end_matches('/').to_owned())
        .unwrap_or_default();
    format!("{prefix}/adapters/{}/messages", caller.backend.name)
}
