//! However many ask at once, one instance starts.

use std::path::Path;

use serde_json::json;

use crate::{
    documents::{BINARY, Backend},
    gateway::Gateway,
    tools::{self, Share},
    wire::Peer,
};

const CALLERS: usize = 100;

/// The demo server, noting each start in `starts`.
fn noted(transport: &str, starts: &Path) -> Backend {
    let script = r#"echo $$ >> "$0"; exec "$@""#;
    let file = starts.to_str().expect("a readable path");
    let over = if transport == "stdio" {
        "stdio"
    } else {
        "http"
    };
    let command = [
        "sh",
        "-c",
        script,
        file,
        BINARY,
        "demo-server",
        "--transport",
        over,
    ];
    Backend::new("demo", transport, &command)
}

/// Those of the noted processes that still run.
fn running(starts: &Path) -> (usize, usize) {
    let noted = std::fs::read_to_string(starts).unwrap_or_default();
    let table = std::process::Command::new("ps")
        .args(["-A", "-o", "pid="])
        .output()
        .expect("ps runs");
    let table = String::from_utf8_lossy(&table.stdout).into_owned();
    let alive = |pid: &&str| table.lines().any(|line| line.trim() == *pid);
    (noted.lines().count(), noted.lines().filter(alive).count())
}

async fn one_instance_for_all(isolation: &str) {
    let home = tempfile::tempdir().expect("a temporary folder");
    let starts = home.path().join("starts");
    let backend = noted("streamable-http", &starts)
        .policy("isolation", isolation)
        .policy("idleTimeout", "1m");
    let _turn = tools::turn(Share::Half).await;
    let gateway = Gateway::start(&[backend]).await;
    let url = gateway.url("demo");

    let callers: Vec<_> = (0..CALLERS)
        .map(|number| {
            let url = url.clone();
            tokio::spawn(async move {
                let name = format!("caller {number}");
                let peer = Peer::connect(&url, &name).await?;
                let answer = peer.call("echo", json!({"message": name})).await?;
                if answer.text() == name {
                    Ok(())
                } else {
                    Err(format!("{name} got {answer:?}"))
                }
            })
        })
        .collect();
    let mut failed = Vec::new();
    for caller in callers {
        failed.extend(caller.await.expect("no caller panics").err());
    }

    assert!(
        failed.is_empty(),
        "{} of {CALLERS} failed, the first: {}",
        failed.len(),
        failed[0]
    );
    assert_eq!(
        gateway.status("demo").await.starts,
        1,
        "starts as /status counts them"
    );
    assert_eq!(
        running(&starts),
        (1, 1),
        "started and running as the process table tells"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_first_requests_to_a_tenant_backend_start_one_instance() {
    one_instance_for_all("tenant").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_first_requests_to_a_shared_backend_start_one_instance() {
    one_instance_for_all("shared").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_of_their_own_get_an_instance_each_and_all_go_away() {
    let home = tempfile::tempdir().expect("a temporary folder");
    let starts = home.path().join("starts");
    let backend = noted("stdio", &starts)
        .policy("isolation", "session")
        .policy("idleTimeout", "200ms");
    let _turn = tools::turn(Share::Half).await;
    let gateway = Gateway::start(&[backend]).await;
    let url = gateway.url("demo");
    let sessions: Vec<_> = (0..50)
        .map(|number| {
            let url = url.clone();
            tokio::spawn(async move {
                let peer = Peer::connect(&url, &format!("session {number}")).await?;
                let first = peer.call("counter", json!({})).await?.text().to_owned();
                Ok::<_, String>((peer, first))
            })
        })
        .collect();
    let mut peers = Vec::new();
    for session in sessions {
        let (peer, first) = session
            .await
            .expect("no session panics")
            .expect("each session is served");
        assert_eq!(first, "1", "{} shares a memory", peer.name);
        peers.push(peer);
    }
    assert!(gateway.status("demo").await.starts >= 50);
    gateway.until_cold("demo").await;
    let (started, running) = running(&starts);
    assert!(started >= 50, "{started} processes were started");
    assert_eq!(running, 0, "processes outlive their instances");
}
