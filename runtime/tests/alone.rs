//! One server alone, as in a pod. A binary of its own: reaping takes whatever has ended in this process.

#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod support;

use std::{net::Ipv4Addr, time::Duration};

use mcp_gateway_api::{backend::Transport, ids::BackendName};
use mcp_gateway_runtime::{
    RuntimeEvent,
    process::{
        Brood,
        alone::{Alone, AloneConfig},
    },
};
use support::{PATIENCE, spec};

/// The zombies among this process's children.
fn zombies() -> usize {
    let me = std::process::id().to_string();
    let stats = std::fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| std::fs::read_to_string(entry.path().join("stat")).ok());
    stats
        .filter(|stat| {
            let fields = stat.rsplit_once(')').map(|(_, rest)| rest.trim_start());
            fields.is_some_and(|fields| fields.starts_with(&format!("Z {me} ")))
        })
        .count()
}

/// Waits, without letting anybody reap, until `count` of this process's children have ended.
fn until_ended(count: usize) {
    let since = tokio::time::Instant::now();
    while zombies() < count {
        assert!(since.elapsed() < PATIENCE, "{count} did not end");
        std::thread::sleep(Duration::from_millis(2));
    }
}

// One thread: while the test does not await, nobody but the reaper can reap.
#[tokio::test(flavor = "current_thread")]
#[cfg(target_os = "linux")]
async fn reaping_orphans_takes_nobodys_exit_status() {
    let dir = tempfile::tempdir().unwrap();
    let (go, gone) = (dir.path().join("go"), dir.path().join("gone"));
    // Its child is left behind and ends after it: a shell that still waits would reap its own child.
    let script = "(while [ ! -e \"$1\" ]; do sleep 0.01; done) & \
                  while [ ! -e \"$0\" ]; do sleep 0.01; done; exit 7";
    let command = [
        "sh",
        "-c",
        script,
        go.to_str().unwrap(),
        gone.to_str().unwrap(),
    ];
    Brood::inherit_orphans().unwrap();
    let brood = Brood::default();
    let config = AloneConfig {
        backend: BackendName::new("fixture").unwrap(),
        launch: spec(Transport::StreamableHttp, &command),
        ip: Ipv4Addr::LOCALHOST.into(),
        port: 1,
        environment: std::env::vars_os().collect(),
        max_body: 1,
        start_timeout: PATIENCE,
        secret: None,
        brood: brood.clone(),
    };
    let (_alone, mut events) = Alone::start(config).await.unwrap();
    std::fs::write(&go, "").unwrap();
    until_ended(1);
    std::fs::write(&gone, "").unwrap();
    until_ended(2);
    assert_eq!(brood.reap_orphans(), 1);
    assert_eq!(zombies(), 1);
    let exited = async {
        loop {
            if let RuntimeEvent::Exited(_, report) = events.recv().await.unwrap() {
                return report;
            }
        }
    };
    let report = tokio::time::timeout(PATIENCE, exited).await.unwrap();
    assert_eq!(report.code, Some(7), "{}", report.summary);
    assert_eq!(zombies(), 0);
}
