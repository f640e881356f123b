//! The demo server, spoken to over real sockets.

use std::net::IpAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{CancellationToken, NoDelay, TcpListener, address, router};

#[test]
fn the_address_is_loopback_unless_the_environment_says_otherwise() {
    let loopback = [127, 0, 0, 1].into();
    assert_eq!(address(None, None).unwrap(), (loopback, 8000));
    assert_eq!(address(Some(""), Some("")).unwrap(), (loopback, 8000));
    assert_eq!(
        address(Some("localhost"), Some("0")).unwrap(),
        (loopback, 0)
    );
    assert_eq!(
        address(Some("::1"), Some("9")).unwrap(),
        ("::1".parse().unwrap(), 9)
    );
}

#[test]
fn an_address_that_is_none_is_named() {
    let host = address(Some("nowhere"), None).unwrap_err();
    assert!(host.to_string().contains("HOST=nowhere"), "{host}");
    let port = address(None, Some("70000")).unwrap_err();
    assert!(port.to_string().contains("PORT=70000"), "{port}");
}

mod steps;

/// The HTTP form on a free port; the token stops it.
async fn serve() -> (String, CancellationToken) {
    serve_as([127, 0, 0, 1].into()).await
}

/// As if it listened at `host`, though it is loopback all the same.
async fn serve_as(host: IpAddr) -> (String, CancellationToken) {
    let stop = CancellationToken::new();
    let listener = TcpListener::bind("127.0.0.1:0")
        .await
        .expect("loopback has a free port");
    let address = listener
        .local_addr()
        .expect("a bound socket has an address");
    let served = axum::serve(NoDelay(listener), router(host, stop.clone()))
        .with_graceful_shutdown(stop.clone().cancelled_owned());
    tokio::spawn(async move { served.await.expect("the server serves") });
    (format!("http://{address}/mcp"), stop)
}

#[tokio::test]
async fn a_legacy_client_gets_everything() {
    let (url, _stop) = serve().await;
    let client = steps::connect(&url, steps::legacy()).await;
    steps::all(&client).await;
    steps::close(client).await;
}

#[tokio::test]
async fn a_modern_client_gets_everything() {
    let (url, _stop) = serve().await;
    let client = steps::connect(&url, steps::modern()).await;
    steps::all(&client).await;
    steps::close(client).await;
}

#[tokio::test]
async fn each_legacy_session_has_its_own_counter() {
    let (url, _stop) = serve().await;
    let one = steps::connect(&url, steps::legacy()).await;
    let other = steps::connect(&url, steps::legacy()).await;
    assert_eq!(steps::count(&one).await, 1);
    assert_eq!(steps::count(&one).await, 2);
    assert_eq!(steps::count(&other).await, 1);
}

/// The status line of a request that names somebody else's host.
async fn asked_by_another_name(url: &str) -> String {
    let place = url.trim_start_matches("http://").trim_end_matches("/mcp");
    let mut socket = tokio::net::TcpStream::connect(place).await.unwrap();
    let request = "GET /mcp HTTP/1.1\r\nhost: pod.example:8000\r\naccept: text/event-stream\r\nconnection: close\r\n\r\n";
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    answer.lines().next().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn on_loopback_a_foreign_name_is_refused_and_off_it_names_are_not_asked() {
    let (url, _stop) = serve().await;
    let refused = asked_by_another_name(&url).await;
    assert!(refused.contains(" 403 "), "{refused}");
    let (url, _stop) = serve_as([0, 0, 0, 0].into()).await;
    let asked = asked_by_another_name(&url).await;
    assert!(!asked.contains(" 403 "), "{asked}");
}
