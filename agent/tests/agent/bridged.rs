//! stdio servers: the bridge in a pod, and strangers at its door.

use std::time::Duration;

use mcp_gateway_api::view::SECRET_HEADER;
use mcp_gateway_link::agent::{Orders, Transport};
use tokio::{
    io::AsyncReadExt,
    net::{TcpListener, TcpStream},
};

use crate::support::{
    home::Home,
    pod::{LOCALHOST, Pod, Spec, orders, request, stdio_server},
    within,
};

const SECRET: &str = "only-between-us";
const INITIALIZE: &str = r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"t","version":"0"}}}"#;
const JSON: [(&str, &str); 2] = [
    ("content-type", "application/json"),
    ("accept", "application/json, text/event-stream"),
];

fn bridged() -> Orders {
    Orders {
        transport: Transport::Stdio.into(),
        instance_secret: SECRET.into(),
        ..orders(stdio_server())
    }
}

async fn initialize(port: u32, secret: Option<&str>) -> u16 {
    let mut headers = JSON.to_vec();
    headers.extend(secret.map(|secret| (SECRET_HEADER, secret)));
    let answer = request(port, "POST", "/mcp", &headers, INITIALIZE).await;
    answer.unwrap().0
}

#[tokio::test]
async fn a_bridge_serves_whoever_bears_the_secret_and_nobody_else() {
    let mut home = Home::new().await;
    let pod = Pod::start(&home, Spec::default());
    let given = bridged();
    let port = given.port;
    let mut line = home.order(given).await;
    line.running().await;
    let ready = line.ready().await;
    assert_eq!(
        (ready.port, ready.path.as_str(), ready.host.as_str()),
        (port, "/mcp", "localhost")
    );
    assert_eq!(initialize(port, Some(SECRET)).await, 200);

    assert_eq!(initialize(port, None).await, 403);
    let warning = line.warning().await;
    assert!(
        warning.contains("1 requests") && warning.contains("127.0.0.1"),
        "{warning}"
    );
    for wrong in ["", "only-between-u", "only-between-us2"] {
        assert_eq!(initialize(port, Some(wrong)).await, 403);
    }
    for (method, path) in [
        ("GET", "/mcp"),
        ("GET", "/healthz"),
        ("GET", "/sse"),
        ("DELETE", "/mcp"),
    ] {
        let (status, body) = request(port, method, path, &[], "").await.unwrap();
        assert_eq!((status, body.as_str()), (403, ""), "{method} {path}");
    }
    assert_eq!(initialize(port, Some(SECRET)).await, 200);
    // Strangers are seen in `kubectl logs` too; the secret nowhere.
    pod.said("without this instance's secret").await;
    assert!(!pod.stderr.lock().iter().any(|text| text.contains(SECRET)));
}

#[tokio::test]
async fn a_stranger_that_says_nothing_does_not_keep_its_connection() {
    let mut home = Home::new().await;
    let _pod = Pod::start(&home, Spec::default());
    let given = bridged();
    let port = u16::try_from(given.port).unwrap();
    let mut line = home.order(given).await;
    line.running().await;
    line.ready().await;
    let mut silent = TcpStream::connect((LOCALHOST, port)).await.unwrap();
    let since = tokio::time::Instant::now();
    let read = within("the hang-up", silent.read(&mut [0; 1])).await;
    assert_eq!(read.unwrap_or(0), 0);
    assert!(
        since.elapsed() > Duration::from_secs(5),
        "{:?}",
        since.elapsed()
    );
}

#[tokio::test]
async fn a_bridge_whose_port_is_taken_says_so() {
    let mut home = Home::new().await;
    let _pod = Pod::start(&home, Spec::default());
    let taken = TcpListener::bind(("0.0.0.0", 0)).await.unwrap();
    let given = Orders {
        port: taken.local_addr().unwrap().port().into(),
        ..bridged()
    };
    let exited = home.order(given).await.exited().await;
    assert!(
        exited.summary.contains("cannot listen on 0.0.0.0:"),
        "{exited:?}"
    );
}

#[tokio::test]
async fn a_server_that_dies_is_told_with_its_last_words() {
    let mut home = Home::new().await;
    let mut pod = Pod::start(&home, Spec::default());
    let given = Orders {
        args: vec!["--exit".into(), "9".into()],
        ..bridged()
    };
    let mut line = home.order(given).await;
    line.running().await;
    line.ready().await;
    let exited = line.exited().await;
    assert_eq!(exited.code, Some(9), "{exited:?}");
    assert_eq!(pod.ended().await.code(), Some(9));
}
