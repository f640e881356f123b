//! Candidates on a real API server: `MCP_GATEWAY_TEST_KUBECONFIG` names the way to it. Without it nothing is tested, and
//! said so; in CI that is a failure.
#![expect(clippy::unwrap_used, clippy::print_stderr, reason = "a test")]

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::{coordination::v1::Lease, core::v1::Namespace};
use kube::{
    Api, Client, Config,
    api::{DeleteParams, ObjectMeta, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
};
use mcp_gateway_autoscaler::leader::{Election, LeaseConfig, elect};
use tokio::{sync::watch, time::timeout};

const PATIENCE: Duration = Duration::from_secs(30);
/// A third of it is what a renewal may be late.
const DURATION: Duration = Duration::from_secs(8);
/// Longer than [`PATIENCE`]: who gets such a lease was given it.
const LONG: Duration = Duration::from_secs(60);

async fn cluster() -> Option<Client> {
    let Ok(path) = std::env::var("MCP_GATEWAY_TEST_KUBECONFIG") else {
        assert!(
            std::env::var("CI").is_err(),
            "MCP_GATEWAY_TEST_KUBECONFIG must be set in CI"
        );
        eprintln!("SKIPPED: no cluster; set MCP_GATEWAY_TEST_KUBECONFIG");
        return None;
    };
    // Whoever chose before is as good.
    let _chosen = rustls::crypto::ring::default_provider().install_default();
    let file = Kubeconfig::read_from(path).unwrap();
    let options = KubeConfigOptions::default();
    let config = Config::from_custom_kubeconfig(file, &options)
        .await
        .unwrap();
    Some(Client::try_from(config).unwrap())
}

/// A namespace of the test's own.
async fn namespace(client: &Client) -> String {
    let object = Namespace {
        metadata: ObjectMeta {
            generate_name: Some("lease-test-".into()),
            ..ObjectMeta::default()
        },
        ..Namespace::default()
    };
    let all = Api::<Namespace>::all(client.clone());
    let made = all.create(&PostParams::default(), &object).await.unwrap();
    made.metadata.name.unwrap()
}

/// The process `id` of the pod of which the first letters of `id` tell, up to the dot.
fn stand(client: &Client, namespace: &str, id: &str, duration: Duration) -> Election {
    let pod = id.split_once('.').map(|(pod, _)| format!("{pod}."));
    let config = LeaseConfig {
        namespace: namespace.to_owned(),
        name: "mcp-gateway".into(),
        id: id.to_owned(),
        before: pod,
        duration,
    };
    elect(client.clone(), config)
}

async fn leads(mut term: watch::Receiver<Option<u64>>) -> u64 {
    let leads = timeout(PATIENCE, term.wait_for(Option::is_some)).await;
    leads.expect("it does not lead").unwrap().unwrap()
}

async fn sees(mut holder: watch::Receiver<Option<Arc<str>>>, id: &str) {
    let seen = timeout(
        PATIENCE,
        holder.wait_for(|holder| holder.as_deref() == Some(id)),
    )
    .await;
    drop(seen.expect("it does not see who leads").unwrap());
}

#[tokio::test]
async fn another_candidate_takes_over_in_a_higher_term_when_the_leader_is_killed_and_when_it_resigns()
 {
    let Some(client) = cluster().await else {
        return;
    };
    let namespace = namespace(&client).await;
    let one = stand(&client, &namespace, "one", DURATION);
    let first = leads(one.term()).await;
    let two = stand(&client, &namespace, "two", DURATION);
    sees(two.holder(), "one").await;
    assert_eq!(*two.term().borrow(), None, "two lead");

    // It keeps the lease for longer than it lasts.
    let lost = timeout(DURATION * 3 / 2, async {
        let mut term = one.term();
        term.wait_for(|term| *term != Some(first)).await.map(|_| ())
    });
    assert!(
        lost.await.is_err(),
        "the leader lost the lease though nothing happened"
    );
    assert_eq!(*two.term().borrow(), None, "two lead");

    // Killed: it gives nothing back.
    drop(one);
    let second = leads(two.term()).await;
    assert!(second > first, "{second} after {first}");

    // Had it to wait for the lease to expire, it would wait for longer than this test.
    let three = stand(&client, &namespace, "three.1", LONG);
    sees(three.holder(), "two").await;
    two.resign().await;
    let third = leads(three.term()).await;
    assert!(third > second, "{third} after {second}");

    // Killed, and started again in its pod, while another waits: it need not.
    let four = stand(&client, &namespace, "four.1", LONG);
    sees(four.holder(), "three.1").await;
    drop(three);
    let three = stand(&client, &namespace, "three.2", LONG);
    let again = leads(three.term()).await;
    assert!(again > third, "{again} after {third}");
    assert_eq!(*four.term().borrow(), None, "two lead");

    let leases = Api::<Lease>::namespaced(client.clone(), &namespace);
    let lease = leases.get("mcp-gateway").await.unwrap().spec.unwrap();
    assert_eq!(lease.holder_identity.as_deref(), Some("three.2"));
    assert_eq!(
        lease.lease_transitions.map(i64::from),
        i64::try_from(again).ok()
    );

    drop((three, four));
    let all = Api::<Namespace>::all(client);
    all.delete(&namespace, &DeleteParams::background())
        .await
        .unwrap();
}
