//! The role `activator`: the data plane, with a leader somewhere else.
//!
//! Order as in [`mod@crate::serve`]: what can refuse to start does so before anything listens, and the end goes the other way
//! round. What differs is that nobody need notice the end: other replicas take what is new, and what is held here waits on.
//! Never starts or stops anything.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use anyhow::Context;
use mcp_gateway_activator::{
    Activator, Deps,
    auth::Authenticate,
    directory::Directory,
    memory::Memory,
    session::{keyring::Keyring, sealed::Sealer},
};
use mcp_gateway_api::{
    scaler::{ActivatorPod, PodUid, Scaler},
    status::Status,
};
use mcp_gateway_link::{RemoteConfig, RemoteScaler};
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep},
};

use super::replicas;
use crate::{
    banner::{Notice, Whereabouts, base_url},
    config::roles::ActivatorSettings,
    landing,
    listen::Listener,
    parts::{self, Pages, Tokens},
    report::urls,
    secrets::{self, ActivatorSecrets},
    serve::{
        ground::{Documents, NoBridges},
        pods::documents,
    },
    shutdown::Shutdown,
    telemetry::MetricsPage,
};

/// Everything that runs.
struct Running {
    settings: ActivatorSettings,
    documents: Documents,
    scaler: Arc<RemoteScaler>,
    activator: Activator,
    auth: Arc<dyn Authenticate>,
    tokens: Tokens,
}

/// Runs until asked to end.
///
/// # Errors
/// It could not be started; once it serves, nothing ends it but a signal.
pub(crate) async fn run(settings: ActivatorSettings, metrics: MetricsPage) -> anyhow::Result<()> {
    let began = Instant::now();
    let shutdown = Shutdown::on_signals().context("listening for signals")?;
    // Each client's connection may need another to a server.
    let most = (parts::more_files() / 3).clamp(64, 20_000);
    let clients = Listener::bind(settings.edge.listen, "--listen", most).await?;
    let operators = Listener::bind(settings.edge.admin_listen, "--admin-listen", 256).await?;
    let running = assemble(settings).await?;
    let whereabouts = Whereabouts {
        listen: clients.address(),
        admin: operators.address(),
        pid: std::process::id(),
        backends: urls(
            &running.documents.catalog().borrow(),
            &parts::base(&running.settings.edge, &clients),
        ),
    };
    let listeners = running.listen(clients, operators, metrics, began);
    let settings = &running.settings;
    whereabouts.announce(&Notice {
        format: settings.log.format,
        access: &settings.access,
        state_dir: None,
        ready_file: settings.ready_file.as_deref(),
    })?;
    shutdown.asked.cancelled().await;
    running.end(&shutdown, listeners).await;
    Ok(())
}

async fn assemble(settings: ActivatorSettings) -> anyhow::Result<Running> {
    let tokens = Tokens::default();
    let auth = parts::authenticate(&settings.access, &tokens.stop)?;
    let ActivatorSecrets {
        credentials,
        sealing,
    } = secrets::load_activator(&settings.secrets)?;
    let keyring = Keyring::load_or_create(&sealing)
        .with_context(|| format!("the sealing keys in {}", sealing.display()))?;
    let remote = RemoteConfig::new(credentials, pod(settings.pod));
    let found = replicas::follow(settings.scaler.clone(), tokens.stop.clone());
    let scaler = RemoteScaler::connect(remote, found).with_context(|| {
        format!(
            "the activator's certificate in {}",
            settings.secrets.display()
        )
    })?;
    let scaler = Arc::new(scaler);
    let documents = documents(&settings.backends, &settings.namespace, None, None).await?;
    let config = parts::activator_config(&settings.edge, false);
    let deps = Deps {
        scaler: Arc::clone(&scaler) as Arc<dyn Scaler>,
        catalog: documents.catalog(),
        dial: Arc::new(NoBridges),
        auth: Arc::clone(&auth),
        sealer: Sealer::new(keyring),
        memory: Memory::open(None),
        directory: Directory::new(config.id),
    };
    Ok(Running {
        activator: Activator::new(config, deps),
        settings,
        documents,
        scaler,
        auth,
        tokens,
    })
}

/// This process among those of its pod: later ones have a higher number.
fn pod(uid: Option<PodUid>) -> ActivatorPod {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    ActivatorPod {
        uid: uid.unwrap_or_else(|| PodUid(rand::random())),
        incarnation: since.map_or(0, |since| {
            u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
        }),
    }
}

impl Running {
    fn listen(
        &self,
        clients: Listener,
        operators: Listener,
        metrics: MetricsPage,
        began: Instant,
    ) -> Vec<JoinHandle<()>> {
        let edge = &self.settings.edge;
        let base = parts::base(edge, &clients);
        let landing = landing::Landing {
            catalog: self.documents.catalog(),
            auth: Arc::clone(&self.auth),
            base: Arc::clone(&base),
            admin: base_url(operators.address()).into(),
        };
        let (known, scaler) = (self.documents.known(), Arc::clone(&self.scaler));
        let pages = Pages {
            catalog: self.documents.catalog(),
            problems: self.documents.problems(),
            // Who is where, the leader says.
            status: Arc::new(|| Box::pin(async { Status::default() })),
            not_ready: Arc::new(move || {
                if !*known.borrow() {
                    Some("the backends are not known yet: the API server has not answered")
                } else if scaler.heard() == 0 {
                    Some("no autoscaler that leads has been found yet")
                } else {
                    None
                }
            }),
            metrics,
            began,
        };
        vec![
            parts::serve_clients(clients, &self.activator, landing, &self.tokens),
            parts::serve_operators(operators, edge, pages, base, &self.tokens),
        ]
    }

    async fn end(self, shutdown: &Shutdown, listeners: Vec<JoinHandle<()>>) {
        tokio::select! {
            () = self.leave() => {}
            () = shutdown.at_once.cancelled() => tracing::warn!("ending at once"),
        }
        self.documents.stop();
        let ready_file = self.settings.ready_file.as_deref();
        parts::close(&self.tokens, listeners, parts::LAST_WORDS, ready_file).await;
        tracing::info!("ended");
    }

    /// A replica leaves without anybody noticing: the leader that starts instances goes on, so that what is held here gets
    /// its answer like what runs.
    async fn leave(&self) {
        let (delay, within) = (self.settings.shutdown_delay, self.settings.shutdown_timeout);
        tracing::info!(
            ?delay,
            ?within,
            "shutting down: clients are sent elsewhere (again to end at once)"
        );
        self.tokens.closing.cancel();
        self.tokens.leaving.begin();
        sleep(delay).await;
        self.tokens.left.cancel();
        // What was on its way when connections were told of the end has arrived by then.
        sleep(parts::LAST_WORDS).await;
        self.activator.finish(within).await;
        self.activator.shutdown(Duration::ZERO).await;
    }
}
