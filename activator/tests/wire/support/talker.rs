//! An MCP server that talks when the test says so: GET streams, listen streams, and the 2024-11-05 transport.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Request, State},
    http::{Method, StatusCode},
    response::{IntoResponse, Response},
};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::upstream::Seen;

#[derive(Default)]
struct Inner {
    seen: Mutex<Vec<Seen>>,
    streams: Mutex<Vec<mpsc::Sender<Result<String, std::io::Error>>>>,
    issued: AtomicUsize,
    no_streams: AtomicBool,
    /// Takes requests for streams and leaves them without an answer.
    mute: AtomicBool,
    /// Lets `later` go on.
    go: tokio::sync::Notify,
    capabilities: AtomicUsize,
}

#[derive(Clone)]
pub(crate) struct Talker {
    pub(crate) address: SocketAddr,
    inner: Arc<Inner>,
}

impl Talker {
    pub(crate) async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let inner = Arc::new(Inner::default());
        let router = Router::new().fallback(serve).with_state(Arc::clone(&inner));
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { address, inner }
    }

    /// Streams that somebody reads.
    pub(crate) fn open(&self) -> usize {
        self.inner.open()
    }

    /// Says this on each open stream.
    pub(crate) fn say(&self, text: &str) {
        for stream in self.inner.streams.lock().iter() {
            let _gone = stream.try_send(Ok(text.to_owned()));
        }
    }

    /// Ends all streams in order.
    pub(crate) fn hang_up(&self) {
        self.inner.streams.lock().clear();
    }

    /// Refuses GET from now on.
    pub(crate) fn no_streams(&self) {
        self.inner.no_streams.store(true, Ordering::SeqCst);
    }

    /// Answers no request for a stream from now on.
    pub(crate) fn mute(&self) {
        self.inner.mute.store(true, Ordering::SeqCst);
    }

    /// Lets a call of `later` be taken.
    pub(crate) fn go(&self) {
        self.inner.go.notify_one();
    }

    /// Promises something else from now on.
    pub(crate) fn change_capabilities(&self) {
        self.inner.capabilities.fetch_add(1, Ordering::SeqCst);
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.inner.seen.lock().clone()
    }

    /// The GETs that arrived.
    pub(crate) fn gets(&self) -> Vec<Seen> {
        let seen = self.seen();
        seen.into_iter()
            .filter(|one| one.method == Method::GET)
            .collect()
    }

    /// The JSON-RPC methods that arrived, in order.
    pub(crate) fn methods(&self) -> Vec<String> {
        self.seen().iter().filter_map(Seen::rpc_method).collect()
    }
}

impl Inner {
    fn open(&self) -> usize {
        let mut streams = self.streams.lock();
        streams.retain(|stream| !stream.is_closed());
        streams.len()
    }

    fn stream(&self, first: &str) -> Response {
        let (sender, receiver) = mpsc::channel(64);
        sender.try_send(Ok(first.to_owned())).unwrap();
        self.streams.lock().push(sender);
        let chunks = futures_util::stream::unfold(receiver, |mut receiver| async move {
            receiver.recv().await.map(|item| (item, receiver))
        });
        let mut response = Response::new(Body::from_stream(chunks));
        let headers = response.headers_mut();
        headers.insert("content-type", "text/event-stream".parse().unwrap());
        response
    }
}

fn event(value: &Value) -> String {
    format!("event: message\ndata: {value}\n\n")
}

async fn serve(State(inner): State<Arc<Inner>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
    inner.seen.lock().push(Seen {
        method: head.method.clone(),
        uri: head.uri.clone(),
        headers: head.headers.clone(),
        body: body.clone(),
    });
    let message: Value = serde_json::from_slice(&body).unwrap_or_default();
    let listens = message["method"] == "subscriptions/listen";
    if inner.mute.load(Ordering::SeqCst) && (head.method == Method::GET || listens) {
        std::future::pending::<()>().await;
    }
    if head.uri.path() == "/messages" && message["params"]["name"] == "later" {
        inner.go.notified().await;
    }
    match (head.method, head.uri.path()) {
        (Method::GET, _) if inner.no_streams.load(Ordering::SeqCst) => {
            (StatusCode::METHOD_NOT_ALLOWED, "no streams").into_response()
        }
        (Method::GET, "/sse") => inner.stream(&format!(
            "event: endpoint\ndata: /messages?session_id={}\n\n",
            inner.issued.fetch_add(1, Ordering::SeqCst)
        )),
        // As real servers do: one GET stream for each session.
        (Method::GET, _) if inner.open() > 0 => StatusCode::CONFLICT.into_response(),
        (Method::GET, _) => inner.stream(": welcome\n\n"),
        (Method::POST, "/messages") => posted(&inner, &message),
        (Method::POST, _) => answer(&inner, &message),
        (Method::DELETE, _) => StatusCode::OK.into_response(),
        _ => StatusCode::METHOD_NOT_ALLOWED.into_response(),
    }
}

fn promise(inner: &Inner) -> Value {
    json!({
        "protocolVersion": "2024-11-05",
        "capabilities": {"tools": {}, "logging": {}, "other": inner.capabilities.load(Ordering::SeqCst)},
        "serverInfo": {"name": "talker", "version": "1"},
    })
}

/// A message of the 2024-11-05 transport: what answers it goes to the stream.
fn posted(inner: &Inner, message: &Value) -> Response {
    let result = match message["method"].as_str() {
        Some("initialize") => Some(promise(inner)),
        Some("tools/call") if message["params"]["name"] == "never" => None,
        Some(_) => Some(json!({"content": []})),
        None => None,
    };
    if let (Some(id), Some(result)) = (message.get("id"), result) {
        let text = event(&json!({"jsonrpc": "2.0", "id": id, "result": result}));
        for stream in inner.streams.lock().iter() {
            let _gone = stream.try_send(Ok(text.clone()));
        }
    }
    (StatusCode::ACCEPTED, "Accepted").into_response()
}

fn answer(inner: &Inner, message: &Value) -> Response {
    let id = &message["id"];
    let result = match message["method"].as_str() {
        Some("initialize") => promise(inner),
        Some("subscriptions/listen") => {
            return inner.stream(&event(&json!({
                "jsonrpc": "2.0",
                "method": "notifications/subscriptions/acknowledged",
                "params": {"_meta": {"io.modelcontextprotocol/subscriptionId": id}},
            })));
        }
        Some("tools/call") if message["params"]["name"] == "poll" => {
            let mut response = Response::new(Body::from("id: p1\ndata:\n\n"));
            let kind = "text/event-stream".parse().unwrap();
            response.headers_mut().insert("content-type", kind);
            return response;
        }
        Some(_) if message.get("id").is_some() => json!({"content": []}),
        Some(_) | None => return StatusCode::ACCEPTED.into_response(),
    };
    let body = json!({"jsonrpc": "2.0", "id": id, "result": result}).to_string();
    let mut response = Response::new(Body::from(Bytes::from(body)));
    let headers = response.headers_mut();
    headers.insert("content-type", "application/json".parse().unwrap());
    if message["method"] == "initialize" {
        let issued = format!("talk-{}", inner.issued.fetch_add(1, Ordering::SeqCst));
        headers.insert("mcp-session-id", issued.parse().unwrap());
    }
    response
}
