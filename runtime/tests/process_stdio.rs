//! The process runtime with stdio servers: a bridge in this process, its children real.

#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod support;

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use mcp_gateway_api::{
    backend::{LaunchSpec, Transport},
    endpoint::LocalDial,
    ids::InstanceId,
    view::Reach,
};
use support::{Bench, PATIENCE, alive, fixture, spec, until};

fn stdio(habits: &[&str]) -> LaunchSpec {
    let script = fixture("bridge_server.py");
    let mut command = vec!["python3", script.as_str()];
    command.extend(habits);
    spec(Transport::Stdio, &command)
}

/// One `initialize` on a connection of its own.
async fn initialize(bench: &Bench, instance: InstanceId) -> (StatusCode, String) {
    let io = bench.runtime.dial(instance).unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(io))
        .await
        .unwrap();
    tokio::spawn(connection);
    let body = r#"{"jsonrpc":"2.0","id":"a","method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"t","version":"0"}}}"#;
    let request = Request::builder()
        .method(Method::POST)
        .uri("/mcp")
        .header("host", "localhost")
        .header("content-type", "application/json")
        .header("accept", "application/json, text/event-stream")
        .body(Full::new(Bytes::from(body)))
        .unwrap();
    let answer = tokio::time::timeout(PATIENCE, sender.send_request(request))
        .await
        .unwrap()
        .unwrap();
    let status = answer.status();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8_lossy(&body).into_owned())
}

fn recorded_pids(bench: &Bench) -> Vec<u32> {
    std::fs::read_dir(bench.state().join("children"))
        .unwrap()
        .filter_map(|entry| {
            let path = entry.unwrap().path();
            let pid = path.file_stem()?.to_str()?.rsplit('-').next()?;
            pid.parse().ok()
        })
        .collect()
}

#[tokio::test]
async fn a_stdio_server_is_served_in_process_and_ends_with_all_its_children() {
    let mut bench = Bench::new().await;
    let launched = bench.launch(stdio(&[])).await;
    let endpoint = bench.ready(launched.instance).await;
    assert_eq!(endpoint.reach, Reach::InProcess);
    assert_eq!((&*endpoint.host, &*endpoint.path), ("localhost", "/mcp"));
    for _session in 0..2 {
        let (status, body) = initialize(&bench, launched.instance).await;
        assert_eq!(status, StatusCode::OK, "{body}");
        assert!(body.contains("\"serverInfo\""), "{body}");
    }
    let children = recorded_pids(&bench);
    assert_eq!(children.len(), 2);
    assert!(children.contains(&launched.pid.unwrap()));

    bench.terminate(launched.instance, PATIENCE).await;
    bench.exited(launched.instance).await;
    assert!(children.iter().all(|pid| !alive(*pid)));
    assert_eq!(bench.records(), 0);
    let gone = bench.runtime.dial(launched.instance).unwrap_err();
    assert_eq!(gone.kind(), std::io::ErrorKind::NotFound);
}

#[tokio::test]
async fn a_stdio_server_that_exits_is_told_with_code_and_last_lines() {
    let mut bench = Bench::new().await;
    let launched = bench
        .launch(spec(
            Transport::Stdio,
            &["sh", "-c", "echo no licence found >&2; exit 3"],
        ))
        .await;
    bench.ready(launched.instance).await;
    let report = bench.exited(launched.instance).await;
    assert_eq!(report.code, Some(3), "{report:?}");
    assert_eq!(report.stderr_tail, ["no licence found"]);
    let log = std::fs::read_to_string(launched.log.unwrap()).unwrap();
    assert_eq!(log, "no licence found\n");
}

#[tokio::test]
async fn a_stdio_command_that_does_not_exist_fails_the_launch() {
    let bench = Bench::new().await;
    let report = bench
        .refused(spec(Transport::Stdio, &["no-such-program-here"]))
        .await;
    assert!(
        report.summary.contains("was not found in PATH"),
        "{report:?}"
    );
    assert_eq!(bench.records(), 0);
    let logs = std::fs::read_dir(bench.state().join("logs/fixture")).unwrap();
    assert_eq!(logs.count(), 0);
}

#[tokio::test]
async fn a_stdio_server_that_ignores_everything_polite_is_killed() {
    let mut bench = Bench::new().await;
    let script = "trap '' TERM; echo up >&2; while :; do sleep 1; done";
    let launched = bench
        .launch(spec(Transport::Stdio, &["sh", "-c", script]))
        .await;
    bench.ready(launched.instance).await;
    let log = launched.log.unwrap();
    until("the trap to be set", || {
        let text = std::fs::read_to_string(&log).ok()?;
        text.contains("up").then_some(())
    })
    .await;
    bench
        .terminate(launched.instance, Duration::from_millis(100))
        .await;
    bench.exited(launched.instance).await;
    assert!(!alive(launched.pid.unwrap()));
}
