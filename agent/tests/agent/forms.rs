//! How the agent comes into a pod, and what it makes of its orders.

use std::{os::unix::fs::MetadataExt, process::Command};

use mcp_gateway_link::agent::{Orders, Transport};

use crate::support::{
    home::Home,
    pod::{AGENT, Pod, Spec, get, orders, processes, server},
};

#[tokio::test]
async fn an_embedded_agent_runs_the_images_command_and_says_when_it_serves() {
    let mut home = Home::new().await;
    let spec = Spec {
        form: Some("embedded"),
        argv: server(&["serve"]),
        env: vec![("FROM_THE_IMAGE", "yes".into()), ("PORT", "1".into())],
        ..Spec::default()
    };
    let pod = Pod::start(&home, spec);
    let ring = home.ring().await;
    assert_eq!(ring.token(), Some(&b"open sesame"[..]));
    let hello = &ring.hello;
    assert_eq!(
        (hello.pod_name.as_str(), hello.pod_uid.as_str()),
        ("mcp-fixture-1", "uid-1")
    );
    assert_eq!((hello.protocol, hello.ip.as_str()), (1, "127.0.0.1"));
    assert_eq!(hello.state, None);
    let given = Orders {
        env: [("FROM_THE_ORDERS".to_owned(), "also".to_owned())].into(),
        path: "/here".into(),
        ..orders(Vec::new())
    };
    let port = given.port;
    let mut line = ring.welcome(1, Some(given)).await;
    line.running().await;
    let ready = line.ready().await;
    assert_eq!((ready.port, ready.path.as_str()), (port, "/here"));
    assert_eq!(ready.host, format!("localhost:{port}"));
    assert!(
        ready.hello_us > 0 && ready.spawn_us > 0 && ready.serve_us > 0,
        "{ready:?}"
    );

    let env = get(port, "/env").await;
    assert_eq!(env["FROM_THE_IMAGE"], "yes");
    assert_eq!(env["FROM_THE_ORDERS"], "also");
    assert_eq!(
        (&env["HOST"], &env["PORT"]),
        (&"0.0.0.0".into(), &port.to_string().into())
    );
    let ours = env
        .as_object()
        .unwrap()
        .keys()
        .any(|name| name.starts_with("MCP_GATEWAY"));
    assert!(!ours, "{env}");
    // `kubectl logs` shows what the server says.
    pod.said("serving").await;
}

#[tokio::test]
async fn orders_replace_the_images_command_and_fill_in_the_port() {
    let mut home = Home::new().await;
    let spec = Spec {
        form: Some("imageVolume"),
        argv: vec!["/no/such/program".into()],
        ..Spec::default()
    };
    let _pod = Pod::start(&home, spec);
    let given = Orders {
        args: vec!["--port=${PORT}".into()],
        ..orders(server(&["serve"]))
    };
    let port = given.port;
    let mut line = home.order(given).await;
    line.running().await;
    line.ready().await;
    let argv = get(port, "/argv").await;
    assert_eq!(argv[2], format!("--port={port}"));
}

#[tokio::test]
async fn an_explicit_health_check_must_give_2xx() {
    let mut home = Home::new().await;
    let pod = Pod::start(&home, Spec::default());
    let given = Orders {
        health_path: "/healthz".into(),
        ..orders(server(&["serve"]))
    };
    let mut line = home.order(given).await;
    line.running().await;
    // The fixture answers 404 there; who knocks again has heard it.
    pod.said_times("knocked", 2).await;
    line.drain(1_000).await;
    let said = line.exited().await.summary;
    assert!(
        said.contains("before it served: it answered 404 Not Found to GET /healthz"),
        "{said}"
    );
}

#[tokio::test]
async fn a_sidecar_only_watches_and_says_no_more_than_that_it_serves() {
    let mut home = Home::new().await;
    let spec = Spec {
        form: Some("sidecar"),
        ..Spec::default()
    };
    let mut pod = Pod::start(&home, spec);
    let given = orders(Vec::new());
    let mut line = home.order(given.clone()).await;
    // Only now does the server beside begin to listen.
    let beside = Pod::alone(&server(&["serve"]), given.port);
    assert_eq!(line.ready().await.port, given.port);
    line.drain(1_000).await;
    assert_eq!(line.next().await, None);
    assert!(pod.ended().await.success());
    // It is not ours to end.
    assert!(get(given.port, "/pid").await.is_u64());
    drop(beside);
}

#[tokio::test]
async fn a_server_that_only_its_pod_can_reach_is_not_ready_and_the_reason_is_named() {
    let mut home = Home::new().await;
    let spec = Spec {
        ip: Some("127.0.0.2"),
        ..Spec::default()
    };
    let pod = Pod::start(&home, spec);
    let mut line = home.order(orders(server(&["loopback"]))).await;
    line.running().await;
    // Whoever knocks there came after the pod's own address had refused.
    pod.said("knocked").await;
    line.drain(1_000).await;
    let said = line.exited().await.summary;
    assert!(said.contains("it listens only on loopback"), "{said}");
}

#[tokio::test]
async fn orders_that_nobody_can_carry_out_are_answered_with_the_reason() {
    for (given, said) in [
        (orders(vec!["/no/such/program".into()]), "does not exist"),
        (orders(Vec::new()), "it has no command"),
        (
            Orders {
                transport: 77,
                ..orders(server(&["serve"]))
            },
            "transport",
        ),
        (
            Orders {
                transport: Transport::Stdio.into(),
                ..orders(server(&["serve"]))
            },
            "given no secret",
        ),
    ] {
        let mut home = Home::new().await;
        let mut pod = Pod::start(&home, Spec::default());
        let exited = home.order(given).await.exited().await;
        assert!(exited.summary.contains(said), "{exited:?}");
        assert_eq!((exited.code, exited.signal), (None, None));
        assert_eq!(pod.ended().await.code(), Some(1));
    }
}

#[test]
fn who_lends_the_program_stays_until_told_and_who_waits_for_it_gets_it_whole() {
    let dir = tempfile::tempdir().unwrap();
    let waits = Command::new(AGENT)
        .arg("lent")
        .arg(dir.path())
        .spawn()
        .unwrap();
    let mut lender = Command::new(AGENT)
        .arg("lend")
        .arg(dir.path())
        .spawn()
        .unwrap();
    let waited = waits.wait_with_output().unwrap();
    assert!(waited.status.success(), "{waited:?}");
    let copy = dir.path().join("mcp-gateway-agent");
    let version = Command::new(copy).arg("--version").output().unwrap();
    assert!(
        String::from_utf8(version.stdout)
            .unwrap()
            .starts_with("mcp-gateway-agent ")
    );
    assert_eq!(dir.path().read_dir().unwrap().count(), 1);
    // The hook of a container that has ended would fail.
    assert_eq!(lender.try_wait().unwrap(), None);
    let pid = rustix::process::Pid::from_child(&lender);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert!(lender.wait().unwrap().success());
    let nowhere = Command::new(AGENT)
        .args(["lend", "/no/such/folder"])
        .output()
        .unwrap();
    assert_eq!(nowhere.status.code(), Some(1));
}

#[test]
fn outside_of_a_pod_it_says_what_it_misses() {
    let done = Command::new(AGENT).env_clear().output().unwrap();
    assert_eq!(done.status.code(), Some(1));
    let said = String::from_utf8(done.stderr).unwrap();
    assert!(said.contains("MCP_GATEWAY_AGENT_HOME is not set"), "{said}");
}

#[tokio::test]
async fn the_server_cannot_read_what_proves_the_pods_identity() {
    let mut home = Home::new().await;
    let demoted: &[&str] = if rustix::process::getuid().is_root() {
        &[
            "setpriv",
            "--reuid=65532",
            "--regid=65532",
            "--clear-groups",
        ]
    } else {
        &[]
    };
    let spec = Spec {
        within: demoted,
        ..Spec::default()
    };
    let pod = Pod::start(&home, spec);
    let mut line = home.order(orders(server(&["serve"]))).await;
    line.running().await;
    line.ready().await;
    // Of a process that is not dumpable all files are root's, whatever user it runs as.
    let owner = |pid: i32| {
        std::fs::metadata(format!("/proc/{pid}/environ"))
            .unwrap()
            .uid()
    };
    assert_eq!(owner(pod.pid()), 0);
    let server = processes().into_iter().find(|p| p.1 == pod.pid()).unwrap();
    assert_ne!(owner(server.0), 0);
}
