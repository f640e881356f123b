//! One of the places that requests are spread over, and one exchange with it.
//!
//! Invariant: the connection lives exactly as long as the exchange, also when the client leaves in the middle.

use std::{
    fmt,
    pin::Pin,
    str::FromStr,
    task::{Context, Poll},
    time::Duration,
};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use http::{Request, Response, Uri};
use hyper::{
    body::{Body, Frame, Incoming, SizeHint},
    client::conn::http1::handshake,
};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, task::AbortHandle, time::timeout};

/// Where requests go, written `http://HOST:PORT`; the name is looked up for each exchange.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream {
    authority: String,
}

impl FromStr for Upstream {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let uri: Uri = text.parse().with_context(|| format!("{text} is no URL"))?;
        let plain = uri.scheme_str() == Some("http") && matches!(uri.path(), "" | "/");
        let authority = uri.authority().filter(|_| plain && uri.query().is_none());
        let authority = authority.with_context(|| format!("{text}: want http://HOST:PORT"))?;
        if authority.as_str().contains('@') {
            bail!("{text}: credentials in a URL are not sent");
        }
        let port = authority.port_u16().unwrap_or(80);
        Ok(Self {
            authority: format!("{}:{port}", authority.host()),
        })
    }
}

impl fmt::Display for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.authority)
    }
}

/// The connection of one exchange; dropping it closes it.
#[derive(Debug)]
struct Connection(AbortHandle);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Upstream {
    /// Sends a request on a connection of its own; the answer's head, its body to come.
    ///
    /// # Errors
    /// It does not accept within `patience`, or ends the connection without an answer.
    pub(super) async fn exchange(
        &self,
        request: Request<Incoming>,
        patience: Duration,
    ) -> anyhow::Result<Response<Held>> {
        let connect = timeout(patience, TcpStream::connect(&self.authority));
        let stream = connect.await.context("does not accept in time")??;
        stream.set_nodelay(true)?;
        let (mut sender, connection) = handshake(TokioIo::new(stream)).await?;
        // What breaks it is told by the exchange on it.
        let connection = Connection(tokio::spawn(connection).abort_handle());
        let answer = sender.send_request(request).await;
        let answer = answer.context("the connection ended without an answer")?;
        Ok(answer.map(|body| Held {
            body,
            _connection: connection,
        }))
    }
}

/// An answer's body, and the connection that it comes on.
#[derive(Debug)]
pub(super) struct Held {
    body: Incoming,
    _connection: Connection,
}

impl Body for Held {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upstream_is_a_host_and_a_port() {
        for (text, shown) in [
            ("http://127.0.0.1:8080", "127.0.0.1:8080"),
            ("http://gateway/", "gateway:80"),
            ("http://[::1]:8080", "[::1]:8080"),
        ] {
            let upstream: Upstream = text.parse().unwrap();
            assert_eq!(upstream.to_string(), shown);
        }
        for text in [
            "https://a",
            "a:80",
            "http://a/mcp",
            "http://a?b",
            "http://u@a",
        ] {
            assert!(text.parse::<Upstream>().is_err(), "{text}");
        }
    }
}
