//! A correct client of several activators: MCP over HTTP, any activator for any
//! request, and no request sent twice that may have been carried out.
//!
//! An activator that takes no connection is passed over for another; a refusal
//! that says when to come again is obeyed; everything else is the request's end.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout_at};

use super::doors::{Doors, Entrance};
use super::ledger::{Failure, Micros};

/// A connection that has been quiet for longer is not used again: an activator closes
/// one after 60 s, and what is sent in that moment may or may not have been read.
const IDLE: Duration = Duration::from_secs(30);

/// How long a request, with all its attempts, may take: Kubernetes itself may need
/// more than a minute to find back to an API server that was away.
const PATIENCE: Duration = Duration::from_secs(300);
/// Longest pause that an activator may ask for.
const MAX_PAUSE: Duration = Duration::from_secs(10);
/// How long a connection may take: the address of a pod that is gone swallows what is
/// sent to it, and nothing has been sent yet that could not be sent elsewhere.
const CONNECT: Duration = Duration::from_secs(1);
/// Between two rounds of connecting to anybody.
const ALL_REFUSED: Duration = Duration::from_millis(100);

/// The time of a run.
#[derive(Clone, Copy, Debug)]
pub struct Clock(Instant);

impl Clock {
    /// Begins now.
    #[must_use]
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// Now.
    #[must_use]
    pub fn now(self) -> Micros {
        u64::try_from(self.0.elapsed().as_micros()).unwrap_or(Micros::MAX)
    }
}

/// A result's message, or how there was none; and how it came about.
#[derive(Debug)]
pub struct Asked {
    /// The answer's `result`, or a failure and what was said.
    pub reply: Result<Value, (Failure, String)>,
    /// The session that the answer named.
    pub session: Option<String>,
    /// The activator of the last attempt.
    pub activator: usize,
    /// When that was sent.
    pub sent: Micros,
    /// How often it was told to come again later.
    pub delayed: u32,
    /// How often a connection was refused.
    pub turned: u32,
}

/// What one attempt came to.
enum Attempt {
    Answered(Value, Option<String>),
    Failed(Failure, String),
    Later(Duration, String),
    Unreachable(String),
}

/// Speaks to the activators.
#[derive(Debug)]
pub struct Caller {
    http: Client<HttpConnector, Full<Bytes>>,
    doors: Doors,
    headers: HeaderMap,
    clock: Clock,
    next: AtomicU64,
}

impl Caller {
    /// Speaks to the activators that there are.
    #[must_use]
    pub fn new(Entrance { doors, headers }: Entrance, clock: Clock) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(CONNECT));
        Self {
            http: Client::builder(TokioExecutor::new())
                .pool_idle_timeout(IDLE)
                .build(connector),
            doors,
            headers,
            clock,
            next: AtomicU64::new(1),
        }
    }

    /// A number that nobody else has.
    pub fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// Any activator.
    pub fn any(&self) -> usize {
        self.doors.any()
    }

    /// Sends a message until it has an end.
    pub async fn ask(&self, path: &str, session: Option<&str>, message: &Value) -> Asked {
        let give_up = Instant::now() + PATIENCE;
        let mut activator = self.any();
        let (mut delayed, mut turned) = (0, 0);
        let mut last = String::from("nothing was answered");
        loop {
            let sent = self.clock.now();
            let request = self.request(Method::POST, (activator, path), session, message);
            let attempt = timeout_at(give_up, self.attempt(request)).await;
            let (reply, named) = match attempt {
                Err(_elapsed) => (Err((Failure::Silent, last)), None),
                Ok(Attempt::Answered(result, named)) => (Ok(result), named),
                Ok(Attempt::Failed(failure, said)) => (Err((failure, said)), None),
                Ok(Attempt::Later(pause, said)) => {
                    (last, delayed) = (said, delayed + 1);
                    sleep(pause).await;
                    activator = self.any();
                    continue;
                }
                Ok(Attempt::Unreachable(said)) => {
                    (last, turned) = (said, turned + 1);
                    if (turned as usize).is_multiple_of(self.doors.count()) {
                        sleep(ALL_REFUSED).await;
                    }
                    activator = self.doors.after(activator);
                    continue;
                }
            };
            return Asked {
                reply,
                session: named,
                activator,
                sent,
                delayed,
                turned,
            };
        }
    }

    /// Opens a session's passive stream at an activator; `None` if that takes no
    /// connection or has no stream now.
    pub async fn stream(&self, activator: usize, path: &str, session: &str) -> Option<Incoming> {
        let request = self.request(Method::GET, (activator, path), Some(session), &Value::Null);
        let answer = self.http.request(request).await.ok()?;
        (answer.status() == StatusCode::OK).then(|| answer.into_body())
    }

    /// Ends a session, if it can be ended.
    pub async fn end(&self, path: &str, session: &str) {
        let place = (self.any(), path);
        let request = self.request(Method::DELETE, place, Some(session), &Value::Null);
        if let Ok(answer) = self.http.request(request).await {
            drop(answer.into_body().collect().await);
        }
    }

    fn request(
        &self,
        method: Method,
        (activator, path): (usize, &str),
        session: Option<&str>,
        message: &Value,
    ) -> Request<Full<Bytes>> {
        let url = format!("http://{}{path}", self.doors.address(activator));
        let mut request = Request::builder().method(method).uri(url);
        request = request.header(CONTENT_TYPE, "application/json");
        request = if message.is_null() {
            request.header(ACCEPT, "text/event-stream")
        } else {
            request.header(ACCEPT, "application/json, text/event-stream")
        };
        if let Some(session) = session {
            request = request.header("mcp-session-id", session);
            request = request.header("mcp-protocol-version", "2025-11-25");
        }
        let body = if message.is_null() {
            Bytes::new()
        } else {
            Bytes::from(message.to_string())
        };
        let mut request = request.body(Full::new(body)).expect(
            "an activator's address, a path and a session id that came in a header are well formed",
        );
        request.headers_mut().extend(self.headers.clone());
        request
    }

    async fn attempt(&self, request: Request<Full<Bytes>>) -> Attempt {
        let answer = match self.http.request(request).await {
            Ok(answer) => answer,
            Err(error) if error.is_connect() => return Attempt::Unreachable(chain(&error)),
            Err(error) => return Attempt::Failed(Failure::Broken, chain(&error)),
        };
        let status = answer.status();
        let header = |name: &str| {
            let value = answer.headers().get(name)?;
            Some(value.to_str().ok()?.to_owned())
        };
        let named = header("mcp-session-id");
        let later = header(RETRY_AFTER.as_str()).and_then(|text| text.parse().ok());
        let text = match read(answer).await {
            Ok(text) => text,
            Err(error) => return Attempt::Failed(Failure::Broken, error),
        };
        if status == StatusCode::ACCEPTED {
            return Attempt::Answered(Value::Null, named);
        }
        let message = message_of(&text);
        if status == StatusCode::OK && message.get("result").is_some() {
            return Attempt::Answered(message["result"].clone(), named);
        }
        match (status, later) {
            (StatusCode::SERVICE_UNAVAILABLE, Some(seconds)) => {
                Attempt::Later(Duration::from_secs(seconds).min(MAX_PAUSE), text)
            }
            _ => Attempt::Failed(failure(status, &message), format!("{status} {text}")),
        }
    }
}

fn failure(status: StatusCode, message: &Value) -> Failure {
    match message["error"]["data"]["kind"].as_str() {
        Some("instance_lost") => Failure::InstanceLost,
        Some("session_gone") => Failure::SessionGone,
        _ if status == StatusCode::NOT_FOUND => Failure::SessionGone,
        _ => Failure::Refused,
    }
}

async fn read(answer: Response<Incoming>) -> Result<String, String> {
    let body = answer.into_body().collect().await;
    let body = body.map_err(|error| format!("the answer broke off: {}", chain(&error)))?;
    Ok(String::from_utf8_lossy(&body.to_bytes()).into_owned())
}

/// The answer in a body: all of it, or the last event that has an id.
fn message_of(text: &str) -> Value {
    if let Ok(message) = serde_json::from_str(text) {
        return message;
    }
    let events = text.lines().filter_map(|line| line.strip_prefix("data:"));
    let messages = events.filter_map(|data| serde_json::from_str::<Value>(data).ok());
    let mut answers = messages.filter(|message| message.get("method").is_none());
    answers.next_back().unwrap_or_default()
}

fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// A session's first message.
#[must_use]
pub fn initialize(client: &str) -> Value {
    json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {
        "protocolVersion": "2025-11-25", "capabilities": {},
        "clientInfo": {"name": client, "version": "0"},
    }})
}

/// Its second.
#[must_use]
pub fn initialized() -> Value {
    json!({"jsonrpc": "2.0", "method": "notifications/initialized"})
}

/// A call that says which it is, and may be asked to take a while.
#[must_use]
pub fn tools_call(id: u64, ms: Option<u64>) -> Value {
    let mut arguments = json!({"id": id});
    if let Some(ms) = ms {
        arguments["ms"] = ms.into();
    }
    json!({"jsonrpc": "2.0", "id": id, "method": "tools/call",
        "params": {"name": "witness", "arguments": arguments}})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_is_the_last_event_that_is_no_message_of_the_servers_own() {
        let text = ": working\n\ndata: {\"jsonrpc\":\"2.0\",\"method\":\"x\"}\n\ndata: {\"id\":1,\"error\":{\"data\":{\"kind\":\"instance_lost\"}}}\n\n";
        let message = message_of(text);
        assert_eq!(failure(StatusCode::OK, &message), Failure::InstanceLost);
        assert_eq!(message_of("{\"id\":1,\"result\":{}}")["id"], 1);
        assert_eq!(message_of("nonsense"), Value::Null);
        let gone = failure(StatusCode::NOT_FOUND, &Value::Null);
        assert_eq!(gone, Failure::SessionGone);
        assert_eq!(
            failure(StatusCode::BAD_GATEWAY, &Value::Null),
            Failure::Refused
        );
    }
}
