//! Connections to instances: one pool for each [`InstanceId`], never for an address, so that a port taken over by
//! somebody else is never met through an old connection. A pool is dropped when its instance is gone.
//!
//! Invariant: nothing is sent twice. A pooled connection that turns out closed before any byte of the request was
//! written is replaced once; every other failure is told.

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::http::{Request, Response, Uri};
use dashmap::DashMap;
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::{
        Client,
        connect::{Connected, Connection},
    },
    rt::{TokioExecutor, TokioIo, TokioTimer},
};
use mcp_gateway_api::{
    endpoint::LocalDial,
    ids::InstanceId,
    view::{InstanceView, Reach},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf},
    net::TcpStream,
};
use tokio_util::either::Either;

use super::request::SentBody;

/// Under the 5 s after which Node and uvicorn close a quiet connection, so that we close it first.
const POOL_IDLE: Duration = Duration::from_secs(4);
/// Quiet connections kept for one instance.
const POOL_SIZE: usize = 256;
/// A local server that does not even take a connection within this is lost.
const CONNECT: Duration = Duration::from_secs(5);

/// Why an instance gave no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SendError {
    /// No connection could be opened: no byte of the request reached anybody.
    #[error("it takes no connection: {0}")]
    Unreachable(String),
    /// The connection failed, or what came was no HTTP, after the request may have been read.
    #[error("its connection failed: {0}")]
    Broken(String),
}

/// The pools of all instances.
pub(crate) struct Upstreams {
    dial: Arc<dyn LocalDial>,
    pools: DashMap<InstanceId, Client<Connector, SentBody>>,
}

impl Upstreams {
    /// No pools yet.
    #[must_use]
    pub(crate) fn new(dial: Arc<dyn LocalDial>) -> Self {
        Self {
            dial,
            pools: DashMap::new(),
        }
    }

    /// Sends a request (path-only URI, `Host` already set) and waits for the head of the answer.
    ///
    /// Dropping the future, or the answer's body before its end, closes the connection.
    ///
    /// # Errors
    /// See [`SendError`].
    pub(crate) async fn send(
        &self,
        to: &InstanceView,
        mut request: Request<SentBody>,
    ) -> Result<Response<Incoming>, SendError> {
        let client = self.client(to);
        // The client wants an absolute URI as the key of its pool; it still sends `Host` as it is set.
        *request.uri_mut() = absolute(request.uri());
        client.request(request).await.map_err(|error| {
            let text = chain(&error);
            if error.is_connect() {
                SendError::Unreachable(text)
            } else {
                SendError::Broken(text)
            }
        })
    }

    /// Keeps only the pools of instances that `known` confirms.
    pub(crate) fn retain(&self, known: impl Fn(InstanceId) -> bool) {
        self.pools.retain(|instance, _client| known(*instance));
    }

    fn client(&self, to: &InstanceView) -> Client<Connector, SentBody> {
        if let Some(client) = self.pools.get(&to.id) {
            return client.clone();
        }
        let connector = Connector {
            instance: to.id,
            reach: to.endpoint.reach.clone(),
            dial: Arc::clone(&self.dial),
        };
        let make = || {
            Client::builder(TokioExecutor::new())
                .pool_timer(TokioTimer::new())
                .pool_idle_timeout(POOL_IDLE)
                .pool_max_idle_per_host(POOL_SIZE)
                .set_host(false)
                .build(connector)
        };
        self.pools.entry(to.id).or_insert_with(make).clone()
    }
}

fn absolute(uri: &Uri) -> Uri {
    let mut parts = uri.clone().into_parts();
    parts.scheme = Some(http::uri::Scheme::HTTP);
    parts.authority = Some(http::uri::Authority::from_static("instance"));
    if parts.path_and_query.is_none() {
        parts.path_and_query = Some(http::uri::PathAndQuery::from_static("/"));
    }
    // Scheme, authority and path are all there, which is all `from_parts` asks for.
    Uri::from_parts(parts).unwrap_or_default()
}

fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

/// Opens connections to one instance.
#[derive(Clone)]
struct Connector {
    instance: InstanceId,
    reach: Reach,
    dial: Arc<dyn LocalDial>,
}

impl Connector {
    async fn connect(self) -> io::Result<TokioIo<Stream>> {
        let either = match self.reach {
            Reach::Tcp(address) => {
                let stream = tokio::time::timeout(CONNECT, TcpStream::connect(address)).await??;
                // Nagle's algorithm would hold a small request back for 40 ms.
                stream.set_nodelay(true)?;
                Either::Left(stream)
            }
            Reach::InProcess => Either::Right(self.dial.dial(self.instance)?),
        };
        Ok(TokioIo::new(Stream { either }))
    }
}

impl tower::Service<Uri> for Connector {
    type Response = TokioIo<Stream>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<TokioIo<Stream>>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _pool_key: Uri) -> Self::Future {
        Box::pin(self.clone().connect())
    }
}

pin_project_lite::pin_project! {
    /// A connection: TCP, or a pipe to a bridge in this process.
    struct Stream {
        #[pin]
        either: Either<TcpStream, DuplexStream>,
    }
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.project().either.poll_read(cx, buf)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.project().either.poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.project().either.poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.project().either.poll_shutdown(cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.project().either.poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.either.is_write_vectored()
    }
}
