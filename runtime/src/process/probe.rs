//! Whether a server on a port serves yet.
//!
//! The schedule and the judgement are pure; the probe itself is one TCP connection with one GET. A probe that hangs
//! costs its own timeout and no more.

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    pin::pin,
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Request, StatusCode, header};
use http_body_util::Empty;
use hyper_util::rt::TokioIo;
use tokio::{
    net::TcpStream,
    time::{Instant, sleep_until, timeout},
};

/// The pace at first: what a person waits for.
const FAST: Duration = Duration::from_millis(2);
/// How long that pace is kept.
const FAST_FOR: Duration = Duration::from_secs(2);
/// The pace of those that boot slowly.
const SLOW: Duration = Duration::from_millis(50);
/// Connecting on loopback is immediate unless the backlog is full.
const CONNECT: Duration = Duration::from_secs(1);
/// A server that has just begun to listen may be slow to answer its first request.
const ANSWER: Duration = Duration::from_secs(5);

/// What is asked for.
#[derive(Debug, Clone)]
pub(crate) struct Probe {
    pub(crate) at: Vec<SocketAddr>,
    /// Where nobody but the prober would reach it: a server that listens only there does not serve.
    pub(crate) useless: Vec<SocketAddr>,
    /// The `Host` header.
    pub(crate) host: String,
    /// An explicit path that must give 2xx; else `/healthz`, where anything below 500 will do.
    pub(crate) health_path: Option<String>,
}

/// Why the server is not taken as serving; the public sentence goes to the status page.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotYet {
    #[error("it did not listen on its port (given as $PORT and ${{PORT}})")]
    Silent,
    #[error(
        "it listens only on loopback, where the gateway cannot reach it in its pod: make it listen on every address (it \
         is given HOST)"
    )]
    OnlyLoopback,
    #[error("it accepted a connection on its port but did not answer within {ANSWER:?}")]
    Hangs,
    #[error("it accepted a connection on its port, but gave no HTTP answer")]
    NoHttp,
    #[error("its `healthCheck.path` or `host` cannot be part of a request: correct it")]
    BadPath,
    #[error("it answered {status} to GET {path}")]
    Unhealthy { status: StatusCode, path: String },
}

/// What a probe tells while it goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Seen {
    /// A connection was accepted; the answer is awaited.
    Listening,
    /// A try has failed.
    NotYet(NotYet),
}

/// Servers told `localhost` may listen on either loopback address.
pub(crate) fn loopback(port: u16) -> [SocketAddr; 2] {
    [
        SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
        SocketAddr::from((Ipv6Addr::LOCALHOST, port)),
    ]
}

/// The time until the next try, at `age` after the start.
fn pace(age: Duration) -> Duration {
    if age < FAST_FOR { FAST } else { SLOW }
}

async fn connect(address: SocketAddr) -> Option<TcpStream> {
    timeout(CONNECT, TcpStream::connect(address))
        .await
        .ok()?
        .ok()
}

impl Probe {
    fn path(&self) -> &str {
        self.health_path.as_deref().unwrap_or("/healthz")
    }

    fn judge(&self, status: StatusCode) -> Result<(), NotYet> {
        let fine = match self.health_path {
            Some(_) => status.is_success(),
            None => status.as_u16() < 500,
        };
        if fine {
            Ok(())
        } else {
            Err(NotYet::Unhealthy {
                status,
                path: self.path().to_owned(),
            })
        }
    }

    /// Tries until the server serves; tells what it sees. Never gives up: that is somebody else's decision.
    pub(crate) async fn until_serving(&self, mut seen: impl FnMut(Seen)) -> SocketAddr {
        let began = Instant::now();
        let mut next = began;
        loop {
            sleep_until(next).await;
            match self.once(&mut seen).await {
                Ok(address) => return address,
                Err(why) => seen(Seen::NotYet(why)),
            }
            let now = Instant::now();
            next = (next + pace(now - began)).max(now);
        }
    }

    /// One try.
    pub(crate) async fn once(&self, seen: &mut impl FnMut(Seen)) -> Result<SocketAddr, NotYet> {
        let mut why = NotYet::Silent;
        for address in self.at.iter().copied() {
            let Some(stream) = connect(address).await else {
                continue;
            };
            seen(Seen::Listening);
            match timeout(ANSWER, self.get(stream)).await {
                Ok(Ok(status)) => match self.judge(status) {
                    Ok(()) => return Ok(address),
                    Err(unhealthy) => why = unhealthy,
                },
                Ok(Err(other)) => why = other,
                Err(_) => why = NotYet::Hangs,
            }
        }
        if why == NotYet::Silent {
            for address in self.useless.iter().copied() {
                if connect(address).await.is_some() {
                    return Err(NotYet::OnlyLoopback);
                }
            }
        }
        Err(why)
    }

    /// The status of one GET.
    async fn get(&self, stream: TcpStream) -> Result<StatusCode, NotYet> {
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .or(Err(NotYet::NoHttp))?;
        let mut request = Request::new(Empty::<Bytes>::new());
        *request.uri_mut() = self.path().parse().or(Err(NotYet::BadPath))?;
        let headers = request.headers_mut();
        headers.insert(
            header::HOST,
            HeaderValue::from_str(&self.host).or(Err(NotYet::BadPath))?,
        );
        headers.insert(
            header::USER_AGENT,
            HeaderValue::from_static("mcp-gateway-probe"),
        );
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        let mut answer = pin!(sender.send_request(request));
        // The connection is driven only while the head is awaited: a body, however long, is nobody's business. It may
        // end together with the answer's arrival, so its end alone says nothing.
        let answer = tokio::select! {
            biased;
            answer = &mut answer => answer,
            _ = connection => answer.await,
        };
        answer.map(|answer| answer.status()).or(Err(NotYet::NoHttp))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn probe(health_path: Option<&str>) -> Probe {
        Probe {
            at: loopback(1).into(),
            useless: Vec::new(),
            host: "localhost:1".into(),
            health_path: health_path.map(Into::into),
        }
    }

    #[test]
    fn without_a_path_any_answer_below_500_proves_the_server() {
        for (status, fine) in [
            (200, true),
            (404, true),
            (405, true),
            (499, true),
            (500, false),
            (503, false),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(probe(None).judge(status).is_ok(), fine, "{status}");
        }
    }

    #[test]
    fn an_explicit_path_must_give_2xx() {
        for (status, fine) in [
            (200, true),
            (204, true),
            (302, false),
            (404, false),
            (500, false),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(probe(Some("/up")).judge(status).is_ok(), fine, "{status}");
        }
    }

    #[test]
    fn the_pace_is_fast_for_two_seconds() {
        assert_eq!(pace(Duration::ZERO), FAST);
        assert_eq!(pace(Duration::from_millis(1999)), FAST);
        assert_eq!(pace(FAST_FOR), SLOW);
    }
}
