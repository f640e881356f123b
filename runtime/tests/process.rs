//! The process runtime with real children: how servers become ready, how they fail, how they end.

#![allow(
    clippy::wildcard_enum_match_arm,
    reason = "an unexpected event fails the test"
)]

mod support;

use std::{ffi::OsString, os::unix::fs::PermissionsExt, sync::Arc, time::Duration};

use mcp_gateway_api::{
    backend::{EnvValue, EnvVar, Transport},
    ids::InstanceId,
    view::Reach,
};
use mcp_gateway_runtime::{
    Runtime, RuntimeEvent,
    process::{ProcessConfig, ProcessRuntime},
};
use support::{Bench, PATIENCE, alive, http, order, pid_in, spec, until};
use tokio::{
    io::AsyncWriteExt,
    net::TcpStream,
    time::{Instant, timeout},
};

const SHORT: Duration = Duration::from_millis(200);

#[tokio::test]
async fn a_server_becomes_ready_on_a_loopback_port_and_ends_when_told() {
    let mut bench = Bench::new().await;
    let launched = bench.launch(http(&["serve"])).await;
    let endpoint = bench.ready(launched.instance).await;
    let Reach::Tcp(address) = endpoint.reach else {
        panic!("{endpoint:?}");
    };
    assert!(address.ip().is_loopback());
    assert_eq!(*endpoint.host, *format!("localhost:{}", address.port()));
    assert_eq!(&*endpoint.path, "/mcp");
    assert_eq!(bench.records(), 1);

    bench.terminate(launched.instance, PATIENCE).await;
    let report = bench.exited(launched.instance).await;
    assert_eq!(report.signal, Some(15));
    assert!(report.summary.contains("told to end"), "{report:?}");
    assert!(!alive(launched.pid.unwrap()));
    assert_eq!(bench.records(), 0);
}

#[tokio::test]
async fn a_server_on_the_other_loopback_address_is_found_there() {
    if std::net::TcpListener::bind("[::1]:0").is_err() {
        // A machine without IPv6 has no such server.
        return;
    }
    let mut bench = Bench::new().await;
    let launched = bench.launch(http(&["serve6"])).await;
    let endpoint = bench.ready(launched.instance).await;
    assert!(matches!(endpoint.reach, Reach::Tcp(address) if address.is_ipv6()));
}

#[tokio::test]
async fn the_port_is_filled_into_arguments() {
    let mut bench = Bench::new().await;
    let mut launch = http(&["argument"]);
    launch.args = vec!["${PORT}".into()];
    let launched = bench.launch(launch).await;
    bench.ready(launched.instance).await;
}

#[tokio::test]
async fn an_exit_before_serving_is_told_with_code_and_last_lines() {
    let mut bench = Bench::new().await;
    let launched = bench.launch(http(&["exit", "3"])).await;
    bench.running(launched.instance).await;
    let report = bench.exited(launched.instance).await;
    assert_eq!(report.code, Some(3));
    assert_eq!(report.summary, "it exited with code 3 before it served");
    let mut tail = report.stderr_tail.clone();
    tail.sort();
    assert_eq!(tail, ["going down", "said on stdout"]);
    assert_eq!(bench.records(), 0);

    let log = std::path::PathBuf::from(launched.log.unwrap());
    let text = std::fs::read_to_string(&log).unwrap();
    assert!(text.contains("going down\n") && text.contains("said on stdout\n"));
    let mode = |path: &std::path::Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&log), 0o600);
    assert_eq!(mode(log.parent().unwrap()), 0o700);
    assert_eq!(mode(&bench.state()), 0o700);
}

#[tokio::test]
async fn a_server_that_dies_while_it_serves_is_told_once() {
    let mut bench = Bench::new().await;
    let launched = bench.launch(http(&["dies"])).await;
    let endpoint = bench.ready(launched.instance).await;
    let Reach::Tcp(address) = endpoint.reach else {
        panic!("{endpoint:?}");
    };
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream
        .write_all(b"GET /die HTTP/1.1\r\nHost: x\r\n\r\n")
        .await
        .unwrap();
    let report = bench.exited(launched.instance).await;
    assert_eq!(report.code, Some(7));
    assert_eq!(report.summary, "it exited with code 7");
    bench.terminate(launched.instance, SHORT).await;
    assert!(timeout(SHORT, bench.events.recv()).await.is_err());
}

#[tokio::test]
async fn a_server_that_never_listens_is_never_ready_and_can_be_ended() {
    let mut bench = Bench::new().await;
    let launched = bench.launch(http(&["never"])).await;
    bench.running(launched.instance).await;
    let tail = async {
        while bench.runtime.stderr_tail(launched.instance).await != ["thinking"] {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, tail).await.unwrap();
    bench.terminate(launched.instance, PATIENCE).await;
    let report = bench.exited(launched.instance).await;
    assert!(report.summary.contains("before it served"), "{report:?}");
    assert_eq!(report.stderr_tail, ["thinking"]);
}

#[tokio::test]
async fn a_server_that_answers_garbage_is_never_ready_and_the_report_says_why() {
    let mut bench = Bench::new().await;
    let launched = bench.launch(http(&["garbage"])).await;
    bench.running(launched.instance).await;
    bench.knocked_again(launched.instance).await;
    assert!(bench.events.try_recv().is_err());
    bench.terminate(launched.instance, PATIENCE).await;
    let report = bench.exited(launched.instance).await;
    assert!(report.summary.contains("no HTTP answer"), "{report:?}");
}

#[tokio::test]
async fn a_server_that_hangs_is_never_ready_and_can_be_ended() {
    let mut bench = Bench::new().await;
    let launched = bench.launch(http(&["hangs"])).await;
    bench.running(launched.instance).await;
    assert!(
        timeout(Duration::from_secs(1), bench.events.recv())
            .await
            .is_err()
    );
    bench.terminate(launched.instance, PATIENCE).await;
    let report = bench.exited(launched.instance).await;
    assert!(report.summary.contains("before it served"), "{report:?}");
}

#[tokio::test]
async fn an_explicit_health_path_must_give_2xx() {
    let mut bench = Bench::new().await;
    let mut launch = http(&["statuses", "/up=503"]);
    launch.health_path = Some("/up".into());
    let launched = bench.launch(launch).await;
    bench.running(launched.instance).await;
    bench.knocked_again(launched.instance).await;
    assert!(bench.events.try_recv().is_err());
    bench.terminate(launched.instance, PATIENCE).await;
    let report = bench.exited(launched.instance).await;
    assert!(
        report.summary.contains("503") && report.summary.contains("GET /up"),
        "{report:?}"
    );

    let mut launch = http(&["statuses", "/up=204"]);
    launch.health_path = Some("/up".into());
    let launched = bench.launch(launch).await;
    bench.ready(launched.instance).await;
}

#[tokio::test]
async fn a_server_that_ignores_the_polite_signal_is_killed_after_its_grace() {
    let mut bench = Bench::new().await;
    let launched = bench.launch(http(&["stubborn"])).await;
    bench.ready(launched.instance).await;
    let began = Instant::now();
    // The shorter grace counts: within the other the test would give up.
    bench.terminate(launched.instance, PATIENCE * 10).await;
    bench.terminate(launched.instance, SHORT).await;
    let report = bench.exited(launched.instance).await;
    assert_eq!(report.signal, Some(9));
    assert!(began.elapsed() >= SHORT);
}

#[tokio::test]
async fn a_whole_family_is_dead_when_exited_is_said() {
    let mut bench = Bench::new().await;
    let file = bench.dir.path().join("grandchild");
    let launched = bench
        .launch(http(&["family", file.to_str().unwrap()]))
        .await;
    bench.ready(launched.instance).await;
    let grandchild = pid_in(file).await;
    assert!(alive(grandchild));
    bench.terminate(launched.instance, SHORT).await;
    bench.exited(launched.instance).await;
    assert!(!alive(grandchild) && !alive(launched.pid.unwrap()));
}

#[tokio::test]
async fn descendants_do_not_outlive_a_leader_that_leaves_by_itself() {
    let mut bench = Bench::new().await;
    let file = bench.dir.path().join("grandchild");
    let launched = bench
        .launch(http(&["leaves-family", file.to_str().unwrap()]))
        .await;
    bench.running(launched.instance).await;
    let report = bench.exited(launched.instance).await;
    assert_eq!(report.code, Some(5));
    assert!(!alive(pid_in(file).await));
}

#[tokio::test]
async fn a_listener_off_loopback_is_a_warning_with_its_remedy() {
    let mut bench = Bench::new().await;
    let launched = bench.launch(http(&["exposed"])).await;
    bench.ready(launched.instance).await;
    if cfg!(target_os = "linux") {
        match bench.next().await {
            RuntimeEvent::Warning(id, text) => {
                assert_eq!(id, launched.instance);
                assert!(
                    text.contains("0.0.0.0:") && text.contains("HOST=127.0.0.1"),
                    "{text}"
                );
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn what_cannot_start_is_refused_with_a_sentence_and_leaves_nothing() {
    let mut bench = Bench::new().await;
    let report = bench
        .refused(spec(Transport::StreamableHttp, &["no-such-program-here"]))
        .await;
    assert_eq!(
        report.summary,
        "its command no-such-program-here was not found in PATH: install it, or write its full path in `command`"
    );

    let mut launch = http(&["serve"]);
    launch.working_dir = Some(bench.dir.path().join("nowhere"));
    let report = bench.refused(launch).await;
    assert!(report.summary.contains("workingDir"), "{report:?}");

    let script = bench.dir.path().join("script");
    std::fs::write(&script, "#!/no/such/interpreter\n").unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o700)).unwrap();
    let report = bench
        .refused(spec(Transport::StreamableHttp, &[script.to_str().unwrap()]))
        .await;
    assert!(report.summary.contains("interpreter"), "{report:?}");

    assert_eq!(bench.records(), 0);
    assert!(timeout(SHORT, bench.events.recv()).await.is_err());
}

#[tokio::test]
async fn a_child_sees_the_listed_environment_and_its_working_directory() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = ProcessConfig::new(dir.path().join("state"));
    config.environment = Arc::new(|name| match name {
        "PATH" => std::env::var_os("PATH"),
        "HOME" => Some("/tmp".into()),
        "MY_TOKEN" => Some(OsString::from("hush")),
        "UNLISTED" => Some("never".into()),
        _ => None,
    });
    let (runtime, events, _) = ProcessRuntime::open(config).await.unwrap();
    let mut bench = Bench {
        runtime,
        events,
        dir,
    };
    let mut launch = spec(Transport::StreamableHttp, &["env"]);
    launch.env = vec![EnvVar {
        name: "GITHUB_TOKEN".into(),
        value: EnvValue::FromEnv("MY_TOKEN".into()),
    }];
    let launched = bench.launch(launch.clone()).await;
    bench.running(launched.instance).await;
    let tail = bench.exited(launched.instance).await.stderr_tail;
    let mut seen: Vec<&str> = tail.iter().map(|l| l.split('=').next().unwrap()).collect();
    seen.sort_unstable();
    assert_eq!(seen, ["GITHUB_TOKEN", "HOME", "HOST", "PATH", "PORT"]);
    assert!(tail.contains(&"HOST=127.0.0.1".into()) && tail.contains(&"GITHUB_TOKEN=hush".into()));

    let mut elsewhere = spec(Transport::StreamableHttp, &["pwd"]);
    elsewhere.working_dir = Some(bench.dir.path().into());
    let launched = bench.launch(elsewhere).await;
    bench.running(launched.instance).await;
    let tail = bench.exited(launched.instance).await.stderr_tail;
    let cwd = bench.dir.path().canonicalize().unwrap();
    assert_eq!(tail, [cwd.display().to_string()]);

    launch.env[0].value = EnvValue::FromEnv("NOT_SET".into());
    let report = bench.refused(launch).await;
    assert!(report.summary.contains("NOT_SET") && report.summary.contains("valueFrom.env"));
}

#[tokio::test]
async fn all_that_is_said_is_in_the_log_and_the_last_lines_are_at_hand() {
    let mut bench = Bench::new().await;
    let launched = bench.launch(http(&["chatty"])).await;
    bench.ready(launched.instance).await;
    let tail = bench.runtime.stderr_tail(launched.instance).await;
    assert_eq!(tail.len(), 40);
    let log = launched.log.unwrap();
    until("the log to be written", || {
        let text = std::fs::read_to_string(&log).ok()?;
        text.ends_with("line 19999\nserving\n").then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_unknown_instance_can_be_ended_any_number_of_times() {
    let mut bench = Bench::new().await;
    bench.terminate(InstanceId::random(), SHORT).await;
    bench.terminate(InstanceId::random(), SHORT).await;
    assert!(timeout(SHORT, bench.events.recv()).await.is_err());
    assert!(
        bench
            .runtime
            .stderr_tail(InstanceId::random())
            .await
            .is_empty()
    );
}

#[tokio::test]
async fn many_servers_at_once_get_a_port_each() {
    let mut bench = Bench::new().await;
    let mut expected = std::collections::HashSet::new();
    for _ in 0..8 {
        expected.insert(bench.launch(http(&["serve"])).await.instance);
    }
    let mut ports = std::collections::HashSet::new();
    while ports.len() < 8 {
        match bench.next().await {
            RuntimeEvent::Running(_) => {}
            RuntimeEvent::Ready(id, endpoint) => {
                assert!(expected.remove(&id));
                let Reach::Tcp(address) = endpoint.reach else {
                    panic!("{endpoint:?}");
                };
                assert!(ports.insert(address.port()));
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_dropped_launch_leaves_an_instance_that_is_told_of_and_can_be_ended() {
    let mut bench = Bench::new().await;
    let runtime = Arc::clone(&bench.runtime);
    let launch = tokio::spawn(async move { runtime.launch(order(http(&["never"]))).await });
    tokio::task::yield_now().await;
    launch.abort();
    if launch.await.is_err() {
        // Either nothing was started, or what was started is announced.
        if let Ok(Some(RuntimeEvent::Running(id))) =
            timeout(Duration::from_secs(2), bench.events.recv()).await
        {
            bench.terminate(id, SHORT).await;
            bench.exited(id).await;
        }
        assert_eq!(bench.records(), 0);
    }
}
