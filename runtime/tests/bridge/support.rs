//! Children from `fixtures/bridge_server.py` and an HTTP client that talks to a bridge in this process.

use std::{process::Stdio, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use mcp_gateway_api::failure::ExitReport;
use mcp_gateway_runtime::{
    bridge::{Bridge, BridgeConfig, BridgeEvent},
    child::{ChildControl, SpawnChild, StdioChild},
};
use serde_json::{Value, json};
use tokio::{
    process::Command,
    sync::{mpsc, watch},
    time::timeout,
};

/// Nothing here takes longer, even on a busy machine.
pub(crate) const LONG: Duration = Duration::from_secs(60);

struct Python(Vec<String>);

struct Control {
    pid: Option<u32>,
    kill: mpsc::Sender<()>,
    ended: watch::Receiver<Option<ExitReport>>,
}

#[async_trait]
impl ChildControl for Control {
    fn pid(&self) -> Option<u32> {
        self.pid
    }
    async fn exited(&self) -> ExitReport {
        let mut ended = self.ended.clone();
        let report = ended.wait_for(Option::is_some).await;
        report.ok().and_then(|r| r.clone()).unwrap_or_default()
    }
    async fn kill(&self, _grace: Duration) -> ExitReport {
        // Full or closed: it is being killed already.
        let _told = self.kill.try_send(());
        self.exited().await
    }
}

#[async_trait]
impl SpawnChild for Python {
    async fn spawn(&self) -> Result<StdioChild, ExitReport> {
        let mut child = Command::new("python3")
            .arg(concat!(
                env!("CARGO_MANIFEST_DIR"),
                "/tests/fixtures/bridge_server.py"
            ))
            .args(&self.0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|e| ExitReport {
                summary: e.to_string(),
                ..ExitReport::default()
            })?;
        let (stdin, stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let (kill, mut killed) = mpsc::channel(1);
        let (tell, ended) = watch::channel(None);
        let pid = child.id();
        tokio::spawn(async move {
            let status = tokio::select! {
                status = child.wait() => status,
                _ = killed.recv() => {
                    child.start_kill().unwrap();
                    child.wait().await
                }
            };
            use std::os::unix::process::ExitStatusExt;
            let status = status.unwrap();
            tell.send_replace(Some(ExitReport {
                code: status.code(),
                signal: status.signal(),
                ..ExitReport::default()
            }));
        });
        Ok(StdioChild {
            stdin: Box::new(stdin),
            stdout: Box::new(stdout),
            control: Arc::new(Control { pid, kill, ended }),
        })
    }
}

/// A bridge over the fixture.
pub(crate) struct Rig {
    pub(crate) bridge: Bridge,
    pub(crate) events: mpsc::Receiver<BridgeEvent>,
}

/// Starts a bridge whose children get these arguments.
pub(crate) async fn rig(args: &[&str]) -> Rig {
    rig_with(args, |_| {}).await
}

/// As [`rig`], with another configuration.
pub(crate) async fn rig_with(args: &[&str], change: impl FnOnce(&mut BridgeConfig)) -> Rig {
    let spawner = Python(args.iter().map(|a| (*a).to_owned()).collect());
    rig_over(Arc::new(spawner), change).await
}

/// A bridge over any children.
pub(crate) async fn rig_over(
    spawner: Arc<dyn SpawnChild>,
    change: impl FnOnce(&mut BridgeConfig),
) -> Rig {
    let mut config = BridgeConfig::new("fixture".parse().unwrap(), spawner);
    config.child_grace = Duration::from_secs(2);
    change(&mut config);
    let (bridge, events) = Bridge::start(config).await.unwrap();
    Rig { bridge, events }
}

/// An answer, its body not yet read.
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    body: Incoming,
    buffer: String,
}

impl Reply {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|v| v.to_str().unwrap())
    }

    pub(crate) fn is_stream(&self) -> bool {
        self.header("content-type") == Some("text/event-stream")
    }

    pub(crate) async fn text(self) -> String {
        let bytes = timeout(LONG, self.body.collect()).await.unwrap().unwrap();
        self.buffer + std::str::from_utf8(&bytes.to_bytes()).unwrap()
    }

    pub(crate) async fn json(self) -> Value {
        let text = self.text().await;
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"))
    }

    /// The next event block, comments included; `None` at the end of the stream.
    pub(crate) async fn block(&mut self) -> Option<String> {
        loop {
            if let Some((block, rest)) = self.buffer.split_once("\n\n") {
                let (block, rest) = (block.to_owned(), rest.to_owned());
                self.buffer = rest;
                return Some(block);
            }
            let frame = timeout(LONG, self.body.frame()).await.expect("an event")?;
            if let Ok(data) = frame.ok()?.into_data() {
                self.buffer.push_str(std::str::from_utf8(&data).unwrap());
            }
        }
    }

    /// The next message on the stream.
    pub(crate) async fn event(&mut self) -> Option<Value> {
        loop {
            let block = self.block().await?;
            if let Some(data) = block.lines().find_map(|l| l.strip_prefix("data: ")) {
                return Some(serde_json::from_str(data).unwrap());
            }
        }
    }

    /// The answer to a single request, whether it came as JSON or at the end of a stream.
    pub(crate) async fn answer(mut self) -> Value {
        if !self.is_stream() {
            return self.json().await;
        }
        loop {
            let event = self.event().await.expect("an answer before the end");
            if event.get("method").is_none() {
                return event;
            }
        }
    }
}

impl Rig {
    /// Sends one request on a connection of its own.
    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Reply {
        let (ours, theirs) = tokio::io::duplex(64 << 10);
        self.bridge.serve(theirs);
        let (mut send, connection) = hyper::client::conn::http1::handshake(TokioIo::new(ours))
            .await
            .unwrap();
        tokio::spawn(connection);
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "localhost");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body.into())).unwrap();
        let response = timeout(LONG, send.send_request(request))
            .await
            .unwrap()
            .unwrap();
        let (parts, body) = response.into_parts();
        Reply {
            status: parts.status,
            headers: parts.headers,
            body,
            buffer: String::new(),
        }
    }

    /// Posts to `/mcp` with the headers every client sends.
    pub(crate) async fn post(&self, headers: &[(&str, &str)], body: &Value) -> Reply {
        let mut all = vec![
            ("content-type", "application/json"),
            ("accept", "application/json, text/event-stream"),
        ];
        all.extend_from_slice(headers);
        self.send(Method::POST, "/mcp", &all, body.to_string())
            .await
    }

    /// Opens a session and returns its id.
    pub(crate) async fn open(&self) -> String {
        let reply = self.post(&[], &initialize("2025-11-25")).await;
        assert_eq!(reply.status, StatusCode::OK);
        let id = reply.header("mcp-session-id").unwrap().to_owned();
        assert_eq!(
            reply.json().await["result"]["protocolVersion"],
            "2025-11-25"
        );
        let done = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
        let reply = self.in_session(&id, &done).await;
        assert_eq!(reply.status, StatusCode::ACCEPTED);
        id
    }

    /// Posts in a session.
    pub(crate) async fn in_session(&self, id: &str, body: &Value) -> Reply {
        let headers = [
            ("mcp-session-id", id),
            ("mcp-protocol-version", "2025-11-25"),
        ];
        self.post(&headers, body).await
    }

    /// Calls a tool in a session.
    pub(crate) async fn call(&self, session: &str, id: i64, tool: &str, arguments: Value) -> Reply {
        self.in_session(session, &call(json!(id), tool, arguments))
            .await
    }

    /// Opens a session's GET stream.
    pub(crate) async fn listen(&self, session: &str) -> Reply {
        let headers = [
            ("mcp-session-id", session),
            ("mcp-protocol-version", "2025-11-25"),
            ("accept", "text/event-stream"),
        ];
        self.send(Method::GET, "/mcp", &headers, "").await
    }

    /// Posts a modern request with the headers that mirror it.
    pub(crate) async fn modern(&self, owner: &str, body: &Value) -> Reply {
        let method = body["method"].as_str().unwrap().to_owned();
        let name = body["params"]["name"].as_str().map(str::to_owned);
        let mut headers = vec![
            ("mcp-protocol-version", "2026-07-28"),
            ("mcp-method", method.as_str()),
            ("x-mcp-gateway-owner", owner),
        ];
        if let Some(name) = &name {
            headers.push(("mcp-name", name));
        }
        self.post(&headers, body).await
    }

    /// The next event of the bridge.
    pub(crate) async fn event(&mut self) -> BridgeEvent {
        timeout(LONG, self.events.recv()).await.unwrap().unwrap()
    }
}

pub(crate) fn initialize(version: &str) -> Value {
    json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {
        "protocolVersion": version, "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}})
}

pub(crate) fn call(id: Value, tool: &str, arguments: Value) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": {
        "name": tool, "arguments": arguments, "_meta": {"progressToken": id}}})
}

/// A modern request; `params` get the required `_meta`.
pub(crate) fn modern(id: Value, method: &str, mut params: Value) -> Value {
    params["_meta"] = json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
        "progressToken": id,
    });
    json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params})
}

pub(crate) fn modern_call(id: Value, tool: &str, arguments: Value) -> Value {
    modern(
        id,
        "tools/call",
        json!({"name": tool, "arguments": arguments}),
    )
}

/// The text a tool answered with.
pub(crate) fn said(answer: &Value) -> &str {
    answer["result"]["content"][0]["text"]
        .as_str()
        .unwrap_or_else(|| panic!("no text in {answer}"))
}
