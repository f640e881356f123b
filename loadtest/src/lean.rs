//! A server that costs next to nothing, so that what a proxy costs can be seen.
//!
//! Speaks just enough MCP to be initialized, called and ended: every request gets
//! the same small JSON result. It is no example of how to write a server.

use std::convert::Infallible;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::net::TcpListener;

/// Largest body that is read.
const MAX_BODY: usize = 4 * 1024 * 1024;

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    method: Option<&'a str>,
}

/// Serves `/mcp` and `/healthz` until the process ends.
pub async fn serve(listener: TcpListener) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            continue;
        };
        // Without it small answers wait for the peer's delayed ACK.
        if stream.set_nodelay(true).is_err() {
            continue;
        }
        tokio::spawn(
            http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(answer)),
        );
    }
}

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (parts, body) = request.into_parts();
    if parts.method == Method::DELETE {
        return Ok(empty(StatusCode::NO_CONTENT));
    }
    if parts.method != Method::POST {
        let status = if parts.uri.path() == "/healthz" {
            StatusCode::OK
        } else {
            StatusCode::METHOD_NOT_ALLOWED
        };
        return Ok(empty(status));
    }
    let Ok(body) = Limited::new(body, MAX_BODY).collect().await else {
        return Ok(empty(StatusCode::BAD_REQUEST));
    };
    Ok(
        match serde_json::from_slice::<Envelope<'_>>(&body.to_bytes()) {
            Ok(Envelope {
                id: Some(id),
                method: Some("initialize"),
            }) => initialized(id),
            Ok(Envelope {
                id: Some(id),
                method: Some(_),
            }) => json(format!(
                r#"{{"jsonrpc":"2.0","id":{id},"result":{{"content":[{{"type":"text","text":"hello"}}],"isError":false}}}}"#
            )),
            Ok(_) => empty(StatusCode::ACCEPTED),
            Err(_) => empty(StatusCode::BAD_REQUEST),
        },
    )
}

fn initialized(id: &RawValue) -> Response<Full<Bytes>> {
    let mut answer = json(format!(
        r#"{{"jsonrpc":"2.0","id":{id},"result":{{"protocolVersion":"2025-11-25","capabilities":{{"tools":{{}}}},"serverInfo":{{"name":"lean","version":"0"}}}}}}"#
    ));
    let session = format!("{:032x}", rand::random::<u128>());
    if let Ok(session) = HeaderValue::from_str(&session) {
        answer.headers_mut().insert("mcp-session-id", session);
    }
    answer
}

fn json(text: String) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::new(Bytes::from(text)));
    answer
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}

fn empty(status: StatusCode) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::default());
    *answer.status_mut() = status;
    answer
}
