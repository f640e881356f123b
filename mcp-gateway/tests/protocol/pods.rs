//! The same lifecycle on a real Kubernetes: pods appear at the first request, are pinned, go away after idle, and sessions
//! survive that.
//!
//! Needs `MCP_GATEWAY_TEST_KUBECONFIG` (the step `cluster` of `dev/test`) and the images that the step loads.

mod clients;
pub(crate) mod cluster;
mod losses;
mod objects;
mod rights;
mod strangers;
mod tenants;
mod troubles;

use std::time::Duration;

use cluster::{DEMO, EMBEDDED, space};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::{
    documents::Backend,
    gateway::{Gateway, PATIENCE},
    tools::{self, Share},
    wire::{self, Peer},
};

/// Where the demo images hold the demo server.
const SERVER: &str = "/usr/local/bin/mcp-gateway";

/// The demo server in pods.
pub(crate) fn demo(name: &str, transport: &str) -> Backend {
    let over = if transport == "stdio" {
        "stdio"
    } else {
        "http"
    };
    Backend::image(name, transport, DEMO).spec(
        "command",
        json!([SERVER, "demo-server", "--transport", over]),
    )
}

pub(crate) async fn count(peer: &Peer) -> u64 {
    let answer = peer.call("counter", json!({})).await.expect("it counts");
    let text = answer.text();
    let digits: String = text.chars().filter(char::is_ascii_digit).collect();
    digits
        .parse()
        .unwrap_or_else(|_| panic!("no count in {text:?}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_first_requests_start_one_pod_which_goes_after_idle_and_comes_back() {
    let Some(space) = space("a hundred first requests").await else {
        return;
    };
    let backend = demo("demo", "streamable-http")
        .policy("isolation", "tenant")
        .policy("idleTimeout", "5s");
    let _turn = tools::turn(Share::Whole).await;
    let gateway = space.gateway(&[backend], &[]).await;
    let url = gateway.url("demo");
    let callers: Vec<_> = (0..100)
        .map(|number| {
            let url = url.clone();
            tokio::spawn(async move {
                let peer = Peer::connect(&url, &format!("caller {number}")).await?;
                peer.call("counter", json!({})).await?;
                Ok::<_, String>(peer)
            })
        })
        .collect();
    let mut peers = Vec::new();
    for caller in callers {
        peers.push(caller.await.expect("no caller panics").expect("an answer"));
    }
    assert_eq!(gateway.status("demo").await.starts, 1);
    assert_eq!(
        space.pods().await.len(),
        1,
        "pods as Kubernetes counts them"
    );

    gateway.until_cold("demo").await;
    space.until_empty().await;
    assert_eq!(
        count(&peers[0]).await,
        1,
        "the session is new to its new pod"
    );
    assert_eq!(count(&peers[0]).await, 2, "and pinned to it");
    assert_eq!(gateway.status("demo").await.starts, 2);
    assert_eq!(space.pods().await.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_of_a_stdio_server_get_a_pod_each_and_survive_it() {
    let Some(space) = space("a pod each").await else {
        return;
    };
    let backend = demo("demo", "stdio")
        // So that all are there still when the slowest is.
        .policy("idleTimeout", "10s");
    let _turn = tools::turn(Share::Whole).await;
    let gateway = space.gateway(&[backend], &[]).await;
    let url = gateway.url("demo");
    let begin = async |number: u32| {
        let peer = Peer::connect(&url, &format!("session {number}")).await;
        let peer = peer.expect("a session");
        assert_eq!(count(&peer).await, 1, "nobody else counts in its pod");
        peer
    };
    let peers: [Peer; 3] = tokio::join!(begin(0), begin(1), begin(2)).into();
    assert_eq!(space.pods().await.len(), 3);
    gateway.until_cold("demo").await;
    space.until_empty().await;
    for peer in &peers {
        assert_eq!(count(peer).await, 1, "revived");
    }
}

/// Cold starts in every form of the agent, and with none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_form_of_the_agent_starts_serves_and_ends() {
    let Some(space) = space("every form").await else {
        return;
    };
    let forms = [
        ("none", "streamable-http"),
        ("sidecar", "streamable-http"),
        ("init", "stdio"),
        ("init", "streamable-http"),
        ("imageVolume", "stdio"),
        ("imageVolume", "streamable-http"),
        ("embedded", "stdio"),
        ("embedded", "streamable-http"),
    ];
    let name = |(form, transport): (&str, &str)| format!("{}-{transport}", form.to_lowercase());
    let backends: Vec<Backend> = forms
        .into_iter()
        .map(|form| {
            let backend = demo(&name(form), form.1)
                .spec("agent", form.0)
                .policy("isolation", "session")
                .policy("idleTimeout", "1s");
            match form.0 {
                "embedded" => backend.spec("image", EMBEDDED),
                _ => backend,
            }
        })
        .collect();
    let _turn = tools::turn(Share::Whole).await;
    let gateway = space.gateway(&backends, &[]).await;
    // Three times each, since a road that races with itself works the first time.
    for form in forms.into_iter().cycle().take(3 * forms.len()) {
        let name = name(form);
        let begun = Instant::now();
        let peer = Peer::connect(&gateway.url(&name), &name).await;
        let peer = peer.unwrap_or_else(|why| panic!("{name}: {why}\n{}", gateway.log()));
        println!("{name}: first answer after {:?}", begun.elapsed());
        assert_eq!(count(&peer).await, 1, "{name}");
        gateway.until_cold(&name).await;
    }
    space.until_empty().await;
}

/// What a client is told whose server cannot start: the answer's error.
async fn refused(gateway: &Gateway, backend: &str) -> Value {
    let http = wire::http();
    let url = gateway.url(backend);
    let reply = wire::post(&http, &url, &[], &wire::initialize(1)).await;
    let reply = reply.expect("an answer");
    assert_eq!(reply.status, 503, "{backend}: {reply:?}");
    assert!(!reply.header("retry-after").is_empty(), "{backend}");
    reply.json()["error"].clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_that_cannot_start_says_why_to_whom_it_concerns() {
    let Some(space) = space("a pod that cannot start").await else {
        return;
    };
    let command = demo("command", "streamable-http").spec("command", json!(["/no/such/program"]));
    let ends = demo("ends", "streamable-http").spec("command", json!([SERVER, "no-such"]));
    let backends = [command, ends].map(|backend| backend.policy("holdTimeout", "2m"));
    let _turn = tools::turn(Share::Whole).await;
    let gateway = space.gateway(&backends, &[]).await;
    for (backend, expected) in [("command", "command"), ("ends", "exited with code 2")] {
        let error = refused(&gateway, backend).await;
        let status = gateway.status(backend).await;
        let why = status.last_failure.map(|failure| failure.exit.summary);
        let why = why.unwrap_or_default();
        println!("{backend}: the client is told {error}; the operator {why:?}");
        assert!(why.contains(expected), "{backend}: {why:?}");
        assert_eq!(error["data"]["kind"], "start_failed", "{backend}: {error}");
    }
}

/// It may appear at any time: the start goes on, and everybody can see what it waits for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_that_does_not_exist_is_told_while_its_pod_waits_for_it() {
    let Some(space) = space("no image").await else {
        return;
    };
    let backend = demo("absent", "streamable-http")
        .spec("image", "localhost/nothing-here:1")
        .policy("holdTimeout", "10s");
    let _turn = tools::turn(Share::Whole).await;
    let gateway = space.gateway(&[backend], &[]).await;
    // Which of the two depends on when the kubelet gives up its first try.
    let error = refused(&gateway, "absent").await;
    let kind = error["data"]["kind"].as_str().unwrap_or_default();
    assert!(["hold_timeout", "start_failed"].contains(&kind), "{error}");
    let give_up = Instant::now() + PATIENCE;
    loop {
        let status = gateway.status("absent").await;
        let instances = status
            .slots
            .iter()
            .filter_map(|slot| slot.instance.as_ref());
        let mut said: Vec<String> = instances.flat_map(|one| one.warnings.clone()).collect();
        said.extend(status.last_failure.map(|failure| failure.exit.summary));
        println!("the client is told {error}; the operator {said:?}");
        if said
            .iter()
            .any(|text| text.contains("image could not be pulled"))
        {
            return;
        }
        assert!(Instant::now() < give_up, "{said:?}");
        sleep(Duration::from_millis(100)).await;
    }
}

/// One gateway alone: nobody else can know these pods.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_that_an_earlier_gateway_left_are_ended_and_their_sessions_revive() {
    let Some(space) = space("left pods").await else {
        return;
    };
    let backend = demo("demo", "streamable-http").policy("idleTimeout", "1h");
    let _turn = tools::turn(Share::Whole).await;
    let first = space.gateway(std::slice::from_ref(&backend), &[]).await;
    let peer = Peer::connect(&first.url("demo"), "left").await;
    peer.expect("a session");
    let before = space.pods().await;
    assert_eq!(before.len(), 1);
    first.kill();
    let second = space.gateway(&[backend], &[]).await;
    let peer = Peer::connect(&second.url("demo"), "new").await;
    let peer = peer.expect("a session");
    assert_eq!(count(&peer).await, 1);
    let give_up = Instant::now() + PATIENCE;
    loop {
        let now = space.pods().await;
        if now.len() == 1 && now.keys().all(|pod| !before.contains_key(pod)) {
            return;
        }
        assert!(Instant::now() < give_up, "{now:?}");
        sleep(Duration::from_millis(50)).await;
    }
}
