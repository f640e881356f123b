//! The built binary in a folder of its own, and just enough HTTP to talk to it.
//!
//! Invariant: dropping a gateway ends it, so that nothing outlives a test. Waiting is always for a condition, with a
//! deadline that only a broken gateway reaches.

use std::{
    fs,
    io::{Read, Write},
    net::{IpAddr, SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    thread,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_mcp-gateway");

/// A loaded machine is slow, a broken gateway is for ever.
const PATIENCE: u32 = 6_000;

/// Asks again every 10 ms until there is an answer.
pub(crate) fn until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    for _ in 0..PATIENCE {
        if let Some(answer) = ask() {
            return answer;
        }
        thread::sleep(Duration::from_millis(10));
    }
    panic!("waited in vain until {what}");
}

/// A folder with a gateway's documents, state and log, which outlives the gateway itself.
pub(crate) struct Home(TempDir);

impl Home {
    pub(crate) fn new() -> Self {
        let home = Self(TempDir::new().unwrap());
        fs::create_dir(home.path("docs")).unwrap();
        home
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Writes a document as an editor does: beside, then over.
    pub(crate) fn document(&self, name: &str, text: &str) {
        let fresh = self.path("docs").join(format!(".{name}.tmp"));
        fs::write(&fresh, text).unwrap();
        fs::rename(fresh, self.path("docs").join(name)).unwrap();
    }

    /// A command that knows this folder and nothing of the tester's own settings.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(BINARY);
        command.args(arguments).env_clear();
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("HOME", self.0.path());
        command.env("MCP_GATEWAY_STATE_DIR", self.path("state"));
        command.stdin(Stdio::null());
        command
    }

    /// Runs a command to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Serves the documents on loopback.
    pub(crate) fn serve(&self, arguments: &[&str]) -> Gateway<'_> {
        self.serve_in(&[], arguments)
    }

    /// The same with variables in its environment.
    pub(crate) fn serve_in(&self, env: &[(&str, &str)], arguments: &[&str]) -> Gateway<'_> {
        let _ = fs::remove_file(self.path("ready.json"));
        let log = fs::File::create(self.path("log")).unwrap();
        let mut command = self.command(&["serve", "--listen", "127.0.0.1:0"]);
        if !arguments.contains(&"--admin-listen") {
            command.args(["--admin-listen", "127.0.0.1:0"]);
        }
        command.arg("--backends").arg(self.path("docs"));
        command.arg("--ready-file").arg(self.path("ready.json"));
        command.envs(env.iter().copied());
        let child = command.args(arguments).stderr(log).spawn().unwrap();
        let mut gateway = Gateway {
            home: self,
            child,
            ready: Value::Null,
        };
        gateway.ready = until("the gateway is ready", || {
            if let Some(status) = gateway.child.try_wait().unwrap() {
                panic!("it ended with {status}: {}", self.log());
            }
            let text = fs::read_to_string(self.path("ready.json")).ok()?;
            serde_json::from_str(&text).ok()
        });
        gateway
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }
}

/// A backend document that runs the built-in demo server.
pub(crate) fn demo(name: &str, more: &str) -> String {
    format!(
        "---\napiVersion: mcp-gateway.dev/v1alpha1\nkind: McpBackend\nmetadata: {{name: {name}}}\nspec:\n  command: \
         [{BINARY}, demo-server]\n{more}\n"
    )
}

/// A backend document of an HTTP server that never serves.
pub(crate) fn never_ready(name: &str) -> String {
    format!(
        "---\napiVersion: mcp-gateway.dev/v1alpha1\nkind: McpBackend\nmetadata: {{name: {name}}}\nspec:\n  command: \
         [sleep, '600']\n  transport: streamable-http\n"
    )
}

/// A running gateway.
pub(crate) struct Gateway<'h> {
    home: &'h Home,
    child: Child,
    pub(crate) ready: Value,
}

impl Gateway<'_> {
    fn address(&self, which: &str) -> String {
        self.ready[which].as_str().unwrap().to_owned()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for its end.
    pub(crate) fn ended(&mut self) -> ExitStatus {
        until("the gateway ends", || self.child.try_wait().unwrap())
    }

    /// Asks the listener for clients.
    pub(crate) fn ask(&self, request: &Request<'_>) -> Reply {
        request.send(&self.address("listen"))
    }

    /// Asks the listener for operators.
    pub(crate) fn admin(&self, request: &Request<'_>) -> Reply {
        request.send(&self.address("admin"))
    }

    /// Asks it under another address of this machine.
    pub(crate) fn admin_at(&self, ip: IpAddr, request: &Request<'_>) -> Reply {
        let bound: SocketAddr = self.address("admin").parse().unwrap();
        request.send(&SocketAddr::new(ip, bound.port()).to_string())
    }

    /// `http://` and the address of a listener.
    pub(crate) fn url(&self, which: &str) -> String {
        format!("http://{}", self.address(which))
    }

    pub(crate) fn status(&self) -> Value {
        let json = ("accept", "application/json");
        let reply = self.admin(&Request::get("/status").header(json.0, json.1));
        serde_json::from_str(&reply.body).unwrap()
    }

    /// One backend of the status.
    pub(crate) fn backend(&self, name: &str) -> Option<Value> {
        let status = self.status();
        let all = status["backends"].as_array().unwrap();
        all.iter().find(|backend| backend["name"] == name).cloned()
    }

    /// Opens a session; the answer to `initialize`.
    pub(crate) fn initialize(&self, backend: &str, headers: &[(&str, &str)]) -> Reply {
        let params = json!({
            "protocolVersion": "2025-06-18",
            "capabilities": {},
            "clientInfo": {"name": "test", "version": "1"},
        });
        self.post(backend, headers, "initialize", &params)
    }

    /// Calls the demo server's counter within a session.
    pub(crate) fn count(&self, backend: &str, session: &str, headers: &[(&str, &str)]) -> Reply {
        let mut all = vec![("mcp-session-id", session)];
        all.extend(headers);
        let params = json!({"name": "counter", "arguments": {}});
        self.post(backend, &all, "tools/call", &params)
    }

    /// Posts a request to a backend.
    pub(crate) fn post(
        &self,
        backend: &str,
        headers: &[(&str, &str)],
        method: &str,
        params: &Value,
    ) -> Reply {
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
        let path = format!("/adapters/{backend}/mcp");
        let mut request = Request::post(&path, body.to_string());
        for (name, value) in headers {
            request = request.header(name, value);
        }
        self.ask(&request)
    }

    pub(crate) fn log(&self) -> String {
        self.home.log()
    }
}

impl Drop for Gateway<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("--- the gateway's log\n{}---", self.home.log());
        }
        // It may have ended already.
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        for _ in 0..1_000 {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            thread::sleep(Duration::from_millis(10));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A request on a connection of its own.
#[derive(Clone)]
pub(crate) struct Request<'a> {
    method: &'a str,
    path: &'a str,
    host: Option<&'a str>,
    headers: Vec<(&'a str, &'a str)>,
    body: String,
}

impl<'a> Request<'a> {
    pub(crate) fn get(path: &'a str) -> Self {
        Self {
            method: "GET",
            path,
            host: None,
            headers: Vec::new(),
            body: String::new(),
        }
    }

    pub(crate) fn post(path: &'a str, body: String) -> Self {
        let json = ("content-type", "application/json");
        let accept = ("accept", "application/json, text/event-stream");
        Self {
            method: "POST",
            body,
            headers: vec![json, accept],
            ..Self::get(path)
        }
    }

    pub(crate) fn header(mut self, name: &'a str, value: &'a str) -> Self {
        self.headers.push((name, value));
        self
    }

    pub(crate) const fn host(mut self, host: &'a str) -> Self {
        self.host = Some(host);
        self
    }

    fn send(&self, address: &str) -> Reply {
        let mut head = format!("{} {} HTTP/1.1\r\n", self.method, self.path);
        let length = self.body.len().to_string();
        let own = [
            ("host", self.host.unwrap_or(address)),
            ("content-length", &length),
            ("connection", "close"),
        ];
        for (name, value) in own.iter().chain(&self.headers) {
            head += &format!("{name}: {value}\r\n");
        }
        let mut stream = TcpStream::connect(address).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(60)))
            .unwrap();
        let whole = format!("{head}\r\n{}", self.body);
        stream.write_all(whole.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        Reply::parse(&answer)
    }
}

/// An answer. The body is as it came, chunk sizes included.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Reply {
    fn parse(text: &str) -> Self {
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((text, ""));
        let mut lines = head.lines();
        let status = lines.next().and_then(|line| line.split(' ').nth(1));
        let header = |line: &str| {
            let (name, value) = line.split_once(": ")?;
            Some((name.to_ascii_lowercase(), value.to_owned()))
        };
        Self {
            status: status.unwrap_or("0").parse().unwrap(),
            headers: lines.filter_map(header).collect(),
            body: body.to_owned(),
        }
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(n, _)| n == name);
        found.map(|(_, value)| value.as_str())
    }

    pub(crate) fn session(&self) -> &str {
        assert_eq!(self.status, 200, "{self:?}");
        self.header("mcp-session-id").expect("a session id")
    }
}

/// Whether a process lives (and is no zombie).
pub(crate) fn lives(pid: u64) -> bool {
    if !Path::new("/proc/self").exists() {
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
        return pid.is_some_and(|pid| rustix::process::test_kill_process(pid).is_ok());
    }
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat
        .rsplit_once(") ")
        .and_then(|(_, rest)| rest.chars().next());
    state.is_some_and(|state| state != 'Z')
}

/// The pid of a backend's first instance.
pub(crate) fn pid(backend: &Value) -> Option<u64> {
    backend["slots"][0]["instance"]["pid"].as_u64()
}
