//! Instances as pods.
//!
//! Invariants: every pod bears the installation's name, and no other pod is ever looked at or touched; one task per
//! pod says its events, so they are in order and `Exited` is the last; a pod is deleted only with its UID and after it
//! was marked with our epoch, so neither another pod of the same name nor one that a newer leader has taken over is hit.
//! Nothing here decides when to start, stop or try again.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, api::ListParams};
use mcp_gateway_api::{
    failure::ExitReport,
    ids::{DnsLabel, InstanceId},
};
use mcp_gateway_link::HOME_NAME;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

pub use self::config::{Home, KubernetesConfig, OpenError, Owners};
use self::{refusals::Refusals, world::World};
use crate::{EventReceiver, Farewell, Found, LaunchOrder, Launched, Runtime};

mod actor;
mod adopt;
pub mod client;
mod config;
mod end;
#[cfg(test)]
mod fake;
pub mod forms;
mod home;
mod launch;
pub mod names;
mod orders;
mod pods;
pub mod refusals;
mod seen;
mod sentences;
mod table;
mod template;
mod watch;
mod world;

/// How long the API server may take for each of the two answers that a runtime begins with.
const ANSWER: Duration = Duration::from_secs(30);

/// The Kubernetes runtime. Closing it, which dropping it does too, leaves its pods alone: whoever opens the next one finds
/// them.
#[derive(Debug)]
pub struct KubernetesRuntime {
    world: Arc<World>,
    tasks: [AbortOnDropHandle<()>; 2],
}

impl Drop for KubernetesRuntime {
    fn drop(&mut self) {
        self.close();
    }
}

impl KubernetesRuntime {
    /// Lists the pods of the installation, begins to watch them and to answer their agents.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub async fn open(
        config: KubernetesConfig,
    ) -> Result<(Arc<Self>, EventReceiver, Vec<Found>), OpenError> {
        DnsLabel::new("the installation's name", &config.installation)?;
        let tls = config.home.authority.issue(HOME_NAME)?.server_tls();
        let image_volumes = match config.image_volumes {
            Some(stated) => stated,
            None => has_image_volumes(&config.writes, &config.namespace).await?,
        };
        let watched: Api<Pod> = Api::namespaced(config.watches.clone(), &config.namespace);
        let (listener, world, events) = World::new(config, image_volumes);
        let world = Arc::new(world);
        let params = ListParams::default().labels(&names::selector(&world.settings.installation));
        let listing = world.pods.list(&params);
        let listed = answered("list pods", &world.settings.namespace, listing).await?;
        let found = listed
            .items
            .iter()
            .filter_map(|pod| world.take_in_found(pod))
            .collect();
        let watch = tokio::spawn(watch::run(Arc::clone(&world), watched));
        let home = Arc::clone(&world);
        let home = tokio::spawn(async move {
            if let Err(error) = home::serve(home, listener, tls).await {
                tracing::error!(%error, "agents cannot call home any more");
            }
        });
        let runtime = Self {
            world,
            tasks: [watch, home].map(AbortOnDropHandle::new),
        };
        Ok((Arc::new(runtime), events, found))
    }

    /// From now on it says, makes and ends nothing, and its agents look for the next leader: also while somebody still
    /// holds it, as a launch does whose answer is late.
    pub fn close(&self) {
        self.world.stop.cancel();
        for task in &self.tasks {
            task.abort();
        }
    }

    /// How often agents' calls were refused, by reason.
    #[must_use]
    pub fn refusals(&self) -> &Refusals {
        &self.world.refusals
    }
}

/// What the API server answers, which it must in time: a leader that cannot begin is to say so and try again.
async fn answered<T>(
    doing: &str,
    namespace: &str,
    call: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, OpenError> {
    let done = timeout(ANSWER, call).await;
    let done = done.unwrap_or_else(|late| Err(kube::Error::Service(late.into())));
    done.map_err(|source| OpenError::Pods {
        sentence: sentences::refused(&source, doing, namespace).summary,
        source,
    })
}

/// Kubernetes 1.35 turned them on; whether the container runtime has them nobody says beforehand. Who may not ask has none.
async fn has_image_volumes(client: &kube::Client, namespace: &str) -> Result<bool, OpenError> {
    let asked = answered("read the version", namespace, client.apiserver_version()).await;
    let version = match asked {
        Ok(version) => version,
        Err(OpenError::Pods {
            source: kube::Error::Api(status),
            ..
        }) if status.code < 500 => return Ok(false),
        Err(error) => return Err(error),
    };
    let number = |text: &str| {
        text.trim_end_matches(|c: char| !c.is_ascii_digit())
            .parse()
            .unwrap_or(0)
    };
    Ok((number(&version.major), number(&version.minor)) >= (1_u32, 35_u32))
}

#[async_trait]
impl Runtime for KubernetesRuntime {
    async fn launch(&self, order: LaunchOrder) -> Result<Launched, ExitReport> {
        let world = Arc::clone(&self.world);
        // A task of its own: it runs to its end even if whoever asked has gone, so that no pod is made that nobody
        // looks after. Whoever leads next looks after what was made when this leader stood down.
        let launching = tokio::spawn(async move {
            let stop = world.stop.clone();
            tokio::select! {
                made = launch::launch(&world, order) => made,
                () = stop.cancelled() => Err(sentences::report("another leader starts servers now", "")),
            }
        });
        match launching.await {
            Ok(result) => result,
            Err(_) => Err(sentences::report("the gateway is shutting down", "")),
        }
    }

    async fn terminate(&self, instance: InstanceId, farewell: Farewell) {
        if let Some(entry) = self.world.table.get(instance) {
            entry
                .told
                .send_if_modified(|told| told.is_none() && told.replace(farewell.grace).is_none());
        }
    }

    async fn adopt(&self, instance: InstanceId) -> bool {
        let world = &self.world;
        let Some(entry) = world.table.get(instance) else {
            return false;
        };
        let target = actor::target(&entry, world.epoch);
        tokio::select! {
            taken = adopt::adopt(&world.pods, target) => taken,
            () = world.stop.cancelled() => false,
        }
    }

    async fn stderr_tail(&self, instance: InstanceId) -> Vec<String> {
        match self.world.table.get(instance) {
            Some(entry) => actor::logs(&self.world, &entry.name).await,
            None => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests;
