//! A server that can testify: each call says where it ran and for whom, and is
//! told to a collector at that moment, whatever becomes of the answer.
//!
//! What answers alone cannot show is shown by the two together: a call that ran
//! twice, ran for nobody, or ran in somebody else's session. Started by the
//! gateway as any server is; [`Collector`] is the other end.
//!
//! It keeps nothing but its sessions, of which there is a bound, and never
//! answers for a session that it does not know.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use futures_util::stream;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, Limited, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::net::{TcpListener, UdpSocket};
use tokio::time::sleep;

/// Largest body that is read.
const MAX_BODY: usize = 64 * 1024;
/// Most sessions that are kept.
const MAX_SESSIONS: usize = 4_096;
/// Longest that `slow` may be asked to take.
const MAX_SLOW: Duration = Duration::from_secs(60);
/// From one sign of life of a slow call to the next.
const BEAT: Duration = Duration::from_millis(200);
/// From one message on a passive stream to the next.
const TICK: Duration = Duration::from_secs(1);
/// Longest testimony.
const MAX_TESTIMONY: usize = 512;

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// What a call says of where it ran.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Testimony {
    /// The call.
    pub id: u64,
    /// The name that the session's client gave at its handshake.
    pub owner: String,
    /// The process that it ran in: its host's name, in a pod the pod's, and after a
    /// dot a number of its own, since another pod may have the same name later.
    pub instance: String,
    /// The server's own id of the session.
    pub session: String,
}

/// What all requests share.
#[derive(Debug)]
pub struct Witness {
    instance: String,
    sessions: Mutex<HashMap<String, String>>,
    collector: Option<(UdpSocket, SocketAddr)>,
}

impl Witness {
    /// One that tells `collector`, if there is one.
    ///
    /// # Errors
    /// There is no socket to tell it with.
    pub async fn new(instance: String, collector: Option<SocketAddr>) -> anyhow::Result<Self> {
        let collector = match collector {
            None => None,
            Some(to) => Some((UdpSocket::bind("0.0.0.0:0").await?, to)),
        };
        Ok(Self {
            instance,
            sessions: Mutex::default(),
            collector,
        })
    }

    fn begin(&self, owner: &str) -> Option<String> {
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        if sessions.len() >= MAX_SESSIONS {
            return None;
        }
        let session = format!("{:032x}", rand::random::<u128>());
        sessions.insert(session.clone(), owner.chars().take(128).collect());
        Some(session)
    }

    fn owner(&self, headers: &HeaderMap) -> Option<(String, String)> {
        let session = headers.get("mcp-session-id")?.to_str().ok()?;
        let sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        Some((session.to_owned(), sessions.get(session)?.clone()))
    }

    fn end(&self, session: &str) {
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.remove(session);
    }

    /// A datagram on a machine's own bridge arrives or was never sent: nothing that
    /// happens to this process afterwards takes it back.
    async fn tell(&self, testimony: &Testimony) {
        if let Some((socket, to)) = &self.collector
            && let Ok(text) = serde_json::to_vec(testimony)
        {
            drop(socket.send_to(&text, to).await);
        }
    }
}

/// Serves `/mcp` and `/healthz` until the process ends.
pub async fn serve(listener: TcpListener, witness: Arc<Witness>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            continue;
        };
        if stream.set_nodelay(true).is_err() {
            continue;
        }
        let witness = Arc::clone(&witness);
        let service = service_fn(move |request| {
            let witness = Arc::clone(&witness);
            async move { Ok::<_, Infallible>(answer(&witness, request).await) }
        });
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}

async fn answer(witness: &Witness, request: Request<Incoming>) -> Response<Body> {
    let (parts, body) = request.into_parts();
    if parts.uri.path() == "/healthz" {
        return empty(StatusCode::OK);
    }
    let Ok(body) = Limited::new(body, MAX_BODY).collect().await else {
        return empty(StatusCode::BAD_REQUEST);
    };
    if parts.method == Method::POST {
        let message: Value = serde_json::from_slice(&body.to_bytes()).unwrap_or_default();
        return posted(witness, &parts.headers, &message).await;
    }
    let Some((session, owner)) = witness.owner(&parts.headers) else {
        return empty(StatusCode::NOT_FOUND);
    };
    if parts.method == Method::GET {
        return ticking(&owner);
    }
    witness.end(&session);
    empty(StatusCode::NO_CONTENT)
}

async fn posted(witness: &Witness, headers: &HeaderMap, message: &Value) -> Response<Body> {
    let id = &message["id"];
    if message["method"] == "initialize" {
        let owner = message["params"]["clientInfo"]["name"].as_str();
        return initialized(witness, id, owner.unwrap_or_default());
    }
    let Some((session, owner)) = witness.owner(headers) else {
        return empty(StatusCode::NOT_FOUND);
    };
    if id.is_null() {
        return empty(StatusCode::ACCEPTED);
    }
    let params = &message["params"];
    let Some(call) = params["arguments"]["id"].as_u64() else {
        return json_body(&json!({"jsonrpc": "2.0", "id": id, "result": {}}));
    };
    let testimony = Testimony {
        id: call,
        owner,
        instance: witness.instance.clone(),
        session,
    };
    witness.tell(&testimony).await;
    let text = serde_json::to_string(&testimony).unwrap_or_default();
    let result = json!({"content": [{"type": "text", "text": text}], "isError": false});
    let answer = json!({"jsonrpc": "2.0", "id": id, "result": result});
    match params["arguments"]["ms"].as_u64() {
        None => json_body(&answer),
        Some(ms) => working(answer, Duration::from_millis(ms).min(MAX_SLOW)),
    }
}

fn initialized(witness: &Witness, id: &Value, owner: &str) -> Response<Body> {
    let Some(session) = witness.begin(owner) else {
        return empty(StatusCode::SERVICE_UNAVAILABLE);
    };
    let mut answer = json_body(&json!({"jsonrpc": "2.0", "id": id, "result": {
        "protocolVersion": "2025-11-25",
        "capabilities": {"tools": {}, "logging": {}},
        "serverInfo": {"name": "witness", "version": "0"},
    }}));
    if let Ok(session) = HeaderValue::from_str(&session) {
        answer.headers_mut().insert("mcp-session-id", session);
    }
    answer
}

/// A stream that shows life until the answer is due.
fn working(answer: Value, length: Duration) -> Response<Body> {
    let steps = (length.as_millis() / BEAT.as_millis()).max(1);
    let step = length / u32::try_from(steps).unwrap_or(u32::MAX);
    events(stream::unfold(0, move |done| {
        let answer = answer.clone();
        async move {
            if done > steps {
                return None;
            }
            if done == steps {
                return Some((format!("data: {answer}\n\n"), done + 1));
            }
            sleep(step).await;
            Some((": working\n\n".to_owned(), done + 1))
        }
    }))
}

/// A passive stream that says, again and again, whose it is.
fn ticking(owner: &str) -> Response<Body> {
    let message = json!({"jsonrpc": "2.0", "method": "notifications/message",
        "params": {"level": "info", "logger": "tick", "data": owner}});
    events(stream::unfold(message, |message| async move {
        sleep(TICK).await;
        Some((format!("data: {message}\n\n"), message))
    }))
}

fn events(texts: impl stream::Stream<Item = String> + Send + 'static) -> Response<Body> {
    use futures_util::StreamExt as _;
    let frames = texts.map(|text| Ok(Frame::data(Bytes::from(text))));
    let mut answer = Response::new(StreamBody::new(frames).boxed_unsync());
    let kind = HeaderValue::from_static("text/event-stream");
    answer.headers_mut().insert(CONTENT_TYPE, kind);
    answer
}

fn json_body(message: &Value) -> Response<Body> {
    let body = Full::new(Bytes::from(message.to_string()));
    let mut answer = Response::new(body.boxed_unsync());
    let kind = HeaderValue::from_static("application/json");
    answer.headers_mut().insert(CONTENT_TYPE, kind);
    answer
}

fn empty(status: StatusCode) -> Response<Body> {
    let mut answer = Response::new(Full::default().boxed_unsync());
    *answer.status_mut() = status;
    answer
}

/// Hears all testimonies, for as long as it lives.
#[derive(Debug)]
pub struct Collector {
    heard: Arc<Mutex<Vec<Testimony>>>,
    /// Where it listens.
    pub address: SocketAddr,
    task: tokio::task::JoinHandle<()>,
}

impl Collector {
    /// Listens at an address.
    ///
    /// # Errors
    /// It cannot be listened on.
    pub async fn listen(at: SocketAddr) -> anyhow::Result<Self> {
        let socket = UdpSocket::bind(at)
            .await
            .with_context(|| format!("cannot hear testimonies on {at}"))?;
        let address = socket.local_addr()?;
        let heard: Arc<Mutex<Vec<Testimony>>> = Arc::default();
        let into = Arc::clone(&heard);
        let task = tokio::spawn(async move {
            let mut datagram = [0; MAX_TESTIMONY];
            loop {
                if let Ok(length) = socket.recv(&mut datagram).await
                    && let Ok(one) = serde_json::from_slice(&datagram[..length])
                {
                    into.lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .push(one);
                }
            }
        });
        Ok(Self {
            heard,
            address,
            task,
        })
    }

    /// All that was heard so far.
    #[must_use]
    pub fn heard(&self) -> Vec<Testimony> {
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.clone()
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.task.abort();
    }
}
