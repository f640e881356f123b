//! The first process of a container reaps everybody's children, but takes nobody's exit status.

use rustix::process::getuid;

use crate::support::{
    home::Home,
    pod::{Pod, Spec, orders, processes, request, server},
    until,
};

fn agent_in(pod: &Pod, wrapped: bool) -> i32 {
    if !wrapped {
        return pod.pid();
    }
    let all = processes();
    let inner = all.iter().find(|p| p.1 == pod.pid());
    inner.map(|p| p.0).unwrap()
}

async fn orphans_are_reaped(within: &[&str]) {
    let mut home = Home::new().await;
    let spec = Spec {
        within,
        ..Spec::default()
    };
    let pod = Pod::start(&home, spec);
    let given = orders(server(&["orphans"]));
    let port = given.port;
    let mut line = home.order(given).await;
    line.running().await;
    line.ready().await;
    let agent = agent_in(&pod, !within.is_empty());
    let children = || processes().into_iter().filter(|p| p.1 == agent).count();
    // The server alone is left: neither the orphans nor what remained of them.
    until("the orphans to be reaped", || {
        (children() == 1).then_some(())
    })
    .await;
    assert!(request(port, "GET", "/die", &[], "").await.is_err());
    let exited = line.exited().await;
    assert_eq!(
        exited.code,
        Some(7),
        "its exit status was taken: {exited:?}"
    );
}

#[tokio::test]
async fn orphans_are_reaped_where_the_agent_inherits_them() {
    orphans_are_reaped(&[]).await;
}

#[tokio::test]
async fn orphans_are_reaped_where_the_agent_is_the_first_process() {
    if !getuid().is_root() {
        assert!(
            std::env::var("CI").is_err(),
            "in CI nothing is skipped: run as root"
        );
        eprintln!("skipped: only root may make a PID namespace");
        return;
    }
    orphans_are_reaped(&["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]).await;
}
