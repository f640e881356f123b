//! Who is not let in: calls home in the name of a pod, and neighbours that knock at a server's own door.

use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api,
    api::{ListParams, LogParams},
};
use mcp_gateway_link::{
    HOME_NAME,
    agent::{FromAgent, Hello, from_agent, hello::Proof, home_client::HomeClient},
    authority::client_tls,
};
use serde_json::json;
use tokio::time::{Duration, Instant, sleep};
use tonic::{Code, Status, transport::Endpoint};

use super::{
    cluster::{Space, space},
    count, demo,
    troubles::make,
};
use crate::{
    gateway::{Gateway, PATIENCE},
    tools::{self, Share},
    wire::{self, Peer},
};

const PYTHON: &str = "localhost/mcp-python:dev";
const INTERPRETER: &str = "/opt/python/bin/python3.11";
/// Asks a bridge for a session, without its secret and with a wrong one; prints the statuses.
const NEIGHBOUR: &str = r#"
import sys, urllib.error, urllib.request
for secret in (None, "AAAA"):
    asked = urllib.request.Request(sys.argv[1], data=sys.argv[2].encode(), headers={
        "content-type": "application/json", "accept": "application/json, text/event-stream"})
    if secret:
        asked.add_header("x-mcp-gateway-instance", secret)
    try:
        print("status", urllib.request.urlopen(asked, timeout=20).status)
    except urllib.error.HTTPError as refused:
        print("status", refused.code)
"#;

/// A pod, as everybody sees it who may read pods.
struct Known {
    name: String,
    uid: String,
    ip: String,
    environment: Vec<(String, String)>,
}

impl Known {
    fn of(pod: &Pod) -> Self {
        let spec = pod.spec.as_ref().expect("a pod has a spec");
        let all = spec
            .containers
            .iter()
            .flat_map(|one| one.env.iter().flatten());
        let status = pod.status.as_ref().expect("a pod has a status");
        Self {
            name: pod.metadata.name.clone().expect("a name"),
            uid: pod.metadata.uid.clone().expect("a UID"),
            ip: status.pod_ip.clone().unwrap_or_default(),
            environment: all
                .filter_map(|var| Some((var.name.clone(), var.value.clone()?)))
                .collect(),
        }
    }

    fn given(&self, name: &str) -> &str {
        let name = format!("MCP_GATEWAY_AGENT_{name}");
        let found = self.environment.iter().find(|var| var.0 == name);
        &found.expect("its agent is told").1
    }

    fn token(&self) -> Vec<u8> {
        use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
        let token = URL_SAFE_NO_PAD.decode(self.given("TOKEN"));
        token.expect("the token is base64")
    }

    /// Calls home in this pod's name.
    async fn call(&self, proof: Proof) -> Status {
        let home = format!("https://{}", self.given("HOME"));
        let channel = Endpoint::from_shared(home)
            .and_then(|home| home.tls_config(client_tls(self.given("CA"), HOME_NAME)))
            .expect("an address");
        let channel = channel.connect().await.expect("home listens");
        let hello = Hello {
            protocol: 1,
            pod_name: self.name.clone(),
            pod_uid: self.uid.clone(),
            ip: self.ip.clone(),
            proof: Some(proof),
            ..Hello::default()
        };
        let first = FromAgent {
            what: Some(from_agent::What::Hello(hello)),
        };
        let said = futures_util::stream::iter([first]);
        match HomeClient::new(channel).call(said).await {
            Err(refused) => refused,
            Ok(answer) => match answer.into_inner().message().await {
                Err(refused) => refused,
                Ok(message) => panic!("a stranger is told {message:?}"),
            },
        }
    }
}

/// The pods here, once their addresses are known: a server serves before the kubelet has said where.
async fn pods(space: &Space) -> Vec<Known> {
    let pods: Api<Pod> = Api::namespaced(space.client.clone(), &space.name);
    let give_up = Instant::now() + PATIENCE;
    loop {
        let all = pods.list(&ListParams::default()).await.expect("the pods");
        let known: Vec<Known> = all.items.iter().map(Known::of).collect();
        if known.iter().all(|pod| !pod.ip.is_empty()) {
            return known;
        }
        assert!(Instant::now() < give_up, "a pod has no address");
        sleep(Duration::from_millis(50)).await;
    }
}

/// What `/metrics` counts of refused calls for this reason.
async fn refused(gateway: &Gateway, reason: &str) -> f64 {
    let url = format!("http://{}/metrics", gateway.admin);
    let page = wire::get(&wire::http(), &url, &[]).await;
    let page = String::from_utf8_lossy(&page.body).into_owned();
    let label = format!("reason=\"{reason}\"");
    let lines = page.lines().filter(|line| {
        line.starts_with("mcp_gateway_home_refusals_total{") && line.contains(&label)
    });
    let counts = lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
    counts.sum()
}

async fn until_warned(gateway: &Gateway, part: &str) {
    let give_up = Instant::now() + PATIENCE;
    loop {
        let status = gateway.status("demo").await;
        let instances = status
            .slots
            .iter()
            .filter_map(|slot| slot.instance.as_ref());
        let said: Vec<String> = instances.flat_map(|one| one.warnings.clone()).collect();
        if said.iter().any(|text| text.contains(part)) {
            return;
        }
        assert!(Instant::now() < give_up, "{said:?}");
        sleep(Duration::from_millis(50)).await;
    }
}

/// Runs a program in a pod beside the servers, and gives what it printed.
async fn beside(space: &Space, script: &str, arguments: [&str; 2]) -> String {
    let all: Api<Pod> = Api::namespaced(space.client.clone(), &space.name);
    let mut args = vec!["-c", script];
    args.extend(arguments);
    make(
        &all,
        json!({"metadata": {"name": "neighbour"}, "spec": {
            "restartPolicy": "Never",
            "containers": [{"name": "neighbour", "image": PYTHON, "command": [INTERPRETER], "args": args}],
        }}),
    )
    .await;
    let give_up = Instant::now() + PATIENCE;
    loop {
        let pod = all.get("neighbour").await.expect("the neighbour");
        let phase = pod.status.and_then(|status| status.phase);
        if matches!(phase.as_deref(), Some("Succeeded" | "Failed")) {
            let logs = all.logs("neighbour", &LogParams::default()).await;
            return logs.expect("its output");
        }
        assert!(Instant::now() < give_up, "the neighbour is {phase:?}");
        sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_home_in_a_pods_name_is_refused_and_seen_and_its_server_goes_on() {
    let Some(space) = space("strangers").await else {
        return;
    };
    let backend = demo("demo", "stdio").policy("idleTimeout", "1h");
    let _turn = tools::turn(Share::Half).await;
    let gateway = space.gateway(&[backend], &[]).await;
    let url = gateway.url("demo");
    let one = Peer::connect(&url, "one").await.expect("a session");
    let two = Peer::connect(&url, "two").await.expect("a session");
    let pods = pods(&space).await;
    let [first, second] = &pods[..] else {
        panic!("a pod for each session: {}", pods.len());
    };

    let replayed = first.call(Proof::LaunchToken(first.token())).await;
    assert_eq!(replayed.code(), Code::Unauthenticated, "{replayed:?}");
    let anothers = first.call(Proof::LaunchToken(second.token())).await;
    assert_eq!(anothers.code(), Code::Unauthenticated, "{anothers:?}");
    let made_up = second.call(Proof::LaunchToken(vec![7; 48])).await;
    assert_eq!(made_up.code(), Code::Unauthenticated, "{made_up:?}");
    let guessed = second.call(Proof::ReconnectSecret(vec![7; 32])).await;
    assert_eq!(guessed.code(), Code::Unauthenticated, "{guessed:?}");
    assert_eq!(refused(&gateway, "spent").await, 1.0);
    assert_eq!(refused(&gateway, "token").await, 3.0);
    until_warned(&gateway, "used to call home for a second time").await;
    until_warned(&gateway, "without its token").await;
    assert_eq!((count(&one).await, count(&two).await), (1, 1), "untouched");
    assert_eq!(gateway.status("demo").await.starts, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_neighbour_that_calls_a_bridge_itself_is_refused_and_seen() {
    let Some(space) = space("a neighbour").await else {
        return;
    };
    let backend = demo("demo", "stdio")
        .policy("isolation", "tenant")
        .policy("idleTimeout", "1h");
    let _turn = tools::turn(Share::Half).await;
    let gateway = space.gateway(&[backend], &[]).await;
    let peer = Peer::connect(&gateway.url("demo"), "mine").await;
    let peer = peer.expect("a session");
    assert_eq!(count(&peer).await, 1);
    let pods = pods(&space).await;
    let bridge = format!("http://{}:8000/mcp", pods[0].ip);
    let hello = wire::initialize(1).to_string();
    let said = beside(&space, NEIGHBOUR, [&bridge, &hello]).await;
    let statuses: Vec<&str> = said.lines().collect();
    assert_eq!(statuses, ["status 403", "status 403"], "{said}");
    until_warned(&gateway, "without this instance's secret").await;
    assert_eq!(count(&peer).await, 2, "untouched");
}
