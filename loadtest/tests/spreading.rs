//! The spreading proxy over real sockets.

use std::{
    convert::Infallible,
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    process::{Command, Stdio},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Empty, Full, StreamBody, combinators::BoxBody};
use hyper::{
    body::{Frame, Incoming},
    client::conn::http1::{SendRequest, handshake},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use mcp_gateway_loadtest::spread::{Options, Spread, Upstream};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc,
    time::timeout,
};

/// Longer than anything here may take on a machine that has other things to do.
const PATIENCE: Duration = Duration::from_secs(60);

type Body = BoxBody<Bytes, hyper::Error>;

async fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("its address");
    (listener, address)
}

/// A server that sends each body back as it comes; tells of each request's headers, and of each connection that ended.
async fn echo(seen: mpsc::Sender<HeaderMap>, ended: mpsc::Sender<()>) -> SocketAddr {
    let (listener, address) = listener().await;
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.expect("a connection");
            let (seen, ended) = (seen.clone(), ended.clone());
            tokio::spawn(async move {
                let service = service_fn(|request: Request<Incoming>| {
                    drop(seen.try_send(request.headers().clone()));
                    async { Ok::<_, Infallible>(Response::new(request.into_body())) }
                });
                drop(
                    http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await,
                );
                let _ = ended.try_send(());
            });
        }
    });
    address
}

async fn proxy(upstreams: &[SocketAddr], key: Option<&str>) -> (Spread, SocketAddr) {
    let upstreams = upstreams
        .iter()
        .map(|address| format!("http://{address}").parse());
    let spread = Spread::new(Options {
        upstreams: upstreams
            .collect::<Result<Vec<Upstream>, _>>()
            .expect("well formed"),
        key: key.map(str::to_owned),
        seed: Some(7),
        connections: 64,
    });
    let spread = spread.expect("a proxy");
    let (listener, address) = listener().await;
    let serving = spread.clone();
    tokio::spawn(async move { serving.serve(listener).await });
    (spread, address)
}

async fn client(address: SocketAddr) -> SendRequest<Body> {
    let stream = TcpStream::connect(address).await.expect("it accepts");
    let (sender, connection) = handshake(TokioIo::new(stream)).await.expect("a connection");
    tokio::spawn(connection);
    sender
}

fn request(headers: &[(&str, &str)], body: Body) -> Request<Body> {
    let mut request = Request::post("/adapters/a/mcp").header("host", "evil.example");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(body).expect("a request")
}

fn nothing() -> Body {
    Empty::new().map_err(|never| match never {}).boxed()
}

fn whole(text: &'static str) -> Body {
    Full::new(Bytes::from_static(text.as_bytes()))
        .map_err(|never| match never {})
        .boxed()
}

/// A body that is sent piece by piece.
fn pieces() -> (mpsc::Sender<&'static str>, Body) {
    let (sender, receiver) = mpsc::channel::<&'static str>(8);
    let stream = futures_util::stream::unfold(receiver, async |mut receiver| {
        let piece = receiver.recv().await?;
        Some((
            Ok(Frame::data(Bytes::from_static(piece.as_bytes()))),
            receiver,
        ))
    });
    (sender, StreamBody::new(stream).boxed())
}

#[tokio::test]
async fn every_upstream_gets_its_share_with_the_callers_host_and_a_key() {
    let (seen, mut headers) = mpsc::channel(64);
    let (ended, _) = mpsc::channel(64);
    let one = echo(seen.clone(), ended.clone()).await;
    let two = echo(seen, ended).await;
    let (spread, address) = proxy(&[one, two], Some("mgk_1")).await;
    let mut client = client(address).await;
    for _ in 0..40 {
        let answer = client
            .send_request(request(&[], whole("hello")))
            .await
            .unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        assert_eq!(
            answer.into_body().collect().await.unwrap().to_bytes(),
            "hello"
        );
        let headers = headers.recv().await.unwrap();
        assert_eq!(headers["host"], "evil.example");
        assert_eq!(headers["authorization"], "Bearer mgk_1");
    }
    let counts = spread.counts();
    assert_eq!(counts.iter().sum::<u64>(), 40);
    assert!(counts.iter().all(|count| *count >= 8), "{counts:?}");

    let own = [("authorization", "Bearer mgk_own")];
    client.send_request(request(&own, nothing())).await.unwrap();
    let headers = headers.recv().await.unwrap();
    assert_eq!(
        headers["authorization"], "Bearer mgk_own",
        "a key of one's own stays"
    );
}

#[tokio::test]
async fn each_piece_passes_before_the_next_is_there_in_both_directions() {
    let (seen, _headers) = mpsc::channel(64);
    let (ended, _) = mpsc::channel(64);
    let (_, address) = proxy(&[echo(seen, ended).await], None).await;
    let mut client = client(address).await;
    let (send, body) = pieces();
    send.try_send("data: 1\n\n").unwrap();
    let answer = timeout(PATIENCE, client.send_request(request(&[], body)));
    let mut answer = answer.await.expect("the head passes").unwrap().into_body();
    for next in ["data: 2\n\n", "data: 3\n\n"] {
        let piece = timeout(PATIENCE, answer.frame())
            .await
            .expect("a piece passes");
        assert!(
            piece
                .unwrap()
                .unwrap()
                .into_data()
                .is_ok_and(|data| data.starts_with(b"data: "))
        );
        send.try_send(next).unwrap();
    }
}

#[tokio::test]
async fn a_client_that_leaves_takes_its_upstream_connection_with_it() {
    let (seen, mut headers) = mpsc::channel(64);
    let (ended, mut endings) = mpsc::channel(64);
    let (_, address) = proxy(&[echo(seen, ended).await], None).await;
    let mut client = client(address).await;
    let (send, body) = pieces();
    send.try_send("data: 1\n\n").unwrap();
    let answer = client.send_request(request(&[], body)).await.unwrap();
    headers.recv().await.unwrap();
    assert!(endings.try_recv().is_err(), "it is used");
    drop((client, answer));
    let end = timeout(PATIENCE, endings.recv()).await;
    end.expect("the upstream's connection ends").unwrap();
    drop(send);
}

#[tokio::test]
async fn a_request_to_a_dead_upstream_is_answered_502_and_sent_nowhere_else() {
    let (seen, mut headers) = mpsc::channel(64);
    let (ended, _) = mpsc::channel(64);
    let live = echo(seen, ended).await;
    // It accepts, and ends each connection: no port is free that somebody else could take meanwhile.
    let (listener, dead) = listener().await;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            drop(stream);
        }
    });
    let (spread, address) = proxy(&[dead, live], None).await;
    let mut client = client(address).await;
    let mut refused = 0;
    for _ in 0..40 {
        let answer = client.send_request(request(&[], whole("x"))).await.unwrap();
        if answer.status() == StatusCode::BAD_GATEWAY {
            refused += 1;
            let text = answer.into_body().collect().await.unwrap().to_bytes();
            let text = String::from_utf8_lossy(&text).into_owned();
            assert!(text.starts_with(&dead.to_string()), "{text}");
        } else {
            answer.into_body().collect().await.unwrap();
        }
    }
    assert!(refused > 0);
    let reached = std::iter::from_fn(|| headers.try_recv().ok()).count() as u64;
    assert_eq!(spread.counts(), [refused, reached]);
}

#[tokio::test]
async fn more_connections_than_allowed_wait_for_one_to_end() {
    let (seen, mut headers) = mpsc::channel(64);
    let (ended, _) = mpsc::channel(64);
    let upstream = echo(seen, ended).await;
    let spread = Spread::new(Options {
        upstreams: vec![format!("http://{upstream}").parse().unwrap()],
        key: None,
        seed: None,
        connections: 1,
    });
    let (listener, address) = listener().await;
    let spread = spread.unwrap();
    tokio::spawn(async move { spread.serve(listener).await });
    let mut first = client(address).await;
    first
        .send_request(request(&[], whole("1")))
        .await
        .unwrap()
        .into_body()
        .collect()
        .await
        .unwrap();
    headers.recv().await.unwrap();
    let mut second = client(address).await;
    let waiting = tokio::spawn(async move {
        let answer = second
            .send_request(request(&[("x-second", "1")], nothing()))
            .await;
        answer.map(|answer| answer.status())
    });
    // The first is served as long as it likes; the second is not begun.
    for _ in 0..5 {
        let again = first.send_request(request(&[], whole("1"))).await.unwrap();
        again.into_body().collect().await.unwrap();
        assert!(!headers.recv().await.unwrap().contains_key("x-second"));
    }
    drop(first);
    let answer = timeout(PATIENCE, waiting)
        .await
        .expect("its turn comes")
        .unwrap();
    assert_eq!(answer.unwrap(), StatusCode::OK);
}

#[test]
fn the_command_prints_its_address_and_stays_on_loopback() {
    let command = |listen: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mcp-gateway-loadtest"));
        command
            .args(["spread", "--listen", listen, "http://127.0.0.1:1"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    };
    let mut child = command("127.0.0.1:0").spawn().unwrap();
    let mut line = String::new();
    let read = BufReader::new(child.stdout.take().unwrap()).read_line(&mut line);
    child.kill().unwrap();
    child.wait().unwrap();
    read.unwrap();
    assert!(line.starts_with("http://127.0.0.1:"), "{line}");
    assert!(!line.contains(":0\n"), "{line}");

    let refused = command("0.0.0.0:0").output().unwrap();
    assert!(!refused.status.success());
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(said.contains("no loopback address"), "{said}");
}
