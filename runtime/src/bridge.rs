//! Serves stdio children as one HTTP MCP server.
//!
//! Clients speak HTTP, in any revision of MCP: streamable (`/mcp`, legacy with sessions or modern without) or 2024-11-05
//! (`/sse` and `/messages`). Children speak JSON-RPC on lines. One child serves one legacy session, or all modern
//! exchanges of one *owner* (the header [`OWNER_HEADER`], set by the activator; absent: one common owner). Eras never
//! mix on a child; which of them the server speaks is found out, not configured.
//!
//! From the outside in: `http` (paths, what each request is), `headers` (what they must say), `answer` and `body` (JSON
//! or events), `secret` (who may knock in a pod), `shared` (who uses which child), `worker` (one child and its streams),
//! `pipes` (its stdin and stdout),
//! `router` (pure: which message goes where, under which id), `message` (pure: reading and splicing JSON-RPC), `eras`
//! (pure: what a server's answers tell about it).
//!
//! Invariants: a message of a child reaches at most one client stream; whatever a client or a child can grow has a
//! bound; nothing a child wrote to stderr reaches a client. Never restarts a child that died: that is the autoscaler's
//! (an event tells), and a client's next request asks for what it needs.

use std::{
    fmt,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use hyper_util::rt::{TokioIo, TokioTimer};
use mcp_gateway_api::{failure::ExitReport, ids::BackendName};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{OwnedSemaphorePermit, mpsc},
};

use crate::child::SpawnChild;

mod answer;
mod backlog;
mod body;
mod eras;
mod headers;
mod http_server;
mod message;
mod outlet;
mod pipes;
mod refusal;
mod router;
mod secret;
mod shared;
mod worker;

pub use secret::{Gate, Refused};
use shared::Shared;

/// Request header that names whose modern exchange it is. Trusted: only the activator reaches a bridge, in this process
/// or past its [`Gate`].
pub const OWNER_HEADER: &str = "x-mcp-gateway-owner";

/// What a bridge needs to know.
#[derive(Clone)]
pub struct BridgeConfig {
    /// Which server it is, for the log.
    pub backend: BackendName,
    /// Where children come from.
    pub spawner: Arc<dyn SpawnChild>,
    /// Longest request body, in bytes.
    pub max_body: usize,
    /// Longest line of a child, in bytes; a longer one ends the child.
    pub max_line: usize,
    /// After this much silence a stream gets a comment line.
    pub keep_alive: Duration,
    /// After this long a server request that no client stream takes is answered −32603.
    pub undeliverable_after: Duration,
    /// From a legacy child's first request to its first message; a child that says nothing for longer is ended.
    pub start_timeout: Duration,
    /// From a child's polite signal to its kill.
    pub child_grace: Duration,
    /// Most children at once.
    pub max_children: usize,
    /// Who may use it; `None` where only the gateway can reach it.
    pub gate: Option<Arc<Gate>>,
}

impl BridgeConfig {
    /// The defaults: bodies of 4 MiB, lines of 16 MiB, a comment every 15 s, 30 s for a server request, 5 min for the
    /// first message, 5 s of grace, 256 children.
    #[must_use]
    pub fn new(backend: BackendName, spawner: Arc<dyn SpawnChild>) -> Self {
        Self {
            backend,
            spawner,
            max_body: 4 << 20,
            max_line: 16 << 20,
            keep_alive: Duration::from_secs(15),
            undeliverable_after: Duration::from_secs(30),
            start_timeout: Duration::from_secs(300),
            child_grace: Duration::from_secs(5),
            max_children: 256,
            gate: None,
        }
    }
}

impl fmt::Debug for BridgeConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BridgeConfig")
            .field("backend", &self.backend)
            .finish_non_exhaustive()
    }
}

/// What happens to a bridge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BridgeEvent {
    /// A child ended unasked and none is left, or none could be started: the instance is over.
    Failed(ExitReport),
    /// A child ended unasked; others go on.
    ChildLost {
        /// How it ended.
        exit: ExitReport,
        /// Legacy sessions that still have their child.
        sessions_left: usize,
    },
}

/// Who is on a connection.
#[derive(Debug, Default)]
pub struct Caller {
    /// Where it came from, if over a network.
    pub address: Option<IpAddr>,
    /// Its place among those there may be at once, given back at the connection's end.
    pub seat: Option<OwnedSemaphorePermit>,
}

/// A running bridge. Dropping it ends its children, without waiting for that.
pub struct Bridge {
    shared: Arc<Shared>,
    first_pid: Option<u32>,
}

impl fmt::Debug for Bridge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bridge")
            .field("backend", &self.shared.config.backend)
            .finish_non_exhaustive()
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        self.shared.stop.cancel();
    }
}

impl Bridge {
    /// Starts a bridge and its first child, which whoever comes first will use: a command that cannot be run fails
    /// here.
    ///
    /// # Errors
    /// Why the child could not be started.
    pub async fn start(
        config: BridgeConfig,
    ) -> Result<(Self, mpsc::Receiver<BridgeEvent>), ExitReport> {
        let (events, heard) = mpsc::channel(64);
        let shared = Shared::new(config, events);
        shared.reserve_first();
        let first = shared.spawn_child().await?;
        let first_pid = first.pid;
        shared.keep_spare(first);
        Ok((Self { shared, first_pid }, heard))
    }

    /// Serves HTTP/1.1 on one connection, in a task of its own, until the peer closes it or the bridge stops.
    pub fn serve(&self, io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) {
        self.serve_for(io, Caller::default());
    }

    /// As [`Bridge::serve`], for somebody who came over a network.
    pub fn serve_for(
        &self,
        io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
        caller: Caller,
    ) {
        let shared = Arc::clone(&self.shared);
        tokio::spawn(async move {
            let Caller { address, seat } = caller;
            let gate = shared.config.gate.clone();
            let known = AtomicBool::new(gate.is_none());
            let service = hyper::service::service_fn(|request| {
                let shared = Arc::clone(&shared);
                let admitted = gate
                    .as_ref()
                    .is_none_or(|gate| gate.admits(request.headers(), address));
                known.fetch_or(admitted, Ordering::Relaxed);
                async move {
                    let answer = if admitted {
                        http_server::handle(shared, request).await
                    } else {
                        secret::refusal()
                    };
                    Ok::<_, std::convert::Infallible>(answer)
                }
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                // An activator keeps connections for later; that is no slow client.
                .header_read_timeout(None)
                .serve_connection(TokioIo::new(io), service);
            tokio::pin!(connection);
            let mut stopping = false;
            let patience = tokio::time::sleep(secret::STRANGER);
            tokio::pin!(patience);
            let mut patient = gate.is_some();
            let ended = loop {
                tokio::select! {
                    ended = &mut connection => break ended,
                    () = &mut patience, if patient => {
                        patient = false;
                        if !known.load(Ordering::Relaxed) {
                            break Ok(());
                        }
                    }
                    () = shared.stop.cancelled(), if !stopping => {
                        stopping = true;
                        connection.as_mut().graceful_shutdown();
                    }
                }
            };
            if let Err(error) = ended {
                // A client that goes away in the middle of a request is an error to hyper, not to us.
                tracing::trace!(%error, "a connection ended");
            }
            drop(seat);
        });
    }

    /// Ends all children and waits until nothing of them is left.
    pub async fn stop(&self, grace: Duration) -> ExitReport {
        *self.shared.grace.lock() = grace;
        self.shared.stop.cancel();
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
        let over = self.shared.over();
        over.map_or_else(
            || ExitReport {
                summary: "it was stopped".to_owned(),
                ..ExitReport::default()
            },
            |report| ExitReport::clone(&report),
        )
    }

    /// The process id of the first child.
    #[must_use]
    pub const fn first_pid(&self) -> Option<u32> {
        self.first_pid
    }
}
