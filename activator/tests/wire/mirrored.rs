//! What clients say of themselves and of their messages, beside the message itself: none of it decides anything.

use std::sync::Arc;

use mcp_gateway_api::ids::TenantName;

use crate::support::{INITIALIZE, Names, Setup, World, call};

const SPOOFED: [(&str, &str); 8] = [
    ("mcp-principal", "alice"),
    ("mcp-tenant", "engineering"),
    ("mcp-name", "alice"),
    ("x-mcp-subject", "alice"),
    ("x-mcp-tenant", "engineering"),
    ("x-mcp-roles", "admin"),
    ("x-forwarded-user", "alice"),
    ("x-mcp-gateway-owner", "alice"),
];

#[tokio::test]
async fn what_a_client_says_of_itself_opens_nothing() {
    let setup = Setup {
        auth: Arc::new(Names),
        ..Setup::default()
    };
    let world = World::with(setup).await;
    let alice = [("authorization", "Bearer alice")];
    let opened = world.client.post(INITIALIZE, &alice).await;
    let id = opened.header("mcp-session-id").unwrap().to_owned();
    let (claims, seen) = (world.scaler.claims().len(), world.upstream.seen().len());
    let as_alice = INITIALIZE.replace(r#""name":"test""#, r#""name":"alice""#);
    // Without a key it is nobody.
    let answer = world.client.post(&as_alice, &SPOOFED).await;
    assert_eq!(answer.status, 401);
    // With another's it is that other.
    let mut headers = SPOOFED.to_vec();
    headers.extend([("authorization", "Bearer bob"), ("mcp-session-id", &id)]);
    let answer = world.client.post(&call(1, "echo"), &headers).await;
    assert_eq!(answer.status, 404);
    assert_eq!(
        (world.scaler.claims().len(), world.upstream.seen().len()),
        (claims, seen)
    );

    let setup = Setup {
        tenants: vec![TenantName::new("engineering").unwrap()],
        ..Setup::default()
    };
    let world = World::with(setup).await;
    let answer = world.client.post(&as_alice, &SPOOFED).await;
    assert_eq!(answer.status, 403);
    assert!(world.scaler.claims().is_empty() && world.upstream.seen().is_empty());
}

/// Until 2026-07-28 nobody checks `Mcp-Method` against the body, so only the body says what a message is.
#[tokio::test]
async fn headers_that_name_another_method_than_the_body_change_nothing_in_a_legacy_session() {
    let world = World::new().await;
    let id = world.open().await;
    world.scaler.lose();
    world.upstream.forget_sessions();
    let claims = world.scaler.claims().len();
    let ping = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
    let says_call = [
        ("mcp-session-id", id.as_str()),
        ("mcp-method", "tools/call"),
        ("mcp-name", "echo"),
    ];
    let answer = world.client.post(ping, &says_call).await;
    assert_eq!(answer.status, 200);
    assert_eq!(world.scaler.claims().len(), claims, "a ping wakes nothing");
    let says_ping = [("mcp-session-id", id.as_str()), ("mcp-method", "ping")];
    let answer = world.client.post(&call(2, "echo"), &says_ping).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(world.upstream.calls(), [2], "a call wakes its server");
}
