//! The admin listener: `/status`, `/livez`, `/readyz`, `/healthz`, `/metrics`.
//!
//! Reads only. Liveness depends on nothing but this process; Host and Origin are checked as on the other listener.
//! Where other machines can reach it, they see health and metrics, under whatever Host (a kubelet names the pod's address);
//! the status, which holds the last words of servers, is for this machine alone unless its operator says otherwise.

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{RawQuery, Request, State},
    http::{HeaderMap, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::get,
};
use mcp_gateway_activator::edge::{self, hosts::HostRules, origins::OriginRules};
use mcp_gateway_api::{
    catalog::CatalogWatch,
    failure::{Failure, FailureKind},
    status::Status,
};
use mcp_gateway_control::Problems;
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{
    listen::Peer,
    report::{Report, urls},
    telemetry::MetricsPage,
};

/// Asks the autoscaler for its state.
pub(crate) type StatusSource =
    Arc<dyn Fn() -> Pin<Box<dyn Future<Output = Status> + Send>> + Send + Sync>;

/// Why the process is not ready to serve, if it is not.
pub(crate) type NotReady = Arc<dyn Fn() -> Option<&'static str> + Send + Sync>;

/// What other machines may see: nothing in it is anybody's.
const HARMLESS: [&str; 4] = ["/livez", "/readyz", "/healthz", "/metrics"];

/// How long the autoscaler may take to say how it is.
const STATUS_TIMEOUT: Duration = Duration::from_secs(5);

/// What the pages are made from.
#[derive(Clone)]
pub(crate) struct Admin {
    pub(crate) status: StatusSource,
    pub(crate) catalog: CatalogWatch,
    pub(crate) problems: watch::Receiver<Problems>,
    pub(crate) metrics: MetricsPage,
    /// Of the other listener, for the URLs of backends; without a final slash.
    pub(crate) base: Arc<str>,
    pub(crate) began: Instant,
    pub(crate) gate: Gate,
    /// Cancelled once the gateway shuts down: no longer ready.
    pub(crate) closing: CancellationToken,
    pub(crate) not_ready: NotReady,
}

/// Who may see what.
#[derive(Clone)]
pub(crate) struct Gate {
    /// Other machines can reach the listener.
    pub(crate) exposed: bool,
    /// They may see the status.
    pub(crate) open: bool,
    pub(crate) hosts: HostRules,
    pub(crate) origins: OriginRules,
}

/// The routes.
pub(crate) fn router(admin: Admin) -> Router {
    Router::new()
        .route("/status", get(status))
        .route("/livez", get(|| async { "alive\n" }))
        .route("/healthz", get(|| async { "alive\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .layer(middleware::from_fn_with_state(admin.clone(), guard))
        .with_state(admin)
}

async fn guard(State(admin): State<Admin>, request: Request, next: Next) -> Response {
    match admin.gate.admit(&request) {
        Ok(()) => next.run(request).await,
        Err(failure) => refuse(&failure),
    }
}

impl Gate {
    fn admit(&self, request: &Request) -> Result<(), Failure> {
        if self.exposed && HARMLESS.contains(&request.uri().path()) {
            return edge::check_origin(request.headers(), &self.origins);
        }
        edge::check(request.uri(), request.headers(), &self.hosts, &self.origins)?;
        let peer = request.extensions().get::<Peer>();
        let here = peer.is_some_and(|Peer(ip)| ip.is_loopback());
        if self.exposed && !self.open && !here {
            return Err(Failure::new(
                FailureKind::Forbidden,
                "Only health and metrics are shown to other machines. Ask on the gateway's own machine (or by 'kubectl \
                 port-forward'), or let its operator start it with --admin-allow-anonymous.",
            ));
        }
        Ok(())
    }
}

/// A refusal of the edge as plain text, for paths that speak no JSON-RPC.
fn refuse(failure: &Failure) -> Response {
    let status = if failure.kind == FailureKind::Forbidden {
        StatusCode::FORBIDDEN
    } else {
        StatusCode::BAD_REQUEST
    };
    (status, format!("{}\n", failure.public)).into_response()
}

async fn ready(State(admin): State<Admin>) -> Response {
    let why = if admin.closing.is_cancelled() {
        Some("shutting down")
    } else {
        (admin.not_ready)()
    };
    match why {
        Some(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")).into_response(),
        None => "ready\n".into_response(),
    }
}

async fn status(
    State(admin): State<Admin>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    let Ok(status) = tokio::time::timeout(STATUS_TIMEOUT, (admin.status)()).await else {
        let text = "The autoscaler did not say how it is within 5 s.\n";
        return (StatusCode::GATEWAY_TIMEOUT, text).into_response();
    };
    let report = Report {
        version: env!("CARGO_PKG_VERSION"),
        uptime_ms: u64::try_from(admin.began.elapsed().as_millis()).unwrap_or(u64::MAX),
        urls: urls(&admin.catalog.borrow(), &admin.base),
        status,
        problems: admin.problems.borrow().to_vec(),
    };
    if wants_text(query.as_deref(), &headers) {
        report.text().into_response()
    } else {
        axum::Json(report).into_response()
    }
}

async fn metrics(State(admin): State<Admin>) -> Response {
    match admin.metrics.render() {
        Ok(text) => {
            let kind = "text/plain; version=0.0.4; charset=utf-8";
            ([(header::CONTENT_TYPE, kind)], text).into_response()
        }
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "the metrics page failed");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

/// Whether a person at a terminal, or in a browser, is asking: `?format=` decides, then `Accept`, then the program.
pub(crate) fn wants_text(query: Option<&str>, headers: &HeaderMap) -> bool {
    match query.and_then(|query| {
        query
            .split('&')
            .find_map(|pair| pair.strip_prefix("format="))
    }) {
        Some("text") => return true,
        Some("json") => return false,
        Some(_) | None => {}
    }
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let accept = text(header::ACCEPT).unwrap_or("*/*");
    if accept.contains("application/json") {
        return false;
    }
    if accept.contains("text/") {
        return true;
    }
    let agent = text(header::USER_AGENT)
        .unwrap_or_default()
        .to_ascii_lowercase();
    ["curl/", "wget/", "httpie/"]
        .iter()
        .any(|known| agent.starts_with(known))
}

#[cfg(test)]
mod tests;
