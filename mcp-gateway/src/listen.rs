//! A listener that serves a router over HTTP/1.1 and HTTP/2 until told to stop.
//!
//! Bounded against strangers: connections at once, and the time a request's head may take. Nagle's delay is off.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context;
use axum::Router;
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

/// How long a request's head may take to arrive, and a connection may be idle.
const HEAD_TIMEOUT: Duration = Duration::from_secs(60);
/// How long to wait after `accept` failed, as when file descriptors have run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A bound listener.
#[derive(Debug)]
pub(crate) struct Listener {
    socket: TcpListener,
    address: SocketAddr,
    connections: Arc<Semaphore>,
}

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
        })
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
        let service = TowerToHyperService::new(router.with_state::<()>(()));
        let graceful = GracefulShutdown::new();
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT);
        builder.http2().timer(TokioTimer::new());
        while let Some((stream, permit)) = self.next(&stop).await {
            let connection = builder
                .serve_connection(TokioIo::new(stream), service.clone())
                .into_owned();
            let watched = graceful.watch(connection);
            let cut = cut.clone();
            tokio::spawn(async move {
                let _permit = permit;
                // A broken connection is the client's affair, and every exchange has told its own story.
                let _ = cut.run_until_cancelled(watched).await;
            });
        }
        drop(self.socket);
        tokio::select! {
            () = graceful.shutdown() => {}
            () = cut.cancelled() => {}
        }
    }

    async fn next(&self, stop: &CancellationToken) -> Option<(TcpStream, OwnedSemaphorePermit)> {
        stop.run_until_cancelled(async {
            // The semaphore is never closed.
            let permit = Arc::clone(&self.connections).acquire_owned().await.ok()?;
            let mut told = false;
            loop {
                match self.socket.accept().await {
                    Ok((stream, _)) => {
                        // Without it answers are merely slower.
                        let _ = stream.set_nodelay(true);
                        return Some((stream, permit));
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
