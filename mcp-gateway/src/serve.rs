//! `serve`: registry, runtime, autoscaler and activator joined in one process, each made by one small function. Where
//! servers run, as processes or as pods, is [`ground`]'s affair.
//!
//! Order: everything that can refuse to start does so before anything runs; the address is announced last, when the
//! first request would be served; the end goes the other way round.

use std::sync::Arc;

use anyhow::Context;
use mcp_gateway_activator::{
    Activator, Deps,
    auth::Authenticate,
    directory::Directory,
    memory::Memory,
    session::{keyring::Keyring, sealed::Sealer},
};
use mcp_gateway_api::catalog::CatalogWatch;
use mcp_gateway_autoscaler::{Autoscaler, AutoscalerConfig, AutoscalerHandle, InProcessScaler};
use mcp_gateway_runtime::{EventReceiver, Runtime};
use tokio::{task::JoinHandle, time::Instant};

use crate::{
    banner::{Notice, Whereabouts, base_url},
    config::Settings,
    files, landing,
    listen::Listener,
    parts::{self, Pages, Tokens},
    report::urls,
    shutdown::Shutdown,
    telemetry::MetricsPage,
};

mod end;
pub(crate) mod ground;
pub(crate) mod pods;

use ground::{Documents, Ground};

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

/// Runs until asked to end.
///
/// # Errors
/// The gateway could not be started; once it serves, nothing ends it but a signal.
pub(crate) async fn run(settings: Settings, metrics: MetricsPage) -> anyhow::Result<()> {
    let began = Instant::now();
    let shutdown = Shutdown::on_signals().context("listening for signals")?;
    // Each client's connection may need another to a server, and servers need files too.
    let most = (parts::more_files() / 3).clamp(64, 20_000);
    files::private_dir(&settings.state_dir)?;
    let clients = Listener::bind(settings.edge.listen, "--listen", most).await?;
    let operators = Listener::bind(settings.edge.admin_listen, "--admin-listen", 256).await?;
    let tokens = Tokens::default();
    let gateway = assemble(settings, &tokens).await?;

    let whereabouts = gateway.whereabouts(&clients, &operators);
    let listeners = gateway.listen(clients, operators, metrics, began);
    let settings = &gateway.settings;
    whereabouts.announce(&Notice {
        format: settings.log.format,
        access: &settings.access,
        state_dir: Some(&settings.state_dir),
        ready_file: settings.ready_file.as_deref(),
    })?;

    shutdown.asked.cancelled().await;
    gateway.end(&shutdown, listeners).await
}

async fn assemble(settings: Settings, tokens: &Tokens) -> anyhow::Result<Gateway> {
    let auth = parts::authenticate(&settings.access, &tokens.stop)?;
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
    let config = parts::activator_config(&settings.edge, true);
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

impl Gateway {
    fn whereabouts(&self, clients: &Listener, operators: &Listener) -> Whereabouts {
        let base = parts::base(&self.settings.edge, clients);
        Whereabouts {
            listen: clients.address(),
            admin: operators.address(),
            pid: std::process::id(),
            backends: urls(&self.documents.catalog().borrow(), &base),
        }
    }

    fn listen(
        &self,
        clients: Listener,
        operators: Listener,
        metrics: MetricsPage,
        began: Instant,
    ) -> Vec<JoinHandle<()>> {
        let base = parts::base(&self.settings.edge, &clients);
        let scaler = self.scaler.clone();
        let landing = landing::Landing {
            catalog: self.documents.catalog(),
            auth: Arc::clone(&self.auth),
            base: Arc::clone(&base),
            admin: base_url(operators.address()).into(),
        };
        let pages = Pages {
            catalog: self.documents.catalog(),
            problems: self.documents.problems(),
            status: Arc::new(move || {
                let scaler = scaler.clone();
                Box::pin(async move { scaler.status().await })
            }),
            not_ready: Arc::new(|| None),
            metrics,
            began,
        };
        let edge = &self.settings.edge;
        vec![
            parts::serve_clients(clients, &self.activator, landing, &self.tokens),
            parts::serve_operators(operators, edge, pages, base, &self.tokens),
        ]
    }
}
