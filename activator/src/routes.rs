//! The table of contents: which path and method is whose, and what stands in front of all of them.

use axum::{
    Router,
    http::{HeaderValue, StatusCode, header},
    middleware::from_fn_with_state,
    response::IntoResponse,
    routing::MethodRouter,
};
use mcp_gateway_api::failure::{Failure, FailureKind};

use crate::{edge, error::Refusal, exchange, gateway::Gateway, sse_transport, streams};

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

async fn wrong_method() -> impl IntoResponse {
    Refusal::from(Failure::new(
        FailureKind::Method,
        "This path knows no such method.",
    ))
}

async fn unknown() -> impl IntoResponse {
    Refusal::from(Failure::new(
        FailureKind::UnknownBackend,
        "There is nothing here. GET / lists the backends.",
    ))
}

/// `OPTIONS` that is no preflight.
async fn options() -> impl IntoResponse {
    let allow = HeaderValue::from_static("GET, POST, DELETE, OPTIONS");
    (StatusCode::NO_CONTENT, [(header::ALLOW, allow)])
}
