//! A small MCP client that hides nothing: requests as they go out, events as they come in.
//!
//! Invariants: it never retries and never re-initializes. Whatever is not the one right answer is an `Err` that says
//! what came instead.

use std::{
    collections::VecDeque,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::{Value, json};

/// The revision of legacy sessions here.
pub(crate) const LEGACY: &str = "2025-11-25";
/// The revision of modern exchanges here.
pub(crate) const MODERN: &str = "2026-07-28";
const BOTH: &str = "application/json, text/event-stream";

/// An HTTP client with a pool of its own.
pub(crate) type Http = Client<HttpConnector, Full<Bytes>>;

/// A new one.
pub(crate) fn http() -> Http {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    Client::builder(TokioExecutor::new()).build(connector)
}

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Reply {
    /// The body as JSON, or as the last event's data; `Null` if it is neither.
    pub(crate) fn json(&self) -> Value {
        let text = String::from_utf8_lossy(&self.body);
        let mut data = text.lines().filter_map(|line| line.strip_prefix("data:"));
        let data = data.rfind(|data| !data.trim().is_empty());
        serde_json::from_str(data.unwrap_or(&text)).unwrap_or_default()
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    }
}

/// A request of any kind; headers may repeat.
pub(crate) fn request(
    method: Method,
    url: &str,
    headers: &[(&str, &str)],
    body: impl Into<Bytes>,
) -> Request<Full<Bytes>> {
    let mut request = Request::builder().method(method).uri(url);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request
        .body(Full::new(body.into()))
        .expect("a well-formed request")
}

/// Sends it and reads the whole answer.
pub(crate) async fn send(http: &Http, request: Request<Full<Bytes>>) -> Result<Reply, String> {
    let answer = http
        .request(request)
        .await
        .map_err(|error| format!("no answer: {error:?}"))?;
    let (parts, body) = answer.into_parts();
    let body = body
        .collect()
        .await
        .map_err(|error| format!("{}: broke off: {error:?}", parts.status))?;
    Ok(Reply {
        status: parts.status,
        headers: parts.headers,
        body: body.to_bytes(),
    })
}

/// GETs something that must be there.
pub(crate) async fn get(http: &Http, url: &str, headers: &[(&str, &str)]) -> Reply {
    send(http, request(Method::GET, url, headers, ""))
        .await
        .expect("an answer")
}

/// POSTs a JSON-RPC message with the usual headers and some more.
pub(crate) async fn post(
    http: &Http,
    url: &str,
    more: &[(&str, &str)],
    message: &Value,
) -> Result<Reply, String> {
    send(
        http,
        request(Method::POST, url, &usual(more), message.to_string()),
    )
    .await
}

fn usual<'a>(more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let mut headers = vec![("content-type", "application/json"), ("accept", BOTH)];
    headers.extend_from_slice(more);
    headers
}

/// The `initialize` request of a client that can be asked things.
pub(crate) fn initialize(id: u64) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "method": "initialize", "params": {
        "protocolVersion": LEGACY,
        "capabilities": {"elicitation": {}, "sampling": {}, "roots": {}},
        "clientInfo": {"name": "wire", "version": "1"},
    }})
}

/// A `tools/call` that asks for progress.
pub(crate) fn call(id: u64, tool: &str, arguments: &Value) -> Value {
    let meta = json!({"progressToken": format!("p{id}")});
    json!({"jsonrpc": "2.0", "id": id, "method": "tools/call",
        "params": {"name": tool, "arguments": arguments, "_meta": meta}})
}

/// One server-sent event.
#[derive(Debug, Default, Clone)]
pub(crate) struct Event {
    pub(crate) id: Option<String>,
    pub(crate) name: String,
    pub(crate) data: String,
    pub(crate) retry: Option<u64>,
}

/// The events of an answer, as they come.
pub(crate) struct Events {
    body: Incoming,
    text: Vec<u8>,
    ready: VecDeque<Event>,
}

impl Events {
    pub(crate) fn new(body: Incoming) -> Self {
        Self {
            body,
            text: Vec::new(),
            ready: VecDeque::new(),
        }
    }

    /// The next event; `None` at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<Event>, String> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Ok(Some(event));
            }
            match self.body.frame().await {
                None => return Ok(None),
                Some(Err(error)) => return Err(format!("the stream broke off: {error:?}")),
                Some(Ok(frame)) => {
                    let data = frame.into_data().unwrap_or_default();
                    self.text.extend(data.iter().filter(|byte| **byte != b'\r'));
                    self.take_whole();
                }
            }
        }
    }

    fn take_whole(&mut self) {
        while let Some(end) = self.text.windows(2).position(|two| two == b"\n\n") {
            let whole: Vec<u8> = self.text.drain(..end + 2).collect();
            let event = parse(&String::from_utf8_lossy(&whole));
            // Comments alone are keep-alives.
            if event.id.is_some() || event.retry.is_some() || !event.data.is_empty() {
                self.ready.push_back(event);
            }
        }
    }
}

fn parse(text: &str) -> Event {
    let mut event = Event::default();
    for line in text.lines() {
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "id" => event.id = Some(value.to_owned()),
            "event" => value.clone_into(&mut event.name),
            "retry" => event.retry = value.parse().ok(),
            "data" => {
                if !event.data.is_empty() {
                    event.data.push('\n');
                }
                event.data.push_str(value);
            }
            _ => {}
        }
    }
    event
}

/// What a request came to.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// `result` of the answer.
    pub(crate) result: Value,
    /// Progress notifications of this request.
    pub(crate) progress: usize,
    /// Requests of the server that were answered on the way.
    pub(crate) asked: usize,
    /// How often the stream was closed and resumed.
    pub(crate) resumed: usize,
}

impl Outcome {
    /// The text of a tool's result.
    pub(crate) fn text(&self) -> &str {
        self.result["content"][0]["text"]
            .as_str()
            .unwrap_or_default()
    }
}

/// A client of one era: a legacy session, or modern exchanges.
pub(crate) struct Peer {
    http: Http,
    url: String,
    session: Option<String>,
    /// What it answers when asked for a name.
    pub(crate) name: String,
    /// Sent with each request.
    bearer: Option<String>,
    next_id: AtomicU64,
}

impl Peer {
    /// A legacy client with a session.
    pub(crate) async fn connect(url: &str, name: &str) -> Result<Self, String> {
        Self::connect_as(url, name, None).await
    }

    /// The same with an API key.
    pub(crate) async fn connect_as(
        url: &str,
        name: &str,
        key: Option<&str>,
    ) -> Result<Self, String> {
        let mut peer = Self::modern(url, name);
        peer.bearer = key.map(|key| format!("Bearer {key}"));
        let reply = send(&peer.http, peer.post(&initialize(0))).await?;
        let id = reply.header("mcp-session-id").to_owned();
        if reply.status != StatusCode::OK || id.is_empty() {
            return Err(format!("initialize: {} {:?}", reply.status, reply.body));
        }
        peer.session = Some(id);
        peer.notify(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"}))
            .await?;
        Ok(peer)
    }

    /// A modern client, which needs no handshake.
    pub(crate) fn modern(url: &str, name: &str) -> Self {
        Self {
            http: http(),
            url: url.to_owned(),
            session: None,
            name: name.to_owned(),
            bearer: None,
            next_id: AtomicU64::new(1),
        }
    }

    /// The same client with the same session, at another gateway. Its requests have numbers of their own.
    pub(crate) fn at(&self, url: &str, first_id: u64) -> Self {
        Self {
            http: http(),
            url: url.to_owned(),
            session: self.session.clone(),
            name: self.name.clone(),
            bearer: self.bearer.clone(),
            next_id: AtomicU64::new(first_id),
        }
    }

    /// The session's id.
    pub(crate) fn session(&self) -> &str {
        self.session.as_deref().unwrap_or_default()
    }

    /// Posts what needs no answer; 202 is the only right one.
    pub(crate) async fn notify(&self, message: &Value) -> Result<(), String> {
        let reply = send(&self.http, self.post(message)).await?;
        if reply.status == StatusCode::ACCEPTED {
            return Ok(());
        }
        Err(format!(
            "{message} was answered {} {:?}",
            reply.status, reply.body
        ))
    }

    /// Ends the session; the status it was answered with.
    pub(crate) async fn delete(&self) -> Result<StatusCode, String> {
        Ok(send(&self.http, self.to(Method::DELETE, &[], ""))
            .await?
            .status)
    }

    /// Calls a tool until it is answered, whatever it asks for on the way.
    pub(crate) async fn call(&self, tool: &str, arguments: Value) -> Result<Outcome, String> {
        let mut params = json!({"name": tool, "arguments": arguments});
        let mut asked = 0;
        loop {
            let mut outcome = self.request("tools/call", params.clone()).await?;
            outcome.asked += asked;
            if outcome.result["resultType"] != "input_required" {
                return Ok(outcome);
            }
            asked += 1;
            params["requestState"] = outcome.result["requestState"].clone();
            let questions = outcome.result["inputRequests"]
                .as_object()
                .cloned()
                .unwrap_or_default();
            let answers = questions
                .keys()
                .map(|key| (key.clone(), self.answer_to("elicitation/create")));
            params["inputResponses"] = answers.collect();
        }
    }

    /// Sends one request and reads until its answer.
    pub(crate) async fn request(&self, method: &str, mut params: Value) -> Result<Outcome, String> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        params["_meta"] = self.meta(id);
        let message = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
        let answer = self.http.request(self.post(&message)).await;
        let answer = answer.map_err(|error| format!("{method} {id}: no answer: {error:?}"))?;
        let mut outcome = Outcome::default();
        let done = self.read(id, answer, &mut outcome).await;
        done.map_err(|error| format!("{method} {id} of {}: {error}", self.name))?;
        Ok(outcome)
    }

    async fn read(
        &self,
        id: u64,
        answer: http::Response<Incoming>,
        outcome: &mut Outcome,
    ) -> Result<(), String> {
        let (parts, body) = answer.into_parts();
        let kind = parts
            .headers
            .get("content-type")
            .and_then(|kind| kind.to_str().ok())
            .unwrap_or_default();
        if parts.status != StatusCode::OK || !kind.starts_with("text/event-stream") {
            let body = body
                .collect()
                .await
                .map_err(|error| format!("{} broke off: {error:?}", parts.status))?;
            let text = String::from_utf8_lossy(&body.to_bytes()).into_owned();
            let message: Value = serde_json::from_str(&text).unwrap_or_default();
            if self.take(id, &message, outcome).await? {
                return Ok(());
            }
            return Err(format!("{} {text}", parts.status));
        }
        let mut events = Events::new(body);
        let mut last_id = None;
        let mut retry = 1000;
        loop {
            match events.next().await? {
                Some(event) => {
                    last_id = event.id.or(last_id);
                    retry = event.retry.unwrap_or(retry);
                    if !event.data.is_empty() {
                        let message = serde_json::from_str(&event.data).map_err(|error| {
                            format!("an event that is no JSON ({error}): {}", event.data)
                        })?;
                        if self.take(id, &message, outcome).await? {
                            return Ok(());
                        }
                    }
                }
                None => events = self.resume(last_id.as_deref(), retry, outcome).await?,
            }
        }
    }

    /// A server may close a stream whose events have ids; the client asks again where it was.
    async fn resume(
        &self,
        last_id: Option<&str>,
        retry: u64,
        outcome: &mut Outcome,
    ) -> Result<Events, String> {
        let Some(last_id) = last_id else {
            return Err("the stream ended without an answer".to_owned());
        };
        outcome.resumed += 1;
        if outcome.resumed > 20 {
            return Err(
                "the stream ended without an answer, however often it was resumed".to_owned(),
            );
        }
        tokio::time::sleep(Duration::from_millis(retry)).await;
        let answer = self
            .http
            .request(self.to(Method::GET, &[("last-event-id", last_id)], ""))
            .await;
        let answer = answer.map_err(|error| format!("no answer to a resumption: {error:?}"))?;
        if answer.status() != StatusCode::OK {
            return Err(format!("a resumption was answered {}", answer.status()));
        }
        Ok(Events::new(answer.into_body()))
    }

    /// One message of the server; true if it was the answer to `id`.
    async fn take(&self, id: u64, message: &Value, outcome: &mut Outcome) -> Result<bool, String> {
        let Some(method) = message["method"].as_str() else {
            if message["id"] != id {
                return Err(format!("an answer to somebody else: {message}"));
            }
            if message.get("result").is_none() {
                return Err(format!("an error: {}", message["error"]));
            }
            outcome.result = message["result"].clone();
            return Ok(true);
        };
        if message.get("id").is_some() {
            outcome.asked += 1;
            let result = self.answer_to(method);
            self.notify(&json!({"jsonrpc": "2.0", "id": message["id"], "result": result}))
                .await?;
        } else if method == "notifications/progress" {
            if message["params"]["progressToken"] != token(id) {
                return Err(format!("progress of somebody else: {message}"));
            }
            outcome.progress += 1;
        }
        Ok(false)
    }

    /// What the user of this client says.
    fn answer_to(&self, method: &str) -> Value {
        match method {
            "elicitation/create" => json!({"action": "accept", "content": {"name": self.name}}),
            "sampling/createMessage" => {
                json!({"role": "assistant", "model": "none", "content": {"type": "text", "text": self.name}})
            }
            _ => json!({}),
        }
    }

    /// Opens the passive stream of a legacy session.
    pub(crate) async fn stream(&self) -> Result<Events, String> {
        let answer = self.http.request(self.to(Method::GET, &[], "")).await;
        let answer = answer.map_err(|error| format!("no answer to GET: {error:?}"))?;
        if answer.status() != StatusCode::OK {
            return Err(format!("GET was answered {}", answer.status()));
        }
        Ok(Events::new(answer.into_body()))
    }

    /// Answers what the server asks on the passive stream, until it ends.
    pub(crate) async fn attend(&self, mut events: Events) -> Result<(), String> {
        while let Some(event) = events.next().await? {
            let message: Value = serde_json::from_str(&event.data).unwrap_or_default();
            match message["method"].as_str() {
                Some(method) if message.get("id").is_some() => {
                    let result = self.answer_to(method);
                    self.notify(&json!({"jsonrpc": "2.0", "id": message["id"], "result": result}))
                        .await?;
                }
                Some(_) => {}
                None if event.data.is_empty() => {}
                None => return Err(format!("an answer on the passive stream: {}", event.data)),
            }
        }
        Ok(())
    }

    fn meta(&self, id: u64) -> Value {
        let mut meta = json!({"progressToken": token(id)});
        if self.session.is_none() {
            meta["io.modelcontextprotocol/protocolVersion"] = MODERN.into();
            meta["io.modelcontextprotocol/clientCapabilities"] =
                json!({"elicitation": {}, "sampling": {}});
            meta["io.modelcontextprotocol/clientInfo"] = json!({"name": "wire", "version": "1"});
        }
        meta
    }

    fn post(&self, message: &Value) -> Request<Full<Bytes>> {
        let method = message["method"].as_str().unwrap_or_default();
        let name = message["params"]["name"].as_str().unwrap_or_default();
        let mut more = vec![("content-type", "application/json")];
        if self.session.is_none() && method != "initialize" {
            more.push(("mcp-method", method));
            if !name.is_empty() {
                more.push(("mcp-name", name));
            }
        }
        if method == "initialize" {
            let mut headers = usual(&[]);
            headers.extend(
                self.bearer
                    .as_deref()
                    .map(|bearer| ("authorization", bearer)),
            );
            return request(Method::POST, &self.url, &headers, message.to_string());
        }
        self.to(Method::POST, &more, message.to_string())
    }

    fn to(
        &self,
        method: Method,
        more: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Request<Full<Bytes>> {
        let mut headers = more.to_vec();
        headers.push((
            "accept",
            if method == Method::GET {
                "text/event-stream"
            } else {
                BOTH
            },
        ));
        if let Some(session) = &self.session {
            headers.extend([
                ("mcp-session-id", session.as_str()),
                ("mcp-protocol-version", LEGACY),
            ]);
        } else {
            headers.push(("mcp-protocol-version", MODERN));
        }
        headers.extend(
            self.bearer
                .as_deref()
                .map(|bearer| ("authorization", bearer)),
        );
        request(method, &self.url, &headers, body)
    }
}

fn token(id: u64) -> String {
    format!("p{id}")
}
