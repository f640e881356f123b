//! Several streams of one session at once: the passive one and answers that are resumed, and servers that have none.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    http::{Method, StatusCode},
    response::{IntoResponse, Response},
};
use mcp_gateway_api::{record::SessionNews, view::Service};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};

use crate::support::{Answer, Setup, World, call, client::Coming};

type Line = mpsc::Sender<Result<String, std::io::Error>>;

/// A server that keeps the strands of its streams apart and answers 409 to a second reader of one, as real servers do.
#[derive(Clone)]
pub(crate) struct Server {
    address: SocketAddr,
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    lines: Mutex<HashMap<String, Line>>,
    issued: AtomicUsize,
    pub(crate) deleted: Mutex<Vec<String>>,
    pub(crate) replayed: Mutex<Vec<Value>>,
    pub(crate) no_streams: AtomicBool,
    /// It knows no GET at all.
    pub(crate) no_route: AtomicBool,
    pub(crate) long_ids: AtomicBool,
    /// As a bridge each of whose children dies of a call.
    pub(crate) dies: AtomicBool,
    pub(crate) asked: AtomicUsize,
    /// `initialize` is answered while this holds.
    pub(crate) answers: watch::Sender<bool>,
}

impl Server {
    async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let inner = Arc::new(Inner {
            lines: Mutex::default(),
            issued: AtomicUsize::new(0),
            deleted: Mutex::default(),
            replayed: Mutex::default(),
            no_streams: AtomicBool::new(false),
            no_route: AtomicBool::new(false),
            long_ids: AtomicBool::new(false),
            dies: AtomicBool::new(false),
            asked: AtomicUsize::new(0),
            answers: watch::Sender::new(true),
        });
        let router = Router::new().fallback(serve).with_state(Arc::clone(&inner));
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { address, inner }
    }

    /// Whether somebody reads this strand.
    pub(crate) fn is_read(&self, strand: &str) -> bool {
        let lines = self.inner.lines.lock();
        lines.get(strand).is_some_and(|line| !line.is_closed())
    }

    pub(crate) fn say(&self, strand: &str, text: &str) {
        let lines = self.inner.lines.lock();
        lines[strand].try_send(Ok(text.to_owned())).unwrap();
    }

    pub(crate) fn hang_up(&self, strand: &str) {
        self.inner.lines.lock().remove(strand);
    }
}

impl Inner {
    fn stream(&self, strand: &str, first: &str) -> Response {
        let (line, receiver) = mpsc::channel(64);
        line.try_send(Ok(first.to_owned())).unwrap();
        let mut lines = self.lines.lock();
        if lines.get(strand).is_some_and(|line| !line.is_closed()) {
            self.asked.fetch_add(1, Ordering::SeqCst);
            return StatusCode::CONFLICT.into_response();
        }
        lines.insert(strand.to_owned(), line);
        let chunks = futures_util::stream::unfold(receiver, |mut receiver| async move {
            receiver.recv().await.map(|item| (item, receiver))
        });
        Response::builder()
            .header("content-type", "text/event-stream")
            .body(Body::from_stream(chunks))
            .unwrap()
    }
}

fn answered(status: u16, value: &Value) -> Response {
    Response::builder()
        .status(status)
        .header("content-type", "application/json")
        .body(Body::from(value.to_string()))
        .unwrap()
}

async fn serve(State(inner): State<Arc<Inner>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let header = |name: &str| head.headers.get(name).and_then(|v| v.to_str().ok());
    match head.method {
        Method::DELETE => {
            let session = header("mcp-session-id").unwrap_or_default().to_owned();
            inner.deleted.lock().push(session);
            return StatusCode::OK.into_response();
        }
        Method::GET if inner.no_streams.load(Ordering::SeqCst) => {
            inner.asked.fetch_add(1, Ordering::SeqCst);
            return StatusCode::METHOD_NOT_ALLOWED.into_response();
        }
        Method::GET if inner.no_route.load(Ordering::SeqCst) => {
            return (StatusCode::NOT_FOUND, "Cannot GET /mcp").into_response();
        }
        Method::GET => {
            let strand = header("last-event-id").and_then(|id| id.split_once('-'));
            let strand = strand.map_or("get", |(strand, _)| strand);
            return inner.stream(strand, ": welcome\n\n");
        }
        _ => {}
    }
    let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
    let message: Value = serde_json::from_slice(&body).unwrap();
    if let Some(batch) = message.as_array() {
        let answers: Vec<Value> = batch.iter().filter_map(one).collect();
        return answered(200, &answers.into());
    }
    if message["method"] == "initialize" {
        inner.asked.fetch_add(1, Ordering::SeqCst);
        return initialize(&inner, &message).await;
    }
    inner.replayed.lock().push(message.clone());
    if inner.dies.load(Ordering::SeqCst) && message["method"] == "tools/call" {
        let mut gone = answered(
            404,
            &json!({"jsonrpc": "2.0", "error": {"code": -31410, "message": "lost"}}),
        );
        let headers = gone.headers_mut();
        headers.insert("x-mcp-gateway-lost", "session".parse().unwrap());
        return gone;
    }
    let strand = message["id"].to_string();
    match message["params"]["name"].as_str() {
        // Closed at once: the response is to pass on another stream.
        Some("poll") => Response::builder()
            .header("content-type", "text/event-stream")
            .body(Body::from(format!("id: {strand}-0\ndata:\n\n")))
            .unwrap(),
        Some("drip") => inner.stream(&strand, &format!("id: {strand}-0\ndata:\n\n")),
        _ => one(&message).map_or_else(
            || StatusCode::ACCEPTED.into_response(),
            |answer| answered(200, &answer),
        ),
    }
}

/// Refuses whatever is called `bad`.
fn one(message: &Value) -> Option<Value> {
    let id = message
        .get("id")
        .filter(|_| message.get("method").is_some())?;
    Some(if message["params"]["uri"] == "bad" {
        json!({"jsonrpc": "2.0", "id": id, "error": {"code": -32602, "message": "no"}})
    } else {
        json!({"jsonrpc": "2.0", "id": id, "result": {}})
    })
}

async fn initialize(inner: &Inner, message: &Value) -> Response {
    let mut answers = inner.answers.subscribe();
    answers.wait_for(|answers| *answers).await.unwrap();
    let number = inner.issued.fetch_add(1, Ordering::SeqCst);
    let mut session = format!("s-{number}");
    if inner.long_ids.load(Ordering::SeqCst) {
        session.push_str(&"x".repeat(3_000));
    }
    let result = json!({
        "protocolVersion": message["params"]["protocolVersion"],
        "capabilities": {"tools": {}},
        "serverInfo": {"name": "strands", "version": "1"},
    });
    let answer = json!({"jsonrpc": "2.0", "id": message["id"], "result": result});
    let mut response = answered(200, &answer);
    let headers = response.headers_mut();
    headers.insert("mcp-session-id", session.parse().unwrap());
    response
}

pub(crate) async fn world(setup: Setup) -> (World, Server) {
    let server = Server::start().await;
    let world = World::with(setup).await;
    world.scaler.move_upstream(server.address);
    (world, server)
}

async fn opened() -> (World, Server, String) {
    let (world, server) = world(Setup::default()).await;
    let session = world.open().await;
    (world, server, session)
}

pub(crate) async fn get(world: &World, session: &str, resumes: Option<&str>) -> Coming {
    let mut headers = vec![("accept", "text/event-stream"), ("mcp-session-id", session)];
    headers.extend(resumes.map(|id| ("last-event-id", id)));
    let path = "/adapters/demo/mcp";
    let request = world.client.request(Method::GET, path, &headers, "");
    world.client.begin(request).await
}

pub(crate) async fn post(world: &World, session: &str, body: &str) -> Answer {
    let headers = [("mcp-session-id", session)];
    world.client.post(body, &headers).await
}

fn response(id: u32) -> String {
    format!("id: {id}-1\ndata: {{\"jsonrpc\":\"2.0\",\"id\":{id},\"result\":{{}}}}\n\n")
}

/// SDKs open their passive stream again after a second when it ends: each of two streams would end the other in turn.
#[tokio::test]
async fn a_resumed_answer_and_the_passive_stream_stand_beside_each_other() {
    let (world, server, session) = opened().await;
    let mut passive = get(&world, &session, None).await;
    passive.until("welcome").await;
    for id in [5, 6] {
        let answer = post(&world, &session, &call(id, "poll")).await;
        assert_eq!(answer.text(), format!("id: {id}-0\ndata:\n\n"));
    }
    let mut resumed = [
        get(&world, &session, Some("5-0")).await,
        get(&world, &session, Some("6-0")).await,
    ];
    for one in &mut resumed {
        one.until("welcome").await;
    }
    // The client's passive stream is opened anew: that ends the one before, and nothing else.
    let mut again = get(&world, &session, None).await;
    again.until("welcome").await;
    assert!(passive.rest().await.1);
    for (id, one) in (5..).zip(&mut resumed) {
        server.say(&id.to_string(), &response(id));
        one.until(&response(id)).await;
    }
    world
        .until("the leases have ended", || world.scaler.leases() == Some(0))
        .await;
    server.say("get", "data: {\"jsonrpc\":\"2.0\",\"method\":\"m\"}\n\n");
    again.until("\"m\"").await;
}

#[tokio::test]
async fn an_answer_that_began_at_another_activator_is_resumed_beside_the_passive_stream() {
    let (world, server, session) = opened().await;
    let mut passive = get(&world, &session, None).await;
    passive.until("welcome").await;
    // Its POST, and the event that it is resumed from, passed there.
    let mut resumed = get(&world, &session, Some("9-0")).await;
    resumed.until("welcome").await;
    server.say("9", &response(9));
    resumed.until(&response(9)).await;
    server.say("get", "data: {\"jsonrpc\":\"2.0\",\"method\":\"m\"}\n\n");
    passive.until("\"m\"").await;
}

#[tokio::test]
async fn an_answer_that_is_resumed_while_its_first_connection_seems_open_is_read_there_no_longer() {
    let (world, server, session) = opened().await;
    let posted = world
        .client
        .posting(&call(5, "drip"), &[("mcp-session-id", &session)]);
    let mut first = world.client.begin(posted).await;
    first.until("5-0").await;
    // Nobody has noticed that the client's network has changed.
    let mut resumed = get(&world, &session, Some("5-0")).await;
    resumed.until("welcome").await;
    assert!(first.rest().await.1);
    server.say("5", &response(5));
    resumed.until(&response(5)).await;
    world
        .until("the lease has ended", || world.scaler.leases() == Some(0))
        .await;
}

#[tokio::test]
async fn a_resumed_answer_that_is_lost_is_told_where_it_was_resumed_and_that_stream_ends() {
    let (world, server, session) = opened().await;
    let mut passive = get(&world, &session, None).await;
    passive.until("welcome").await;
    post(&world, &session, &call(5, "poll")).await;
    let mut resumed = get(&world, &session, Some("5-0")).await;
    resumed.until("welcome").await;
    world.scaler.lose();
    assert!(resumed.until("\"id\":5").await.contains("instance_lost"));
    assert!(resumed.rest().await.1);
    // The passive one goes on with the session.
    server.hang_up("get");
    assert_eq!(post(&world, &session, &call(7, "echo")).await.status, 200);
    world
        .until("attached again", || server.is_read("get"))
        .await;
    server.say("get", "data: {\"jsonrpc\":\"2.0\",\"method\":\"m\"}\n\n");
    let seen = passive.until("\"m\"").await;
    assert!(!seen.contains("\"id\":5"), "told once: {seen}");
}

/// A drain that meets a lease is called off, and nothing of the session need happen then.
#[tokio::test]
async fn a_stream_that_comes_during_an_idle_drain_attaches_when_that_is_called_off() {
    let (world, server, session) = opened().await;
    post(&world, &session, &call(5, "poll")).await;
    world.scaler.service(Service::IdleDrain);
    world
        .until("the drain is known", || !world.scaler.acks().is_empty())
        .await;
    let mut resumed = get(&world, &session, Some("5-0")).await;
    let early = tokio::time::timeout(Duration::from_millis(100), resumed.until("welcome")).await;
    assert!(early.is_err() && !server.is_read("5"));
    world.scaler.service(Service::Open);
    resumed.until("welcome").await;
    server.say("5", &response(5));
    resumed.until(&response(5)).await;
}

#[tokio::test]
async fn a_server_without_a_passive_stream_is_known_for_it_while_it_sleeps() {
    let (world, server, session) = opened().await;
    server.inner.no_streams.store(true, Ordering::SeqCst);
    world.scaler.lose();
    let parked = get(&world, &session, None).await;
    assert_eq!(parked.status, 200, "nobody knows yet");
    assert_eq!(post(&world, &session, &call(5, "echo")).await.status, 200);
    assert!(parked.rest().await.1, "it ends once the server has said so");
    world.scaler.lose();
    let asked = server.inner.asked.load(Ordering::SeqCst);
    let asleep = get(&world, &session, None).await;
    assert_eq!(asleep.status, 405);
    assert_eq!(server.inner.asked.load(Ordering::SeqCst), asked);
    // Awake it is asked, and may have changed.
    assert_eq!(post(&world, &session, &call(6, "echo")).await.status, 200);
    server.inner.no_streams.store(false, Ordering::SeqCst);
    assert_eq!(get(&world, &session, None).await.status, 200);
    world.scaler.lose();
    assert_eq!(get(&world, &session, None).await.status, 200);
}

/// As Express says of a path that it has only a POST for. Clients take it for a server without streams.
#[tokio::test]
async fn a_server_without_a_route_for_get_says_so_itself_and_its_session_goes_on() {
    let (world, server, session) = opened().await;
    server.inner.no_route.store(true, Ordering::SeqCst);
    for resumes in [None, Some("5-0")] {
        let refused = get(&world, &session, resumes).await;
        assert_eq!(refused.status, 404);
        assert_eq!(refused.rest().await.0, "Cannot GET /mcp");
        assert_eq!(post(&world, &session, &call(5, "echo")).await.status, 200);
    }
    assert!(!world.scaler.updates().contains(&SessionNews::Ended));
}

#[tokio::test]
async fn a_stream_that_somebody_else_reads_is_asked_for_until_it_is_free() {
    let mut setup = Setup::default();
    setup.config.keep_alive = Duration::from_millis(40);
    let (world, server) = world(setup).await;
    let session = world.open().await;
    post(&world, &session, &call(5, "poll")).await;
    // For a client that has left: another activator, which has not noticed.
    let held = ["get", "5"].map(|strand| server.inner.stream(strand, ""));
    let (passive, resumed) = tokio::join!(
        get(&world, &session, None),
        get(&world, &session, Some("5-0"))
    );
    let asked = || server.inner.asked.load(Ordering::SeqCst);
    let often = asked() + 10; // More than are left of the first seconds.
    world.until("both are asked for", || asked() > often).await;
    drop(held);
    for (strand, mut stream) in [("get", passive), ("5", resumed)] {
        world.until("it is read", || server.is_read(strand)).await;
        server.say(strand, "data: {\"jsonrpc\":\"2.0\",\"method\":\"m\"}\n\n");
        stream.until("\"m\"").await;
    }
}
