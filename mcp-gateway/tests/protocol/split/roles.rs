//! The roles as processes of this machine: one autoscaler, two activators. Their servers are pods of a test's own
//! namespace.
//!
//! Invariant: dropping them ends them all.

use std::{
    fs::File,
    path::Path,
    process::{Child, Command, Stdio},
};

use mcp_gateway_api::status::BackendStatus;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::{
    documents::{BINARY, Backend},
    gateway::{PATIENCE, is_cold},
    pods::cluster::{AGENT, Space},
    wire,
};

/// The pods that the activators would run in.
const UIDS: [&str; 2] = [
    "00000000-0000-0000-0000-00000000000a",
    "00000000-0000-0000-0000-00000000000b",
];

/// One process.
pub(super) struct Role {
    child: Child,
    home: TempDir,
    ready: Value,
}

/// A folder with what every role of a gateway needs: its secrets, and these documents.
pub(super) fn shared(backends: &[Backend]) -> TempDir {
    let shared = TempDir::new().expect("a temporary folder");
    let made = Command::new(BINARY)
        .args(["secrets", "create"])
        .arg(shared.path().join("secrets"))
        .status()
        .expect("secrets can be made");
    assert!(made.success());
    let documents: String = backends.iter().map(Backend::document).collect();
    std::fs::write(shared.path().join("backends.yaml"), documents).expect("documents");
    shared
}

/// Starts `mcp-gateway ROLE` with the arguments of every role and those; without a space it knows no cluster.
pub(super) async fn start(
    role: &str,
    shared: &Path,
    space: Option<&Space>,
    arguments: &[&str],
) -> Role {
    let home = TempDir::new().expect("a temporary folder");
    let log = File::create(home.path().join("log")).expect("a log file");
    let mut command = Command::new(BINARY);
    command
        .arg(role)
        .arg("--secrets")
        .arg(shared.join("secrets"))
        .arg("--backends")
        .arg(shared.join("backends.yaml"))
        .args(["--admin-listen", "127.0.0.1:0"])
        .arg("--ready-file")
        .arg(home.path().join("ready.json"))
        .args(arguments);
    if let Some(space) = space {
        command
            .args(["--namespace", &space.name])
            .env("KUBECONFIG", &space.kubeconfig);
    }
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .expect("the role can be started");
    let mut role = Role {
        child,
        home,
        ready: Value::Null,
    };
    role.until_told().await;
    role
}

impl Role {
    async fn until_told(&mut self) {
        let give_up = Instant::now() + PATIENCE;
        loop {
            let text = std::fs::read(self.home.path().join("ready.json")).unwrap_or_default();
            if let Ok(ready) = serde_json::from_slice(&text) {
                self.ready = ready;
                return;
            }
            let ended = self.child.try_wait().expect("its state can be asked");
            assert!(ended.is_none(), "it ended: {ended:?}\n{}", self.log());
            assert!(Instant::now() < give_up, "not ready\n{}", self.log());
            sleep(std::time::Duration::from_millis(5)).await;
        }
    }

    /// An address of its ready file.
    pub(super) fn address(&self, name: &str) -> &str {
        self.ready[name].as_str().expect("an address of that name")
    }

    pub(super) fn ask_to_end(&self) {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            // It may be gone already.
            let _ = kill_process(pid, Signal::TERM);
        }
    }

    /// Ends it as a fault does: it says and gives back nothing.
    pub(super) fn kill(mut self) {
        self.child.kill().expect("it can be killed");
        self.child.wait().expect("it ends");
    }

    /// Waits until it has ended, as one that was asked to.
    pub(super) async fn until_ended(&mut self) {
        let give_up = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("its state can be asked") {
                assert!(status.success(), "{status}\n{}", self.log());
                return;
            }
            assert!(Instant::now() < give_up, "it goes on\n{}", self.log());
            sleep(std::time::Duration::from_millis(5)).await;
        }
    }

    /// The end of what it logged.
    fn log(&self) -> String {
        let text = std::fs::read_to_string(self.home.path().join("log")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }

    /// Waits until `/readyz` says that it is ready.
    async fn until_ready(&self) {
        let give_up = Instant::now() + PATIENCE;
        let url = format!("http://{}/readyz", self.address("admin"));
        loop {
            let said = wire::get(&wire::http(), &url, &[]).await;
            if said.status == 200 {
                return;
            }
            assert!(Instant::now() < give_up, "{said:?}\n{}", self.log());
            sleep(std::time::Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- a role's log\n{}\n---", self.log());
        }
        self.ask_to_end();
        for _ in 0..3_000 {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A gateway in its parts.
pub(super) struct Roles {
    // Ended in this order.
    pub(super) activators: Vec<Role>,
    pub(super) autoscaler: Role,
    _shared: TempDir,
}

impl Roles {
    /// Starts them, and waits until both activators know the leader.
    pub(super) async fn start(space: &Space, backends: &[Backend]) -> Self {
        let shared = shared(backends);
        let home = format!("{}:0", space.node);
        let arguments = [
            ["--system-namespace", &space.name],
            ["--installation", "test"],
            ["--scaler-listen", "127.0.0.1:0"],
            ["--home-listen", "0.0.0.0:0"],
            ["--home-advertise", &home],
            ["--agent-image", AGENT],
            ["--activator", &UIDS.join(",")],
        ];
        let arguments = arguments.as_flattened();
        let autoscaler = start("autoscaler", shared.path(), Some(space), arguments).await;
        let mut activators = Vec::new();
        for uid in UIDS {
            let arguments = [
                ["--listen", "127.0.0.1:0"],
                ["--scaler", autoscaler.address("scaler")],
                ["--pod-uid", uid],
            ];
            let arguments = arguments.as_flattened();
            activators.push(start("activator", shared.path(), Some(space), arguments).await);
        }
        for activator in &activators {
            activator.until_ready().await;
        }
        Self {
            activators,
            autoscaler,
            _shared: shared,
        }
    }

    /// The MCP endpoint of a backend at one of the activators.
    pub(super) fn url(&self, activator: usize, backend: &str) -> String {
        let listen = self.activators[activator].address("listen");
        format!("http://{listen}/adapters/{backend}/mcp")
    }

    /// A backend as the leader's `/status` tells of it.
    pub(super) async fn status(&self, backend: &str) -> BackendStatus {
        let url = format!("http://{}/status", self.autoscaler.address("admin"));
        let reply = wire::get(&wire::http(), &url, &[("accept", "application/json")]).await;
        let all = reply.json()["backends"].as_array().cloned();
        let one = all.into_iter().flatten().find(|one| one["name"] == backend);
        let one = one.unwrap_or_else(|| panic!("{backend} is not in {:?}", reply.body));
        serde_json::from_value(one).expect("a backend's status is as the API says")
    }

    /// Waits until no instance of `backend` runs or starts.
    pub(super) async fn until_cold(&self, backend: &str) {
        let give_up = Instant::now() + PATIENCE;
        loop {
            let status = self.status(backend).await;
            if is_cold(&status) {
                return;
            }
            assert!(
                Instant::now() < give_up,
                "{status:?}\n{}",
                self.autoscaler.log()
            );
            sleep(std::time::Duration::from_millis(20)).await;
        }
    }
}
