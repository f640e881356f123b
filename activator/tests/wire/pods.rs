//! Bridges in pods: what they are shown with each request so that they let it in, and who sees it.

use http::Method;
use mcp_gateway_api::view::SECRET_HEADER;

use crate::support::{World, call};

const OWNER: &str = "x-mcp-gateway-owner";

async fn with_a_pod() -> World {
    let world = World::new().await;
    world.scaler.bridge_in_a_pod("only-between-us");
    world
}

#[tokio::test]
async fn a_bridge_in_a_pod_is_shown_its_secret_with_every_request_and_the_client_never() {
    let world = with_a_pod().await;
    let session = world.open().await;
    let of_session = [("mcp-session-id", session.as_str())];
    let answer = world.client.post(&call(2, "echo"), &of_session).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header(SECRET_HEADER), None);
    let mut get = of_session.to_vec();
    get.push(("accept", "text/event-stream"));
    let request = world
        .client
        .request(Method::GET, "/adapters/demo/mcp", &get, "");
    let stream = world.client.begin(request).await;
    world
        .until("the GET to arrive", || {
            let seen = world.upstream.seen();
            seen.iter().any(|seen| seen.method == Method::GET)
        })
        .await;
    drop(stream);
    world.client.delete(&session).await;

    let seen = world.upstream.seen();
    let methods: Vec<&Method> = seen.iter().map(|seen| &seen.method).collect();
    assert!(methods.contains(&&Method::DELETE), "{methods:?}");
    for seen in &seen {
        let shown: Vec<_> = seen.headers.get_all(SECRET_HEADER).iter().collect();
        assert_eq!(shown, ["only-between-us"], "{} {}", seen.method, seen.uri);
    }
}

#[tokio::test]
async fn what_a_client_sends_under_the_gateways_names_reaches_no_server() {
    let forged = [(SECRET_HEADER, "forged"), (OWNER, "somebody-else")];
    let world = World::new().await;
    let answer = world.client.post(crate::support::INITIALIZE, &forged).await;
    assert_eq!(answer.status, 200);
    let seen = world.upstream.last();
    assert_eq!(
        (seen.header(SECRET_HEADER), seen.header(OWNER)),
        (None, None)
    );

    let world = with_a_pod().await;
    world.client.post(crate::support::INITIALIZE, &forged).await;
    let seen = world.upstream.last();
    let shown: Vec<_> = seen.headers.get_all(SECRET_HEADER).iter().collect();
    assert_eq!(shown, ["only-between-us"]);
}

#[tokio::test]
async fn a_bridge_in_a_pod_is_told_whose_modern_exchange_it_is_and_a_server_is_not() {
    let body = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo","_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}}}"#;
    let headers = [
        ("mcp-protocol-version", "2026-07-28"),
        ("mcp-method", "tools/call"),
        ("mcp-name", "echo"),
    ];
    let world = World::new().await;
    assert_eq!(world.client.post(body, &headers).await.status, 200);
    assert_eq!(world.upstream.last().header(OWNER), None);

    let world = with_a_pod().await;
    assert_eq!(world.client.post(body, &headers).await.status, 200);
    assert!(world.upstream.last().header(OWNER).is_some());
}
