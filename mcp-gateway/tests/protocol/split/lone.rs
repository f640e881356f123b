//! An activator by itself: its document is a file, and nobody leads. Needs no cluster.

use std::{
    fs,
    process::{Command, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::{
    process::Child,
    time::{Instant, sleep, timeout},
};

use crate::{
    documents::BINARY,
    gateway::PATIENCE,
    pods::demo,
    wire::{self, Reply},
};

/// A running activator; it goes with this value.
struct Lone {
    child: Child,
    clients: String,
    admin: String,
    _home: TempDir,
}

impl Lone {
    /// One whose backend `demo` holds for so long.
    async fn start(hold: &str, arguments: &[&str]) -> Self {
        let home = TempDir::new().expect("a temporary folder");
        let path = |name: &str| home.path().join(name);
        let made = Command::new(BINARY)
            .args(["secrets", "create"])
            .arg(path("secrets"))
            .status();
        assert!(made.expect("secrets can be made").success());
        let document = demo("demo", "streamable-http").policy("holdTimeout", hold);
        fs::write(path("backends.yaml"), document.document()).expect("a document");
        let mut child = tokio::process::Command::new(BINARY)
            .kill_on_drop(true)
            .arg("activator")
            .arg("--secrets")
            .arg(path("secrets"))
            .arg("--backends")
            .arg(path("backends.yaml"))
            .arg("--ready-file")
            .arg(path("ready.json"))
            // Port 1 of loopback: nobody listens there.
            .args(["--scaler", "127.0.0.1:1", "--listen", "127.0.0.1:0"])
            .args(["--admin-listen", "127.0.0.1:0"])
            .args(arguments)
            .stdout(Stdio::null())
            .stderr(fs::File::create(path("log")).expect("a log file"))
            .spawn()
            .expect("an activator");
        let give_up = Instant::now() + PATIENCE;
        let ready = loop {
            let text = fs::read(path("ready.json")).unwrap_or_default();
            if let Ok(ready) = serde_json::from_slice::<serde_json::Value>(&text) {
                break ready;
            }
            assert_eq!(child.try_wait().expect("its state"), None, "it ended");
            assert!(Instant::now() < give_up, "it is not ready");
            sleep(Duration::from_millis(5)).await;
        };
        let [clients, admin] =
            ["listen", "admin"].map(|name| ready[name].as_str().expect("an address").to_owned());
        Self {
            child,
            clients,
            admin,
            _home: home,
        }
    }

    /// A page for operators.
    async fn page(&self, path: &str) -> (u16, String) {
        let said = wire::get(&wire::http(), &format!("http://{}{path}", self.admin), &[]).await;
        (
            said.status.as_u16(),
            String::from_utf8_lossy(&said.body).into_owned(),
        )
    }

    /// The answer to an `initialize` with this id, on a connection of its own.
    async fn initialize(&self, id: u64) -> Reply {
        let url = format!("http://{}/adapters/demo/mcp", self.clients);
        let answer = wire::post(&wire::http(), &url, &[], &wire::initialize(id)).await;
        answer.expect("an answer")
    }

    async fn until_it_holds(&self, how_many: u64) {
        let give_up = Instant::now() + PATIENCE;
        loop {
            let (_, page) = self.page("/metrics").await;
            let gauge = page
                .lines()
                .find(|line| line.starts_with("mcp_gateway_pending"));
            let held = gauge.and_then(|line| line.rsplit(' ').next()?.parse().ok());
            if held == Some(how_many) {
                return;
            }
            assert!(Instant::now() < give_up, "it holds {gauge:?}");
            sleep(Duration::from_millis(5)).await;
        }
    }

    fn ask_to_end(&self) {
        let pid = self.child.id().and_then(|pid| i32::try_from(pid).ok());
        let pid = pid.and_then(Pid::from_raw).expect("it runs");
        kill_process(pid, Signal::TERM).expect("it is told");
    }

    async fn until_it_leaves(&self) {
        let give_up = Instant::now() + PATIENCE;
        while !self.page("/readyz").await.1.contains("shutting down") {
            assert!(Instant::now() < give_up, "it does not leave");
            sleep(Duration::from_millis(5)).await;
        }
    }

    async fn until_ended(&mut self) {
        let ended = timeout(PATIENCE, self.child.wait()).await;
        let status = ended.expect("it ends").expect("its status");
        assert!(status.success(), "{status}");
    }
}

#[tokio::test]
async fn an_activator_that_knows_no_leader_says_so_and_lets_nobody_wait_longer_than_a_budget() {
    let activator = Lone::start("1s", &["--shutdown-timeout", "1s"]).await;
    let (status, text) = activator.page("/readyz").await;
    assert_eq!(status, 503);
    assert!(text.contains("no autoscaler that leads"), "{text}");
    assert_eq!(activator.page("/livez").await.0, 200);
    let refused = activator.initialize(7).await;
    assert_eq!(refused.status, 503, "{refused:?}");
    assert!(!refused.header("retry-after").is_empty());
    assert_eq!(refused.json()["id"], 7);
}

#[tokio::test]
async fn an_activator_that_is_asked_to_end_serves_on_sends_its_clients_elsewhere_and_refuses_nothing_it_holds()
 {
    let delay = ["--shutdown-delay", "6s", "--shutdown-timeout", "10m"];
    let mut activator = Lone::start("12s", &delay).await;
    let (early, late) = {
        let early = activator.initialize(1);
        let told = async {
            activator.until_it_holds(1).await;
            activator.ask_to_end();
            activator.until_it_leaves().await;
            activator.initialize(2).await
        };
        tokio::join!(early, told)
    };
    for (reply, id) in [(early, 1), (late, 2)] {
        assert_eq!(reply.json()["id"], id);
        // Both waited out their budget, which is the document's, and not the end.
        let kind = &reply.json()["error"]["data"]["kind"];
        assert_eq!(kind, "hold_timeout", "{reply:?}");
        assert_eq!(reply.header("connection"), "close");
    }
    activator.until_ended().await;
}

#[tokio::test]
async fn an_activator_that_is_asked_twice_ends_at_once() {
    let delay = ["--shutdown-delay", "1h"];
    let mut activator = Lone::start("1s", &delay).await;
    activator.ask_to_end();
    activator.until_it_leaves().await;
    activator.ask_to_end();
    activator.until_ended().await;
}
