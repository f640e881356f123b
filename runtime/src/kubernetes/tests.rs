//! The runtime against an API server that lists no pods, and never answers who makes one.

use serde_json::json;
use tokio::sync::mpsc;

use super::{
    fake::{Answer, api, home, status},
    template::tests::{launch, order},
    *,
};

/// A client, and what it was asked for and will not answer, one line for each.
fn silent() -> (kube::Client, mpsc::Receiver<String>) {
    let (asked, silence) = mpsc::channel(64);
    let (client, _all) = api(move |line, _body| {
        if line.starts_with("GET") && !line.contains("watch=") {
            let meta = json!({"resourceVersion": "1"});
            let none =
                json!({"apiVersion": "v1", "kind": "PodList", "metadata": meta, "items": []});
            return Answer::Says(200, none);
        }
        let _ = asked.try_send(line.to_owned());
        Answer::Silent
    });
    (client, silence)
}

#[tokio::test]
async fn a_runtime_that_is_closed_makes_nothing_more_though_a_launch_still_holds_it() {
    let (client, mut silence) = silent();
    let home = home().await;
    let advertise = home.advertise.clone();
    let config = KubernetesConfig {
        image_volumes: Some(true),
        ..KubernetesConfig::new((client.clone(), client), "mcp", "test", home)
    };
    let (runtime, mut events, found) = KubernetesRuntime::open(config).await.unwrap();
    assert!(found.is_empty());
    let launching = {
        let runtime = Arc::clone(&runtime);
        let mut launch = launch(&["serve"]);
        launch.pod = Arc::new(mcp_gateway_api::backend::PodOptions {
            agent: mcp_gateway_api::backend::AgentForm::None,
            ..Default::default()
        });
        tokio::spawn(async move { runtime.launch(order(launch)).await })
    };
    let mut asked = async || silence.recv().await.expect("a pod is asked for");
    while !asked().await.starts_with("POST") {}
    runtime.close();
    let patience = Duration::from_secs(20);
    let made = timeout(patience, launching)
        .await
        .expect("it is not waited for");
    let refused = made.unwrap().expect_err("nothing was made");
    assert_eq!(refused.summary, "another leader starts servers now");
    // Nobody answers agents here any more.
    let gone = async { while tokio::net::TcpStream::connect(advertise[0]).await.is_ok() {} };
    timeout(patience, gone)
        .await
        .expect("the next leader may listen");
    drop(runtime);
    assert!(events.recv().await.is_none(), "nothing is said any more");
}

/// A leader that took a moment of silence for an old cluster would refuse `agent: imageVolume` for its whole term.
#[tokio::test(start_paused = true)]
async fn an_api_server_that_does_not_say_its_version_in_time_is_no_old_one() {
    for answer in [
        || Answer::Silent,
        || status(503, "ServiceUnavailable", "no"),
    ] {
        let (client, asked) = api(move |_, _| answer());
        let config = KubernetesConfig::new((client.clone(), client), "mcp", "test", home().await);
        let opened = KubernetesRuntime::open(config).await;
        assert!(matches!(opened, Err(OpenError::Pods { .. })), "{opened:?}");
        assert_eq!(asked.lock().len(), 1, "{:?}", asked.lock());
    }
    let (client, asked) = api(|line, _| match line.contains("/version") {
        true => status(403, "Forbidden", "no"),
        false => status(503, "ServiceUnavailable", "no"),
    });
    let config = KubernetesConfig::new((client.clone(), client), "mcp", "test", home().await);
    assert!(KubernetesRuntime::open(config).await.is_err());
    assert_eq!(
        asked.lock().len(),
        2,
        "who may not ask goes on without: {:?}",
        asked.lock()
    );
}
