//! One MCP client session on one kept HTTP/1.1 connection.
//!
//! As little of its own as possible stands between the clock and the wire: no
//! pool, no redirects, no parsing of answers beyond telling a result from an
//! error. It never opens a second connection.

use anyhow::{Context as _, bail};
use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, HOST};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::target::Target;

/// Largest answer that is read.
const MAX_ANSWER: usize = 64 * 1024 * 1024;
/// Revision of the measured sessions.
const REVISION: &str = "2025-11-25";
const REVISION_HEADER: HeaderName = HeaderName::from_static("mcp-protocol-version");
const SESSION: HeaderName = HeaderName::from_static("mcp-session-id");

/// A connection, and after [`Client::initialize`] a session on it.
#[derive(Debug)]
pub struct Client {
    sender: SendRequest<Full<Bytes>>,
    path: String,
    headers: HeaderMap,
}

impl Client {
    /// Connects, without Nagle's algorithm; sends nothing.
    ///
    /// # Errors
    /// The target refuses connections or its name is no header value.
    pub async fn connect(target: &Target) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(&target.authority)
            .await
            .with_context(|| format!("{} does not accept at {}", target.name, target.authority))?;
        stream.set_nodelay(true)?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        // Ends by itself when the sender is dropped or the peer closes; what
        // broke it is told by the exchange that needed it.
        tokio::spawn(connection);
        let mut headers = HeaderMap::new();
        headers.insert(HOST, HeaderValue::from_str(&target.authority)?);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(
            ACCEPT,
            HeaderValue::from_static("application/json, text/event-stream"),
        );
        Ok(Self {
            sender,
            path: target.path.clone(),
            headers,
        })
    }

    /// Adds a header to everything that is sent from now on.
    pub fn header(&mut self, name: HeaderName, value: HeaderValue) {
        self.headers.insert(name, value);
    }

    /// The first half of the handshake: from here on the session id is known.
    ///
    /// # Errors
    /// The connection broke or the answer is no result.
    pub async fn initialize(&mut self) -> anyhow::Result<()> {
        self.open().await.map(drop)
    }

    /// [`Client::initialize`], with the answer's headers.
    ///
    /// # Errors
    /// The connection broke or the answer is no result.
    pub async fn open(&mut self) -> anyhow::Result<HeaderMap> {
        let body = Bytes::from_static(
            br#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"mcp-gateway-loadtest","version":"0"}}}"#,
        );
        let answer = self.send(Method::POST, body).await?;
        let headers = answer.headers().clone();
        read_result(answer).await.context("initialize")?;
        if let Some(session) = headers.get(SESSION) {
            self.headers.insert(SESSION, session.clone());
        }
        self.headers
            .insert(REVISION_HEADER, HeaderValue::from_static(REVISION));
        Ok(headers)
    }

    /// Forgets the session without ending it: the next [`Client::initialize`] opens
    /// another.
    pub fn forget_session(&mut self) {
        self.headers.remove(SESSION);
        self.headers.remove(REVISION_HEADER);
    }

    /// The second half of the handshake.
    ///
    /// # Errors
    /// The connection broke or the notification was refused.
    pub async fn initialized(&mut self) -> anyhow::Result<()> {
        let body = Bytes::from_static(br#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#);
        let answer = self.send(Method::POST, body).await?;
        let status = answer.status();
        answer.into_body().collect().await?;
        if !status.is_success() {
            bail!("notifications/initialized was answered {status}");
        }
        Ok(())
    }

    /// One exchange, to the last byte of its answer.
    ///
    /// # Errors
    /// The connection broke or the answer is no result.
    pub async fn call(&mut self, body: Bytes) -> anyhow::Result<()> {
        let answer = self.send(Method::POST, body).await?;
        read_result(answer).await
    }

    /// Ends the session; whatever the server says to that is fine.
    ///
    /// # Errors
    /// The connection broke.
    pub async fn delete(&mut self) -> anyhow::Result<()> {
        let answer = self.send(Method::DELETE, Bytes::new()).await?;
        answer.into_body().collect().await?;
        Ok(())
    }

    async fn send(&mut self, method: Method, body: Bytes) -> anyhow::Result<Response<Incoming>> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = self.path.parse()?;
        *request.headers_mut() = self.headers.clone();
        self.sender.ready().await?;
        Ok(self.sender.send_request(request).await?)
    }
}

async fn read_result(answer: Response<Incoming>) -> anyhow::Result<()> {
    let status = answer.status();
    let body = Limited::new(answer.into_body(), MAX_ANSWER)
        .collect()
        .await
        .map_err(|error| anyhow::anyhow!("the answer broke off: {error}"))?
        .to_bytes();
    if status != StatusCode::OK || !holds_result(&body) {
        let start = String::from_utf8_lossy(&body[..body.len().min(200)]).into_owned();
        bail!("answered {status}: {start}");
    }
    Ok(())
}

/// Whether an answer, JSON or SSE, carries a result. A textual search: both
/// servers and proxies are measured with answers that hold the word once.
fn holds_result(body: &[u8]) -> bool {
    const RESULT: &[u8] = b"\"result\":";
    body.windows(RESULT.len()).any(|window| window == RESULT)
}

/// The body of a `tools/call`.
///
/// # Errors
/// `arguments` is no JSON.
pub fn tools_call(tool: &str, arguments: &str) -> anyhow::Result<Bytes> {
    let arguments: serde_json::Value = serde_json::from_str(arguments)
        .with_context(|| format!("the arguments {arguments} are no JSON"))?;
    let body = serde_json::json!({
        "jsonrpc": "2.0", "id": 1, "method": "tools/call",
        "params": {"name": tool, "arguments": arguments},
    });
    Ok(Bytes::from(body.to_string()))
}
