//! The state directory: one gateway at a time, and orphans of a killed one are ended by the next.

mod support;

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use mcp_gateway_runtime::{
    Runtime, RuntimeEvent,
    process::{OpenError, ProcessConfig, ProcessRuntime},
};
use support::{Bench, alive, http, order, pid_in, until};

/// Set in the process that plays the gateway to be killed.
const STATE: &str = "MCP_GATEWAY_TEST_STATE";

#[tokio::test]
async fn a_second_gateway_is_refused_by_name_and_number() {
    let bench = Bench::new().await;
    let config = ProcessConfig::new(bench.state());
    let error = ProcessRuntime::open(config).await.unwrap_err();
    assert!(matches!(error, OpenError::Lock(_)));
    let text = error.to_string();
    assert!(text.starts_with("another gateway uses "), "{text}");
    assert!(
        text.contains(&format!(", pid {};", std::process::id())),
        "{text}"
    );
}

#[tokio::test]
async fn a_dropped_runtime_ends_its_instances_and_frees_its_directory_at_once() {
    let mut bench = Bench::new().await;
    let launched = bench.launch(http(&["serve"])).await;
    bench.ready(launched.instance).await;
    let Bench {
        runtime,
        events,
        dir,
    } = bench;
    drop((runtime, events));
    let config = ProcessConfig::new(dir.path().join("state"));
    let opened = ProcessRuntime::open(config).await;
    assert!(opened.is_ok(), "{opened:?}");
    let pid = launched.pid.unwrap();
    until("the child to be dead", || (!alive(pid)).then_some(())).await;
}

#[tokio::test]
async fn unreadable_records_are_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let children = dir.path().join("state/children");
    std::fs::create_dir_all(&children).unwrap();
    std::fs::write(children.join("torn.json"), "{\"pid\": 1").unwrap();
    let config = ProcessConfig::new(dir.path().join("state"));
    let (_runtime, _events, report) = ProcessRuntime::open(config).await.unwrap();
    assert_eq!(report, Default::default());
    assert_eq!(std::fs::read_dir(children).unwrap().count(), 0);
}

#[tokio::test]
async fn a_record_whose_number_now_belongs_to_somebody_else_kills_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let children = dir.path().join("state/children");
    std::fs::create_dir_all(&children).unwrap();
    let mut bystander = Command::new("sleep").arg("1000").spawn().unwrap();
    let record = format!(
        r#"{{"backend":"b","instance":"i","pid":{},"start":"1","session":1,"boot":"x"}}"#,
        bystander.id()
    );
    std::fs::write(children.join("old.json"), record).unwrap();
    let config = ProcessConfig::new(dir.path().join("state"));
    let (_runtime, _events, report) = ProcessRuntime::open(config).await.unwrap();
    assert_eq!((report.stale, report.reaped.len()), (1, 0));
    assert!(alive(bystander.id()));
    bystander.kill().unwrap();
    bystander.wait().unwrap();
}

#[tokio::test]
async fn orphans_of_a_killed_gateway_are_ended_with_their_families() {
    let dir = tempfile::tempdir().unwrap();
    let mut gateway = play_gateway(dir.path());
    let grandchild = pid_in(dir.path().join("grandchild")).await;
    let leader = pid_in(dir.path().join("leader")).await;
    gateway.kill().unwrap();
    gateway.wait().unwrap();
    assert!(alive(leader) && alive(grandchild));

    let mut config = ProcessConfig::new(dir.path().join("state"));
    config.orphan_grace = std::time::Duration::from_millis(300);
    let (_runtime, _events, report) = ProcessRuntime::open(config).await.unwrap();
    assert_eq!(report.reaped.len(), 1, "{report:?}");
    assert_eq!(report.reaped[0].backend, "fixture");
    assert_eq!(u32::try_from(report.reaped[0].pid), Ok(leader));
    assert!(!alive(leader) && !alive(grandchild));
}

#[tokio::test]
async fn orphans_whose_leader_is_dead_are_ended_too() {
    let dir = tempfile::tempdir().unwrap();
    let mut gateway = play_gateway(dir.path());
    let grandchild = pid_in(dir.path().join("grandchild")).await;
    let leader = pid_in(dir.path().join("leader")).await;
    gateway.kill().unwrap();
    gateway.wait().unwrap();
    kill(leader);
    until("the leader to be dead", || (!alive(leader)).then_some(())).await;
    assert!(alive(grandchild));

    let mut config = ProcessConfig::new(dir.path().join("state"));
    config.orphan_grace = std::time::Duration::from_millis(300);
    let (_runtime, _events, report) = ProcessRuntime::open(config).await.unwrap();
    assert_eq!(report.reaped.len(), 1, "{report:?}");
    assert!(!alive(grandchild));
}

#[tokio::test]
async fn children_die_with_an_executor_that_is_torn_down() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    let leader = std::thread::spawn(move || {
        let executor = tokio::runtime::Runtime::new().unwrap();
        executor.block_on(async {
            let (runtime, mut events, _) = ProcessRuntime::open(ProcessConfig::new(state))
                .await
                .unwrap();
            let launched = runtime.launch(order(http(&["serve"]))).await.unwrap();
            while !matches!(events.recv().await, Some(RuntimeEvent::Ready(..))) {}
            launched.pid.unwrap()
        })
    })
    .join()
    .unwrap();
    until("the child to be dead", || (!alive(leader)).then_some(())).await;
}

fn kill(pid: u32) {
    let done = Command::new("kill").args(["-9", &pid.to_string()]).status();
    assert!(done.is_ok_and(|status| status.success()));
}

/// Starts this test binary again, as a gateway with one instance.
fn play_gateway(dir: &Path) -> Child {
    Command::new(std::env::current_exe().expect("this test binary has a path"))
        .args(["--exact", "the_gateway_that_is_killed", "--nocapture"])
        .env(STATE, dir)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("this test binary runs")
}

/// Not a test by itself: what [`play_gateway`] runs.
#[tokio::test]
async fn the_gateway_that_is_killed() {
    let Some(dir) = std::env::var_os(STATE).map(PathBuf::from) else {
        return;
    };
    let config = ProcessConfig::new(dir.join("state"));
    let (runtime, mut events, _) = ProcessRuntime::open(config).await.unwrap();
    let grandchild = dir.join("grandchild");
    let launch = http(&["family", grandchild.to_str().unwrap()]);
    let launched = runtime.launch(order(launch)).await.unwrap();
    while !matches!(events.recv().await, Some(RuntimeEvent::Ready(..))) {}
    let leader = dir.join("leader");
    std::fs::write(dir.join("leader.new"), launched.pid.unwrap().to_string()).unwrap();
    std::fs::rename(dir.join("leader.new"), leader).unwrap();
    std::future::pending::<()>().await;
}
