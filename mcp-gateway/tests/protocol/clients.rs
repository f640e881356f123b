//! Every real client against every real server, through the gateway: from cold, through a nap in which the instance
//! goes away though the client's streams stay open, and on.
//!
//! The programs are those of `dev/protocol/clients`; each runs its steps on one client object.

use std::{process::Stdio, time::Duration};

use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    process::{Child, Command},
    time::timeout,
};

use crate::{
    documents::Backend,
    gateway::Gateway,
    rmcp_client,
    tools::{self, Share, Tools},
};

/// How long one client may take with all its steps.
const LONG: Duration = Duration::from_secs(180);
const IDLE: &str = "1s";

/// What a server can do, as steps of the client programs.
const OWN: &str = "connect,list,call,counter,progress,cancel,cancelled,elicit,sample,big,stream,pause,call,elicit,stream,close";
const EVERYTHING: &str =
    "connect,list,call,progress,cancel,elicit,sample,stream,pause,call,elicit,stream,close";
const DEMO: &str = "connect,list,call,counter,progress,cancel,elicit,big,pause,call,elicit,close";
const FILES: &str = "connect,list,call,pause,list,call,close";
/// Each thing through a cold start of its own.
const DEMO_COLD: &str =
    "connect,pause,list,pause,call,pause,progress,pause,cancel,pause,elicit,pause,big,close";
const OWN_COLD: &str = "connect,pause,progress,pause,elicit,pause,sample,pause,stream,close";
const EXPIRE: &str = "connect,call,pause,!call,connect,call,close";

/// A server as the matrix meets it.
pub(crate) struct Server {
    pub(crate) backend: Backend,
    pub(crate) profile: &'static str,
    steps: &'static str,
    over: Over,
    modern: bool,
}

/// Which of the two HTTP transports.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Over {
    Http,
    Sse,
    /// stdio servers are served over both.
    Both,
}

/// A client program.
pub(crate) struct Client {
    pub(crate) label: &'static str,
    /// Interpreter, if it needs one, and program, by their names in the tools.
    program: &'static [&'static str],
    arguments: &'static [&'static str],
    sse: bool,
    needs_modern: bool,
}

const fn client(
    label: &'static str,
    program: &'static [&'static str],
    arguments: &'static [&'static str],
) -> Client {
    Client {
        label,
        program,
        arguments,
        sse: false,
        needs_modern: false,
    }
}

const fn sse(client: Client) -> Client {
    Client {
        sse: true,
        ..client
    }
}

const fn modern(client: Client) -> Client {
    Client {
        needs_modern: true,
        ..client
    }
}

const PY1: &[&str] = &["PY1", "CLIENT_PY1"];
const PY2: &[&str] = &["PY2", "CLIENT_PY2"];
const TS1: &[&str] = &["NODE22", "CLIENT_TS1"];
const TS2: &[&str] = &["NODE22", "CLIENT_TS2"];

pub(crate) const CLIENTS: [Client; 10] = [
    client("py1", PY1, &[]),
    sse(client("py1 sse", PY1, &["--transport", "sse"])),
    client("py2 auto", PY2, &["--era", "auto"]),
    client("py2 legacy", PY2, &["--era", "legacy"]),
    modern(client("py2 modern", PY2, &["--era", "modern"])),
    client("ts1", TS1, &[]),
    sse(client("ts1 sse", TS1, &["--transport", "sse"])),
    client("ts2 legacy", TS2, &["--era", "legacy"]),
    client("ts2 auto", TS2, &["--era", "auto"]),
    modern(client("ts2 pin", TS2, &["--era", "pin"])),
];

pub(crate) const INSPECTORS: [Client; 2] = [
    client("inspector", &["CLIENT_INSPECTOR"], &[]),
    sse(client(
        "inspector sse",
        &["CLIENT_INSPECTOR"],
        &["--transport", "sse"],
    )),
];

impl Server {
    pub(crate) fn new(backend: Backend, profile: &'static str, steps: &'static str) -> Self {
        let backend = backend.policy("idleTimeout", IDLE);
        Self {
            backend,
            profile,
            steps,
            over: Over::Http,
            modern: false,
        }
    }

    fn over(mut self, over: Over) -> Self {
        self.over = over;
        self
    }

    fn modern(mut self) -> Self {
        self.modern = true;
        self
    }

    fn meets(&self, client: &Client) -> bool {
        let transport = match self.over {
            Over::Http => !client.sse,
            Over::Sse => client.sse,
            Over::Both => true,
        };
        transport && (self.modern || !client.needs_modern)
    }

    fn url(&self, gateway: &Gateway, client: &Client) -> String {
        if client.sse {
            gateway.sse_url(&self.backend.name)
        } else {
            gateway.url(&self.backend.name)
        }
    }
}

/// Runs a program through its steps; at each `pause` waits until nothing of the backend runs.
pub(crate) async fn run(
    gateway: &Gateway,
    server: &Server,
    client: &Client,
    tools: &Tools,
    steps: &str,
) -> Result<String, String> {
    gateway.until_cold(&server.backend.name).await;
    let mut command = Command::new(tools.path(client.program[0]));
    command.args(client.program[1..].iter().map(|name| tools.path(name)));
    command
        .args(client.arguments)
        .args(["--url", &server.url(gateway, client)]);
    command.args([
        "--profile",
        server.profile,
        "--steps",
        steps,
        "--timeout",
        "60",
    ]);
    command.env("MCP_GATEWAY_PROTOCOL_DIR", tools.path("PROTOCOL_DIR"));
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let mut child = command
        .spawn()
        .map_err(|error| format!("{}: {error}", client.label))?;
    let followed = timeout(LONG, follow(gateway, &server.backend.name, &mut child)).await;
    let said = followed.map_err(|late| format!("took longer than {LONG:?}: {late}"))?;
    let ended = timeout(Duration::from_secs(30), child.wait()).await;
    let ended = ended
        .map_err(|late| format!("does not end: {late}; {said}"))?
        .map_err(|error| error.to_string())?;
    if ended.success() {
        return Ok(said);
    }
    let mut stderr = String::new();
    if let Some(mut pipe) = child.stderr.take() {
        drop(timeout(Duration::from_secs(5), pipe.read_to_string(&mut stderr)).await);
    }
    let tail: Vec<&str> = stderr.lines().rev().take(8).collect();
    Err(format!(
        "{said}\n      {}",
        tail.into_iter().rev().collect::<Vec<_>>().join("\n      ")
    ))
}

/// Reads what it prints to the end; its revision, or the step that failed.
async fn follow(gateway: &Gateway, backend: &str, child: &mut Child) -> String {
    let mut stdin = child.stdin.take().expect("a pipe");
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    let mut said = String::new();
    while let Ok(Some(text)) = lines.next_line().await {
        let line: Value = serde_json::from_str(&text).unwrap_or_default();
        if line["waiting"] == true {
            gateway.until_cold(backend).await;
            // If it has ended meanwhile, its status says so.
            drop(stdin.write_all(b"go on\n").await);
        } else if line["ok"] == false {
            return text;
        } else if line["step"] == "connect" && said.is_empty() {
            line["detail"]
                .as_str()
                .unwrap_or_default()
                .clone_into(&mut said);
        }
    }
    said
}

/// Every client that can meet the server, one after the other.
async fn meet_all(server: Server, tools: &Tools) {
    let _turn = tools::turn(Share::Half).await;
    let gateway = Gateway::start(std::slice::from_ref(&server.backend)).await;
    let mut failed = Vec::new();
    for client in CLIENTS.iter().filter(|client| server.meets(client)) {
        let outcome = run(&gateway, &server, client, tools, server.steps).await;
        note(&server, client.label, outcome, &mut failed);
    }
    // The Inspector is one process, and so one session, for each step.
    for client in INSPECTORS.iter().filter(|client| server.meets(client)) {
        let outcome = run(&gateway, &server, client, tools, "list,call").await;
        note(&server, client.label, outcome, &mut failed);
    }
    if server.over != Over::Sse {
        for era in rmcp_client::Era::all(server.modern) {
            let outcome =
                rmcp_client::run(&gateway, &server.backend.name, server.profile, era).await;
            note(&server, &format!("rmcp {era:?}"), outcome, &mut failed);
        }
    }
    finish(&gateway, &server, &failed).await;
}

/// The clients that keep one object through the steps, with other steps.
async fn meet(server: Server, tools: &Tools, steps: &str, labels: &[&str]) {
    let _turn = tools::turn(Share::Half).await;
    let gateway = Gateway::start(std::slice::from_ref(&server.backend)).await;
    let mut failed = Vec::new();
    let wanted = |client: &&Client| {
        server.meets(client) && (labels.is_empty() || labels.contains(&client.label))
    };
    for client in CLIENTS.iter().filter(wanted) {
        let outcome = run(&gateway, &server, client, tools, steps).await;
        note(&server, client.label, outcome, &mut failed);
    }
    finish(&gateway, &server, &failed).await;
}

async fn finish(gateway: &Gateway, server: &Server, failed: &[String]) {
    gateway.until_cold(&server.backend.name).await;
    let status = gateway.status(&server.backend.name).await;
    println!("{}: {} starts", status.name, status.starts);
    assert!(
        failed.is_empty(),
        "{} failed:\n{}",
        failed.len(),
        failed.join("\n")
    );
    assert_eq!(status.failures, 0, "{:?}", status.last_failure);
}

fn note(server: &Server, label: &str, outcome: Result<String, String>, failed: &mut Vec<String>) {
    let name = &server.backend.name;
    match outcome {
        Ok(revision) => println!("ok     {name:18} {label:16} {revision}"),
        Err(error) => {
            println!("FAILED {name:18} {label:16} {error}");
            failed.push(format!("{label}: {error}"));
        }
    }
}

fn everything(tools: &Tools, name: &str, transport: &str) -> Server {
    let over = if transport == "stdio" {
        "stdio"
    } else {
        "streamableHttp"
    };
    let command = [
        tools.path("NODE22"),
        "--import",
        tools.path("LOOPBACK"),
        tools.path("EVERYTHING"),
        over,
    ];
    Server::new(
        Backend::new(name, transport, &command),
        "everything",
        EVERYTHING,
    )
}

fn py1(tools: &Tools, transport: &str, over: &str) -> Server {
    let backend = Backend::new(
        "py1",
        transport,
        &[tools.path("PY1"), tools.path("SERVER_PY1"), over],
    );
    Server::new(backend, "own", OWN)
}

fn py2(tools: &Tools, transport: &str, over: &str) -> Server {
    let backend = Backend::new(
        "py2",
        transport,
        &[tools.path("PY2"), tools.path("SERVER_PY2"), over],
    );
    Server::new(backend, "own", OWN).modern()
}

fn demo(transport: &str) -> Server {
    let server = Server::new(Backend::demo("demo", transport), "demo", DEMO).modern();
    if transport == "stdio" {
        server.over(Over::Both)
    } else {
        server
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn server_everything_over_stdio_serves_every_client_from_cold_and_after_a_nap() {
    let Some(tools) = tools::installed("server-everything over stdio") else {
        return;
    };
    meet_all(
        everything(tools, "everything", "stdio").over(Over::Both),
        tools,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn server_everything_over_http_serves_every_client_from_cold_and_after_a_nap() {
    let Some(tools) = tools::installed("server-everything over HTTP") else {
        return;
    };
    meet_all(everything(tools, "everything", "streamable-http"), tools).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn server_filesystem_serves_every_client_from_cold_and_after_a_nap() {
    let Some(tools) = tools::installed("server-filesystem") else {
        return;
    };
    let command = [
        tools.path("NODE22"),
        tools.path("FILESYSTEM"),
        tools.path("PROTOCOL_DIR"),
    ];
    let server = Server::new(
        Backend::new("filesystem", "stdio", &command),
        "filesystem",
        FILES,
    );
    meet_all(server.over(Over::Both), tools).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_python_1_server_over_stdio_serves_every_client_from_cold_and_after_a_nap() {
    let Some(tools) = tools::installed("Python 1 over stdio") else {
        return;
    };
    meet_all(py1(tools, "stdio", "stdio").over(Over::Both), tools).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_python_1_server_over_http_serves_every_client_from_cold_and_after_a_nap() {
    let Some(tools) = tools::installed("Python 1 over HTTP") else {
        return;
    };
    meet_all(py1(tools, "streamable-http", "http"), tools).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_python_1_server_over_sse_serves_every_client_from_cold_and_after_a_nap() {
    let Some(tools) = tools::installed("Python 1 over SSE") else {
        return;
    };
    let mut server = py1(tools, "sse", "sse").over(Over::Sse);
    server.backend = server.backend.spec("path", "/sse");
    meet_all(server, tools).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_python_2_server_over_stdio_serves_every_client_from_cold_and_after_a_nap() {
    let Some(tools) = tools::installed("Python 2 over stdio") else {
        return;
    };
    meet_all(py2(tools, "stdio", "stdio").over(Over::Both), tools).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_python_2_server_over_http_serves_every_client_from_cold_and_after_a_nap() {
    let Some(tools) = tools::installed("Python 2 over HTTP") else {
        return;
    };
    meet_all(py2(tools, "streamable-http", "http"), tools).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_demo_server_over_stdio_serves_every_client_from_cold_and_after_a_nap() {
    let Some(tools) = tools::installed("the demo server over stdio") else {
        return;
    };
    meet_all(demo("stdio"), tools).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_demo_server_over_http_serves_every_client_from_cold_and_after_a_nap() {
    let Some(tools) = tools::installed("the demo server over HTTP") else {
        return;
    };
    meet_all(demo("streamable-http"), tools).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_step_of_every_client_works_through_a_cold_start_of_its_own() {
    let Some(tools) = tools::installed("a cold start for each step") else {
        return;
    };
    let mut server = demo("stdio");
    server.backend = server.backend.policy("idleTimeout", "200ms");
    meet(server, tools, DEMO_COLD, &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_step_of_every_client_works_through_a_cold_start_of_an_http_server() {
    let Some(tools) = tools::installed("a cold start for each step over HTTP") else {
        return;
    };
    let mut server = demo("streamable-http");
    server.backend = server.backend.policy("idleTimeout", "200ms");
    meet(server, tools, DEMO_COLD, &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn elicitation_sampling_and_announcements_reach_every_client_through_a_cold_start() {
    let Some(tools) = tools::installed("a cold start for each round trip") else {
        return;
    };
    let mut server = py2(tools, "streamable-http", "http");
    server.backend = server.backend.policy("idleTimeout", "300ms");
    meet(server, tools, OWN_COLD, &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_expired_session_is_an_error_to_every_client_and_a_new_one_works() {
    let Some(tools) = tools::installed("expiry") else {
        return;
    };
    for transport in ["stdio", "streamable-http"] {
        let mut server = demo(transport).over(Over::Http);
        server.backend = server
            .backend
            .policy("onIdle", "expire")
            // Longer than a slow client takes from one step to the next.
            .policy("idleTimeout", "1500ms");
        meet(
            server,
            tools,
            EXPIRE,
            &["py1", "py2 legacy", "ts1", "ts2 legacy"],
        )
        .await;
    }
}
