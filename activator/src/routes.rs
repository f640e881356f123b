//! The table of contents: which path and method is whose, and what stands in front of all of them.

use axum::{
    Router,
    body::Body,
    http::{HeaderValue, Method, Response, StatusCode, Uri, header},
    middleware::from_fn_with_state,
    response::IntoResponse,
    routing::MethodRouter,
};
use mcp_gateway_api::{
    backend::Transport,
    failure::{Failure, FailureKind},
    ids::BackendName,
};

use crate::{edge, error::Refusal, exchange, gateway::Gateway, sse_transport, streams};

/// What `/mcp` takes; `OPTIONS` is taken everywhere.
const MCP: &[Method] = &[Method::GET, Method::POST, Method::DELETE];
/// What it takes of whoever names no session: there is neither a stream to open nor anything to end.
const SESSIONLESS: &[Method] = &[Method::POST];
/// What it takes in a session of a server that has no stream to open.
const STREAMLESS: &[Method] = &[Method::POST, Method::DELETE];
/// What `/sse` takes, and `/mcp` of a backend that speaks 2024-11-05.
const STREAM: &[Method] = &[Method::GET];
/// What `/messages` takes.
const MESSAGES: &[Method] = &[Method::POST];

/// All routes of the data plane. `extra` (the list of backends at `/`, say) gets the same edge in front.
pub(crate) fn router(gateway: &Gateway, extra: Router) -> Router {
    let mcp = MethodRouter::new()
        .get(streams::legacy::get)
        .post(exchange::post)
        .head(wrong_method)
        .options(options)
        .delete(exchange::delete::delete)
        .fallback(wrong_method);
    let sse = MethodRouter::new()
        .get(sse_transport::get)
        .head(wrong_method)
        .options(options)
        .fallback(wrong_method);
    let messages = MethodRouter::new()
        .post(sse_transport::post::post)
        .options(options)
        .fallback(wrong_method);
    Router::new()
        .route("/adapters/{backend}/mcp", mcp)
        .route("/adapters/{backend}/sse", sse)
        .route("/adapters/{backend}/messages", messages)
        .with_state(gateway.clone())
        .merge(extra)
        .fallback(unknown)
        .layer(from_fn_with_state(gateway.clone(), edge::guard))
}

/// A method that the path never takes. Asked before anybody is: it tells nothing of the backend.
async fn wrong_method(uri: Uri) -> Response<Body> {
    let failure = Failure::new(FailureKind::Method, "This path knows no such method.");
    let mut response = Refusal::from(failure).into_response();
    let allow = names(methods(&uri));
    response.headers_mut().insert(header::ALLOW, allow);
    response
}

fn methods(uri: &Uri) -> &'static [Method] {
    match uri.path().rsplit('/').next() {
        Some("sse") => STREAM,
        Some("messages") => MESSAGES,
        Some(_) | None => MCP,
    }
}

fn names(methods: &[Method]) -> HeaderValue {
    let texts = methods.iter().map(Method::as_str).chain(["OPTIONS"]);
    let list = texts.collect::<Vec<_>>().join(", ");
    // Names of methods are fit for a header.
    HeaderValue::try_from(list).unwrap_or(HeaderValue::from_static("OPTIONS"))
}

/// `Allow` of a 405 of `/mcp` itself: its caller is known, and so may be told how the backend is spoken to.
pub(crate) fn allow(gateway: &Gateway, uri: &Uri, in_session: bool) -> HeaderValue {
    let name = uri.path().split('/').nth(2);
    let name = name.and_then(|name| BackendName::new(name).ok());
    let catalog = gateway.deps.catalog.borrow();
    let backend = name.and_then(|name| catalog.get(&name));
    let streams = backend.is_some_and(|backend| backend.launch.transport == Transport::Sse);
    names(match (streams, in_session) {
        (true, _) => STREAM,
        (false, true) => STREAMLESS,
        (false, false) => SESSIONLESS,
    })
}

async fn unknown() -> impl IntoResponse {
    Refusal::from(Failure::new(
        FailureKind::UnknownBackend,
        "There is nothing here. GET / lists the backends.",
    ))
}

/// `OPTIONS` that is no preflight.
async fn options(uri: Uri) -> impl IntoResponse {
    let allow = names(methods(&uri));
    (StatusCode::NO_CONTENT, [(header::ALLOW, allow)])
}
