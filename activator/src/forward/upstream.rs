//! Connections to instances: one pool for each [`InstanceId`], never for an address, so that a port taken over by
//! somebody else is never met through an old connection. A pool is dropped when its instance is gone.
//!
//! Invariant: nothing is sent twice (see [`super::link`]); every failure is told.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::http::{Request, Response};
use dashmap::DashMap;
use hyper_util::rt::TokioIo;
use mcp_gateway_api::{
    endpoint::LocalDial,
    ids::InstanceId,
    view::{InstanceView, Reach},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf},
    net::TcpStream,
    time::Instant,
};
use tokio_util::either::Either;

use super::{
    link::{Departed, Inbound, Pool},
    request::SentBody,
};

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
    pools: DashMap<InstanceId, Arc<Pool>>,
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
        request: Request<SentBody>,
    ) -> Result<Response<Inbound>, SendError> {
        self.send_watched(to, request, &Departed::default()).await
    }

    /// The same, and `departed` says at any time whether a byte may have reached the instance.
    ///
    /// # Errors
    /// See [`SendError`].
    pub(crate) async fn send_watched(
        &self,
        to: &InstanceView,
        request: Request<SentBody>,
        departed: &Departed,
    ) -> Result<Response<Inbound>, SendError> {
        self.pool(to).send(request, departed).await
    }

    /// Keeps only the pools of instances that `known` confirms, and in them what is not quiet for too long.
    pub(crate) fn retain(&self, known: impl Fn(InstanceId) -> bool) {
        let now = Instant::now();
        self.pools.retain(|instance, pool| {
            pool.prune(now);
            known(*instance)
        });
    }

    fn pool(&self, to: &InstanceView) -> Arc<Pool> {
        if let Some(pool) = self.pools.get(&to.id) {
            return Arc::clone(&pool);
        }
        let connector = Connector {
            instance: to.id,
            reach: to.endpoint.reach.clone(),
            dial: Arc::clone(&self.dial),
        };
        let entry = self.pools.entry(to.id);
        Arc::clone(&entry.or_insert_with(|| Pool::new(connector)))
    }
}

/// Opens connections to one instance.
#[derive(Clone)]
pub(super) struct Connector {
    instance: InstanceId,
    reach: Reach,
    dial: Arc<dyn LocalDial>,
}

impl Connector {
    pub(super) async fn connect(self) -> io::Result<TokioIo<Stream>> {
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

pin_project_lite::pin_project! {
    /// A connection: TCP, or a pipe to a bridge in this process.
    pub(super) struct Stream {
        #[pin]
        either: Either<TcpStream, DuplexStream>,
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
