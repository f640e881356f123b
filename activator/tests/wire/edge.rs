//! What is decided before anybody is asked: Host, Origin, CORS, headers, bodies, callers. None of it wakes anything.

use std::{sync::Arc, time::Duration};

use http::Method;
use mcp_gateway_api::ids::TenantName;
use tokio::io::AsyncWriteExt;

use crate::support::{INITIALIZE, Names, Setup, World, call, client::read_until};

const PATH: &str = "/adapters/demo/mcp";

async fn assert_refused(
    world: &World,
    headers: &[(&str, &str)],
    body: &str,
    status: u16,
    code: i64,
) {
    let answer = world.client.post(body, headers).await;
    assert_eq!(answer.status, status, "{headers:?}: {}", answer.text());
    assert_eq!(
        answer.json()["error"]["code"].as_i64(),
        Some(code),
        "{}",
        answer.text()
    );
    assert!(world.scaler.claims().is_empty(), "something woke");
    assert!(world.upstream.seen().is_empty());
}

#[tokio::test]
async fn a_strange_host_is_refused() {
    let world = World::new().await;
    assert_refused(
        &world,
        &[("host", "evil.example.com")],
        INITIALIZE,
        403,
        -31_403,
    )
    .await;
    for host in [
        "localhost",
        "localhost:1",
        "127.0.0.1:80",
        "127.8.8.8",
        "[::1]:8080",
        "LOCALHOST",
    ] {
        let answer = world.client.post("{", &[("host", host)]).await;
        assert_eq!(answer.status, 400, "{host} is served");
    }
}

#[tokio::test]
async fn an_allowed_host_is_served_and_its_neighbours_are_not() {
    let mut setup = Setup::default();
    setup.config.hosts = setup
        .config
        .hosts
        .allow("mcp.example.com:8443")
        .unwrap()
        .allow("*.apps.example.com")
        .unwrap();
    let world = World::with(setup).await;
    for (host, status) in [
        ("mcp.example.com:8443", 400),
        ("mcp.example.com:8444", 403),
        ("a.apps.example.com", 400),
        ("apps.example.com", 403),
        ("evilapps.example.com", 403),
    ] {
        assert_eq!(
            world.client.post("{", &[("host", host)]).await.status,
            status,
            "{host}"
        );
    }
}

#[tokio::test]
async fn a_strange_origin_is_refused_on_every_method() {
    let world = World::new().await;
    for origin in [
        "http://evil.example.com",
        "null",
        "http://localhost.evil.com",
        "file://",
    ] {
        assert_refused(&world, &[("origin", origin)], INITIALIZE, 403, -31_403).await;
        for method in [Method::GET, Method::DELETE, Method::OPTIONS] {
            let headers = [
                ("origin", origin),
                ("access-control-request-method", "POST"),
            ];
            let answer = world
                .client
                .send(world.client.request(method, PATH, &headers, ""))
                .await;
            assert_eq!(answer.status, 403);
            assert_eq!(answer.header("access-control-allow-origin"), None);
        }
    }
}

#[tokio::test]
async fn a_preflight_is_answered_without_credentials_and_every_answer_may_be_read() {
    let setup = Setup {
        auth: Arc::new(Names),
        ..Setup::default()
    };
    let world = World::with(setup).await;
    let origin = ("origin", "http://localhost:5173");
    let asked = [
        origin,
        ("access-control-request-method", "POST"),
        (
            "access-control-request-headers",
            "authorization, mcp-session-id, mcp-param-x",
        ),
    ];
    let answer = world
        .client
        .send(world.client.request(Method::OPTIONS, PATH, &asked, ""))
        .await;
    assert_eq!(answer.status, 204);
    assert_eq!(answer.header("access-control-allow-origin"), Some(origin.1));
    assert_eq!(
        answer.header("access-control-allow-headers"),
        Some(asked[2].1)
    );
    assert!(
        answer
            .header("access-control-allow-methods")
            .unwrap()
            .contains("DELETE")
    );
    // Errors of every kind can be read too.
    for (headers, path, status) in [
        (vec![origin], PATH, 401),
        (
            vec![origin, ("authorization", "Bearer a")],
            "/adapters/none/mcp",
            404,
        ),
        (vec![origin, ("authorization", "Bearer a")], "/nowhere", 404),
    ] {
        let answer = world
            .client
            .send(world.client.request(Method::POST, path, &headers, ""))
            .await;
        assert_eq!(answer.status, status);
        assert_eq!(answer.header("access-control-allow-origin"), Some(origin.1));
        assert!(
            answer
                .header("access-control-expose-headers")
                .unwrap()
                .contains("Mcp-Session-Id")
        );
    }
    assert!(world.scaler.claims().is_empty());
}

#[tokio::test]
async fn headers_that_decide_the_way_may_stand_only_once() {
    let world = World::new().await;
    for name in [
        "mcp-session-id",
        "mcp-protocol-version",
        "mcp-method",
        "mcp-name",
    ] {
        assert_refused(
            &world,
            &[(name, "a"), (name, "a")],
            INITIALIZE,
            400,
            -31_400,
        )
        .await;
    }
}

#[tokio::test]
async fn bodies_that_are_no_message_are_refused() {
    let world = World::new().await;
    for (body, code) in [
        ("", -32_700),
        ("{", -32_700),
        ("nonsense", -32_700),
        ("{}", -32_600),
        ("[]", -32_600),
        ("[[]]", -32_600),
        (r#"{"jsonrpc":"2.0","id":null,"method":"x"}"#, -32_600),
        (r#"{"jsonrpc":"1.0","id":1,"method":"x"}"#, -32_600),
    ] {
        assert_refused(&world, &[], body, 400, code).await;
    }
    assert_refused(
        &world,
        &[("content-type", "text/plain")],
        INITIALIZE,
        415,
        -31_415,
    )
    .await;
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused() {
    let mut setup = Setup::default();
    setup.config.max_body = 1_000;
    let world = World::with(setup).await;
    let long = format!(
        r#"{{"jsonrpc":"2.0","id":1,"method":"{}"}}"#,
        "x".repeat(1_000)
    );
    assert_refused(&world, &[], &long, 413, -31_413).await;
    let mut raw = tokio::net::TcpStream::connect(world.address).await.unwrap();
    let head = format!(
        "POST {PATH} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
    );
    raw.write_all(head.as_bytes()).await.unwrap();
    raw.write_all(format!("{:x}\r\n{long}\r\n", long.len()).as_bytes())
        .await
        .unwrap();
    assert!(read_until(&mut raw, "\r\n").await.contains("413"));
}

#[tokio::test]
async fn a_body_that_does_not_come_is_not_waited_for() {
    let mut setup = Setup::default();
    setup.config.body_timeout = Duration::from_millis(50);
    let world = World::with(setup).await;
    let mut raw = tokio::net::TcpStream::connect(world.address).await.unwrap();
    let head = format!(
        "POST {PATH} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 10\r\n\r\n{{"
    );
    raw.write_all(head.as_bytes()).await.unwrap();
    assert!(read_until(&mut raw, "\r\n").await.contains("400"));
}

#[tokio::test]
async fn strangers_are_told_so_before_anything_is_looked_up() {
    let setup = Setup {
        auth: Arc::new(Names),
        ..Setup::default()
    };
    let world = World::with(setup).await;
    for path in [PATH, "/adapters/none/mcp"] {
        for method in [Method::POST, Method::GET, Method::DELETE] {
            let headers = [
                ("mcp-session-id", "whatever"),
                ("accept", "text/event-stream"),
            ];
            let answer = world
                .client
                .send(world.client.request(method, path, &headers, INITIALIZE))
                .await;
            assert_eq!(answer.status, 401);
            assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
        }
    }
    assert!(world.scaler.claims().is_empty());
}

#[tokio::test]
async fn a_backend_of_other_tenants_is_forbidden() {
    let setup = Setup {
        tenants: vec![TenantName::new("engineering").unwrap()],
        ..Setup::default()
    };
    let world = World::with(setup).await;
    assert_refused(&world, &[], INITIALIZE, 403, -31_403).await;
}

#[tokio::test]
async fn unknown_backends_paths_and_methods_are_said_to_be_so() {
    let world = World::new().await;
    for path in [
        "/adapters/none/mcp",
        "/adapters/Not%20A%20Label/mcp",
        "/adapters",
        "/x",
    ] {
        let answer = world
            .client
            .send(world.client.request(Method::POST, path, &[], INITIALIZE))
            .await;
        assert_eq!(
            (answer.status, answer.json()["error"]["code"].as_i64()),
            (404, Some(-31_404)),
            "{path}"
        );
    }
    for method in [Method::PUT, Method::PATCH, Method::HEAD] {
        let answer = world
            .client
            .send(world.client.request(method, PATH, &[], ""))
            .await;
        assert_eq!(answer.status, 405);
    }
    assert!(world.scaler.claims().is_empty());
}

#[tokio::test]
async fn forged_damaged_and_foreign_session_ids_are_404_and_wake_nothing() {
    let setup = Setup {
        auth: Arc::new(Names),
        ..Setup::default()
    };
    let world = World::with(setup).await;
    let opened = world
        .client
        .post(INITIALIZE, &[("authorization", "Bearer alice")])
        .await;
    let id = opened.header("mcp-session-id").unwrap().to_owned();
    let (claims, seen) = (world.scaler.claims().len(), world.upstream.seen().len());
    let mut damaged = id.clone();
    damaged.replace_range(40..41, if &id[40..41] == "A" { "B" } else { "A" });
    let cut = &id[..id.len() - 4];
    for (who, session) in [
        ("alice", "forged"),
        ("alice", &damaged),
        ("alice", cut),
        ("bob", &id),
    ] {
        let key = format!("Bearer {who}");
        let headers = [("authorization", key.as_str()), ("mcp-session-id", session)];
        for request in [
            world.client.posting(&call(1, "echo"), &headers),
            world.client.posting(
                r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#,
                &headers,
            ),
            world.client.request(Method::DELETE, PATH, &headers, ""),
        ] {
            let answer = world.client.send(request).await;
            assert_eq!(answer.status, 404);
            assert_eq!(answer.json()["error"]["code"].as_i64(), Some(-31_410));
        }
    }
    assert_eq!(
        (world.scaler.claims().len(), world.upstream.seen().len()),
        (claims, seen)
    );
    let headers = [
        ("authorization", "Bearer alice"),
        ("mcp-session-id", id.as_str()),
    ];
    assert_eq!(
        world.client.post(&call(1, "echo"), &headers).await.status,
        200
    );
}
