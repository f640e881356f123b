//! One server without a [`ProcessRuntime`](super::ProcessRuntime) around it: what an agent runs in a pod.
//!
//! The same children, the same bridge and the same events as on a laptop; what differs is the place. A pod has an address
//! of its own and one server: the port is the document's, the server must be reachable from other pods, its output goes
//! to the container's own stderr, nothing is recorded (who could reap it later?), and a bridge listens itself and lets
//! in only who bears its secret. Reading orders and telling home is the agent's.

use std::{
    ffi::OsString,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use mcp_gateway_api::{
    backend::{LaunchSpec, Transport},
    failure::ExitReport,
    ids::{BackendName, InstanceId},
    view::InstanceSecret,
};
use tokio::{
    net::TcpListener,
    sync::{Semaphore, mpsc, watch},
    task::AbortHandle,
    time::Instant,
};

use super::{
    Body,
    brood::Brood,
    child::{self, Surroundings},
    http::{HttpServer, Place, pod_addresses},
    output::{Log, Sink, Tail},
    plan::{self, Base, Listen, not_started},
    probe::Probe,
    stdio::{BridgedServer, ProcessSpawner},
};
use crate::{
    EventReceiver, RuntimeEvent,
    bridge::{Bridge, BridgeConfig, Caller, Gate},
};

/// Events that may wait for their reader before the server waits with them.
const EVENTS: usize = 64;
/// Connections a bridge in a pod keeps at once.
const CONNECTIONS: usize = 4_096;
/// At most one warning about strangers in this time.
const STRANGERS_EVERY: Duration = Duration::from_secs(10);
/// After a failed accept (no file descriptor left), until the next.
const ACCEPT_AGAIN: Duration = Duration::from_millis(50);

/// What to run, and where.
pub struct AloneConfig {
    /// Which server it is, for the log.
    pub backend: BackendName,
    /// How it starts.
    pub launch: LaunchSpec,
    /// The address others reach this pod at.
    pub ip: IpAddr,
    /// Where the HTTP server listens, or where the bridge is to.
    pub port: u16,
    /// What children get before the variables of `launch`.
    pub environment: Vec<(OsString, OsString)>,
    /// Longest request body a bridge takes, in bytes.
    pub max_body: usize,
    /// From a child's first request to its first message (bridges).
    pub start_timeout: Duration,
    /// What requests to a bridge must bear; a bridge is not started without.
    pub secret: Option<InstanceSecret>,
    /// Among whom children are counted.
    pub brood: Brood,
}

impl std::fmt::Debug for AloneConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AloneConfig")
            .field("backend", &self.backend)
            .finish_non_exhaustive()
    }
}

/// A running server. Its events are those of an instance: `Running`, at most one `Ready`, warnings, then `Exited`, once.
#[derive(Debug)]
pub struct Alone {
    body: Body,
    accepting: Option<AbortHandle>,
}

impl Drop for Alone {
    fn drop(&mut self) {
        self.body.end_by(Instant::now());
        if let Some(accepting) = &self.accepting {
            accepting.abort();
        }
    }
}

impl Alone {
    /// Starts it.
    ///
    /// # Errors
    /// A sentence on why nothing runs.
    pub async fn start(config: AloneConfig) -> Result<(Self, EventReceiver), ExitReport> {
        match config.launch.transport {
            Transport::StreamableHttp | Transport::Sse => start_http(config).await,
            Transport::Stdio => start_stdio(config).await,
        }
    }

    /// Asks it to end, to be killed at `deadline`. The earliest deadline ever given counts for HTTP servers, the first
    /// for bridges.
    pub fn end_by(&self, deadline: Instant) {
        self.body.end_by(deadline);
    }
}

/// The address on which others reach what listens on it.
const fn everywhere(ip: IpAddr) -> (IpAddr, &'static str) {
    match ip {
        IpAddr::V4(_) => (IpAddr::V4(Ipv4Addr::UNSPECIFIED), "0.0.0.0"),
        IpAddr::V6(_) => (IpAddr::V6(Ipv6Addr::UNSPECIFIED), "::"),
    }
}

fn surroundings(config: &AloneConfig, id: InstanceId) -> Surroundings {
    Surroundings {
        backend: config.backend.to_string(),
        instance: id.to_string(),
        records: None,
        brood: config.brood.clone(),
        sink: Sink {
            tails: vec![Arc::new(Tail::default())],
            log: Log::Stderr,
        },
    }
}

async fn start_http(config: AloneConfig) -> Result<(Alone, EventReceiver), ExitReport> {
    let id = InstanceId::random();
    let listen = Listen {
        host: everywhere(config.ip).1,
        port: config.port,
    };
    let surroundings = surroundings(&config, id);
    let spec = config.launch.clone();
    let base = Base::Whole(config.environment.into());
    let work = move || {
        let plan = plan::plan(&spec, Some(listen), &base)?;
        child::spawn(plan, false, surroundings)
    };
    let (process, _no_pipes) = super::blocking(work).await?;
    let (events, heard) = mpsc::channel(EVENTS);
    let place = Place::Pod {
        ip: config.ip,
        port: config.port,
    };
    let body = Body::Http(Arc::clone(&process));
    let server = HttpServer::new(id, process, place, &config.launch, events.clone());
    tokio::spawn(async move {
        let report = server.live().await;
        // Nobody listens any more: the agent itself is ending.
        let _ = events.send(RuntimeEvent::Exited(id, report)).await;
    });
    let accepting = None;
    Ok((Alone { body, accepting }, heard))
}

async fn start_stdio(config: AloneConfig) -> Result<(Alone, EventReceiver), ExitReport> {
    let id = InstanceId::random();
    let secret = config.secret.clone().ok_or_else(|| {
        not_started("its bridge was given no secret, and without one any pod could use it: this is the gateway's fault")
    })?;
    let at = SocketAddr::new(everywhere(config.ip).0, config.port);
    let listener = TcpListener::bind(at).await.map_err(|error| {
        not_started(format!(
            "its bridge cannot listen on {at}: {error}; choose another `port`"
        ))
    })?;
    let spawner = ProcessSpawner {
        surroundings: surroundings(&config, id),
        launch: Arc::new(config.launch),
        base: Base::Whole(config.environment.into()),
    };
    let gate = Arc::new(Gate::new(secret));
    let bridge_config = BridgeConfig {
        max_body: config.max_body,
        start_timeout: config.start_timeout,
        gate: Some(Arc::clone(&gate)),
        ..BridgeConfig::new(config.backend, Arc::new(spawner))
    };
    let (bridge, heard_of_bridge) = Bridge::start(bridge_config).await?;
    let bridge = Arc::new(bridge);
    let (events, heard) = mpsc::channel(EVENTS);
    let (tell, end) = watch::channel(None);
    let server = BridgedServer {
        id,
        bridge: Arc::clone(&bridge),
        heard: heard_of_bridge,
        end,
        events: events.clone(),
    };
    let accepting = tokio::spawn(accept(listener, Arc::clone(&bridge))).abort_handle();
    let complaining = tokio::spawn(complain(id, gate, events.clone()));
    let body = Body::Stdio(bridge, tell);
    let stop = accepting.clone();
    tokio::spawn(async move {
        let report = server.live().await;
        stop.abort();
        complaining.abort();
        let _ = events.send(RuntimeEvent::Exited(id, report)).await;
    });
    let accepting = Some(accepting);
    Ok((Alone { body, accepting }, heard))
}

/// Takes connections for a bridge.
async fn accept(listener: TcpListener, bridge: Arc<Bridge>) {
    let seats = Arc::new(Semaphore::new(CONNECTIONS));
    // The semaphore is never closed.
    while let Ok(seat) = Arc::clone(&seats).acquire_owned().await {
        match listener.accept().await {
            Ok((stream, peer)) => {
                // Without it answers wait for the peer's delayed acknowledgement.
                let _ = stream.set_nodelay(true);
                let caller = Caller {
                    address: Some(peer.ip()),
                    seat: Some(seat),
                };
                bridge.serve_for(stream, caller);
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_AGAIN).await;
            }
        }
    }
}

/// Makes refused strangers known, at a bounded pace.
async fn complain(id: InstanceId, gate: Arc<Gate>, events: mpsc::Sender<RuntimeEvent>) {
    let mut refused = gate.refused();
    while refused.changed().await.is_ok() {
        let seen = *refused.borrow_and_update();
        let from = seen.last.map(|ip| format!(", the last from {ip}"));
        let text = format!(
            "{} requests without this instance's secret were refused{}: something else in the cluster calls its bridge",
            seen.count,
            from.unwrap_or_default()
        );
        tracing::warn!("{text}");
        if events.send(RuntimeEvent::Warning(id, text)).await.is_err() {
            return;
        }
        tokio::time::sleep(STRANGERS_EVERY).await;
    }
}

/// A server beside us, which we neither start nor end.
#[derive(Debug, Clone)]
pub struct Neighbour {
    /// The address others reach this pod at.
    pub ip: IpAddr,
    /// Where it is to listen.
    pub port: u16,
    /// The `Host` header of probes.
    pub host: String,
    /// An explicit path that must give 2xx; else `GET /healthz`, where anything below 500 will do.
    pub health_path: Option<String>,
}

impl Neighbour {
    /// Waits until it serves; for ever if it never does, since that is for others to decide.
    pub async fn serving(&self) {
        let (at, useless) = pod_addresses(self.ip, self.port);
        let probe = Probe {
            at,
            useless,
            host: self.host.clone(),
            health_path: self.health_path.clone(),
        };
        let mut last = None;
        probe
            .until_serving(|seen| {
                if last.as_ref() != Some(&seen) {
                    tracing::debug!(?seen, "the server beside does not serve yet");
                    last = Some(seen);
                }
            })
            .await;
    }
}
