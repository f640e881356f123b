//! Everything that can die is killed once, on a real cluster, under open-loop load with streams open; no call is lost,
//! misrouted or run twice, and no pod is left behind, save for what was in flight inside the killed process itself.
//!
//! Both with the gateway's processes beside the cluster, where every fault can be made, and with the pods that the manifests
//! install, where what is killed comes back as it would anywhere.
//!
//! A binary of its own, whose tests run one after the other: they take parts of the cluster away, which no other test may be
//! using meanwhile.
//! Needs `MCP_GATEWAY_TEST_KUBECONFIG` (the step `cluster` of `dev/test`) and the images that the step loads;
//! `MCP_GATEWAY_CLUSTER` names `dev/cluster`, without which the cluster's own parts are left alone.
#![expect(
    clippy::print_stdout,
    reason = "a test prints what it ran, for whoever has to find out why it failed"
)]

mod definitions;

use std::{future::pending, path::PathBuf, time::Duration};

use mcp_gateway_loadtest::chaos::{self, Options, fault::Fault, load::Rates, report, site::Form};
use tokio::sync::Mutex;

/// Whose turn it is.
static TURN: Mutex<()> = Mutex::const_new(());

/// The cluster; `None`, having said so, if there is none and this is no CI.
fn kubeconfig() -> Option<PathBuf> {
    let ci = matches!(std::env::var("CI").as_deref(), Ok("true" | "1"));
    let Some(kubeconfig) = std::env::var_os("MCP_GATEWAY_TEST_KUBECONFIG") else {
        assert!(
            !ci,
            "MCP_GATEWAY_TEST_KUBECONFIG is not set; in CI nothing is skipped"
        );
        println!("SKIPPED: there is no cluster (dev/test cluster test)");
        return None;
    };
    let cluster = std::env::var_os("MCP_GATEWAY_CLUSTER").is_some();
    assert!(cluster || !ci, "MCP_GATEWAY_CLUSTER is not set");
    Some(kubeconfig.into())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_is_killed_nothing_is_lost_misrouted_duplicated_or_left_behind() {
    let _turn = TURN.lock().await;
    let Some(kubeconfig) = kubeconfig() else {
        return;
    };
    let form = Form::Processes;
    nothing_goes_wrong(kubeconfig, form, Fault::all(form)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nor_when_pods_of_the_manifests_are_killed() {
    let _turn = TURN.lock().await;
    let Some(kubeconfig) = kubeconfig() else {
        return;
    };
    if std::env::var_os("MCP_GATEWAY_CLUSTER").is_none() {
        println!("SKIPPED: processes of the cluster's pods are only killed on dev/cluster's");
        return;
    }
    let faults = [
        Fault::ActivatorContainer,
        Fault::ActivatorPod,
        Fault::Leader,
    ];
    nothing_goes_wrong(kubeconfig, Form::Pods, faults.to_vec()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_whose_definitions_are_missing_or_older_is_told_of_and_served_once_they_are_right()
 {
    let _turn = TURN.lock().await;
    let Some(kubeconfig) = kubeconfig() else {
        return;
    };
    let Some(cluster) = std::env::var_os("MCP_GATEWAY_CLUSTER") else {
        println!("SKIPPED: definitions are only taken away from dev/cluster's cluster");
        return;
    };
    definitions::are_missing_then_older_then_right(cluster.into(), kubeconfig).await;
}

/// Kills each once, and has every call accounted for.
async fn nothing_goes_wrong(kubeconfig: PathBuf, form: Form, faults: Vec<Fault>) {
    let options = Options {
        form,
        gateway: env!("CARGO_BIN_EXE_mcp-gateway").into(),
        manifests: concat!(env!("CARGO_MANIFEST_DIR"), "/../dev/manifests").into(),
        kubeconfig,
        cluster: std::env::var_os("MCP_GATEWAY_CLUSTER").map(PathBuf::from),
        faults,
        rounds: 1,
        rates: Rates {
            calls: 30.0,
            cold: 0.2,
        },
        api_server_away: Duration::from_secs(30),
    };
    let chaos = chaos::run(&options, pending::<()>()).await;
    let chaos = chaos.unwrap_or_else(|error| panic!("{error:#}"));
    let runs = std::slice::from_ref(&chaos);
    let text = report::markdown(runs, &[]);
    println!("{text}");
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    std::fs::write(
        folder.join(format!("chaos-{form:?}.svg").to_lowercase()),
        report::picture(runs),
    )
    .expect("a picture");
    assert_eq!(chaos.cut_short, None);
    assert_eq!(chaos.unheard, 0, "answers that no server told of");
    let most = chaos.accounts.len() * 20;
    let calls: usize = chaos.accounts.iter().map(|account| account.calls).sum();
    assert!(calls > most, "{calls} calls are hardly a load");
    let hit: usize = chaos
        .accounts
        .iter()
        .map(|account| account.revived + account.turned)
        .sum();
    assert!(hit > 0, "no kill was noticed by anybody\n{text}");
    for account in &chaos.accounts {
        assert_eq!(
            account.wrongs(),
            0,
            "{}\n{text}\n{}",
            account.name,
            chaos.logs
        );
    }
}
