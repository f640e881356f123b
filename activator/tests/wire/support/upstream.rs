//! An HTTP MCP server with everything that can go wrong on request. It notes what it was sent, byte by byte.

use std::{
    collections::HashSet,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Request, State},
    http::{HeaderMap, Method, StatusCode, Uri},
    response::{IntoResponse, Response},
};
use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::{Notify, mpsc};

/// One request as it arrived.
#[derive(Debug, Clone)]
pub struct Seen {
    pub method: Method,
    pub uri: Uri,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Seen {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|v| v.to_str().unwrap())
    }

    pub fn rpc_method(&self) -> Option<String> {
        let body: Value = serde_json::from_slice(&self.body).ok()?;
        body.get("method")?.as_str().map(str::to_owned)
    }
}

#[derive(Default)]
pub struct Inner {
    seen: Mutex<Vec<Seen>>,
    sessions: Mutex<HashSet<String>>,
    issued: AtomicUsize,
    /// Lets `slow` go on.
    pub go: Notify,
    later: Mutex<Vec<tokio::sync::oneshot::Sender<()>>>,
    /// Streams and slow calls whose reader went away.
    pub dropped: Arc<AtomicUsize>,
    /// How often `flood` has said something.
    pub flooded: AtomicUsize,
    /// So many bytes of instructions come with `initialize`.
    pub instructs: AtomicUsize,
    /// Whether answers come as event streams.
    pub sse: AtomicBool,
    /// Whether no session id is issued.
    pub stateless: AtomicBool,
    /// Whether DELETE is refused.
    pub keeps_sessions: AtomicBool,
    /// Whether unknown sessions are told `x-mcp-gateway-lost`, as the bridge does.
    pub bridge: AtomicBool,
    /// Whether it refuses modern requests.
    pub legacy_only: AtomicBool,
    /// The discover probe is answered as an event stream.
    pub discover_streams: AtomicBool,
    /// The revision it negotiates.
    pub revision: Mutex<Option<&'static str>>,
    /// The next message of this JSON-RPC method is answered with this status and nothing else.
    pub refuses: Mutex<Option<(&'static str, u16)>>,
    /// Whether a GET, as a call of `late` always, is looked at only once `go` is said.
    pub holds_gets: AtomicBool,
    /// Whether each connection is closed after its answer.
    pub closes: AtomicBool,
}

#[derive(Clone)]
pub struct Upstream {
    pub address: SocketAddr,
    pub inner: Arc<Inner>,
    accepting: tokio::task::AbortHandle,
}

/// Counts a future or stream that was dropped before its end.
struct Dropped(Arc<AtomicUsize>, bool);

impl Drop for Dropped {
    fn drop(&mut self) {
        if !self.1 {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
}

impl Upstream {
    pub async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let inner = Arc::new(Inner::default());
        let router = Router::new().fallback(serve).with_state(Arc::clone(&inner));
        let accepting = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self {
            address,
            inner,
            accepting: accepting.abort_handle(),
        }
    }

    /// Takes no connection any more, and neither does anybody else here for as long as what it returns is kept. What is
    /// connected stays so: see [`Inner::closes`].
    pub async fn stop(&self) -> tokio::net::TcpSocket {
        self.accepting.abort();
        while !self.accepting.is_finished() {
            tokio::task::yield_now().await;
        }
        let held = tokio::net::TcpSocket::new_v4().unwrap();
        held.set_reuseaddr(true).unwrap();
        held.bind(self.address).unwrap();
        held
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.inner.seen.lock().clone()
    }

    /// The JSON-RPC methods that arrived, in order.
    pub fn methods(&self) -> Vec<String> {
        self.seen().iter().filter_map(Seen::rpc_method).collect()
    }

    /// The ids of the `tools/call`s that arrived, in order.
    pub fn calls(&self) -> Vec<u64> {
        let bodies = self
            .seen()
            .into_iter()
            .filter_map(|s| serde_json::from_slice::<Value>(&s.body).ok());
        bodies
            .filter(|b| b["method"] == "tools/call")
            .filter_map(|b| b["id"].as_u64())
            .collect()
    }

    pub fn last(&self) -> Seen {
        self.seen().pop().expect("a request")
    }

    /// As a restarted process: no session is known.
    pub fn forget_sessions(&self) {
        self.inner.sessions.lock().clear();
    }

    /// It knows this session no longer.
    pub fn forget_session(&self, session: &str) {
        assert!(self.inner.sessions.lock().remove(session));
    }

    pub fn dropped(&self) -> usize {
        self.inner.dropped.load(Ordering::SeqCst)
    }
}

fn json(status: u16, value: &Value) -> Response {
    let mut response = Response::new(Body::from(value.to_string()));
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    response
        .headers_mut()
        .insert("content-type", "application/json".parse().unwrap());
    response
}

fn result(id: &Value, result: Value) -> Value {
    serde_json::json!({"jsonrpc": "2.0", "id": id, "result": result})
}

fn event(value: &Value) -> String {
    format!("event: message\ndata: {value}\n\n")
}

fn stream(receiver: mpsc::Receiver<Result<String, std::io::Error>>) -> Response {
    let stream = futures_util::stream::unfold(receiver, |mut receiver| async move {
        receiver.recv().await.map(|item| (item, receiver))
    });
    let mut response = Response::new(Body::from_stream(stream));
    response
        .headers_mut()
        .insert("content-type", "text/event-stream".parse().unwrap());
    response
}

async fn serve(State(inner): State<Arc<Inner>>, request: Request) -> Response {
    let mut response = respond(&inner, request).await;
    if inner.closes.load(Ordering::SeqCst) {
        let close = "close".parse().unwrap();
        response.headers_mut().insert("connection", close);
    }
    response
}

async fn respond(inner: &Arc<Inner>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
    let seen = Seen {
        method: head.method.clone(),
        uri: head.uri,
        headers: head.headers.clone(),
        body: body.clone(),
    };
    inner.seen.lock().push(seen);
    let session = head
        .headers
        .get("mcp-session-id")
        .map(|v| v.to_str().unwrap().to_owned());
    if head.method == Method::DELETE {
        return delete(inner, session);
    }
    let message: Value = serde_json::from_slice(&body).unwrap_or_default();
    let refused = inner
        .refuses
        .lock()
        .take_if(|(method, _)| message["method"] == *method);
    if let Some((_, status)) = refused {
        return StatusCode::from_u16(status).unwrap().into_response();
    }
    let modern = head
        .headers
        .get("mcp-protocol-version")
        .is_some_and(|v| v == "2026-07-28");
    if modern {
        return modern_answer(inner, &message).await;
    }
    if message["method"] == "initialize" {
        return initialize(inner, &message);
    }
    let held = head.method == Method::GET && inner.holds_gets.load(Ordering::SeqCst);
    if held || message["params"]["name"] == "late" {
        inner.go.notified().await;
    }
    if !inner.stateless.load(Ordering::SeqCst) {
        let Some(session) = &session else {
            return json(
                400,
                &serde_json::json!({"jsonrpc": "2.0", "error": {"code": -32000, "message": "no session"}}),
            );
        };
        if !inner.sessions.lock().contains(session) {
            let mut response = json(
                404,
                &serde_json::json!({"jsonrpc": "2.0", "error": {"code": -32001, "message": "unknown session"}}),
            );
            if inner.bridge.load(Ordering::SeqCst) {
                response
                    .headers_mut()
                    .insert("x-mcp-gateway-lost", "session".parse().unwrap());
            }
            return response;
        }
    }
    answer(inner, &message, session).await
}

fn delete(inner: &Inner, session: Option<String>) -> Response {
    if inner.keeps_sessions.load(Ordering::SeqCst) {
        return StatusCode::METHOD_NOT_ALLOWED.into_response();
    }
    let known = session.is_some_and(|session| inner.sessions.lock().remove(&session));
    if known {
        StatusCode::OK
    } else {
        StatusCode::NOT_FOUND
    }
    .into_response()
}

fn initialize(inner: &Inner, message: &Value) -> Response {
    let revision = inner.revision.lock().unwrap_or("2025-11-25");
    let answer = result(
        &message["id"],
        serde_json::json!({
            "protocolVersion": revision,
            "capabilities": {"tools": {}, "logging": {}},
            "serverInfo": {"name": "fake", "version": "1"},
            "instructions": "x".repeat(inner.instructs.load(Ordering::SeqCst)),
        }),
    );
    let mut response = if inner.sse.load(Ordering::SeqCst) {
        let (sender, receiver) = mpsc::channel(4);
        sender.try_send(Ok(": hello\n\n".into())).unwrap();
        sender.try_send(Ok(event(&answer))).unwrap();
        stream(receiver)
    } else {
        json(200, &answer)
    };
    if !inner.stateless.load(Ordering::SeqCst) {
        let id = format!("upstream-{}", inner.issued.fetch_add(1, Ordering::SeqCst));
        response
            .headers_mut()
            .insert("mcp-session-id", id.parse().unwrap());
        inner.sessions.lock().insert(id);
    }
    response
}

async fn modern_answer(inner: &Arc<Inner>, message: &Value) -> Response {
    if inner.legacy_only.load(Ordering::SeqCst) {
        return json(
            400,
            &serde_json::json!({"jsonrpc": "2.0", "id": message["id"], "error": {"code": -32000, "message": "legacy"}}),
        );
    }
    if message["method"] == "server/discover" {
        let answer = result(
            &message["id"],
            serde_json::json!({"resultType": "complete", "supportedVersions": ["2026-07-28"], "capabilities": {}, "ttlMs": 0, "cacheScope": "private"}),
        );
        if inner.discover_streams.load(Ordering::SeqCst) {
            let body = format!(": hello\n\nevent: message\ndata: {answer}\n\n");
            return Response::builder()
                .header("content-type", "text/event-stream")
                .body(body.into())
                .unwrap();
        }
        return json(200, &answer);
    }
    answer(inner, message, None).await
}

async fn answer(inner: &Arc<Inner>, message: &Value, session: Option<String>) -> Response {
    if let Some(items) = message.as_array() {
        let answers: Vec<Value> = items
            .iter()
            .filter(|item| item.get("method").is_some() && item.get("id").is_some())
            .map(|item| result(&item["id"], serde_json::json!({"batched": true})))
            .collect();
        return if answers.is_empty() {
            StatusCode::ACCEPTED.into_response()
        } else {
            json(200, &Value::Array(answers))
        };
    }
    let id = &message["id"];
    if message.get("method").is_none() || message.get("id").is_none() {
        return StatusCode::ACCEPTED.into_response();
    }
    let tool = message["params"]["name"].as_str().unwrap_or_default();
    if let Some(stream) = streamed(inner, tool, id) {
        return stream;
    }
    match tool {
        "slow" => {
            let mut dropped = Dropped(Arc::clone(&inner.dropped), false);
            inner.go.notified().await;
            dropped.1 = true;
        }
        "never" => {
            let _dropped = Dropped(Arc::clone(&inner.dropped), false);
            std::future::pending::<()>().await;
        }
        "missing" => {
            return json(
                404,
                &serde_json::json!({"jsonrpc": "2.0", "id": id, "error": {"code": -32601, "message": "no such method"}}),
            );
        }
        _ => {}
    }
    let answer = result(id, serde_json::json!({"content": [], "session": session}));
    let mut response = if inner.sse.load(Ordering::SeqCst) {
        let (sender, receiver) = mpsc::channel(1);
        sender.try_send(Ok(event(&answer))).unwrap();
        stream(receiver)
    } else {
        json(200, &answer)
    };
    if let Some(session) = session {
        response
            .headers_mut()
            .insert("mcp-session-id", session.parse().unwrap());
    }
    response
}

/// Tools that answer with a stream of their own kind.
fn streamed(inner: &Arc<Inner>, tool: &str, id: &Value) -> Option<Response> {
    let (sender, receiver) = mpsc::channel::<Result<String, std::io::Error>>(64);
    match tool {
        // One event, then nothing until the reader leaves, or the test says go.
        "stream" => {
            let progress = serde_json::json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": 1, "progress": 1}});
            sender
                .try_send(Ok(format!("id: e1\nretry: 500\n{}", event(&progress))))
                .unwrap();
            let done = event(&result(id, serde_json::json!({"content": []})));
            finish_later(inner, sender, done);
        }
        // A server's request first.
        "elicit" => {
            let ask = serde_json::json!({"jsonrpc": "2.0", "id": "ask-1", "method": "elicitation/create", "params": {"message": "?"}});
            sender.try_send(Ok(event(&ask))).unwrap();
            let done = event(&result(id, serde_json::json!({"content": []})));
            finish_later(inner, sender, done);
        }
        // Half an event, then silence.
        "half" => {
            sender
                .try_send(Ok("event: message\ndata: {\"jsonrpc\"".into()))
                .unwrap();
            finish_later(inner, sender, ":\"2.0\"}\n\n".into());
        }
        // One event, then the connection breaks.
        "die" => {
            let progress = serde_json::json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": 1, "progress": 1}});
            sender.try_send(Ok(event(&progress))).unwrap();
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(20)).await;
                let _gone = sender.send(Err(std::io::Error::other("dies"))).await;
            });
        }
        // More and more, as fast as it is read.
        "flood" => {
            let inner = Arc::clone(inner);
            tokio::spawn(async move {
                let comment = format!(": {}\n\n", "x".repeat(64 << 10));
                while sender.send(Ok(comment.clone())).await.is_ok() {
                    inner.flooded.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        // Closed early: the response is to pass on another stream.
        "poll" => {
            sender.try_send(Ok("id: p1\ndata:\n\n".into())).unwrap();
        }
        _ => return None,
    }
    Some(stream(receiver))
}

fn finish_later(inner: &Inner, sender: mpsc::Sender<Result<String, std::io::Error>>, last: String) {
    let dropped = Dropped(Arc::clone(&inner.dropped), false);
    // Taken now, so that a `go` said from here on is not missed.
    let go = inner.go_later();
    tokio::spawn(async move {
        // Whole: a closure would otherwise take only a copy of its flag.
        let mut dropped = dropped;
        tokio::select! {
            () = go => {
                dropped.1 = sender.send(Ok(last)).await.is_ok();
            }
            () = sender.closed() => {}
        }
    });
}

impl Inner {
    fn go_later(&self) -> impl Future<Output = ()> + Send + 'static {
        // `Notify` lends its waiter; a task needs its own.
        let (sender, receiver) = tokio::sync::oneshot::channel();
        self.later.lock().push(sender);
        async move {
            let _told = receiver.await;
        }
    }

    /// Lets all streams finish.
    pub fn finish_streams(&self) {
        for sender in self.later.lock().drain(..) {
            let _gone = sender.send(());
        }
    }
}
