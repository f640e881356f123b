//! The built-in demo server: a small real MCP server, so that the quickstart and
//! the load tests need nothing but this binary.
//!
//! It speaks every revision its SDK speaks, on stdio or on streamable HTTP, and
//! is started by the gateway exactly as anybody else's server would be.
//!
//! The moment from which it can be spoken to is its one line on standard error, so
//! that whoever measures a cold start need not guess it from outside.
//!
//! It never listens off loopback unless `$HOST` says so, keeps nothing on disk,
//! and knows nothing of the gateway: nothing here may use another module of this
//! crate.

mod tools;

use std::io::Write as _;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::SystemTime;

use anyhow::Context as _;
use axum::Router;
use axum::routing::get;
use rmcp::ServiceExt as _;
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tools::DemoServer;

/// Port of the HTTP form where `$PORT` is not set.
const DEFAULT_PORT: u16 = 8000;

/// How the demo server is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Transport {
    /// One session over stdin and stdout.
    Stdio,
    /// Streamable HTTP at `http://$HOST:$PORT/mcp` (`127.0.0.1`, port 8000 where
    /// they are not set), with `/healthz` beside it.
    Http,
}

/// Serves until stdin ends (stdio) or until the process is asked to stop (HTTP).
///
/// # Errors
/// `$HOST` or `$PORT` is no address, the address cannot be bound, or the peer on
/// stdio broke the protocol before a session existed.
pub(crate) async fn run(transport: Transport) -> anyhow::Result<()> {
    match transport {
        Transport::Stdio => serve_stdio().await,
        Transport::Http => serve_http(address_from_environment()?).await,
    }
}

async fn serve_stdio() -> anyhow::Result<()> {
    let server = DemoServer::new(Arc::new(AtomicU64::new(0)));
    say_since("reads standard input");
    let running = server
        .serve(rmcp::transport::io::stdio_pipes())
        .await
        .context("the demo server got no MCP session on stdin")?;
    running
        .waiting()
        .await
        .context("the demo server's session broke off")?;
    Ok(())
}

async fn serve_http((host, port): (IpAddr, u16)) -> anyhow::Result<()> {
    let listener = TcpListener::bind((host, port))
        .await
        .with_context(|| format!("the demo server cannot listen on {host}:{port}"))?;
    // The kernel accepts from here on, whatever this process is busy with.
    say_since(&format!("accepts at {}", listener.local_addr()?));

    let stop = CancellationToken::new();
    let served = axum::serve(NoDelay(listener), router(host, stop.clone()))
        .with_graceful_shutdown(stopped(stop.clone()));
    served.await.context("the demo server stopped serving")
}

/// Says what it does from now on, with the time on the host's clock: Unix seconds,
/// to the nanosecond.
fn say_since(what: &str) {
    let now = SystemTime::now();
    let since = now
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let (seconds, nanos) = (since.as_secs(), since.subsec_nanos());
    // A server whose standard error is closed serves all the same.
    let _ = writeln!(
        std::io::stderr(),
        "demo server: {what} since {seconds}.{nanos:09}"
    );
}

/// `/mcp` and `/healthz`. What modern exchanges count is shared by all of them:
/// they have no session to keep it in.
///
/// Only on loopback does it ask by which name it was called: that keeps web pages
/// from reaching it by a name of their own. Off loopback, as in a pod, it has names
/// and addresses that it cannot know.
fn router(host: IpAddr, stop: CancellationToken) -> Router {
    let process_count = Arc::new(AtomicU64::new(0));
    let mut config = StreamableHttpServerConfig::default().with_cancellation_token(stop);
    if !host.is_loopback() {
        config = config.disable_allowed_hosts();
    }
    let service: StreamableHttpService<DemoServer, LocalSessionManager> =
        StreamableHttpService::new(
            move || Ok(DemoServer::new(Arc::clone(&process_count))),
            Arc::default(),
            config,
        );
    Router::new()
        .route("/healthz", get(|| async { "ok" }))
        .nest_service("/mcp", service)
}

/// Completes at SIGINT or SIGTERM, having ended every open stream.
async fn stopped(stop: CancellationToken) {
    let interrupted = tokio::signal::ctrl_c();
    let terminated = async {
        match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
            Ok(mut signal) => {
                signal.recv().await;
            }
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = interrupted => {}
        () = terminated => {}
    }
    stop.cancel();
}

fn address_from_environment() -> anyhow::Result<(IpAddr, u16)> {
    address(
        std::env::var("HOST").ok().as_deref(),
        std::env::var("PORT").ok().as_deref(),
    )
}

/// Where to listen, given `$HOST` and `$PORT`.
fn address(host: Option<&str>, port: Option<&str>) -> anyhow::Result<(IpAddr, u16)> {
    let host = match host.filter(|value| !value.is_empty()) {
        None | Some("localhost") => IpAddr::from([127, 0, 0, 1]),
        Some(text) => text
            .parse()
            .with_context(|| format!("HOST={text} is not an IP address"))?,
    };
    let port = match port.filter(|value| !value.is_empty()) {
        None => DEFAULT_PORT,
        Some(text) => text
            .parse()
            .with_context(|| format!("PORT={text} is not a port"))?,
    };
    Ok((host, port))
}

/// Accepts with Nagle's algorithm off: a streamed answer is several small
/// writes, each of which would otherwise wait for the peer's delayed ACK.
struct NoDelay(TcpListener);

impl axum::serve::Listener for NoDelay {
    type Io = TcpStream;
    type Addr = std::net::SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        let (stream, peer) = axum::serve::Listener::accept(&mut self.0).await;
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "could not switch off Nagle's algorithm");
        }
        (stream, peer)
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        self.0.local_addr()
    }
}

#[cfg(test)]
mod tests;
