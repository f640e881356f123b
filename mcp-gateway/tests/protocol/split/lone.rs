//! An activator by itself: its document is a file, and nobody leads. Needs no cluster.

use std::time::Duration;

use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use super::roles::{self, Role};
use crate::{
    gateway::PATIENCE,
    pods::demo,
    wire::{self, Reply},
};

/// A running activator; it goes with this value.
struct Lone {
    role: Role,
    _shared: TempDir,
}

impl Lone {
    /// One whose backend `demo` holds for so long.
    async fn start(hold: &str, arguments: &[&str]) -> Self {
        let shared = roles::shared(&[demo("demo", "streamable-http").policy("holdTimeout", hold)]);
        // Port 1 of loopback: nobody listens there.
        let own = ["--scaler", "127.0.0.1:1", "--listen", "127.0.0.1:0"];
        let arguments = [&own[..], arguments].concat();
        Self {
            role: roles::start("activator", shared.path(), None, &arguments).await,
            _shared: shared,
        }
    }

    /// A page for operators.
    async fn page(&self, path: &str) -> (u16, String) {
        let url = format!("http://{}{path}", self.role.address("admin"));
        let said = wire::get(&wire::http(), &url, &[]).await;
        (
            said.status.as_u16(),
            String::from_utf8_lossy(&said.body).into_owned(),
        )
    }

    /// The answer to an `initialize` with this id, on a connection of its own.
    async fn initialize(&self, id: u64) -> Reply {
        let url = format!("http://{}/adapters/demo/mcp", self.role.address("listen"));
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

    async fn until_it_leaves(&self) {
        let give_up = Instant::now() + PATIENCE;
        while !self.page("/readyz").await.1.contains("shutting down") {
            assert!(Instant::now() < give_up, "it does not leave");
            sleep(Duration::from_millis(5)).await;
        }
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
            activator.role.ask_to_end();
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
    activator.role.until_ended().await;
}

#[tokio::test]
async fn an_activator_that_is_asked_twice_ends_at_once() {
    let delay = ["--shutdown-delay", "1h"];
    let mut activator = Lone::start("1s", &delay).await;
    activator.role.ask_to_end();
    activator.until_it_leaves().await;
    activator.role.ask_to_end();
    activator.role.until_ended().await;
}
