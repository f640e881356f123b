//! One term of a leader: what runs from the moment this replica leads until it does not.
//!
//! Order: the documents are known, the runtime is opened (what runs is found), the loop takes over what was found, and
//! only then activators are told that the leader is here. However a term ends, it ends the other way round, and no pod
//! ends with it.

use std::{sync::Arc, time::Duration};

use anyhow::Context;
use mcp_gateway_autoscaler::{
    Autoscaler, AutoscalerConfig, AutoscalerHandle, InProcessScaler, Takeover,
};
use mcp_gateway_link::{Authority, Lead, token::HomeKey};
use mcp_gateway_runtime::{
    Runtime,
    kubernetes::{self, KubernetesConfig, KubernetesRuntime, client},
};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use super::{home::Home, peers::Peers};
use crate::{
    config::roles::AutoscalerSettings,
    serve::{ground::Documents, pods},
};

/// How long a leader waits for the documents in one go; it says so, and waits on.
const DOCUMENTS: Duration = Duration::from_secs(10);
/// From one try to take over to the next.
const AGAIN: Duration = Duration::from_secs(2);

/// What a replica has, whether it leads or not.
pub(super) struct Replica {
    pub(super) settings: AutoscalerSettings,
    pub(super) authority: Arc<Authority>,
    pub(super) home_key: HomeKey,
    pub(super) cluster: kube::Config,
    pub(super) documents: Documents,
    pub(super) home: Home,
    /// Who leads, for the activators' calls.
    pub(super) leads: watch::Sender<Lead>,
    /// Whether statuses may be written.
    pub(super) writes: watch::Sender<bool>,
    /// The loop, for the status page.
    pub(super) scaler: watch::Sender<Option<InProcessScaler>>,
}

/// A leadership. Dropping it ends it.
pub(super) struct Leading<'a> {
    replica: &'a Replica,
    runtime: Arc<KubernetesRuntime>,
    handle: Option<AutoscalerHandle>,
    /// Ends the report to the objects' statuses.
    stop: CancellationToken,
    _tasks: [AbortOnDropHandle<()>; 2],
}

impl Drop for Leading<'_> {
    fn drop(&mut self) {
        // First of all nobody is told that the leader is here any more.
        self.replica.leads.send_replace(Lead::Elsewhere(None));
        self.replica.writes.send_replace(false);
        self.replica.scaler.send_replace(None);
        // Whatever still holds it, such as a launch that an API server does not answer: no order of this term comes late.
        self.runtime.close();
        self.stop.cancel();
        if let Some(handle) = self.handle.take() {
            handle.step_down();
        }
    }
}

impl Replica {
    /// Takes over, however often it has to try.
    pub(super) async fn lead(&self, epoch: u64) -> Leading<'_> {
        loop {
            match self.take_over(epoch).await {
                Ok(leading) => return leading,
                Err(error) => {
                    tracing::error!(
                        epoch,
                        error = format!("{error:#}"),
                        "cannot lead for now: {error:#}"
                    );
                    sleep(AGAIN).await;
                }
            }
        }
    }

    async fn take_over(&self, epoch: u64) -> anyhow::Result<Leading<'_>> {
        let mut known = self.documents.known();
        let listed = timeout(DOCUMENTS, known.wait_for(|known| *known)).await;
        if !matches!(listed, Ok(Ok(_))) {
            // A pod whose document is unknown would be taken for one whose document was deleted.
            anyhow::bail!("the documents are not known yet: the API server has not listed them");
        }
        let (runtime, events, found) = KubernetesRuntime::open(self.runtime(epoch)?).await?;
        tracing::info!(
            epoch,
            found = found.len(),
            "leads: takes over {} pods",
            found.len()
        );
        let config = AutoscalerConfig {
            max_instances: self.settings.max_instances,
            ..AutoscalerConfig::default()
        };
        let takeover = Takeover { epoch, found };
        let catalog = self.documents.catalog();
        let held: Arc<dyn Runtime> = Arc::<KubernetesRuntime>::clone(&runtime);
        let (scaler, handle) = Autoscaler::lead(config, held, events, catalog, takeover)?;
        let stop = CancellationToken::new();
        let tasks = [self.expecting(&scaler)?, self.reporting(&scaler, &stop)];
        self.writes.send_replace(true);
        self.scaler.send_replace(Some(scaler.clone()));
        self.leads.send_replace(Lead::Here {
            epoch,
            scaler: Arc::new(scaler),
        });
        Ok(Leading {
            replica: self,
            runtime,
            handle: Some(handle),
            stop,
            _tasks: tasks,
        })
    }

    fn runtime(&self, epoch: u64) -> anyhow::Result<KubernetesConfig> {
        let pods = &self.settings.pods;
        let bound = self.home.address()?;
        let home = kubernetes::Home {
            listener: self.home.listener().context("the listener for agents")?,
            advertise: pods::advertised(pods, bound),
            authority: Arc::clone(&self.authority),
            key: self.home_key.clone(),
        };
        let clients = (
            client::client(&self.cluster)?,
            client::client(&self.cluster)?,
        );
        Ok(KubernetesConfig {
            owners: self.documents.owners(),
            agent_image: pods.agent_image.clone(),
            max_body: self.settings.edge.max_body,
            epoch,
            ..KubernetesConfig::new(clients, &pods.namespace, &pods.installation, home)
        })
    }

    /// Tells the loop which activators run.
    fn expecting(&self, scaler: &InProcessScaler) -> anyhow::Result<AbortOnDropHandle<()>> {
        let peers = Peers {
            client: client::client(&self.cluster)?,
            namespace: self.settings.system_namespace.clone(),
            installation: self.settings.pods.installation.clone(),
            outside: self.settings.activators.clone(),
        };
        let scaler = scaler.clone();
        Ok(AbortOnDropHandle::new(tokio::spawn(async move {
            let (tell, mut told) = watch::channel(None);
            let telling = async {
                while told.changed().await.is_ok() {
                    let known = told.borrow_and_update().clone();
                    if let Some(pods) = known {
                        scaler.expect(pods).await;
                    }
                }
            };
            tokio::join!(peers.follow(tell), telling);
        })))
    }

    fn reporting(
        &self,
        scaler: &InProcessScaler,
        stop: &CancellationToken,
    ) -> AbortOnDropHandle<()> {
        let (scaler, stop) = (scaler.clone(), stop.clone());
        let registry = match &self.documents {
            Documents::Cluster(registry) => Some(Arc::clone(registry)),
            Documents::Files(_) => None,
        };
        AbortOnDropHandle::new(tokio::spawn(async move {
            if let Some(registry) = registry {
                pods::report(registry, scaler, stop).await;
            }
        }))
    }
}
