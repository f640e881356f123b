//! Servers and clients that misbehave: each gets its own clear answer, and none costs another client anything.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use http::{Method, StatusCode};
use mcp_gateway_api::status::BackendStatus;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};

use crate::{
    documents::{BINARY, Backend},
    gateway::{Gateway, PATIENCE, is_cold},
    tools::{self, Share, Tools},
    wire::{self, Http, LEGACY, Peer, Reply, initialize, post, request, send},
};

/// A client that behaves, beside those that do not.
struct Well {
    stop: Arc<AtomicBool>,
    task: JoinHandle<Result<(usize, Duration), String>>,
}

impl Well {
    async fn begin(gateway: &Gateway) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let peer = Peer::connect(&gateway.url("well"), "well")
            .await
            .expect("a well client connects");
        let until = Arc::clone(&stop);
        let task = tokio::spawn(async move {
            let (mut calls, mut slowest) = (0, Duration::ZERO);
            while !until.load(Ordering::Relaxed) {
                calls += 1;
                let began = Instant::now();
                let answer = peer.call("counter", json!({})).await?;
                slowest = slowest.max(began.elapsed());
                if answer.text() != calls.to_string() {
                    return Err(format!("call {calls} got {answer:?}"));
                }
                sleep(Duration::from_millis(5)).await;
            }
            Ok((calls, slowest))
        });
        Self { stop, task }
    }

    /// It was never disturbed: one session, no answer missing, none late.
    async fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        let (calls, slowest) = self
            .task
            .await
            .expect("no panic")
            .expect("the well client is always answered");
        assert!(calls > 0);
        // As long as one that waits for somebody else's timeouts would on a machine that does nothing else.
        assert!(
            slowest < PATIENCE / 2,
            "the well client once waited {slowest:?}"
        );
    }
}

fn well() -> Backend {
    Backend::demo("well", "stdio").policy("idleTimeout", "1m")
}

/// An HTTP server of `code`, which has `sock`, listening, and `conn`, its first connection.
fn python_http(name: &str, tools: &Tools, code: &str) -> Backend {
    let listen =
        "import os,socket,time\nsock=socket.create_server(('127.0.0.1',int(os.environ['PORT'])))\n";
    Backend::new(
        name,
        "streamable-http",
        &[tools.path("PY2"), "-c", &format!("{listen}{code}")],
    )
}

fn shell(name: &str, transport: &str, script: &str) -> Backend {
    Backend::new(name, transport, &["sh", "-c", script])
}

/// Asks a backend for a session.
async fn knock(gateway: &Gateway, backend: &str) -> Reply {
    let http = wire::http();
    let (url, hello) = (gateway.url(backend), initialize(7));
    let asked = post(&http, &url, &[], &hello);
    let reply = timeout(PATIENCE, asked).await;
    let reply =
        reply.unwrap_or_else(|_| panic!("{backend} left its client waiting\n{}", gateway.log()));
    reply.unwrap_or_else(|error| panic!("{backend}: {error}"))
}

/// The gateway's own answer for a server that does not serve: never one that changes a client's idea of the era.
fn assert_said(backend: &str, reply: &Reply, statuses: &[u16]) {
    let message = reply.json();
    let text = String::from_utf8_lossy(&reply.body);
    assert!(
        statuses.contains(&reply.status.as_u16()),
        "{backend}: {} {text}",
        reply.status
    );
    assert_eq!(message["id"], 7, "{backend}: {text}");
    let code = message["error"]["code"].as_i64().unwrap_or_default();
    assert!(
        !(-32768..=-32000).contains(&code) && code != 0,
        "{backend}: code {code}"
    );
    let said = message["error"]["message"].as_str().unwrap_or_default();
    assert!(
        (1..300).contains(&said.len()),
        "{backend}: no short sentence: {said}"
    );
    for secret in ["/bin", "sekret", "127.0.0.1", BINARY] {
        assert!(!text.contains(secret), "{backend}: {secret} leaks: {text}");
    }
    if reply.status == StatusCode::SERVICE_UNAVAILABLE {
        assert!(
            reply.header("retry-after").parse::<u64>().is_ok(),
            "{backend}: no Retry-After"
        );
    }
}

fn failure(status: &BackendStatus) -> String {
    let failure = status.last_failure.as_ref();
    let failure = failure
        .unwrap_or_else(|| panic!("{}: /status tells of no failure: {status:?}", status.name));
    serde_json::to_string(failure).expect("a failure is JSON")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_cannot_be_started_costs_its_own_client_a_sentence_and_others_nothing() {
    let backends = [
        well(),
        Backend::new("missing", "stdio", &["/no/such/command/sekret"]),
        shell("dies", "stdio", "echo 'boom sekret' >&2; exit 3"),
        shell("deaf", "streamable-http", "exec sleep 1000")
            .policy("startTimeout", "500ms")
            .policy("holdTimeout", "5s"),
        shell(
            "dies-http",
            "streamable-http",
            "echo 'boom sekret' >&2; exit 3",
        ),
    ];
    let _turn = tools::turn(Share::Half).await;
    let gateway = Gateway::start(&backends).await;
    let well = Well::begin(&gateway).await;
    let (missing, dies, deaf, dies_http) = tokio::join!(
        knock(&gateway, "missing"),
        knock(&gateway, "dies"),
        knock(&gateway, "deaf"),
        knock(&gateway, "dies-http"),
    );
    well.end().await;
    assert_said("missing", &missing, &[502, 503]);
    assert_said("dies", &dies, &[502, 503]);
    assert_said("deaf", &deaf, &[503]);
    assert_said("dies-http", &dies_http, &[503]);
    let told = failure(&gateway.status("dies-http").await);
    assert!(
        told.contains("boom sekret") && told.contains('3'),
        "the operator is told all: {told}"
    );
    failure(&gateway.status("deaf").await);
    failure(&gateway.status("missing").await);
    assert_eq!(gateway.status("well").await.starts, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_hangs_or_babbles_costs_its_own_client_a_sentence_and_others_nothing() {
    let backends = [
        well(),
        shell("hangs", "stdio", "exec sleep 1000").policy("requestTimeout", "1s"),
        shell("babbles", "stdio", "while read line; do echo babble; done")
            .policy("requestTimeout", "1s"),
        shell("floods", "stdio", "exec yes").policy("requestTimeout", "1s"),
        shell("no-newline", "stdio", "exec cat /dev/zero").policy("requestTimeout", "1s"),
    ];
    let _turn = tools::turn(Share::Half).await;
    let gateway = Gateway::start(&backends).await;
    let well = Well::begin(&gateway).await;
    let (hangs, babbles, floods, endless) = tokio::join!(
        knock(&gateway, "hangs"),
        knock(&gateway, "babbles"),
        knock(&gateway, "floods"),
        knock(&gateway, "no-newline"),
    );
    well.end().await;
    assert_said("hangs", &hangs, &[502, 503, 504]);
    assert_said("babbles", &babbles, &[502, 503, 504]);
    assert_said("floods", &floods, &[502, 503, 504]);
    assert_said("no-newline", &endless, &[502, 503, 504]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_http_server_that_answers_garbage_costs_its_own_client_a_sentence_and_others_nothing() {
    let Some(tools) = tools::installed("bad HTTP servers") else {
        return;
    };
    let silent = "while True:\n  sock.accept()[0].recv(1);time.sleep(0.01)\n";
    let hangs = "conns=[]\nwhile True:\n  conns.append(sock.accept())\n";
    let garbage = "while True:\n  conn=sock.accept()[0]\n  conn.recv(9999)\n  conn.sendall(b'sekret garbage\\r\\n\\r\\n'*99)\n  conn.close()\n";
    // Answers the health probe, then dies of the first POST.
    let dies = "while True:\n  conn=sock.accept()[0]\n  if b'POST' in conn.recv(9999): os._exit(3)\n  conn.sendall(b'HTTP/1.1 404 no\\r\\ncontent-length: 0\\r\\nconnection: close\\r\\n\\r\\n')\n  conn.close()\n";
    let limits = |backend: Backend| {
        backend
            .policy("startTimeout", "3s")
            .policy("requestTimeout", "2s")
            .policy("holdTimeout", "5s")
    };
    let backends = [
        well(),
        limits(python_http("closes", tools, silent)),
        limits(python_http("hangs", tools, hangs)),
        limits(python_http("garbage", tools, garbage)),
        limits(python_http("dies", tools, dies)),
    ];
    let _turn = tools::turn(Share::Half).await;
    let gateway = Gateway::start(&backends).await;
    let well = Well::begin(&gateway).await;
    let (closes, hangs, garbage, dies) = tokio::join!(
        knock(&gateway, "closes"),
        knock(&gateway, "hangs"),
        knock(&gateway, "garbage"),
        knock(&gateway, "dies"),
    );
    well.end().await;
    assert_said("closes", &closes, &[502, 503]);
    assert_said("hangs", &hangs, &[503, 504]);
    assert_said("garbage", &garbage, &[502, 503]);
    assert_said("dies", &dies, &[502, 503]);
}

/// One request that must not pass.
struct Case {
    what: &'static str,
    headers: Vec<(&'static str, String)>,
    method: Method,
    body: String,
    status: u16,
}

fn case(what: &'static str, status: u16) -> Case {
    let headers = vec![
        ("content-type", "application/json".to_owned()),
        ("accept", "application/json, text/event-stream".to_owned()),
    ];
    Case {
        what,
        headers,
        method: Method::POST,
        body: initialize(7).to_string(),
        status,
    }
}

impl Case {
    fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }

    fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(own, _)| *own != name);
        self
    }

    fn body(mut self, body: impl Into<String>) -> Self {
        self.body = body.into();
        self
    }

    fn method(mut self, method: Method) -> Self {
        self.method = method;
        self
    }
}

fn refused() -> Vec<Case> {
    let list = json!({"jsonrpc": "2.0", "id": 7, "method": "tools/list"}).to_string();
    let huge = json!({"jsonrpc": "2.0", "id": 7, "method": "tools/list", "params": {"x": "x".repeat(5 << 20)}});
    vec![
        case("a body over the limit", 413).body(huge.to_string()),
        case("a wrong content type", 415)
            .without("content-type")
            .header("content-type", "text/plain"),
        case("no content type", 415).without("content-type"),
        case("no JSON", 400).body("{\"jsonrpc\":"),
        case("an empty body", 400).body(""),
        case("JSON that is no message", 400).body("[1,2,3]"),
        case("an empty batch", 400).body("[]"),
        case("a number", 400).body("42"),
        case("no UTF-8 escapes end", 400).body("\"\\ud800"),
        case("deep nesting", 400).body("[".repeat(100_000)),
        case("two session ids", 400)
            .body(list.clone())
            .header("mcp-session-id", "a")
            .header("mcp-session-id", "b"),
        case("two versions", 400)
            .body(list.clone())
            .header("mcp-protocol-version", LEGACY)
            .header("mcp-protocol-version", LEGACY),
        case("two Mcp-Method", 400)
            .header("mcp-method", "initialize")
            .header("mcp-method", "tools/list"),
        case("two Mcp-Name", 400)
            .header("mcp-name", "a")
            .header("mcp-name", "a"),
        case("a strange Host", 403).header("host", "evil.example.com"),
        case("a strange Host with a port", 403).header("host", "evil.example.com:80"),
        case("a strange Origin", 403).header("origin", "http://evil.example.com"),
        case("the null Origin", 403).header("origin", "null"),
        case("an Origin that only begins well", 403)
            .header("origin", "http://localhost.evil.example.com"),
        case("a forged session id", 404)
            .body(list.clone())
            .header("mcp-session-id", "forged")
            .header("mcp-protocol-version", LEGACY),
        case("a long session id", 404)
            .body(list)
            .header("mcp-session-id", &"A".repeat(8000))
            .header("mcp-protocol-version", LEGACY),
        case("PUT", 405).method(Method::PUT),
        case("PATCH", 405).method(Method::PATCH),
        case("GET without a session", 405)
            .method(Method::GET)
            .without("accept")
            .header("accept", "text/event-stream")
            .body(""),
        case("DELETE without a session", 405)
            .method(Method::DELETE)
            .body(""),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_cannot_be_right_is_refused_and_wakes_nothing() {
    let _turn = tools::turn(Share::Half).await;
    let gateway = Gateway::start(&[well(), Backend::demo("sleeper", "streamable-http")]).await;
    let well = Well::begin(&gateway).await;
    let url = gateway.url("sleeper");
    let mut wrong = Vec::new();
    for case in refused() {
        let http = wire::http();
        let headers: Vec<(&str, &str)> = case
            .headers
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        match send(
            &http,
            request(case.method.clone(), &url, &headers, case.body.clone()),
        )
        .await
        {
            Ok(reply) if reply.status == case.status => check_refusal(&case, &reply, &mut wrong),
            Ok(reply) => wrong.push(format!(
                "{}: {} instead of {}: {:?}",
                case.what, reply.status, case.status, reply.body
            )),
            // A body refused by its announced length may be met by a closed connection.
            Err(error) => wrong.push(format!("{}: {error}", case.what)),
        }
    }
    well.end().await;
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let status = gateway.status("sleeper").await;
    assert!(
        status.starts == 0 && is_cold(&status),
        "something was woken: {status:?}"
    );
}

fn check_refusal(case: &Case, reply: &Reply, wrong: &mut Vec<String>) {
    let said = reply.json()["error"]["message"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    if !said.ends_with('.') {
        wrong.push(format!("{}: no sentence: {:?}", case.what, reply.body));
    }
    if case.status == 405 && !reply.header("allow").contains("POST") {
        wrong.push(format!("{}: no Allow header", case.what));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_backend_or_path_is_not_found() {
    let _turn = tools::turn(Share::Half).await;
    let gateway = Gateway::start(&[well()]).await;
    let http = wire::http();
    let nobody = post(&http, &gateway.url("nobody"), &[], &initialize(7))
        .await
        .expect("an answer");
    assert_eq!(nobody.status, StatusCode::NOT_FOUND);
    let path = wire::get(&http, &format!("http://{}/nowhere", gateway.listen), &[]).await;
    assert_eq!(path.status, StatusCode::NOT_FOUND);
    assert_eq!(gateway.status("well").await.starts, 0);
}

/// Any request on a session: the status it gets.
async fn ask(http: &Http, url: &str, session: &str, more: &[(&str, &str)]) -> StatusCode {
    let mut headers = vec![
        ("mcp-session-id", session),
        ("mcp-protocol-version", LEGACY),
    ];
    headers.extend_from_slice(more);
    let list = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list"});
    post(http, url, &headers, &list)
        .await
        .expect("an answer")
        .status
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_id_that_was_changed_cut_ended_or_is_of_another_backend_is_404_and_wakes_nothing()
{
    let demo = |name| Backend::demo(name, "streamable-http").policy("idleTimeout", "200ms");
    let _turn = tools::turn(Share::Half).await;
    let gateway = Gateway::start(&[demo("one"), demo("two")]).await;
    let http = wire::http();
    let (one, two) = (gateway.url("one"), gateway.url("two"));
    let peer = Peer::connect(&one, "one").await.expect("connects");
    let ended = Peer::connect(&one, "ended").await.expect("connects");
    assert!(ended.delete().await.expect("an answer").is_success());
    assert_eq!(
        ask(&http, &one, ended.session(), &[]).await,
        StatusCode::NOT_FOUND,
        "ended, while the instance runs"
    );
    gateway.until_cold("one").await;
    let before = gateway.status("one").await.starts;

    let id = peer.session().to_owned();
    let mut wrong = Vec::new();
    for cut in [1, id.len() / 2, id.len() - 1] {
        wrong.push(id[..cut].to_owned());
    }
    for place in [0, 1, id.len() / 3, id.len() / 2, id.len() - 1] {
        let mut changed = id.clone().into_bytes();
        changed[place] = if changed[place] == b'A' { b'B' } else { b'A' };
        wrong.push(String::from_utf8(changed).expect("ASCII"));
    }
    wrong.push(format!("{id}A"));
    wrong.push(ended.session().to_owned());
    for wrong in &wrong {
        let status = ask(&http, &one, wrong, &[]).await;
        // The last character of base64 may carry bits that mean nothing; a strict reader refuses them too.
        assert_eq!(status, StatusCode::NOT_FOUND, "{wrong}");
    }
    assert_eq!(
        ask(&http, &two, &id, &[]).await,
        StatusCode::NOT_FOUND,
        "an id of another backend"
    );
    assert_eq!(
        gateway.status("one").await.starts,
        before,
        "a wrong id woke the server"
    );
    assert_eq!(
        gateway.status("two").await.starts,
        0,
        "a wrong id woke the other server"
    );
    assert_eq!(
        ask(&http, &one, &id, &[]).await,
        StatusCode::OK,
        "the right id still works"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_older_than_its_lifetime_is_404_and_wakes_nothing() {
    let demo = Backend::demo("demo", "stdio")
        .policy("idleTimeout", "100ms")
        // Counted in whole seconds: of one, next to nothing might be left.
        .policy("sessionLifetime", "3s");
    let _turn = tools::turn(Share::Half).await;
    let gateway = Gateway::start(&[demo]).await;
    let peer = Peer::connect(&gateway.url("demo"), "old")
        .await
        .expect("connects");
    let http = wire::http();
    let give_up = Instant::now() + PATIENCE;
    gateway.until_cold("demo").await;
    while ask(&http, &gateway.url("demo"), peer.session(), &[]).await != StatusCode::NOT_FOUND {
        assert!(Instant::now() < give_up, "the session never expires");
        gateway.until_cold("demo").await;
    }
    gateway.until_cold("demo").await;
    let before = gateway.status("demo").await.starts;
    assert_eq!(
        ask(&http, &gateway.url("demo"), peer.session(), &[]).await,
        StatusCode::NOT_FOUND
    );
    assert_eq!(gateway.status("demo").await.starts, before);
}

/// Makes a key the way an operator does.
pub(crate) fn key(file: &str, tenant: &str, subject: &str) -> String {
    let made = std::process::Command::new(BINARY)
        .args([
            "keys",
            "add",
            "--tenant",
            tenant,
            "--subject",
            subject,
            "--keys",
            file,
        ])
        .output()
        .expect("the binary runs");
    assert!(
        made.status.success(),
        "{}",
        String::from_utf8_lossy(&made.stderr)
    );
    String::from_utf8(made.stdout)
        .expect("a readable key")
        .trim()
        .to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_is_401_a_foreign_session_404_and_neither_wakes_anything() {
    let home = tempfile::tempdir().expect("a temporary folder");
    let file = home.path().join("keys.json");
    let file = file.to_str().expect("a readable path");
    let (alice, bob) = (key(file, "engineering", "alice"), key(file, "sales", "bob"));
    let demo = Backend::demo("demo", "streamable-http")
        .policy("isolation", "tenant")
        .policy("idleTimeout", "200ms");
    let _turn = tools::turn(Share::Half).await;
    let gateway = Gateway::start_with(&[demo], &["--keys", file]).await;
    let (http, url) = (wire::http(), gateway.url("demo"));

    for wrong in [
        None,
        Some("Bearer mgk_wrong"),
        Some("Basic YTpi"),
        Some("Bearer "),
        Some(alice.as_str()),
    ] {
        let headers: Vec<(&str, &str)> = wrong.iter().map(|key| ("authorization", *key)).collect();
        let reply = post(&http, &url, &headers, &initialize(7))
            .await
            .expect("an answer");
        assert_eq!(reply.status, StatusCode::UNAUTHORIZED, "{wrong:?}");
        assert!(
            reply.header("www-authenticate").starts_with("Bearer"),
            "{wrong:?} gets no challenge"
        );
    }
    assert_eq!(
        gateway.status("demo").await.starts,
        0,
        "a stranger woke the server"
    );

    let hers = Peer::connect_as(&url, "alice", Some(&alice))
        .await
        .expect("alice connects");
    let his = Peer::connect_as(&url, "bob", Some(&bob))
        .await
        .expect("bob connects");
    assert_eq!(
        gateway.status("demo").await.starts,
        2,
        "each tenant has an instance of its own"
    );
    assert_eq!(
        his.call("counter", json!({}))
            .await
            .expect("an answer")
            .text(),
        "1"
    );
    gateway.until_cold("demo").await;
    let before = gateway.status("demo").await.starts;
    let as_bob = format!("Bearer {bob}");
    let foreign = ask(&http, &url, hers.session(), &[("authorization", &as_bob)]).await;
    assert_eq!(foreign, StatusCode::NOT_FOUND, "bob uses alice's session");
    assert_eq!(
        gateway.status("demo").await.starts,
        before,
        "a foreign session id woke the server"
    );
    assert_eq!(
        hers.call("echo", json!({"message": "hers"}))
            .await
            .expect("an answer")
            .text(),
        "hers"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn broken_http_closes_its_own_connection_and_no_other() {
    let _turn = tools::turn(Share::Half).await;
    let gateway = Gateway::start(&[well()]).await;
    let well = Well::begin(&gateway).await;
    let broken: [&[u8]; 6] = [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"POST /adapters/well/mcp HTTP/1.1\r\nhost: localhost\r\ncontent-length: -5\r\n\r\n",
        b"POST /adapters/well/mcp HTTP/1.1\r\nhost: localhost\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello",
        b"GET /adapters/well/mcp HTTP/9.9\r\n\r\n",
        b"POST /adapters/well/mcp HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\nZZZ\r\n",
        b"GET /adapters/well/mcp HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n",
    ];
    for bytes in broken {
        let mut stream = TcpStream::connect(&gateway.listen).await.expect("connects");
        stream.write_all(bytes).await.expect("written");
        // It may have been closed from the other side already.
        let _ = stream.shutdown().await;
        let mut answer = Vec::new();
        let read = timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
        let read = read.unwrap_or_else(|_| {
            panic!(
                "the connection stays open after {:?}",
                String::from_utf8_lossy(bytes)
            )
        });
        let said = String::from_utf8_lossy(&answer).into_owned();
        assert!(
            read.is_err() || said.is_empty() || said.starts_with("HTTP/1.1 4"),
            "{said}"
        );
    }
    // Abandoned half-way: neither an answer nor a wait for one.
    for _ in 0..50 {
        let mut stream = TcpStream::connect(&gateway.listen).await.expect("connects");
        let head = b"POST /adapters/well/mcp HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n\r\n{";
        stream.write_all(head).await.expect("written");
    }
    well.end().await;
}

/// A demo server over HTTP that does not start before there is a file.
fn gated(name: &str, gate: &Path) -> Backend {
    let script =
        r#"while [ ! -e "$1" ]; do sleep 0.02; done; exec "$0" demo-server --transport http"#;
    let gate = gate.to_str().expect("a readable path");
    Backend::new(name, "streamable-http", &["sh", "-c", script, BINARY, gate])
        .policy("isolation", "shared")
}

async fn until_waiting(gateway: &Gateway, backend: &str, count: u32) {
    let give_up = Instant::now() + PATIENCE;
    loop {
        let waiting = gateway.status(backend).await.waiting;
        if waiting == count {
            return;
        }
        assert!(Instant::now() < give_up, "{waiting} wait");
        sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_leaves_while_it_is_held_never_reaches_the_server() {
    let home = tempfile::tempdir().expect("a temporary folder");
    let gate = home.path().join("gate");
    let _turn = tools::turn(Share::Half).await;
    let gateway = Gateway::start(&[gated("late", &gate)]).await;
    let url = gateway.url("late");
    let leaves = Peer::modern(&url, "leaves");
    let leaving = tokio::spawn(async move { leaves.call("counter", json!({})).await });
    until_waiting(&gateway, "late", 1).await;
    leaving.abort();
    assert!(leaving.await.is_err(), "it was to leave before its answer");
    until_waiting(&gateway, "late", 0).await;
    std::fs::write(&gate, "").expect("the gate opens");
    // Modern exchanges share one counter: it tells how many calls have reached the server.
    let stays = Peer::modern(&url, "stays");
    assert_eq!(
        stays
            .call("counter", json!({}))
            .await
            .expect("an answer")
            .text(),
        "1"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_is_cancelled_while_it_is_held_never_reaches_the_server() {
    let home = tempfile::tempdir().expect("a temporary folder");
    let gate = home.path().join("gate");
    std::fs::write(&gate, "").expect("the gate is open");
    let _turn = tools::turn(Share::Half).await;
    let backend = gated("late", &gate).policy("idleTimeout", "100ms");
    let gateway = Gateway::start(&[backend]).await;
    let url = gateway.url("late");
    let peer = Peer::connect(&url, "cancels").await.expect("connects");
    gateway.until_cold("late").await;
    std::fs::remove_file(&gate).expect("the gate closes");
    let headers = [
        ("mcp-session-id", peer.session()),
        ("mcp-protocol-version", LEGACY),
    ];
    let held = wire::call(77, "counter", &json!({}));
    let http = wire::http();
    let cancel =
        json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 77}});
    let asked = post(&http, &url, &headers, &held);
    let cancelled = async {
        until_waiting(&gateway, "late", 1).await;
        peer.notify(&cancel).await
    };
    let both = async { tokio::join!(asked, cancelled) };
    let (answer, cancelled) = timeout(PATIENCE, both)
        .await
        .expect("a cancelled request is let go");
    cancelled.expect("a cancellation is accepted");
    println!("the cancelled request: {answer:?}");
    std::fs::write(&gate, "").expect("the gate opens");
    assert_eq!(
        peer.call("counter", json!({}))
            .await
            .expect("an answer")
            .text(),
        "1"
    );
}
