//! What the process tests share: a runtime in a folder of its own, orders for the fixture server, polling with a deadline.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "each test binary uses its part; a failed unwrap fails the test"
)]

use std::{path::PathBuf, sync::Arc, time::Duration};

use mcp_gateway_api::{
    backend::{Backend, LaunchSpec, Transport},
    failure::ExitReport,
    ids::{BackendName, Generation, InstanceId, TenantName},
    policy::{Isolation, ScalingPolicy},
    slot::{Owner, SlotKey},
    view::Endpoint,
};
use mcp_gateway_runtime::{
    EventReceiver, Farewell, LaunchOrder, Launched, Runtime, RuntimeEvent,
    process::{ProcessConfig, ProcessRuntime},
};
use tokio::time::{Instant, sleep, timeout};

/// Longer than anything here takes on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub fn fixture(name: &str) -> String {
    format!("{}/tests/fixtures/{name}", env!("CARGO_MANIFEST_DIR"))
}

pub fn spec(transport: Transport, command: &[&str]) -> LaunchSpec {
    LaunchSpec {
        image: None,
        port: None,
        pod: Arc::default(),
        command: command.iter().map(ToString::to_string).collect(),
        args: Vec::new(),
        working_dir: None,
        env: Vec::new(),
        transport,
        path: "/mcp".into(),
        host: None,
        health_path: None,
    }
}

/// The fixture server with the given behaviour.
pub fn http(behaviour: &[&str]) -> LaunchSpec {
    let script = fixture("http_server.py");
    let mut command = vec!["python3", script.as_str()];
    command.extend(behaviour);
    spec(Transport::StreamableHttp, &command)
}

pub fn order(launch: LaunchSpec) -> LaunchOrder {
    let name = BackendName::new("fixture").unwrap();
    let isolation = Isolation::Shared;
    LaunchOrder {
        slot: SlotKey {
            backend: name.clone(),
            owner: Owner::Nobody,
        },
        backend: Arc::new(Backend {
            name,
            generation: Generation(1),
            description: None,
            launch,
            policy: Arc::new(ScalingPolicy::for_processes(isolation)),
            tenants: Vec::new(),
        }),
        tenant: TenantName::default(),
    }
}

pub struct Bench {
    pub runtime: Arc<ProcessRuntime>,
    pub events: EventReceiver,
    pub dir: tempfile::TempDir,
}

impl Bench {
    pub async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = ProcessConfig::new(dir.path().join("state"));
        let (runtime, events, _) = ProcessRuntime::open(config).await.unwrap();
        Self {
            runtime,
            events,
            dir,
        }
    }

    pub fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    pub async fn launch(&self, launch: LaunchSpec) -> Launched {
        self.runtime.launch(order(launch)).await.unwrap()
    }

    pub async fn refused(&self, launch: LaunchSpec) -> ExitReport {
        self.runtime.launch(order(launch)).await.unwrap_err()
    }

    pub async fn next(&mut self) -> RuntimeEvent {
        timeout(PATIENCE, self.events.recv())
            .await
            .expect("an event within the patience")
            .expect("the runtime lives")
    }

    pub async fn running(&mut self, instance: InstanceId) {
        assert_eq!(self.next().await, RuntimeEvent::Running(instance));
    }

    pub async fn ready(&mut self, instance: InstanceId) -> Endpoint {
        self.running(instance).await;
        match self.next().await {
            RuntimeEvent::Ready(id, endpoint) if id == instance => endpoint,
            other => panic!("expected Ready, got {other:?}"),
        }
    }

    pub async fn exited(&mut self, instance: InstanceId) -> ExitReport {
        match self.next().await {
            RuntimeEvent::Exited(id, report) if id == instance => report,
            other => panic!("expected Exited, got {other:?}"),
        }
    }

    /// Waits until a server that says so was probed twice: by then the first answer has been judged.
    pub async fn knocked_again(&self, instance: InstanceId) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let said = self.runtime.stderr_tail(instance).await;
            if said.iter().filter(|line| *line == "knocked").count() >= 2 {
                return;
            }
            assert!(Instant::now() < deadline, "probed in vain: {said:?}");
            sleep(Duration::from_millis(5)).await;
        }
    }

    pub async fn terminate(&self, instance: InstanceId, grace: Duration) {
        self.runtime.terminate(instance, Farewell { grace }).await;
    }

    pub fn records(&self) -> usize {
        std::fs::read_dir(self.state().join("children"))
            .unwrap()
            .count()
    }
}

/// Polls until there is a value.
pub async fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = look() {
            return value;
        }
        assert!(Instant::now() < deadline, "in vain: {what}");
        sleep(Duration::from_millis(5)).await;
    }
}

/// Whether a process runs (a zombie does not).
pub fn alive(pid: u32) -> bool {
    let shown = std::process::Command::new("ps")
        .args(["-o", "stat=", "-p", &pid.to_string()])
        .output()
        .expect("ps runs");
    let stat = String::from_utf8_lossy(&shown.stdout).trim().to_owned();
    !stat.is_empty() && !stat.starts_with('Z')
}

/// The process id that a fixture wrote.
pub async fn pid_in(path: PathBuf) -> u32 {
    until("a pid file", || {
        std::fs::read_to_string(&path).ok()?.trim().parse().ok()
    })
    .await
}
