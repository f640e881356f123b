//! Instances as child processes on this machine.
//!
//! Invariants: the state directory is locked before anything recorded in it is touched, and for as long as the runtime
//! lives; every child leads a process group that is dead before `Exited` is said; each instance's events come from one
//! task, so they are in order and `Exited` is the last. Nothing here decides when to start, stop or try again.

use std::{
    collections::HashMap,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use async_trait::async_trait;
use mcp_gateway_api::{
    backend::Transport, endpoint::LocalDial, failure::ExitReport, ids::InstanceId,
};
use parking_lot::Mutex;
use tokio::{
    io::DuplexStream,
    sync::{mpsc, watch},
    time::Instant,
};

use self::{
    child::{Process, Records, Surroundings},
    http::{HttpServer, Place},
    lock::StateLock,
    output::{Log, LogFile, Sink, Tail},
    plan::{Listen, not_started},
    port::Ports,
    stdio::{BridgedServer, ProcessSpawner},
};
use crate::{
    EventReceiver, Farewell, LaunchOrder, Launched, Runtime, RuntimeEvent,
    bridge::{Bridge, BridgeConfig},
    child::ChildControl,
};

pub mod alone;
mod brood;
mod child;
mod config;
mod ending;
mod group;
mod http;
mod listener;
mod lock;
mod memory;
mod output;
mod plan;
mod port;
pub(crate) mod probe;
mod reap;
mod records;
mod stdio;
mod table;

pub use self::{
    brood::Brood,
    config::ProcessConfig,
    lock::LockError,
    plan::Environment,
    reap::{Orphan, ReapReport},
};

/// Events that may wait for their reader before instances wait with them.
const EVENTS: usize = 1024;

/// Bytes in flight on an in-process connection, each way.
const PIPE: usize = 64 * 1024;

/// Why the runtime could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The state directory is in use, or cannot be locked.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// A folder could not be created or read.
    #[error("the state directory {} cannot be used: {source}", dir.display())]
    Folder {
        /// Which.
        dir: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The process table could not be read, so orphans cannot be told from strangers.
    #[error("the process table cannot be read: {0}")]
    Table(io::Error),
}

/// The process runtime. Dropping it ends what still runs, without waiting for that.
#[derive(Debug)]
pub struct ProcessRuntime {
    shared: Arc<Shared>,
    _lock: StateLock,
}

impl Drop for ProcessRuntime {
    fn drop(&mut self) {
        let live = self.shared.live.lock();
        live.values()
            .for_each(|live| live.body.end_by(Instant::now()));
    }
}

/// An instance that lives.
#[derive(Debug, Clone)]
struct Live {
    tail: Arc<Tail>,
    log: Arc<LogFile>,
    body: Body,
}

/// What an instance is made of.
#[derive(Debug, Clone)]
enum Body {
    Http(Arc<Process>),
    Stdio(Arc<Bridge>, watch::Sender<Option<Instant>>),
}

impl Body {
    fn end_by(&self, deadline: Instant) {
        match self {
            Self::Http(process) => process.end_by(deadline),
            Self::Stdio(_, end) => {
                end.send_if_modified(|end| end.is_none() && end.replace(deadline).is_none());
            }
        }
    }
}

struct Shared {
    config: ProcessConfig,
    boot: Arc<str>,
    brood: Brood,
    ports: Ports,
    events: mpsc::Sender<RuntimeEvent>,
    live: Mutex<HashMap<InstanceId, Live>>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared")
            .field("config", &self.config)
            .field("live", &self.live.lock().len())
            .finish_non_exhaustive()
    }
}

impl ProcessRuntime {
    /// Locks the state directory, then ends what a killed gateway left running.
    ///
    /// # Errors
    /// The directory is in use by another gateway or cannot be used.
    pub async fn open(
        config: ProcessConfig,
    ) -> Result<(Arc<Self>, EventReceiver, ReapReport), OpenError> {
        let dir = config.state_dir.clone();
        let children = dir.join("children");
        for folder in [&dir, &children, &dir.join("logs")] {
            records::private_dir(folder).map_err(|source| OpenError::Folder {
                dir: folder.clone(),
                source,
            })?;
        }
        let lock = StateLock::take(&dir)?;
        let boot: Arc<str> = table::boot().map_err(OpenError::Table)?.into();
        let report = reap::reap(&children, &boot, config.orphan_grace)
            .await
            .map_err(OpenError::Table)?;
        let (events, receiver) = mpsc::channel(EVENTS);
        let shared = Arc::new(Shared {
            config,
            boot,
            brood: Brood::default(),
            ports: Ports::default(),
            events,
            live: Mutex::default(),
        });
        let runtime = Self {
            shared,
            _lock: lock,
        };
        Ok((Arc::new(runtime), receiver, report))
    }
}

impl Shared {
    fn logs(&self, order: &LaunchOrder) -> PathBuf {
        let backend = order.backend.name.as_str();
        self.config.state_dir.join("logs").join(backend)
    }

    fn open_log(&self, id: InstanceId, order: &LaunchOrder) -> Result<Arc<LogFile>, ExitReport> {
        let folder = self.logs(order);
        let made = records::private_dir(&folder)
            .and_then(|()| LogFile::create(folder.join(format!("{id}.log"))));
        made.map(Arc::new).map_err(|error| {
            not_started(format!(
                "its log in {} could not be created: {error}",
                folder.display()
            ))
        })
    }

    fn surroundings(
        &self,
        id: InstanceId,
        order: &LaunchOrder,
        live_tail: &Arc<Tail>,
        log: &Arc<LogFile>,
    ) -> Surroundings {
        Surroundings {
            backend: order.backend.name.to_string(),
            instance: id.to_string(),
            records: Some(Records {
                folder: self.config.state_dir.join("children"),
                boot: Arc::clone(&self.boot),
            }),
            brood: self.brood.clone(),
            sink: Sink {
                tails: vec![Arc::clone(live_tail)],
                log: Log::File(Arc::clone(log)),
            },
        }
    }

    /// Blocks; runs to its end even if whoever asked has gone, so that nothing is spawned that nobody watches.
    fn start_http(self: Arc<Self>, order: &LaunchOrder) -> Result<Launched, ExitReport> {
        let id = InstanceId::random();
        let spec = &order.backend.launch;
        let mut port = self
            .ports
            .reserve()
            .map_err(|error| not_started(error.to_string()))?;
        let plan = plan::plan(
            spec,
            Some(Listen::on_loopback(port.port())),
            &(&self.config.environment).into(),
        )?;
        let log = self.open_log(id, order)?;
        let tail = Arc::new(Tail::default());
        let surroundings = self.surroundings(id, order, &tail, &log);
        port.release_to_child();
        let (process, _no_pipes) =
            child::spawn(plan, false, surroundings).inspect_err(|_| log.discard())?;
        let launched = Launched {
            instance: id,
            pid: process.pid(),
            log: Some(log.path().display().to_string()),
        };
        let body = Body::Http(Arc::clone(&process));
        self.live.lock().insert(id, Live { tail, log, body });
        let server = HttpServer::new(id, process, Place::Machine(port), spec, self.events.clone());
        let folder = self.logs(order);
        tokio::spawn(async move {
            let report = server.live().await;
            self.gone(id, report, folder).await;
        });
        Ok(launched)
    }

    async fn start_stdio(self: Arc<Self>, order: LaunchOrder) -> Result<Launched, ExitReport> {
        let id = InstanceId::random();
        let log = self.open_log(id, &order)?;
        let tail = Arc::new(Tail::default());
        let spawner = ProcessSpawner {
            launch: Arc::new(order.backend.launch.clone()),
            base: (&self.config.environment).into(),
            surroundings: self.surroundings(id, &order, &tail, &log),
        };
        let config = BridgeConfig {
            max_body: self.config.max_body,
            start_timeout: order.backend.policy.start_timeout,
            ..BridgeConfig::new(order.backend.name.clone(), Arc::new(spawner))
        };
        let (bridge, heard) = Bridge::start(config).await.inspect_err(|_| log.discard())?;
        let bridge = Arc::new(bridge);
        let launched = Launched {
            instance: id,
            pid: bridge.first_pid(),
            log: Some(log.path().display().to_string()),
        };
        let (tell, end) = watch::channel(None);
        let body = Body::Stdio(Arc::clone(&bridge), tell);
        self.live.lock().insert(id, Live { tail, log, body });
        let server = BridgedServer {
            id,
            bridge,
            heard,
            end,
            events: self.events.clone(),
        };
        let folder = self.logs(&order);
        tokio::spawn(async move {
            let report = server.live().await;
            self.gone(id, report, folder).await;
        });
        Ok(launched)
    }

    /// The last act of an instance.
    async fn gone(self: Arc<Self>, id: InstanceId, report: ExitReport, folder: PathBuf) {
        self.live.lock().remove(&id);
        // Nobody listens any more only when the gateway is going down.
        let _ = self.events.send(RuntimeEvent::Exited(id, report)).await;
        let prune = move || {
            let alive = |path: &Path| {
                let live = self.live.lock();
                live.values().any(|live| live.log.path() == path)
            };
            if let Err(error) = output::prune(&folder, alive) {
                tracing::debug!(folder = %folder.display(), %error, "old logs could not be removed");
            }
        };
        // An abandoned pruning is made up for by the next one.
        drop(tokio::task::spawn_blocking(prune));
    }
}

/// Runs what blocks where it may.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ExitReport> + Send + 'static,
) -> Result<T, ExitReport> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(_) => Err(not_started("the gateway is shutting down")),
    }
}

#[async_trait]
impl Runtime for ProcessRuntime {
    async fn launch(&self, order: LaunchOrder) -> Result<Launched, ExitReport> {
        let shared = Arc::clone(&self.shared);
        match order.backend.launch.transport {
            Transport::StreamableHttp | Transport::Sse => {
                blocking(move || shared.start_http(&order)).await
            }
            // A task of its own: it runs to its end even if whoever asked has gone.
            Transport::Stdio => match tokio::spawn(shared.start_stdio(order)).await {
                Ok(result) => result,
                Err(_) => Err(not_started("the gateway is shutting down")),
            },
        }
    }

    async fn terminate(&self, instance: InstanceId, farewell: Farewell) {
        let live = self.shared.live.lock().get(&instance).cloned();
        if let Some(live) = live {
            live.body.end_by(Instant::now() + farewell.grace);
        }
    }

    /// Nobody else can order anything: the lock of the state folder is this process's alone.
    async fn adopt(&self, _instance: InstanceId) -> bool {
        true
    }

    async fn stderr_tail(&self, instance: InstanceId) -> Vec<String> {
        let live = self.shared.live.lock().get(&instance).cloned();
        live.map(|live| live.tail.lines()).unwrap_or_default()
    }
}

impl LocalDial for ProcessRuntime {
    fn dial(&self, instance: InstanceId) -> io::Result<DuplexStream> {
        let live = self.shared.live.lock().get(&instance).cloned();
        match live.map(|live| live.body) {
            Some(Body::Stdio(bridge, _)) => {
                let (ours, theirs) = tokio::io::duplex(PIPE);
                bridge.serve(theirs);
                Ok(ours)
            }
            Some(Body::Http(_)) | None => Err(io::ErrorKind::NotFound.into()),
        }
    }
}
