//! A gateway in its parts, with its servers as pods: one session, whichever activator its requests reach.

mod roles;

use std::{
    fs,
    process::{Command, Stdio},
};

use roles::Roles;
use tokio::time::Instant;

use crate::{
    documents::BINARY,
    gateway::PATIENCE,
    pods::{
        cluster::{EMBEDDED, space},
        count, demo,
    },
    tools::{self, Share},
    wire::{self, Peer},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_is_one_at_every_activator_and_is_revived_once_wherever_it_is_asked_for() {
    let Some(space) = space("a gateway in its parts").await else {
        return;
    };
    let backend = demo("demo", "streamable-http")
        .spec("image", EMBEDDED)
        .spec("agent", "embedded")
        .policy("isolation", "session")
        .policy("idleTimeout", "6s");
    let _turn = tools::turn(Share::Whole).await;
    let roles = Roles::start(&space, &[backend]).await;
    let here = Peer::connect(&roles.url(0, "demo"), "here").await;
    let here = here.expect("a session");
    let there = here.at(&roles.url(1, "demo"), 1_000);
    for (peer, expected) in [(&here, 1), (&there, 2), (&here, 3)] {
        assert_eq!(count(peer).await, expected, "one session, one pod");
    }
    assert_eq!(space.pods().await.len(), 1);

    roles.until_cold("demo").await;
    space.until_empty().await;
    assert_eq!(count(&there).await, 1, "revived at the other activator");
    assert_eq!(count(&here).await, 2, "and known to the first");
    assert_eq!(roles.status("demo").await.starts, 2);

    roles.until_cold("demo").await;
    space.until_empty().await;
    let mut both = <[u64; 2]>::from(tokio::join!(count(&here), count(&there)));
    both.sort_unstable();
    assert_eq!(
        both,
        [1, 2],
        "asked for at both at once, it is revived once"
    );
    assert_eq!(roles.status("demo").await.starts, 3);
    assert_eq!(space.pods().await.len(), 1);
}

/// It needs no cluster: the document is a file, and nobody leads.
#[tokio::test]
async fn an_activator_that_knows_no_leader_says_so_and_lets_nobody_wait_longer_than_a_budget() {
    let home = tempfile::TempDir::new().expect("a temporary folder");
    let path = |name: &str| home.path().join(name);
    let made = Command::new(BINARY)
        .args(["secrets", "create"])
        .arg(path("secrets"))
        .status();
    assert!(made.expect("secrets can be made").success());
    let document = demo("demo", "streamable-http").policy("holdTimeout", "1s");
    fs::write(path("backends.yaml"), document.document()).expect("a document");
    let mut activator = tokio::process::Command::new(BINARY)
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
        .args(["--admin-listen", "127.0.0.1:0", "--shutdown-timeout", "1s"])
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
        assert_eq!(activator.try_wait().expect("its state"), None, "it ended");
        assert!(Instant::now() < give_up, "it is not ready");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    };
    let http = wire::http();
    let [clients, admin] =
        ["listen", "admin"].map(|name| ready[name].as_str().expect("an address"));
    let said = wire::get(&http, &format!("http://{admin}/readyz"), &[]).await;
    assert_eq!(said.status, 503);
    let text = String::from_utf8_lossy(&said.body).into_owned();
    assert!(text.contains("no autoscaler that leads"), "{text}");
    let alive = wire::get(&http, &format!("http://{admin}/livez"), &[]).await;
    assert_eq!(alive.status, 200);
    let url = format!("http://{clients}/adapters/demo/mcp");
    let refused = wire::post(&http, &url, &[], &wire::initialize(7)).await;
    let refused = refused.expect("an answer");
    assert_eq!(refused.status, 503, "{refused:?}");
    assert!(!refused.header("retry-after").is_empty());
    assert_eq!(refused.json()["id"], 7);
    activator.kill().await.expect("it can be ended");
}
