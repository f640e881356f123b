//! All in one, as `--alone` installs it.

use http::StatusCode;
use tokio::time::{Instant, sleep};

use super::{
    Installation, count, demo, goes_without_a_trace, may_be_run_again, rights, servers, shown,
    through_the_service, until_no_server,
};
use crate::{
    gateway::PATIENCE,
    tools::{self, Share},
    wire::{self, Peer},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_installed_alone_serves_comes_back_after_a_restart_and_goes_without_a_trace() {
    let _turn = tools::turn(Share::Half).await;
    let Some(installed) = Installation::alone("the manifests, all in one").await else {
        return;
    };
    may_be_run_again(&installed, "--alone", 1).await;
    let refused = installed.refused(&["--roles"]).await;
    assert!(refused.contains("uninstall first"), "{refused}");
    rights::least_privilege(&installed, &["mcp-gateway"]).await;

    installed.apply(&[demo()]).await;
    let address = installed.through_the_service().await;
    let url = format!("http://{address}/adapters/demo/mcp");
    let peer = Peer::connect(&url, "installed").await.expect("a session");
    for expected in 1..=3 {
        assert_eq!(count(&peer).await, expected, "one pod, with its memory");
    }
    assert_eq!(servers(&installed).await, 1);
    shown(&installed, ["ready", "1"], Some(&peer)).await;
    through_the_service(&installed).await;

    until_no_server(&installed).await;
    shown(&installed, ["cold", "0"], None).await;
    assert_eq!(count(&peer).await, 1, "revived on a new pod");

    restart(&installed).await;
    until_it_answers(&format!("http://{address}/")).await;
    assert_eq!(count(&peer).await, 1, "its id outlives the gateway");
    assert_eq!(
        servers(&installed).await,
        1,
        "nothing of the gateway before"
    );
    goes_without_a_trace(installed).await;
}

/// It ends, with its servers, and another takes its place.
async fn restart(installed: &Installation) {
    let gateway = "deployment/mcp-gateway";
    for arguments in [
        &["restart", gateway][..],
        &["status", "--timeout=180s", gateway],
    ] {
        let all = ["-n", &installed.system, "rollout"];
        installed.kubectl(&[&all[..], arguments].concat()).await;
    }
}

/// Pods are ready a moment before every node sends clients to them.
async fn until_it_answers(url: &str) {
    let give_up = Instant::now() + PATIENCE;
    loop {
        let said = wire::get(&wire::http(), url, &[]).await;
        if said.status == StatusCode::OK {
            return;
        }
        assert!(Instant::now() < give_up, "{said:?}");
        sleep(std::time::Duration::from_millis(50)).await;
    }
}
