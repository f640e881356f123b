//! A plain HTTP client: what it sends is what stands here.

use std::{net::SocketAddr, pin::Pin};

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::{client::legacy, rt::TokioExecutor};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
};

#[derive(Clone)]
pub struct Client {
    address: SocketAddr,
    inner: legacy::Client<legacy::connect::HttpConnector, Full<Bytes>>,
}

pub struct Answer {
    pub status: u16,
    pub headers: http::HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|v| v.to_str().unwrap())
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.text()))
    }
}

/// An answer that is still coming.
pub struct Coming {
    pub status: u16,
    pub headers: http::HeaderMap,
    body: Pin<Box<Incoming>>,
    seen: String,
}

impl Coming {
    /// Reads on until the text appears; all that was read so far.
    pub async fn until(&mut self, text: &str) -> &str {
        let read = async {
            while !self.seen.contains(text) {
                let frame = self.body.frame().await.unwrap_or_else(|| {
                    panic!("the stream ended without {text:?}: {:?}", self.seen)
                });
                let data = frame.expect("an unbroken stream").into_data().unwrap();
                self.seen.push_str(std::str::from_utf8(&data).unwrap());
            }
        };
        tokio::time::timeout(super::PATIENCE, read)
            .await
            .expect("in time");
        &self.seen
    }

    /// Reads to the end: the text, and whether it ended in order.
    pub async fn rest(mut self) -> (String, bool) {
        // Of the whole: a stream that is kept alive would never be late.
        let deadline = tokio::time::Instant::now() + super::PATIENCE;
        loop {
            match tokio::time::timeout_at(deadline, self.body.frame())
                .await
                .expect("in time")
            {
                None => return (self.seen, true),
                Some(Err(_)) => return (self.seen, false),
                Some(Ok(frame)) => {
                    self.seen
                        .push_str(std::str::from_utf8(&frame.into_data().unwrap()).unwrap());
                }
            }
        }
    }
}

impl Client {
    pub fn new(address: SocketAddr) -> Self {
        Self {
            address,
            inner: legacy::Client::builder(TokioExecutor::new()).build_http(),
        }
    }

    pub fn request(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Request<Full<Bytes>> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("http://{}{path}", self.address))
            .body(Full::new(Bytes::copy_from_slice(body.as_bytes())))
            .unwrap();
        for (name, value) in headers {
            request.headers_mut().append(
                http::HeaderName::try_from(*name).unwrap(),
                value.parse().unwrap(),
            );
        }
        request
    }

    pub async fn send(&self, request: Request<Full<Bytes>>) -> Answer {
        let response: Response<Incoming> =
            tokio::time::timeout(super::PATIENCE, self.inner.request(request))
                .await
                .expect("an answer in time")
                .expect("an answer");
        let (head, body) = response.into_parts();
        let body = tokio::time::timeout(super::PATIENCE, body.collect())
            .await
            .expect("a whole answer in time");
        Answer {
            status: head.status.as_u16(),
            headers: head.headers,
            body: body.expect("a whole answer").to_bytes(),
        }
    }

    /// The head of an answer whose body is still to come.
    pub async fn begin(&self, request: Request<Full<Bytes>>) -> Coming {
        let response = tokio::time::timeout(super::PATIENCE, self.inner.request(request))
            .await
            .expect("an answer in time")
            .expect("an answer");
        let (head, body) = response.into_parts();
        Coming {
            status: head.status.as_u16(),
            headers: head.headers,
            body: Box::pin(body),
            seen: String::new(),
        }
    }

    pub fn posting(&self, body: &str, headers: &[(&str, &str)]) -> Request<Full<Bytes>> {
        let mut request = self.request(Method::POST, "/adapters/demo/mcp", headers, body);
        let defaults = [
            ("content-type", "application/json"),
            ("accept", "application/json, text/event-stream"),
        ];
        for (name, value) in defaults {
            if !request.headers().contains_key(name) {
                request.headers_mut().insert(name, value.parse().unwrap());
            }
        }
        request
    }

    pub async fn post(&self, body: &str, headers: &[(&str, &str)]) -> Answer {
        self.send(self.posting(body, headers)).await
    }

    pub async fn delete(&self, session: &str) -> Answer {
        let headers = [("mcp-session-id", session)];
        self.send(self.request(Method::DELETE, "/adapters/demo/mcp", &headers, ""))
            .await
    }

    /// A POST on a connection of its own that the test can close.
    pub async fn post_raw(&self, body: &str, headers: &[(&str, &str)]) -> TcpStream {
        let mut stream = self.upload(body.len(), headers).await;
        stream.write_all(body.as_bytes()).await.unwrap();
        stream
    }

    /// The same before its body, which is to be so long.
    pub async fn upload(&self, length: usize, headers: &[(&str, &str)]) -> TcpStream {
        let stream = TcpStream::connect(self.address).await.unwrap();
        self.upload_on(stream, length, headers).await
    }

    /// A POST on a connection that holds next to nothing of what the client does not read.
    pub async fn post_unread(&self, body: &str, headers: &[(&str, &str)]) -> TcpStream {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(64 << 10).unwrap();
        let stream = socket.connect(self.address).await.unwrap();
        let mut stream = self.upload_on(stream, body.len(), headers).await;
        stream.write_all(body.as_bytes()).await.unwrap();
        stream
    }

    async fn upload_on(
        &self,
        mut stream: TcpStream,
        length: usize,
        headers: &[(&str, &str)],
    ) -> TcpStream {
        let mut text = format!(
            "POST /adapters/demo/mcp HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\naccept: application/json, text/event-stream\r\ncontent-length: {length}\r\n"
        );
        for (name, value) in headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        text.push_str("\r\n");
        stream.write_all(text.as_bytes()).await.unwrap();
        stream
    }
}

/// Reads from a raw connection until the text appears.
pub async fn read_until(stream: &mut TcpStream, text: &str) -> String {
    let mut seen = String::new();
    let mut buffer = [0; 4096];
    while !seen.contains(text) {
        let read = tokio::time::timeout(super::PATIENCE, stream.read(&mut buffer))
            .await
            .expect("in time")
            .unwrap();
        assert!(read > 0, "closed before {text:?}: {seen:?}");
        seen.push_str(std::str::from_utf8(&buffer[..read]).unwrap());
    }
    seen
}
