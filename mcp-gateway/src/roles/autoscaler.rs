//! The role `autoscaler`: stands for election, leads when elected, tells activators who leads when not.
//!
//! Order at the end: the term first, so that nobody decides anything; then the lease is given back, so that another takes
//! over at once; then the listeners. Pods are left to the next leader.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context;
use mcp_gateway_api::scaler::PodUid;
use mcp_gateway_autoscaler::{
    InProcessScaler,
    leader::{Election, LeaseConfig, elect},
};
use mcp_gateway_control::cluster::Writing;
use mcp_gateway_link::{AUTOSCALER_NAME, Lead, ScalerServer, authority::Credentials};
use mcp_gateway_runtime::kubernetes::client;
use serde::Serialize;
use tokio::{
    net::TcpListener,
    sync::watch,
    task::JoinHandle,
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{home::Home, term::Replica};
use crate::{
    banner::{base_url, write_ready},
    config::roles::AutoscalerSettings,
    listen::Listener,
    parts::{self, Pages, Tokens},
    secrets::{self, AutoscalerSecrets},
    serve::pods::{documents, home_listener},
    shutdown::Shutdown,
    telemetry::MetricsPage,
};

/// How long a leader may be silent before another takes over.
const LEASE: Duration = Duration::from_secs(15);
/// How long giving the lease back, and the last answers, may take.
const LAST_WORDS: Duration = Duration::from_secs(3);

/// Where everything is: the text of the ready file.
#[derive(Debug, Serialize)]
struct Whereabouts {
    /// The bound address for operators.
    admin: SocketAddr,
    /// The bound address for activators.
    scaler: SocketAddr,
    /// The bound address for agents.
    home: SocketAddr,
    /// The process id.
    pid: u32,
}

/// Runs until asked to end.
///
/// # Errors
/// It could not be started; once it stands for election, nothing ends it but a signal.
pub(crate) async fn run(settings: AutoscalerSettings, metrics: MetricsPage) -> anyhow::Result<()> {
    let began = Instant::now();
    let shutdown = Shutdown::on_signals().context("listening for signals")?;
    parts::more_files();
    let operators = Listener::bind(settings.edge.admin_listen, "--admin-listen", 256).await?;
    let activators = TcpListener::bind(settings.scaler_listen).await;
    let activators = activators.with_context(|| {
        format!(
            "--scaler-listen {} cannot be listened on: choose another address, or port 0 for any free one",
            settings.scaler_listen
        )
    })?;
    let home =
        Home::new(home_listener(&settings.pods).await?).context("the listener for agents")?;
    let whereabouts = Whereabouts {
        admin: operators.address(),
        scaler: activators.local_addr()?,
        home: home.address()?,
        pid: std::process::id(),
    };
    let tokens = Tokens::default();
    let replica = assemble(settings, home).await?;
    let server = serve(&replica, activators, &tokens.stop)?;
    let operators = pages(&replica, operators, metrics, began, &tokens);
    let election = stand(&replica, whereabouts.scaler)?;
    tracing::info!(admin = %whereabouts.admin, scaler = %whereabouts.scaler, home = %whereabouts.home, "stands for election");
    if let Some(file) = &replica.settings.ready_file {
        write_ready(file, &whereabouts)?;
    }
    tokio::select! {
        () = follow(&replica, &election) => {}
        () = shutdown.asked.cancelled() => {}
    }
    tokens.closing.cancel();
    tokio::select! {
        _late = timeout(LAST_WORDS, election.resign()) => {}
        () = shutdown.at_once.cancelled() => {}
    }
    let ready_file = replica.settings.ready_file.as_deref();
    parts::close(&tokens, [server, operators], LAST_WORDS, ready_file).await;
    tracing::info!("ended; pods are left to the next leader");
    Ok(())
}

async fn assemble(settings: AutoscalerSettings, home: Home) -> anyhow::Result<Replica> {
    let AutoscalerSecrets {
        authority,
        home: home_key,
    } = secrets::load_autoscaler(&settings.pods.secrets)?;
    let cluster = client::config(None).await?;
    let (writes, leading) = watch::channel(false);
    let writing = Writing {
        client: client::client(&cluster)?,
        leading,
        reporter: settings.pods.installation.clone(),
    };
    let namespace = &settings.pods.namespace;
    let documents = documents(&settings.backends, namespace, Some(&cluster), Some(writing)).await?;
    Ok(Replica {
        settings,
        authority,
        home_key,
        cluster,
        documents,
        home,
        leads: watch::Sender::new(Lead::Elsewhere(None)),
        writes,
        scaler: watch::Sender::new(None),
    })
}

/// Serves activators, as a leader or to say who leads.
fn serve(
    replica: &Replica,
    listener: TcpListener,
    stop: &CancellationToken,
) -> anyhow::Result<JoinHandle<()>> {
    let credentials: Credentials = replica.authority.credentials(AUTOSCALER_NAME)?;
    let server = ScalerServer::new(replica.leads.subscribe());
    let stop = stop.clone().cancelled_owned();
    Ok(tokio::spawn(async move {
        if let Err(error) = server.serve(listener, &credentials, stop).await {
            tracing::error!(%error, "activators are not served any more");
        }
    }))
}

fn pages(
    replica: &Replica,
    operators: Listener,
    metrics: MetricsPage,
    began: Instant,
    tokens: &Tokens,
) -> JoinHandle<()> {
    let scaler = replica.scaler.subscribe();
    let base = replica.settings.edge.public_url.as_deref();
    let base = base.map_or_else(|| base_url(operators.address()).into(), Arc::from);
    let pages = Pages {
        catalog: replica.documents.catalog(),
        problems: replica.documents.problems(),
        status: Arc::new(move || {
            let scaler: Option<InProcessScaler> = scaler.borrow().clone();
            Box::pin(async move {
                match scaler {
                    Some(scaler) => scaler.status().await,
                    None => mcp_gateway_api::status::Status::default(),
                }
            })
        }),
        not_ready: Arc::new(|| None),
        metrics,
        began,
    };
    parts::serve_operators(operators, &replica.settings.edge, pages, base, tokens)
}

fn stand(replica: &Replica, bound: SocketAddr) -> anyhow::Result<Election> {
    let settings = &replica.settings;
    let mut reached = settings.scaler_advertise;
    if reached.port() == 0 {
        reached.set_port(bound.port());
    }
    let (id, before) = identity(reached, settings.pod, rand::random());
    let lease = LeaseConfig {
        namespace: settings.system_namespace.clone(),
        name: format!("mcp-gateway-{}", settings.pods.installation),
        id,
        before,
        duration: LEASE,
    };
    Ok(elect(client::client(&replica.cluster)?, lease))
}

/// What no other process is called, and where activators reach this one; and how the processes of its pod are called, and
/// nobody else.
fn identity(reached: SocketAddr, pod: Option<PodUid>, number: u64) -> (String, Option<String>) {
    let before = pod.map(|PodUid(uid)| format!("{uid:032x}."));
    let own = before.as_deref().unwrap_or_default();
    (format!("{own}{number:016x}_{reached}"), before)
}

/// Where the process of that identity is reached.
fn address(identity: &str) -> Option<SocketAddr> {
    identity.split_once('_')?.1.parse().ok()
}

/// Leads whenever this replica is elected, for as long as it is polled.
async fn follow(replica: &Replica, election: &Election) {
    let mut term = election.term();
    loop {
        let now = *term.borrow_and_update();
        let over = async {
            // Without an election nobody is elected.
            while *term.borrow_and_update() == now && term.changed().await.is_ok() {}
        };
        match now {
            None => tokio::select! {
                () = over => {}
                () = point(replica, election) => {}
                () = replica.home.refuse() => {}
            },
            Some(epoch) => {
                let leading = async {
                    let _leading = replica.lead(epoch).await;
                    std::future::pending::<()>().await;
                };
                tokio::select! {
                    () = over => tracing::warn!(epoch, "leads no more"),
                    () = leading => {}
                }
            }
        }
        if term.has_changed().is_err() {
            tracing::error!("the election has ended");
            return;
        }
    }
}

/// Tells activators where the leader is, for as long as it is polled.
async fn point(replica: &Replica, election: &Election) {
    let mut holder = election.holder();
    loop {
        let leader = holder.borrow_and_update().as_deref().and_then(address);
        replica.leads.send_replace(Lead::Elsewhere(leader));
        if holder.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{PodUid, address, identity};

    #[test]
    fn the_leaders_address_is_read_from_its_identity() {
        for text in ["10.0.0.1:7444", "[fd00::1]:7444"] {
            let given = text.parse().unwrap();
            for pod in [None, Some(PodUid(5))] {
                let (id, _) = identity(given, pod, 7);
                assert_eq!(address(&id), Some(given), "{id}");
                assert_ne!(id, identity(given, pod, 8).0);
            }
        }
        for strange in ["", "pod-1", "pod-1_7", "7_pod-1", "10.0.0.1:7444"] {
            assert_eq!(address(strange), None, "{strange}");
        }
    }

    #[test]
    fn the_processes_of_a_pod_are_known_by_their_identity_and_no_others() {
        let given = "10.0.0.1:7444".parse().unwrap();
        let named = |pod, number| identity(given, pod, number).0;
        let (_, before) = identity(given, Some(PodUid(5)), 7);
        let before = before.expect("it runs in a pod");
        assert!(named(Some(PodUid(5)), 8).starts_with(&before));
        for other in [named(Some(PodUid(6)), 7), named(None, 7)] {
            assert!(!other.starts_with(&before), "{other}");
        }
        assert_eq!(identity(given, None, 7).1, None);
    }
}
