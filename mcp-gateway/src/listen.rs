//! A listener that serves a router over HTTP/1.1 and HTTP/2 until told to stop.
//!
//! Bounded against strangers: connections at once, the size of a request's head (431), and the time it may take. Nagle's
//! delay is off.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use axum::{Extension, Router};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto, graceful::GracefulShutdown},
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::sleep,
};
use tokio_util::sync::CancellationToken;

mod wakes;

use wakes::within;

/// How long a request's head may take to arrive, and a connection may be idle.
const HEAD_TIMEOUT: Duration = Duration::from_secs(60);
/// The largest head of a request, in bytes: room for the longest session id and for tokens that name a hundred groups.
const MAX_HEAD: usize = 64 << 10;
/// How long to wait after `accept` failed, as when file descriptors have run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A bound listener.
#[derive(Debug)]
pub(crate) struct Listener {
    socket: TcpListener,
    address: SocketAddr,
    connections: Arc<Semaphore>,
    names_peers: bool,
}

/// Who is at the other end of a connection: an extension of its requests, if the listener names its peers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer(pub(crate) IpAddr);

impl Listener {
    /// Binds, for so many connections at once; `flag` names the setting in the error.
    ///
    /// # Errors
    /// The address is taken or not ours.
    pub(crate) async fn bind(
        address: SocketAddr,
        flag: &str,
        connections: usize,
    ) -> anyhow::Result<Self> {
        let socket = TcpListener::bind(address).await.with_context(|| {
            format!("{flag} {address} cannot be listened on: choose another address, or port 0 for any free one")
        })?;
        let address = socket.local_addr().context("the bound address")?;
        Ok(Self {
            socket,
            address,
            connections: Arc::new(Semaphore::new(connections)),
            names_peers: false,
        })
    }

    /// Tells the routes who asks, by [`Peer`]. Costs each connection some microseconds.
    pub(crate) const fn naming_peers(mut self) -> Self {
        self.names_peers = true;
        self
    }

    /// The address that was bound.
    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stop`; then takes no new connection, ends idle ones, and waits for the others until `cut`.
    pub(crate) async fn serve(
        self,
        router: Router,
        stop: CancellationToken,
        cut: CancellationToken,
    ) {
        // Makes the routes ready once, not at each request.
        let router = router.with_state::<()>(());
        let service = TowerToHyperService::new(router.clone());
        let graceful = GracefulShutdown::new();
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .max_buf_size(MAX_HEAD);
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_header_list_size(MAX_HEAD as u32);
        while let Some((stream, peer, permit)) = self.next(&stop).await {
            let service = if self.names_peers {
                let peer = Extension(Peer(peer.ip().to_canonical()));
                TowerToHyperService::new(router.clone().layer(peer))
            } else {
                service.clone()
            };
            let connection = builder
                .serve_connection(TokioIo::new(stream), service)
                .into_owned();
            let watched = graceful.watch(connection);
            let cut = cut.clone();
            tokio::spawn(async move {
                let _permit = permit;
                // A broken connection is the client's affair, and every exchange has told its own story.
                let _ = cut.run_until_cancelled(within(watched)).await;
            });
        }
        drop(self.socket);
        tokio::select! {
            () = graceful.shutdown() => {}
            () = cut.cancelled() => {}
        }
    }

    async fn next(
        &self,
        stop: &CancellationToken,
    ) -> Option<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
        stop.run_until_cancelled(async {
            // The semaphore is never closed.
            let permit = Arc::clone(&self.connections).acquire_owned().await.ok()?;
            let mut told = false;
            loop {
                match self.socket.accept().await {
                    Ok((stream, peer)) => {
                        // Without it answers are merely slower.
                        let _ = stream.set_nodelay(true);
                        return Some((stream, peer, permit));
                    }
                    Err(error) => {
                        if !std::mem::replace(&mut told, true) {
                            tracing::warn!(%error, "connections cannot be accepted for now");
                        }
                        sleep(ACCEPT_PAUSE).await;
                    }
                }
            }
        })
        .await
        .flatten()
    }
}
