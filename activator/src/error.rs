//! How a failure looks on the wire: status, headers and a JSON-RPC error. The only place that knows; the table for
//! people is `docs/errors.md`, which a test holds against this file.
//!
//! Codes of the gateway lie outside −32768 … −32000, which JSON-RPC and MCP reserve (2026-07-28 `basic/index.mdx`);
//! what the JSON-RPC specification itself names (parse error, invalid request) keeps its code.

use axum::{
    body::Body,
    http::{HeaderValue, Response, StatusCode, header},
    response::IntoResponse,
};
use bytes::Bytes;
use mcp_gateway_api::failure::{Failure, FailureKind};
use serde_json::json;

use crate::message::{Malformed, RequestId};

/// Every kind, in the order of the table.
pub const KINDS: [FailureKind; 16] = [
    FailureKind::BadRequest,
    FailureKind::Unauthenticated,
    FailureKind::Forbidden,
    FailureKind::UnknownBackend,
    FailureKind::Method,
    FailureKind::SessionGone,
    FailureKind::TooLarge,
    FailureKind::MediaType,
    FailureKind::Internal,
    FailureKind::Overloaded,
    FailureKind::Capacity,
    FailureKind::HoldTimeout,
    FailureKind::StartFailed,
    FailureKind::ShuttingDown,
    FailureKind::InstanceLost,
    FailureKind::RequestTimeout,
];

/// The HTTP status of a kind.
#[must_use]
pub const fn status(kind: FailureKind) -> StatusCode {
    match kind {
        FailureKind::BadRequest => StatusCode::BAD_REQUEST,
        FailureKind::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        FailureKind::MediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        FailureKind::Method => StatusCode::METHOD_NOT_ALLOWED,
        FailureKind::Unauthenticated => StatusCode::UNAUTHORIZED,
        FailureKind::Forbidden => StatusCode::FORBIDDEN,
        FailureKind::UnknownBackend | FailureKind::SessionGone => StatusCode::NOT_FOUND,
        FailureKind::Overloaded
        | FailureKind::Capacity
        | FailureKind::HoldTimeout
        | FailureKind::StartFailed
        | FailureKind::ShuttingDown => StatusCode::SERVICE_UNAVAILABLE,
        FailureKind::InstanceLost => StatusCode::BAD_GATEWAY,
        FailureKind::RequestTimeout => StatusCode::GATEWAY_TIMEOUT,
        FailureKind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// The JSON-RPC code of a kind.
#[must_use]
pub const fn code(kind: FailureKind) -> i32 {
    match kind {
        FailureKind::BadRequest => -31_400,
        FailureKind::Unauthenticated => -31_401,
        FailureKind::Forbidden => -31_403,
        FailureKind::UnknownBackend => -31_404,
        FailureKind::Method => -31_405,
        FailureKind::SessionGone => -31_410,
        FailureKind::TooLarge => -31_413,
        FailureKind::MediaType => -31_415,
        FailureKind::Internal => -31_500,
        FailureKind::Overloaded => -31_501,
        FailureKind::Capacity => -31_502,
        FailureKind::HoldTimeout => -31_503,
        FailureKind::StartFailed => -31_504,
        FailureKind::ShuttingDown => -31_505,
        FailureKind::InstanceLost => -31_520,
        FailureKind::RequestTimeout => -31_540,
    }
}

/// A kind as it stands in metrics, logs and `error.data.kind`.
#[must_use]
pub const fn label(kind: FailureKind) -> &'static str {
    match kind {
        FailureKind::BadRequest => "bad_request",
        FailureKind::TooLarge => "too_large",
        FailureKind::MediaType => "media_type",
        FailureKind::Method => "method",
        FailureKind::Unauthenticated => "unauthenticated",
        FailureKind::Forbidden => "forbidden",
        FailureKind::UnknownBackend => "unknown_backend",
        FailureKind::SessionGone => "session_gone",
        FailureKind::Overloaded => "overloaded",
        FailureKind::Capacity => "capacity",
        FailureKind::HoldTimeout => "hold_timeout",
        FailureKind::StartFailed => "start_failed",
        FailureKind::InstanceLost => "instance_lost",
        FailureKind::RequestTimeout => "request_timeout",
        FailureKind::ShuttingDown => "shutting_down",
        FailureKind::Internal => "internal",
    }
}

/// Marks the gateway's own 405, so that whoever knows the path can say what it takes (`Allow`).
#[derive(Debug, Clone, Copy)]
pub(crate) struct MethodRefused;

/// An exchange that the gateway itself answers with an error.
#[derive(Debug)]
pub struct Refusal {
    failure: Failure,
    // JSON-RPC's own code, where it has one for this.
    code: Option<i32>,
    id: Option<RequestId>,
}

impl Refusal {
    /// Names the request that is refused.
    #[must_use]
    pub fn of(mut self, id: Option<&RequestId>) -> Self {
        self.id = id.cloned();
        self
    }

    /// What kind of failure it is.
    #[must_use]
    pub const fn kind(&self) -> FailureKind {
        self.failure.kind
    }

    fn body(&self) -> Bytes {
        error_message(&self.failure, self.code, self.id.as_ref())
    }
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        Self {
            failure,
            code: None,
            id: None,
        }
    }
}

impl From<Malformed> for Refusal {
    fn from(malformed: Malformed) -> Self {
        Self {
            failure: Failure::new(
                FailureKind::BadRequest,
                format!("Not understood: {malformed}."),
            ),
            code: Some(malformed.code()),
            id: None,
        }
    }
}

/// A failure as one JSON-RPC error message. Without an id the member is left out, as MCP asks.
pub(crate) fn error_message(failure: &Failure, own: Option<i32>, id: Option<&RequestId>) -> Bytes {
    let retry = failure
        .retry_after
        .map(|after| u64::try_from(after.as_millis()).unwrap_or(u64::MAX));
    let mut data = json!({ "kind": label(failure.kind) });
    if let (Some(ms), Some(members)) = (retry, data.as_object_mut()) {
        members.insert("retryAfterMs".into(), ms.into());
    }
    let error = json!({
        "code": own.unwrap_or(code(failure.kind)),
        "message": failure.public,
        "data": data,
    });
    // The id goes back exactly as it came, so it is spliced in and not parsed.
    let text = id.map_or_else(
        || format!(r#"{{"jsonrpc":"2.0","error":{error}}}"#),
        |id| format!(r#"{{"jsonrpc":"2.0","id":{},"error":{error}}}"#, id.raw()),
    );
    Bytes::from(text)
}

fn log(failure: &Failure) {
    let kind = label(failure.kind);
    let why = failure.private.as_deref().unwrap_or_default();
    match failure.kind {
        FailureKind::Internal => tracing::error!(kind, why, "{}", failure.public),
        FailureKind::InstanceLost | FailureKind::RequestTimeout => {
            tracing::warn!(kind, why, "{}", failure.public);
        }
        // The autoscaler has told the cause once; here each of a hundred waiters would repeat it. The rest is the
        // client's own doing, which must not fill the operator's log.
        FailureKind::StartFailed
        | FailureKind::Overloaded
        | FailureKind::Capacity
        | FailureKind::HoldTimeout
        | FailureKind::BadRequest
        | FailureKind::TooLarge
        | FailureKind::MediaType
        | FailureKind::Method
        | FailureKind::Unauthenticated
        | FailureKind::Forbidden
        | FailureKind::UnknownBackend
        | FailureKind::SessionGone
        | FailureKind::ShuttingDown => tracing::debug!(kind, why, "{}", failure.public),
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response<Body> {
        log(&self.failure);
        crate::metrics::refused(self.failure.kind);
        let mut response = Response::new(Body::from(self.body()));
        *response.status_mut() = status(self.failure.kind);
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/json"),
        );
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if self.failure.kind == FailureKind::Unauthenticated {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if status(self.failure.kind) == StatusCode::SERVICE_UNAVAILABLE {
            let after = self.failure.retry_after.unwrap_or_default();
            headers.insert(
                header::RETRY_AFTER,
                HeaderValue::from(after.as_secs().max(1)),
            );
        }
        if self.failure.kind == FailureKind::Method {
            response.extensions_mut().insert(MethodRefused);
        }
        response
    }
}

#[cfg(test)]
mod tests;
