//! The runtime against an API server that lists no pods, and never answers who makes one.

use std::{convert::Infallible, net::Ipv4Addr};

use http::{Method, Request, Response};
use kube::client::Body;
use mcp_gateway_link::{Authority, token::HomeKey};
use serde_json::json;
use tokio::{net::TcpListener, sync::mpsc};

use super::{
    fake::{Answer, api, status},
    template::tests::{launch, order},
    *,
};

/// A client, and the methods by which it was asked for something that it will not answer.
fn silent() -> (kube::Client, mpsc::Receiver<Method>) {
    let (asked, silence) = mpsc::channel(64);
    let answer = tower::service_fn(move |request: Request<Body>| {
        let watches = request
            .uri()
            .query()
            .is_some_and(|query| query.contains("watch="));
        let lists = request.method() == Method::GET && !watches;
        if !lists {
            let _ = asked.try_send(request.method().clone());
        }
        let none = json!({"apiVersion": "v1", "kind": "PodList", "metadata": {"resourceVersion": "1"}, "items": []});
        async move {
            if !lists {
                std::future::pending::<()>().await;
            }
            let answer = Response::new(Body::from(none.to_string().into_bytes()));
            Ok::<_, Infallible>(answer)
        }
    });
    (kube::Client::new(answer, "mcp"), silence)
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
    while silence.recv().await.expect("a pod is asked for") != Method::POST {}
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

/// A home that nobody calls.
async fn home() -> Home {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    Home {
        advertise: vec![listener.local_addr().unwrap()],
        listener,
        authority: Arc::new(Authority::generate().unwrap()),
        key: HomeKey::random(),
    }
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
