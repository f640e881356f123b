//! The built binary, started as a user starts it and stopped with the test.
//!
//! Invariant: dropping it asks it to stop and waits, so that no instance outlives a test.

use std::{
    fs::File,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use mcp_gateway_api::status::BackendStatus;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::{
    documents::{BINARY, Backend},
    wire::{self, Http},
};

/// How long anything may take that has to happen: a loaded machine is slow, a broken gateway is for ever.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A running gateway.
pub(crate) struct Gateway {
    child: Child,
    home: TempDir,
    http: Http,
    /// `127.0.0.1:4711`, for clients.
    pub(crate) listen: String,
    /// `127.0.0.1:4712`, for operators.
    pub(crate) admin: String,
}

impl Gateway {
    /// Serves `backends` on loopback.
    pub(crate) async fn start(backends: &[Backend]) -> Self {
        Self::start_with(backends, &[]).await
    }

    /// The same with further arguments.
    pub(crate) async fn start_with(backends: &[Backend], arguments: &[&str]) -> Self {
        Self::start_in(backends, arguments, &[]).await
    }

    /// The same with further variables in its environment.
    pub(crate) async fn start_in(
        backends: &[Backend],
        arguments: &[&str],
        environment: &[(&str, &str)],
    ) -> Self {
        let home = TempDir::new().expect("a temporary folder");
        let documents: String = backends.iter().map(Backend::document).collect();
        std::fs::write(home.path().join("backends.yaml"), &documents)
            .expect("documents are written");
        let child = launch(home.path(), !documents.is_empty(), arguments, environment);
        let mut gateway = Self {
            child,
            home,
            http: wire::http(),
            listen: String::new(),
            admin: String::new(),
        };
        let ready = gateway.ready().await;
        gateway.listen = address(&ready, "listen");
        gateway.admin = address(&ready, "admin");
        gateway
    }

    async fn ready(&mut self) -> Value {
        let file = self.home.path().join("ready.json");
        let give_up = Instant::now() + PATIENCE;
        loop {
            let said = std::fs::read(&file)
                .ok()
                .and_then(|text| serde_json::from_slice(&text).ok());
            if let Some(ready) = said {
                return ready;
            }
            let ended = self
                .child
                .try_wait()
                .expect("the gateway's state can be asked");
            assert!(
                ended.is_none(),
                "the gateway ended at its start: {ended:?}\n{}",
                self.log()
            );
            assert!(
                Instant::now() < give_up,
                "the gateway is not ready\n{}",
                self.log()
            );
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// The MCP endpoint of a backend.
    pub(crate) fn url(&self, backend: &str) -> String {
        format!("http://{}/adapters/{backend}/mcp", self.listen)
    }

    /// The 2024-11-05 endpoint of a backend.
    pub(crate) fn sse_url(&self, backend: &str) -> String {
        format!("http://{}/adapters/{backend}/sse", self.listen)
    }

    /// A backend as `/status` tells of it.
    pub(crate) async fn status(&self, backend: &str) -> BackendStatus {
        let url = format!("http://{}/status", self.admin);
        let reply = wire::get(&self.http, &url, &[("accept", "application/json")]).await;
        let status = reply.json();
        let all = status["backends"].as_array().cloned().unwrap_or_default();
        let one = all.into_iter().find(|one| one["name"] == backend);
        let one = one.unwrap_or_else(|| panic!("/status knows no backend {backend}: {status}"));
        serde_json::from_value(one).expect("a backend's status is as the API says")
    }

    /// Waits until no instance of `backend` runs or starts.
    pub(crate) async fn until_cold(&self, backend: &str) {
        let give_up = Instant::now() + PATIENCE;
        loop {
            let status = self.status(backend).await;
            if is_cold(&status) {
                return;
            }
            assert!(
                Instant::now() < give_up,
                "{backend} does not go to zero: {status:?}\n{}",
                self.log()
            );
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// Ends it as a crash does: without any word to its instances.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("it can be killed");
        self.child.wait().expect("it has ended");
    }

    /// All that the gateway logged.
    pub(crate) fn whole_log(&self) -> String {
        std::fs::read_to_string(self.home.path().join("log")).unwrap_or_default()
    }

    /// What the gateway logged, its last 60 lines.
    pub(crate) fn log(&self) -> String {
        let text = self.whole_log();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(60)..].join("\n")
    }
}

/// Whether nothing of it runs.
pub(crate) fn is_cold(status: &BackendStatus) -> bool {
    status
        .slots
        .iter()
        .all(|slot| slot.instance.is_none() && slot.phase != "starting")
}

fn address(ready: &Value, name: &str) -> String {
    let text = ready[name]
        .as_str()
        .unwrap_or_else(|| panic!("no {name} in the ready file: {ready}"));
    text.trim_start_matches("http://")
        .trim_end_matches('/')
        .to_owned()
}

fn launch(home: &Path, documents: bool, arguments: &[&str], environment: &[(&str, &str)]) -> Child {
    let log = File::create(home.join("log")).expect("a log file");
    let mut command = Command::new(BINARY);
    command
        .arg("serve")
        .args(["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]);
    // Without any, they come from where the arguments say.
    if documents {
        command.arg("--backends").arg(home.join("backends.yaml"));
    }
    command
        .envs(environment.iter().copied())
        .arg("--state-dir")
        .arg(home.join("state"))
        .arg("--ready-file")
        .arg(home.join("ready.json"))
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .expect("the gateway can be started")
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the gateway's log\n{}\n---", self.log());
        }
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            // It may be gone already: then there is nothing to stop.
            let _ = kill_process(pid, Signal::TERM);
        }
        for _ in 0..1000 {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
