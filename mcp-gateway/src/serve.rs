//! `serve`: registry, runtime, autoscaler and activator joined in one process, each made by one small function. Where
//! servers run, as processes or as pods, is [`ground`]'s affair.
//!
//! Order: everything that can refuse to start does so before anything runs; the address is announced last, when the
//! first request would be served; the end goes the other way round.

use std::sync::Arc;

use anyhow::Context;
use axum::{Router, routing::get};
use mcp_gateway_activator::{
    Activator, ActivatorConfig, Deps,
    auth::{Anonymous, Authenticate},
    directory::Directory,
    memory::Memory,
    session::{keyring::Keyring, sealed::Sealer},
};
use mcp_gateway_api::catalog::CatalogWatch;
use mcp_gateway_autoscaler::{Autoscaler, AutoscalerConfig, AutoscalerHandle, InProcessScaler};
use mcp_gateway_runtime::{EventReceiver, Runtime};
use tokio::{task::JoinHandle, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{
    admin::{self, Admin, Gate},
    banner::{Whereabouts, base_url},
    config::{Access, Settings},
    files, keys, landing,
    listen::Listener,
    report::urls,
    shutdown::Shutdown,
    telemetry::MetricsPage,
};

mod end;
mod ground;
mod pods;

use ground::{Documents, Ground};

/// The async runtime: one worker for each core.
///
/// # Errors
/// The operating system has no more threads to give.
pub(crate) fn async_runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("starting the async runtime")
}

/// Everything that runs.
struct Gateway {
    settings: Settings,
    documents: Documents,
    runtime: Arc<dyn Runtime>,
    scaler: InProcessScaler,
    autoscaler: AutoscalerHandle,
    activator: Activator,
    auth: Arc<dyn Authenticate>,
    tokens: Tokens,
}

/// What ends the tasks around it.
#[derive(Debug, Clone, Default)]
struct Tokens {
    /// The gateway shuts down: not ready any more.
    closing: CancellationToken,
    /// No new connections.
    stop: CancellationToken,
    /// No connections at all.
    cut: CancellationToken,
}

/// Runs until asked to end.
///
/// # Errors
/// The gateway could not be started; once it serves, nothing ends it but a signal.
pub(crate) async fn run(settings: Settings, metrics: MetricsPage) -> anyhow::Result<()> {
    let began = Instant::now();
    let shutdown = Shutdown::on_signals().context("listening for signals")?;
    // Each client's connection may need another to a server, and servers need files too.
    let most = (more_files() / 3).clamp(64, 20_000);
    files::private_dir(&settings.state_dir)?;
    let clients = Listener::bind(settings.edge.listen, "--listen", most).await?;
    let operators = Listener::bind(settings.edge.admin_listen, "--admin-listen", 256).await?;
    let tokens = Tokens::default();
    let gateway = assemble(settings, &tokens).await?;

    if !operators.address().ip().is_loopback() && gateway.settings.edge.admin_open {
        tracing::warn!(
            "whoever can reach the admin listener sees the status, last words of servers included"
        );
    }
    let whereabouts = gateway.whereabouts(&clients, &operators);
    let listeners = gateway.listen(clients, operators, metrics, began);
    whereabouts.announce(&gateway.settings)?;

    shutdown.asked.cancelled().await;
    gateway.end(&shutdown, listeners).await
}

async fn assemble(settings: Settings, tokens: &Tokens) -> anyhow::Result<Gateway> {
    let auth = authenticate(&settings.access, &tokens.stop)?;
    let ground = match &settings.pods {
        None => ground::processes(&settings).await?,
        Some(pods) => pods::ground(&settings, pods).await?,
    };
    let Ground {
        runtime,
        events,
        dial,
        documents,
        sealing,
    } = ground;
    let (scaler, autoscaler) =
        start_autoscaler(&settings, Arc::clone(&runtime), events, documents.catalog())?;
    if let Documents::Cluster(registry) = &documents {
        let registry = Arc::clone(registry);
        tokio::spawn(pods::report(registry, scaler.clone(), tokens.stop.clone()));
    }
    let keyring = Keyring::load_or_create(&sealing)
        .with_context(|| format!("the sealing keys in {}", sealing.display()))?;
    let config = activator_config(&settings);
    let deps = Deps {
        scaler: Arc::new(scaler.clone()),
        catalog: documents.catalog(),
        dial,
        auth: Arc::clone(&auth),
        sealer: Sealer::new(keyring),
        memory: Memory::open(Some(&settings.state_dir.join("servers.json"))),
        directory: Directory::new(config.id),
    };
    let activator = Activator::new(config, deps);
    Ok(Gateway {
        settings,
        documents,
        runtime,
        scaler,
        autoscaler,
        activator,
        auth,
        tokens: tokens.clone(),
    })
}

fn authenticate(
    access: &Access,
    stop: &CancellationToken,
) -> anyhow::Result<Arc<dyn Authenticate>> {
    match access {
        Access::Anonymous => Ok(Arc::new(Anonymous::default())),
        Access::Keys(path) => {
            let followed = keys::Followed::open(path.clone())?;
            let keys = followed.keys();
            if keys.count() == 0 {
                tracing::warn!(
                    "there are no API keys yet: nobody is let in until 'mcp-gateway keys add'"
                );
            }
            tokio::spawn(followed.follow(stop.clone()));
            Ok(keys)
        }
    }
}

fn start_autoscaler(
    settings: &Settings,
    runtime: Arc<dyn Runtime>,
    events: EventReceiver,
    catalog: CatalogWatch,
) -> anyhow::Result<(InProcessScaler, AutoscalerHandle)> {
    let config = AutoscalerConfig {
        max_instances: settings.max_instances,
        record_dir: Some(settings.state_dir.join("records")),
        ..AutoscalerConfig::default()
    };
    Ok(Autoscaler::start(config, runtime, events, catalog)?)
}

fn activator_config(settings: &Settings) -> ActivatorConfig {
    let edge = &settings.edge;
    ActivatorConfig {
        hosts: edge.hosts.clone(),
        origins: edge.origins.clone(),
        public_url: edge.public_url.as_deref().map(Arc::from),
        max_body: edge.max_body,
        ..ActivatorConfig::default()
    }
}

impl Gateway {
    fn whereabouts(&self, clients: &Listener, operators: &Listener) -> Whereabouts {
        let base = self.base(clients);
        Whereabouts {
            listen: clients.address(),
            admin: operators.address(),
            pid: std::process::id(),
            backends: urls(&self.documents.catalog().borrow(), &base),
        }
    }

    /// How clients reach the gateway.
    fn base(&self, clients: &Listener) -> String {
        let public = self.settings.edge.public_url.clone();
        public.unwrap_or_else(|| base_url(clients.address()))
    }

    fn listen(
        &self,
        clients: Listener,
        operators: Listener,
        metrics: MetricsPage,
        began: Instant,
    ) -> Vec<JoinHandle<()>> {
        let base: Arc<str> = self.base(&clients).into();
        let scaler = self.scaler.clone();
        let landing = landing::Landing {
            catalog: self.documents.catalog(),
            auth: Arc::clone(&self.auth),
            base: Arc::clone(&base),
            admin: base_url(operators.address()).into(),
        };
        let front = Router::new()
            .route("/", get(landing::page))
            .with_state(landing);
        let admin = admin::router(Admin {
            status: Arc::new(move || {
                let scaler = scaler.clone();
                Box::pin(async move { scaler.status().await })
            }),
            catalog: self.documents.catalog(),
            problems: self.documents.problems(),
            metrics,
            base,
            began,
            gate: Gate {
                exposed: !operators.address().ip().is_loopback(),
                open: self.settings.edge.admin_open,
                hosts: self.settings.edge.hosts.clone(),
                origins: self.settings.edge.origins.clone(),
            },
            closing: self.tokens.closing.clone(),
        });
        let data = self.activator.router(front);
        let Tokens { stop, cut, .. } = &self.tokens;
        vec![
            tokio::spawn(clients.serve(data, stop.clone(), cut.clone())),
            tokio::spawn(
                operators
                    .naming_peers()
                    .serve(admin, stop.clone(), cut.clone()),
            ),
        ]
    }
}

/// Lets the process have as many open files as it may, within reason, and says how many: each stream is one or two.
fn more_files() -> usize {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let most = limit.maximum.unwrap_or(65_536).min(65_536);
    let mut current = limit.current.unwrap_or(most);
    if current < most {
        let raised = Rlimit {
            current: Some(most),
            maximum: limit.maximum,
        };
        match setrlimit(Resource::Nofile, raised) {
            Ok(()) => current = most,
            Err(error) => tracing::debug!(%error, "the limit of open files stays as it is"),
        }
    }
    usize::try_from(current).unwrap_or(usize::MAX)
}
