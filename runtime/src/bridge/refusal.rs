//! What the bridge itself answers when it answers for a server: a status, a JSON-RPC error, sentences without secrets.
//!
//! Codes of our own lie outside −32768…−32000, which belongs to JSON-RPC and MCP.

use http::{HeaderValue, Response, StatusCode, header};
use mcp_gateway_api::failure::ExitReport;
use serde_json::json;

use super::body::Body;

/// Header that tells the activator that a session was lost with its child, so that it may be revived.
pub(super) const LOST_HEADER: &str = "x-mcp-gateway-lost";

/// JSON-RPC codes the bridge uses.
pub(super) mod code {
    /// Not JSON.
    pub(in super::super) const PARSE: i64 = -32700;
    /// Not a message, or not one that may stand here.
    pub(in super::super) const INVALID_REQUEST: i64 = -32600;
    /// `_meta` lacks a required key (2026-07-28 basic).
    pub(in super::super) const INVALID_PARAMS: i64 = -32602;
    /// Headers and body disagree (2026-07-28 Streamable HTTP).
    pub(in super::super) const HEADER_MISMATCH: i64 = -32020;
    // Our own; the activator uses the same numbers (docs/errors.md).
    /// This method is none of the path's.
    pub(in super::super) const METHOD: i64 = -31405;
    /// No such session.
    pub(in super::super) const SESSION_GONE: i64 = -31410;
    /// The body is over the limit.
    pub(in super::super) const TOO_LARGE: i64 = -31413;
    /// Not JSON by its content type, or the client takes no answer we have.
    pub(in super::super) const MEDIA_TYPE: i64 = -31415;
    /// Too many open requests.
    pub(in super::super) const OVERLOADED: i64 = -31501;
    /// No room for another child.
    pub(in super::super) const CAPACITY: i64 = -31502;
    /// The server could not be started.
    pub(in super::super) const START_FAILED: i64 = -31504;
    /// The server was lost.
    pub(in super::super) const LOST: i64 = -31520;
}

/// An answer of the bridge's own.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) code: i64,
    pub(super) message: String,
    pub(super) data: Option<Box<serde_json::Value>>,
    /// The request's id as written; `null` when there is none.
    pub(super) id: String,
    header: Option<(&'static str, &'static str)>,
}

impl Refusal {
    /// One without id.
    pub(super) fn new(status: StatusCode, code: i64, message: impl Into<String>) -> Self {
        Self {
            status,
            code,
            message: message.into(),
            data: None,
            id: "null".to_owned(),
            header: None,
        }
    }

    /// 400.
    pub(super) fn bad(code: i64, message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, message)
    }

    /// 404 for a session that is not here.
    pub(super) fn no_session(lost: bool) -> Self {
        let out = Self::new(
            StatusCode::NOT_FOUND,
            code::SESSION_GONE,
            "there is no such session",
        );
        out.with_session(lost)
    }

    /// 405.
    pub(super) fn method(allow: &'static str) -> Self {
        let mut out = Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            code::METHOD,
            "this method is not allowed here",
        );
        out.header = Some(("allow", allow));
        out
    }

    /// 502: the child ended.
    pub(super) fn lost(report: &ExitReport) -> Self {
        Self::new(StatusCode::BAD_GATEWAY, code::LOST, sentence(report))
    }

    /// Says, if so, that the session was lost, too.
    pub(super) fn with_session(mut self, lost: bool) -> Self {
        self.header = lost.then_some((LOST_HEADER, "session")).or(self.header);
        self
    }

    /// 503: come back later.
    pub(super) fn unavailable(code: i64, message: impl Into<String>) -> Self {
        let mut out = Self::new(StatusCode::SERVICE_UNAVAILABLE, code, message);
        out.header = Some(("retry-after", "1"));
        out
    }

    /// Says that it holds for now only: whoever remembers how a server answers is not to remember this.
    pub(super) fn for_now(mut self) -> Self {
        self.header = Some(("cache-control", "no-store"));
        self
    }

    /// Answers the request of this id.
    pub(super) fn to(mut self, id: Option<&str>) -> Self {
        if let Some(id) = id {
            id.clone_into(&mut self.id);
        }
        self
    }

    /// Adds `data`.
    pub(super) fn with(mut self, data: serde_json::Value) -> Self {
        self.data = Some(Box::new(data));
        self
    }

    /// The JSON-RPC message.
    pub(super) fn text(&self) -> String {
        let mut error = json!({"code": self.code, "message": self.message});
        if let Some(data) = &self.data {
            error["data"] = serde_json::Value::clone(data);
        }
        format!(r#"{{"jsonrpc":"2.0","id":{},"error":{error}}}"#, self.id)
    }

    /// The HTTP answer.
    pub(super) fn response(&self) -> Response<Body> {
        let mut response = json_response(self.status, self.text());
        if let Some((name, value)) = self.header {
            response
                .headers_mut()
                .insert(name, HeaderValue::from_static(value));
        }
        response
    }
}

/// A JSON answer.
pub(super) fn json_response(status: StatusCode, text: String) -> Response<Body> {
    let mut response = Response::new(Body::full(text));
    *response.status_mut() = status;
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    response
}

/// An answer without a body.
pub(super) fn empty(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

/// How a child ended, for clients: nothing it wrote is in it.
pub(super) fn sentence(report: &ExitReport) -> String {
    match (report.code, report.signal) {
        (Some(code), _) => format!("the server exited with code {code}"),
        (None, Some(signal)) => format!("the server was killed by signal {signal}"),
        (None, None) => "the server was lost".to_owned(),
    }
}
