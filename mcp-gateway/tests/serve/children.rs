//! Children of a bridge that die while the bridge lives on: the real autoscaler, the real bridge.

use std::fs;

use rustix::process::{Pid, Signal, kill_process};

use crate::support::{BINARY, Gateway, Home, until};

/// A shared backend whose children write down their pids.
fn document(home: &Home) {
    let pids = home.path("pids");
    let text = format!(
        "apiVersion: mcp-gateway.dev/v1alpha1\nkind: McpBackend\nmetadata: {{name: d}}\nspec:\n  command: \
         [sh, -c, 'echo $$ >> {}; exec {BINARY} demo-server']\n  policy: {{isolation: shared}}\n",
        pids.display()
    );
    home.document("d.yaml", &text);
}

/// Kills the newest child, and waits until its bridge has noticed.
fn kill_newest(home: &Home, gateway: &Gateway<'_>, losses: usize) {
    let pids = fs::read_to_string(home.path("pids")).unwrap();
    let pid = pids.lines().last().unwrap().parse().unwrap();
    kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
    until("the bridge has noticed", || {
        let log = gateway.log();
        let noticed = log.matches("a child of a bridge was lost").count();
        (noticed == losses).then_some(())
    });
}

/// The record of the first loss is what the claim after the second would be answered with, were it not kept first.
#[test]
fn a_session_goes_on_however_often_its_child_dies() {
    let home = Home::new();
    document(&home);
    let gateway = home.serve(&[]);
    // Somebody else keeps the bridge alive.
    let other = gateway.initialize("d", &[]).session().to_owned();
    let opened = gateway.initialize("d", &[]);
    let session = opened.session();
    for losses in 1..=3 {
        let reply = gateway.count("d", session, &[]);
        assert!(
            reply.status == 200 && reply.body.contains("\"1\""),
            "{reply:?}"
        );
        kill_newest(&home, &gateway, losses);
    }
    let reply = gateway.count("d", session, &[]);
    assert!(
        reply.status == 200 && reply.body.contains("\"1\""),
        "{reply:?}"
    );
    assert_eq!(gateway.count("d", &other, &[]).status, 200);
    let children = fs::read_to_string(home.path("pids")).unwrap();
    assert_eq!(children.lines().count(), 5, "one for each revival");
    assert_eq!(gateway.backend("d").unwrap()["starts"], 1, "of one bridge");
}
