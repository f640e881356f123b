//! Methods that a path has and has not, and where else the gateway never sends anybody.

use axum::{Router, http::StatusCode};
use http::Method;
use mcp_gateway_api::backend::Transport;

use crate::{
    streams::talking,
    support::{Answer, INITIALIZE, Setup, World},
};

async fn ask(world: &World, method: Method, path: &str) -> Answer {
    let headers = [
        ("content-type", "application/json"),
        ("accept", "application/json, text/event-stream"),
    ];
    let request = world.client.request(method, path, &headers, INITIALIZE);
    world.client.send(request).await
}

/// RFC 9110 §15.5.6: a 405 names what the path does take.
#[tokio::test]
async fn a_refused_method_is_told_what_its_path_takes() {
    const MCP: &str = "/adapters/demo/mcp";
    const SSE: &str = "/adapters/demo/sse";
    const MESSAGES: &str = "/adapters/demo/messages";
    let http = World::new().await;
    let stdio = World::with(Setup {
        transport: Transport::Stdio,
        ..Setup::default()
    });
    let sse = World::with(Setup {
        transport: Transport::Sse,
        ..Setup::default()
    });
    let (stdio, sse) = (stdio.await, sse.await);
    for (world, method, path, allow) in [
        (&http, Method::PUT, MCP, "GET, POST, DELETE, OPTIONS"),
        (&http, Method::HEAD, MCP, "GET, POST, DELETE, OPTIONS"),
        // Without a session there is neither a stream nor anything to end.
        (&http, Method::GET, MCP, "POST, OPTIONS"),
        (&http, Method::DELETE, MCP, "POST, OPTIONS"),
        (&stdio, Method::PATCH, MCP, "GET, POST, DELETE, OPTIONS"),
        (&stdio, Method::POST, SSE, "GET, OPTIONS"),
        (&stdio, Method::HEAD, SSE, "GET, OPTIONS"),
        (&stdio, Method::GET, MESSAGES, "POST, OPTIONS"),
        (&stdio, Method::DELETE, MESSAGES, "POST, OPTIONS"),
        (&sse, Method::POST, MCP, "GET, OPTIONS"),
        (&sse, Method::DELETE, MCP, "GET, OPTIONS"),
        (&sse, Method::POST, SSE, "GET, OPTIONS"),
    ] {
        let what = format!("{method} {path}");
        let answer = ask(world, method, path).await;
        assert_eq!(answer.status, 405, "{what}");
        assert_eq!(answer.header("allow"), Some(allow), "{what}");
        assert!(world.scaler.claims().is_empty(), "something woke");
    }
    for (path, allow) in [
        (MCP, "GET, POST, DELETE, OPTIONS"),
        (SSE, "GET, OPTIONS"),
        (MESSAGES, "POST, OPTIONS"),
    ] {
        let answer = ask(&stdio, Method::OPTIONS, path).await;
        assert_eq!((answer.status, answer.header("allow")), (204, Some(allow)));
    }
}

/// 2026-07-28 has neither GET nor DELETE: whether its server sleeps or runs, the client is to learn so.
#[tokio::test]
async fn get_and_delete_of_a_modern_only_server_are_405_asleep_and_awake() {
    let (world, talker) = talking(Setup::default()).await;
    talker.no_streams();
    let modern = ("mcp-protocol-version", "2026-07-28");
    for awake in [false, true] {
        if awake {
            let body = r#"{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}}}"#;
            let headers = [modern, ("mcp-method", "tools/list")];
            let answer = world.client.post(body, &headers).await;
            assert_eq!(answer.status, 200, "{}", answer.text());
        }
        let claims = world.scaler.claims().len();
        for method in [Method::GET, Method::DELETE] {
            let headers = [modern, ("accept", "text/event-stream")];
            let path = "/adapters/demo/mcp";
            let request = world.client.request(method.clone(), path, &headers, "");
            let answer = world.client.send(request).await;
            assert_eq!(answer.status, 405, "{method}, awake: {awake}");
        }
        assert_eq!(world.scaler.claims().len(), claims);
        assert_eq!(talker.gets().len(), usize::from(awake), "its own answer");
    }
}

/// Clients refuse to follow to another origin, or worse, do follow: out of reach of every check of the gateway's.
#[tokio::test]
async fn nobody_is_sent_elsewhere() {
    let world = World::new().await;
    for path in [
        "/adapters/demo",
        "/adapters/demo/",
        "/adapters/demo/mcp/",
        "/adapters//demo/mcp",
        "/adapters/demo/../demo/mcp",
        "//evil.example.com/adapters/demo/mcp",
        "/",
    ] {
        for method in [Method::GET, Method::POST, Method::DELETE] {
            let answer = ask(&world, method.clone(), path).await;
            assert!(
                !(300..400).contains(&answer.status) && answer.header("location").is_none(),
                "{method} {path}: {}",
                answer.status
            );
        }
    }
    // Nor by a server that has its endpoint elsewhere, and knows itself by a name that is nothing to clients.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    world.scaler.move_upstream(listener.local_addr().unwrap());
    let moved = [
        ("location", "http://localhost:8000/mcp/"),
        ("content-location", "/mcp/"),
        ("refresh", "0; url=http://localhost:8000/mcp/"),
    ];
    let router =
        Router::new().fallback(move || async move { (StatusCode::TEMPORARY_REDIRECT, moved) });
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    let answer = ask(&world, Method::POST, "/adapters/demo/mcp").await;
    for (name, _) in moved {
        assert_eq!(answer.header(name), None);
    }
    assert_eq!(answer.status, 307, "what else the server says is its own");
}
