//! Over real sockets. The end of a connection that asks nothing is the clock: whoever came before it and is still there when
//! it ends has outlived the deadline.

use std::{convert::Infallible, future::ready, net::SocketAddr, sync::Arc, time::Duration};

use axum::{Router, body::Body, routing::get};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::{Request, Response};
use http_body_util::{BodyExt, Empty};
use hyper::{
    body::Incoming,
    client::conn::{http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustix::net::sockopt;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::Notify,
    task::JoinHandle,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::{Listener, Patience};

const LONG: Duration = Duration::from_secs(600);
const SHORT: Duration = Duration::from_millis(300);
/// Nothing is hurried: each test shortens what it is about.
const PATIENT: Patience = Patience {
    head: LONG,
    quiet: LONG,
    linger: LONG,
    rest: LONG,
    ping: LONG,
    pong: LONG,
};
/// Whoever asks nothing goes soon.
const BRISK: Patience = Patience {
    quiet: SHORT,
    linger: Duration::from_millis(30),
    ..PATIENT
};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// An empty SETTINGS frame.
const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];
/// HEADERS of stream 1, at their end: GET, http, and a literal path.
const GET_STREAM: &[u8] = b"\x00\x00\x0b\x01\x05\x00\x00\x00\x01\x82\x86\x04\x07/stream";
const BIG: usize = 200_000;

type Http1 = http1::SendRequest<Empty<Bytes>>;
type Http2 = http2::SendRequest<Empty<Bytes>>;

/// A listener that serves.
struct Served {
    address: SocketAddr,
    /// Lets streams end: one for each permit.
    release: Arc<Notify>,
    stop: CancellationToken,
    cut: CancellationToken,
    done: JoinHandle<()>,
}

impl Served {
    async fn new(connections: usize, patience: Patience) -> Self {
        let mut listener = bind(connections).await;
        listener.patience = patience;
        let release = Arc::new(Notify::new());
        let (stop, cut) = (CancellationToken::new(), CancellationToken::new());
        Self {
            address: listener.address(),
            release: Arc::clone(&release),
            done: tokio::spawn(listener.serve(routes(release), stop.clone(), cut.clone())),
            stop,
            cut,
        }
    }

    /// Connects and says so much.
    async fn raw(&self, first: &[u8]) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(first).await.unwrap();
        stream
    }

    async fn http1(&self) -> (Http1, JoinHandle<hyper::Result<()>>) {
        let io = TokioIo::new(self.raw(b"").await);
        let (client, connection) = http1::handshake(io).await.unwrap();
        (client, tokio::spawn(connection))
    }

    async fn http2(&self) -> (Http2, JoinHandle<hyper::Result<()>>) {
        let io = TokioIo::new(self.raw(b"").await);
        let client = http2::Builder::new(TokioExecutor::new())
            .initial_stream_window_size(10_000)
            .handshake(io);
        let (client, connection) = client.await.unwrap();
        (client, tokio::spawn(connection))
    }

    /// Passes the deadline for whoever is connected now.
    async fn deadline(&self) {
        for _ in 0..2 {
            ended(self.raw(b"").await).await;
        }
    }

    /// Asks over a new connection: answered only if there is a permit for it.
    async fn has_room(&self) {
        let (mut client, _) = self.http1().await;
        let answer = soon(client.send_request(request("/"))).await.unwrap();
        assert_eq!(rest(answer).await, "hello");
    }
}

async fn bind(connections: usize) -> Listener {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    Listener::bind(any, "--listen", connections).await.unwrap()
}

/// A short page, a stream that says its last word when it is released, and an answer in one large piece.
fn routes(release: Arc<Notify>) -> Router {
    let streams = move || {
        let release = Arc::clone(&release);
        let last = stream::once(async move {
            release.notified().await;
            Ok::<_, Infallible>("last")
        });
        ready(Body::from_stream(
            stream::once(ready(Ok("first "))).chain(last),
        ))
    };
    Router::new()
        .route("/", get(|| ready("hello")))
        .route("/stream", get(streams))
        .route("/big", get(|| ready("x".repeat(BIG))))
}

fn request(path: &str) -> Request<Empty<Bytes>> {
    Request::get(format!("http://localhost{path}"))
        .header("host", "localhost")
        .body(Empty::new())
        .unwrap()
}

/// Far more than anything here takes, and far less than what must not happen.
async fn soon<F: Future>(future: F) -> F::Output {
    let most = Duration::from_secs(60);
    timeout(most, future).await.expect("it takes too long")
}

/// Waits until the other side has closed.
async fn ended(mut stream: TcpStream) -> Vec<u8> {
    let mut read = Vec::new();
    // A reset is an end as well.
    let _ = soon(stream.read_to_end(&mut read)).await;
    read
}

/// The next piece of an answer.
async fn piece(answer: &mut Response<Incoming>) -> Bytes {
    let frame = soon(answer.frame()).await.expect("there is more");
    frame.unwrap().into_data().unwrap()
}

/// What is left of an answer.
async fn rest(answer: Response<Incoming>) -> String {
    let all = soon(answer.collect()).await.unwrap().to_bytes();
    String::from_utf8(all.to_vec()).unwrap()
}

#[tokio::test]
async fn who_has_asked_nothing_by_the_deadline_is_closed_and_gives_its_permit_back() {
    let greeted = [PREFACE, SETTINGS].concat();
    for first in [
        b"".as_slice(),
        &PREFACE[..PREFACE.len() / 2],
        &PREFACE[..1],
        PREFACE,
        &greeted,
        b"GET / HTTP/1.1\r\nhost: loc",
    ] {
        let served = Served::new(1, BRISK).await;
        let stranger = served.raw(first).await;
        served.has_room().await;
        ended(stranger).await;
    }
}

#[tokio::test]
async fn an_http_1_connection_that_has_asked_outlives_the_deadline() {
    let served = Served::new(2, BRISK).await;
    let (mut client, _connection) = served.http1().await;
    for _ in 0..2 {
        soon(client.ready()).await.unwrap();
        let answer = soon(client.send_request(request("/"))).await.unwrap();
        assert_eq!(rest(answer).await, "hello");
        served.deadline().await;
    }
    assert!(!client.is_closed());
}

#[tokio::test]
async fn an_idle_http_1_connection_is_closed_when_no_head_comes() {
    let brief = Patience {
        head: SHORT,
        ..PATIENT
    };
    let served = Served::new(1, brief).await;
    let (mut client, connection) = served.http1().await;
    let answer = soon(client.send_request(request("/"))).await.unwrap();
    assert_eq!(rest(answer).await, "hello");
    soon(connection).await.unwrap().unwrap();
    served.has_room().await;
}

#[tokio::test]
async fn a_streaming_answer_over_http_1_outlives_the_deadline() {
    let served = Served::new(2, BRISK).await;
    let (mut client, _connection) = served.http1().await;
    let mut answer = soon(client.send_request(request("/stream"))).await.unwrap();
    assert_eq!(piece(&mut answer).await, "first ");
    served.deadline().await;
    served.release.notify_one();
    assert_eq!(rest(answer).await, "last");
}

#[tokio::test]
async fn an_idle_http_2_connection_is_asked_to_end_and_one_with_a_stream_is_not() {
    let served = Served::new(3, BRISK).await;
    let (mut busy, _connection) = served.http2().await;
    let mut answer = soon(busy.send_request(request("/stream"))).await.unwrap();
    assert_eq!(piece(&mut answer).await, "first ");

    let (mut idle, connection) = served.http2().await;
    let short = soon(idle.send_request(request("/"))).await.unwrap();
    assert_eq!(rest(short).await, "hello");
    soon(connection)
        .await
        .unwrap()
        .expect("it was told, not cut");

    served.deadline().await;
    served.release.notify_one();
    assert_eq!(rest(answer).await, "last");
}

#[tokio::test]
async fn an_answer_that_is_taken_slowly_comes_whole_though_its_connection_is_to_end() {
    let served = Served::new(2, BRISK).await;
    let (mut client, _connection) = served.http2().await;
    let mut answer = soon(client.send_request(request("/big"))).await.unwrap();
    let first = piece(&mut answer).await;
    served.deadline().await;
    assert!(first.len() < BIG);
    assert_eq!(rest(answer).await.len(), BIG - first.len());
}

#[tokio::test]
async fn an_idle_peer_over_http_2_that_does_not_end_when_asked_to_is_cut() {
    let brief = Patience {
        rest: SHORT,
        ..BRISK
    };
    let served = Served::new(1, brief).await;
    let asked = [PREFACE, SETTINGS, GET_STREAM].concat();
    let stranger = served.raw(&asked).await;
    served.release.notify_one();
    served.has_room().await;
    ended(stranger).await;
}

#[tokio::test]
async fn a_peer_over_http_2_that_is_gone_is_found_though_its_stream_is_open() {
    let pinging = Patience {
        ping: Duration::from_millis(100),
        pong: Duration::from_secs(1),
        ..PATIENT
    };
    let served = Served::new(2, pinging).await;
    let (mut client, _connection) = served.http2().await;
    let mut answer = soon(client.send_request(request("/stream"))).await.unwrap();
    assert_eq!(piece(&mut answer).await, "first ");

    // Says nothing more, not even that it is there.
    let asked = [PREFACE, SETTINGS, GET_STREAM].concat();
    ended(served.raw(&asked).await).await;
    served.has_room().await;

    served.release.notify_waiters();
    assert_eq!(rest(answer).await, "last", "who is there stays");
}

#[tokio::test]
async fn an_http_2_client_is_told_how_many_streams_it_may_open() {
    let served = Served::new(1, PATIENT).await;
    let mut stream = served.raw(&[PREFACE, SETTINGS].concat()).await;
    let mut head = [0; 9];
    soon(stream.read_exact(&mut head)).await.unwrap();
    assert_eq!(head[3], 4, "settings come first");
    let mut settings = vec![0; usize::from(head[2])];
    soon(stream.read_exact(&mut settings)).await.unwrap();
    let most = settings.chunks(6).find(|setting| setting[..2] == [0, 3]);
    assert_eq!(most.map(|setting| &setting[2..]), Some(&[0, 0, 0, 100][..]));
}

#[tokio::test]
async fn once_told_to_stop_idle_connections_end_and_what_is_under_way_is_answered() {
    let served = Served::new(4, PATIENT).await;
    let silent = served.raw(b"").await;
    let (mut idle, idle_connection) = served.http2().await;
    let (mut one, one_connection) = served.http1().await;
    let (mut two, two_connection) = served.http2().await;
    let short = soon(idle.send_request(request("/"))).await.unwrap();
    assert_eq!(rest(short).await, "hello");
    let mut answers = [
        soon(one.send_request(request("/stream"))).await.unwrap(),
        soon(two.send_request(request("/stream"))).await.unwrap(),
    ];
    for answer in &mut answers {
        assert_eq!(piece(answer).await, "first ");
    }

    served.stop.cancel();
    ended(silent).await;
    soon(idle_connection).await.unwrap().unwrap();
    assert!(!served.done.is_finished());

    for answer in answers {
        served.release.notify_one();
        assert_eq!(rest(answer).await, "last");
    }
    soon(served.done).await.unwrap();
    soon(one_connection).await.unwrap().unwrap();
    soon(two_connection).await.unwrap().unwrap();
}

#[tokio::test]
async fn what_takes_longer_than_the_end_may_is_cut() {
    let served = Served::new(1, PATIENT).await;
    let (mut client, _connection) = served.http1().await;
    let mut answer = soon(client.send_request(request("/stream"))).await.unwrap();
    assert_eq!(piece(&mut answer).await, "first ");
    served.stop.cancel();
    served.cut.cancel();
    soon(served.done).await.unwrap();
    assert!(soon(answer.collect()).await.is_err());
}

#[tokio::test]
async fn the_system_asks_peers_that_are_silent_whether_they_are_there() {
    let listener = bind(1).await;
    let _client = TcpStream::connect(listener.address()).await.unwrap();
    let stop = CancellationToken::new();
    let (stream, ..) = soon(listener.next(&stop)).await.unwrap();
    assert!(sockopt::socket_keepalive(&stream).unwrap());
    assert_eq!(
        sockopt::tcp_keepidle(&stream).unwrap(),
        Patience::default().ping
    );
}
