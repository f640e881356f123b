//! The real binary, in the environment of the contract, and what of it can be seen from outside.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener},
    process::{ExitStatus, Stdio},
    sync::Arc,
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use mcp_gateway_link::agent::{Orders, Transport};
use parking_lot::Mutex;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    net::TcpStream,
    process::{Child, Command},
};

use super::{home::Home, until, within};

pub const AGENT: &str = env!("CARGO_BIN_EXE_mcp-gateway-agent");
pub const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

pub fn fixture(name: &str) -> String {
    format!("{}/tests/fixtures/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// The command of the fixture server.
pub fn server(behaviour: &[&str]) -> Vec<String> {
    let mut command = vec!["python3".to_owned(), fixture("pod_server.py")];
    command.extend(behaviour.iter().map(ToString::to_string));
    command
}

/// The command of a stdio server.
pub fn stdio_server() -> Vec<String> {
    let script = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../runtime/tests/fixtures/bridge_server.py"
    );
    vec!["python3".to_owned(), script.to_owned()]
}

/// A port for somebody who binds it later. From below the range from which the system serves `bind(0)` and outgoing
/// connections: none of those takes it in between.
pub fn free_port() -> u16 {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    loop {
        let port = rand::random_range(10_000..20_000);
        if TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok() && GIVEN.lock().insert(port) {
            return port;
        }
    }
}

pub fn orders(command: Vec<String>) -> Orders {
    Orders {
        backend: "fixture".into(),
        transport: Transport::StreamableHttp.into(),
        command,
        port: free_port().into(),
        start_timeout_ms: 60_000,
        max_body: 1 << 20,
        ..Orders::default()
    }
}

pub struct Pod {
    child: Child,
    pub stderr: Arc<Mutex<Vec<String>>>,
}

impl Drop for Pod {
    fn drop(&mut self) {
        // Politely, so that its server ends with it; past whatever wraps the agent, which may not pass signals on.
        if let Some(pid) = self.child.id().and_then(|pid| i32::try_from(pid).ok()) {
            let wrapped = processes().into_iter().filter(|p| p.1 == pid);
            for agent in wrapped.filter(|p| p.3.starts_with("mcp-gateway")) {
                signal(agent.0, rustix::process::Signal::TERM);
            }
            signal(pid, rustix::process::Signal::TERM);
        }
    }
}

/// What is different about a pod.
#[derive(Default)]
pub struct Spec<'a> {
    pub form: Option<&'static str>,
    pub argv: Vec<String>,
    pub env: Vec<(&'static str, String)>,
    pub ip: Option<&'static str>,
    /// What starts the binary.
    pub within: &'a [&'a str],
}

impl Pod {
    pub fn start(home: &Home, spec: Spec<'_>) -> Self {
        let mut words: Vec<&str> = spec.within.to_vec();
        words.push(AGENT);
        let mut command = Command::new(words[0]);
        let inherited = ["PATH", "HOME"].into_iter();
        let inherited = inherited.filter_map(|name| Some((name, std::env::var(name).ok()?)));
        let mut child = command
            .args(&words[1..])
            .args(spec.argv)
            .env_clear()
            .envs(inherited)
            .env("MCP_GATEWAY_AGENT_HOME", home.address.to_string())
            .env("MCP_GATEWAY_AGENT_CA", home.authority.cert_pem())
            .env("MCP_GATEWAY_AGENT_TOKEN", "b3BlbiBzZXNhbWU")
            .env("MCP_GATEWAY_AGENT_POD", "mcp-fixture-1")
            .env("MCP_GATEWAY_AGENT_UID", "uid-1")
            .env("MCP_GATEWAY_AGENT_IP", spec.ip.unwrap_or("127.0.0.1"))
            .env("MCP_GATEWAY_AGENT_FORM", spec.form.unwrap_or("init"))
            .envs(spec.env)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stderr = Arc::new(Mutex::new(Vec::new()));
        let (kept, from) = (Arc::clone(&stderr), child.stderr.take().unwrap());
        tokio::spawn(async move {
            let mut lines = BufReader::new(from).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                kept.lock().push(line);
            }
        });
        Self { child, stderr }
    }

    /// A server without an agent, which ends with this.
    pub fn alone(command: &[String], port: u32) -> Child {
        Command::new(&command[0])
            .args(&command[1..])
            .env("HOST", "127.0.0.1")
            .env("PORT", port.to_string())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap()
    }

    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id().unwrap()).unwrap()
    }

    pub fn signal(&self, what: rustix::process::Signal) {
        signal(self.pid(), what);
    }

    pub async fn ended(&mut self) -> ExitStatus {
        within("the agent's end", self.child.wait()).await.unwrap()
    }

    /// Waits until its output has contained a text so often.
    pub async fn said_times(&self, text: &str, times: usize) {
        until(text, || {
            let lines = self.stderr.lock();
            let seen = lines.iter().filter(|line| line.contains(text)).count();
            (seen >= times).then_some(())
        })
        .await;
    }

    pub async fn said(&self, text: &str) {
        until(text, || {
            self.stderr
                .lock()
                .iter()
                .any(|line| line.contains(text))
                .then_some(())
        })
        .await;
    }
}

fn signal(pid: i32, what: rustix::process::Signal) {
    if let Some(pid) = rustix::process::Pid::from_raw(pid) {
        let _gone_is_fine = rustix::process::kill_process(pid, what);
    }
}

/// (pid, parent, zombie, name) of all processes.
pub fn processes() -> Vec<(i32, i32, bool, String)> {
    let pids = std::fs::read_dir("/proc").unwrap().flatten();
    let stats = pids.filter_map(|entry| {
        let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (name, rest) = stat.rsplit_once(')')?;
        let name = name.split_once('(')?.1.to_owned();
        let mut fields = rest.split_ascii_whitespace();
        let zombie = fields.next()? == "Z";
        Some((pid, fields.next()?.parse().ok()?, zombie, name))
    });
    stats.collect()
}

/// GETs something as JSON.
pub async fn get(port: u32, path: &str) -> serde_json::Value {
    let (_, body) = request(port, "GET", path, &[], "").await.unwrap();
    serde_json::from_str(&body).unwrap()
}

/// One request on a connection of its own.
pub async fn request(
    port: u32,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Result<(u16, String), Box<dyn std::error::Error>> {
    let address = SocketAddr::new(LOCALHOST, u16::try_from(port)?);
    let stream = TcpStream::connect(address).await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let mut request = http::Request::builder()
        .method(method)
        .uri(path)
        .header("host", "localhost");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::new(Bytes::from(body.to_owned())))?;
    let answer = within("an answer", sender.send_request(request)).await?;
    let status = answer.status().as_u16();
    let body = within("a body", answer.into_body().collect())
        .await?
        .to_bytes();
    Ok((status, String::from_utf8(body.into())?))
}
