//! A listener that serves a router over HTTP/1.1 and HTTP/2 until told to stop.
//!
//! Bounded against strangers, who need not say who they are to connect: connections at once, the size of a request's head
//! (431), the time until it is there, HTTP/2 streams at once, and the time a connection may stay on which nothing is asked.
//! Peers that are gone are found. So a permit comes back from whoever does not use it. Nagle's delay is off.
//!
//! Never cuts a connection on which a request is being answered, unless its peer is gone or it is told to.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use axum::{Extension, Router};
use hyper_util::service::TowerToHyperService;
use rustix::net::sockopt;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::sleep,
};
use tokio_util::sync::CancellationToken;

mod connection;
mod traffic;
mod vigil;
mod wakes;

use connection::Connection;
use wakes::within;

/// How long a request's head may take to arrive, and a connection may be idle.
const HEAD_TIMEOUT: Duration = Duration::from_secs(60);
/// How long to wait after `accept` failed, as when file descriptors have run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Between two of the system's questions whether a peer is there, and how many of them without an answer end it.
const PROBE_INTERVAL: Duration = Duration::from_secs(10);
const PROBES: u32 = 6;

/// How long whoever is connected is waited for.
#[derive(Debug, Clone, Copy)]
struct Patience {
    /// For the head of a request over HTTP/1, from the answer before it: also how long such a connection may be idle.
    head: Duration,
    /// For the first request, whatever the version, and how long a connection may be idle over HTTP/2.
    quiet: Duration,
    /// For the end of a connection that was asked to end as it has asked nothing.
    linger: Duration,
    /// For the end of one that was asked to end as it is idle: what is left of its answers may be taken slowly, and a peer
    /// that takes nothing must not stay.
    rest: Duration,
    /// Until a peer over HTTP/2 that sends nothing is asked whether it is there.
    ping: Duration,
    /// For its answer.
    pong: Duration,
}

impl Default for Patience {
    /// Idle is the same under both versions: a stranger gains nothing by choosing one.
    fn default() -> Self {
        Self {
            head: HEAD_TIMEOUT,
            quiet: HEAD_TIMEOUT,
            linger: Duration::from_secs(5),
            rest: Duration::from_secs(300),
            ping: Duration::from_secs(60),
            pong: Duration::from_secs(20),
        }
    }
}

/// A bound listener.
#[derive(Debug)]
pub(crate) struct Listener {
    socket: TcpListener,
    address: SocketAddr,
    connections: Arc<Semaphore>,
    names_peers: bool,
    patience: Patience,
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
        let patience = Patience::default();
        // Without it peers that are gone are merely found later.
        let _ = find_the_gone(&socket, patience.ping);
        Ok(Self {
            socket,
            address,
            connections: Arc::new(Semaphore::new(connections)),
            names_peers: false,
            patience,
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
        let (end, ending) = watch::channel(());
        while let Some((stream, peer, permit)) = self.next(&stop).await {
            let service = if self.names_peers {
                let peer = Extension(Peer(peer.ip().to_canonical()));
                TowerToHyperService::new(router.clone().layer(peer))
            } else {
                service.clone()
            };
            let connection = Connection::new(stream, service, self.patience);
            let (ending, cut) = (ending.clone(), cut.clone());
            tokio::spawn(async move {
                let _permit = permit;
                let _ = cut
                    .run_until_cancelled(within(connection.drive(ending)))
                    .await;
            });
        }
        drop(self.socket);
        drop(ending);
        // Nobody may be connected.
        let _ = end.send(());
        tokio::select! {
            () = end.closed() => {}
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

/// Lets the system ask peers that send nothing for so long whether they are there, and end their connections if they are not:
/// over HTTP/1 nothing else finds a peer that vanished while its answer is being made. Connections inherit it.
fn find_the_gone(socket: &TcpListener, quiet: Duration) -> rustix::io::Result<()> {
    sockopt::set_tcp_keepidle(socket, quiet)?;
    sockopt::set_tcp_keepintvl(socket, PROBE_INTERVAL)?;
    sockopt::set_tcp_keepcnt(socket, PROBES)?;
    sockopt::set_socket_keepalive(socket, true)
}

#[cfg(test)]
mod tests;
