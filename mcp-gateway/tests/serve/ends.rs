//! Ends: asked for, asked for twice, and by SIGKILL.

use std::thread;

use rustix::process::Signal;

use crate::support::{Home, Request, demo, lives, never_ready, pid, until};

#[test]
fn each_signal_to_end_ends_the_gateway_and_everything_it_started() {
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        let home = Home::new();
        home.document("d.yaml", &demo("d", ""));
        let mut gateway = home.serve(&[]);
        gateway.initialize("d", &[]);
        let child = pid(&gateway.backend("d").unwrap()).unwrap();
        assert!(lives(child));
        gateway.signal(signal);
        assert!(gateway.ended().success());
        assert!(!lives(child));
        assert!(!home.path("ready.json").exists());
    }
}

#[test]
fn an_exchange_that_is_held_at_shutdown_gets_503_with_retry_after() {
    let home = Home::new();
    home.document("n.yaml", &never_ready("n"));
    let mut gateway = home.serve(&["--shutdown-timeout", "20s"]);
    let reply = thread::scope(|scope| {
        let held = scope.spawn(|| gateway.initialize("n", &[]));
        until("it waits", || {
            let waiting = gateway.backend("n")?["waiting"].as_u64()?;
            (waiting == 1).then_some(())
        });
        gateway.signal(Signal::TERM);
        held.join().unwrap()
    });
    assert_eq!(reply.status, 503, "{reply:?}");
    assert!(reply.header("retry-after").is_some(), "{reply:?}");
    assert!(reply.body.contains("\"id\":1"), "{reply:?}");
    assert!(gateway.ended().success());
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let home = Home::new();
    home.document("d.yaml", &demo("d", ""));
    let mut gateway = home.serve(&["--shutdown-timeout", "10m"]);
    let session = gateway.initialize("d", &[]).session().to_owned();
    let child = pid(&gateway.backend("d").unwrap()).unwrap();
    thread::scope(|scope| {
        let call = scope.spawn(|| {
            let body = r#"{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"slow","arguments":{"steps":60,"step_ms":1000}}}"#;
            let request = Request::post("/adapters/d/mcp", body.to_owned());
            gateway.ask(&request.header("mcp-session-id", &session))
        });
        until("the call runs", || {
            let leases = gateway.backend("d")?["slots"][0]["instance"]["leases"].as_u64()?;
            (leases > 0).then_some(())
        });
        gateway.signal(Signal::INT);
        until("it shuts down", || {
            gateway.log().contains("shutting down").then_some(())
        });
        gateway.signal(Signal::INT);
        let _ = call.join();
    });
    gateway.ended();
    assert!(!lives(child));
}

#[test]
fn a_session_survives_sigkill_of_the_gateway_and_no_orphan_does() {
    let home = Home::new();
    home.document("d.yaml", &demo("d", ""));
    let mut gateway = home.serve(&[]);
    let session = gateway.initialize("d", &[]).session().to_owned();
    assert!(gateway.count("d", &session, &[]).body.contains("\"1\""));
    let child = pid(&gateway.backend("d").unwrap()).unwrap();
    gateway.signal(Signal::KILL);
    gateway.ended();
    drop(gateway);

    let gateway = home.serve(&[]);
    assert!(!lives(child), "orphans are reaped at the start");
    let reply = gateway.count("d", &session, &[]);
    assert_eq!(reply.status, 200, "{reply:?}");
    assert!(gateway.log().contains("revived"), "{}", gateway.log());
}
