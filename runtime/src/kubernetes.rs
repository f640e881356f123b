//! Instances as pods.
//!
//! Invariants: every pod bears the installation's name, and no other pod is ever looked at or touched; one task per
//! pod says its events, so they are in order and `Exited` is the last; a pod is deleted only with its UID and after it
//! was marked with our epoch, so neither another pod of the same name nor one that a newer leader has taken over is hit.
//! Nothing here decides when to start, stop or try again.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use async_trait::async_trait;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};
use kube::{
    Api,
    api::{ListParams, Patch, PatchParams},
};
use mcp_gateway_api::{
    failure::ExitReport,
    ids::{BackendName, InstanceId},
    view::InstanceSecret,
};
use mcp_gateway_link::{
    Authority, HOME_NAME,
    token::{HomeKey, LaunchToken},
};
use tokio::{net::TcpListener, sync::mpsc};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use self::{
    actor::PodTask,
    forms::Abilities,
    names::Facts,
    pods::Input,
    refusals::Refusals,
    seen::{Container, Seen},
    table::{Entry, Table, Watched},
    template::{Settings, Template},
};
use crate::{
    EventReceiver, Farewell, Found, FoundStage, LaunchOrder, Launched, Runtime, RuntimeEvent,
};

mod actor;
pub mod client;
mod end;
pub mod forms;
mod home;
mod launch;
pub mod names;
mod pods;
pub mod refusals;
mod seen;
mod sentences;
mod table;
mod template;
mod watch;

/// Events that may wait for their reader before pods wait with them.
const EVENTS: usize = 1024;
/// What an agent or a probe has said that may wait for the pod's task.
const INBOX: usize = 16;

/// Where agents call home, and how they know it.
#[derive(Debug)]
pub struct Home {
    /// Already bound.
    pub listener: TcpListener,
    /// Under which addresses pods reach it (all replicas'); numeric, because agents resolve no names.
    pub advertise: Vec<SocketAddr>,
    /// Signs the certificate that it shows; pods are given the authority's.
    pub authority: Arc<Authority>,
    /// Makes launch tokens, reconnect and instance secrets; the same for all replicas and for good.
    pub key: HomeKey,
}

/// How the runtime is set up; [`KubernetesConfig::new`] gives the defaults.
pub struct KubernetesConfig {
    /// For everything but watches: one kept connection ([`client::client`]).
    pub writes: kube::Client,
    /// For the watch alone.
    pub watches: kube::Client,
    /// Where the pods are.
    pub namespace: String,
    /// Tells this installation's pods from any other's: a DNS label.
    pub installation: String,
    /// Where agents call home.
    pub home: Home,
    /// The agent's image; without one only backends with `agent: none` or `embedded` can be started.
    pub agent_image: Option<String>,
    /// `imagePullPolicy` of the agent's image; Kubernetes' own default if absent.
    pub agent_pull_policy: Option<String>,
    /// The leadership term; marks what is ended.
    pub epoch: u64,
    /// Longest request body a bridge takes, in bytes.
    pub max_body: usize,
    /// Longest from creating a pod until its container runs: scheduling and pulling. After it the pod is given up.
    pub launch_deadline: Duration,
    /// User and group of the containers; absent: the image's, which must not be root.
    pub run_as: Option<i64>,
    /// Whether image volumes work here; absent: as the API server's version says (1.35 or later).
    pub image_volumes: Option<bool>,
    /// UIDs of the `McpBackend`s, by name, to own their pods; pods of others are owned by nobody.
    pub owners: Owners,
}

impl std::fmt::Debug for KubernetesConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KubernetesConfig")
            .field("namespace", &self.namespace)
            .field("installation", &self.installation)
            .field("home", &self.home)
            .field("agent_image", &self.agent_image)
            .field("epoch", &self.epoch)
            .finish_non_exhaustive()
    }
}

/// UIDs of `McpBackend`s by name; shared with whoever reads the documents.
pub type Owners = Arc<parking_lot::RwLock<BTreeMap<BackendName, String>>>;

impl KubernetesConfig {
    /// The defaults: bodies of 4 MiB, 10 minutes to schedule and pull, user 65532, epoch 1, no agent image.
    #[must_use]
    pub fn new(
        (writes, watches): (kube::Client, kube::Client),
        namespace: impl Into<String>,
        installation: impl Into<String>,
        home: Home,
    ) -> Self {
        Self {
            writes,
            watches,
            namespace: namespace.into(),
            installation: installation.into(),
            home,
            agent_image: None,
            agent_pull_policy: None,
            epoch: 1,
            max_body: 4 << 20,
            launch_deadline: Duration::from_secs(600),
            run_as: Some(65_532),
            image_volumes: None,
            owners: Owners::default(),
        }
    }
}

/// Why the runtime could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The installation's name cannot be a label's value.
    #[error("the installation's name {0:?} is not a DNS label: use 1 to 63 of a-z, 0-9 and '-'")]
    Installation(String),
    /// The pods could not be listed.
    #[error("{sentence}")]
    Pods {
        /// What a person can do about it.
        sentence: String,
        /// What Kubernetes said.
        source: kube::Error,
    },
    /// The certificate that agents are shown could not be made.
    #[error("the certificate for agents cannot be made")]
    Certificate(#[from] mcp_gateway_link::authority::AuthorityError),
    /// The place that agents call could not be opened.
    #[error("the listener for agents cannot be used: {0}")]
    Listener(Box<dyn std::error::Error + Send + Sync>),
}

/// The Kubernetes runtime. Dropping it leaves its pods alone: whoever opens the next one finds them.
#[derive(Debug)]
pub struct KubernetesRuntime {
    world: Arc<World>,
    _tasks: [AbortOnDropHandle<()>; 2],
}

impl Drop for KubernetesRuntime {
    fn drop(&mut self) {
        self.world.stop.cancel();
    }
}

/// What all parts share.
pub(crate) struct World {
    pods: Api<Pod>,
    secrets: Api<Secret>,
    config_maps: Api<ConfigMap>,
    table: Table,
    settings: Settings,
    abilities: Abilities,
    owners: Owners,
    key: HomeKey,
    epoch: u64,
    launch_deadline: Duration,
    events: mpsc::Sender<RuntimeEvent>,
    refusals: Refusals,
    stop: CancellationToken,
}

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("World")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
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
        let installation = config.installation.as_str();
        if BackendName::new(installation).is_err() {
            return Err(OpenError::Installation(installation.to_owned()));
        }
        let tls = config.home.authority.issue(HOME_NAME)?.server_tls();
        let image_volumes = match config.image_volumes {
            Some(stated) => stated,
            None => has_image_volumes(&config.writes).await,
        };
        let watched: Api<Pod> = Api::namespaced(config.watches.clone(), &config.namespace);
        let (listener, world, events) = World::new(config, image_volumes);
        let world = Arc::new(world);
        let params = ListParams::default().labels(&names::selector(&world.settings.installation));
        let listed = world.pods.list(&params).await.map_err(|source| {
            let report = sentences::refused(&source, "list pods", &world.settings.namespace);
            OpenError::Pods {
                sentence: report.summary,
                source,
            }
        })?;
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
            _tasks: [watch, home].map(AbortOnDropHandle::new),
        };
        Ok((Arc::new(runtime), events, found))
    }

    /// How often agents' calls were refused, by reason.
    #[must_use]
    pub fn refusals(&self) -> &Refusals {
        &self.world.refusals
    }
}

/// Kubernetes 1.35 turned them on; whether the container runtime has them nobody says beforehand.
async fn has_image_volumes(client: &kube::Client) -> bool {
    let Ok(version) = client.apiserver_version().await else {
        return false;
    };
    let number = |text: &str| text.trim_end_matches(|c: char| !c.is_ascii_digit()).parse().unwrap_or(0);
    (number(&version.major), number(&version.minor)) >= (1_u32, 35_u32)
}

impl World {
    fn new(
        config: KubernetesConfig,
        image_volumes: bool,
    ) -> (TcpListener, Self, EventReceiver) {
        let (events, receiver) = mpsc::channel(EVENTS);
        let advertise: Vec<String> = config.home.advertise.iter().map(ToString::to_string).collect();
        let namespace = &config.namespace;
        let world = Self {
            pods: Api::namespaced(config.writes.clone(), namespace),
            secrets: Api::namespaced(config.writes.clone(), namespace),
            config_maps: Api::namespaced(config.writes, namespace),
            table: Table::default(),
            abilities: Abilities {
                agent_image: config.agent_image.is_some(),
                image_volumes,
            },
            settings: Settings {
                namespace: config.namespace,
                installation: config.installation,
                agent_image: config.agent_image,
                agent_pull_policy: config.agent_pull_policy,
                run_as: config.run_as,
                home: advertise.join(","),
                ca_pem: config.home.authority.cert_pem().to_owned(),
                max_body: config.max_body,
            },
            owners: config.owners,
            key: config.home.key,
            epoch: config.epoch,
            launch_deadline: config.launch_deadline,
            events,
            refusals: Refusals::default(),
            stop: CancellationToken::new(),
        };
        (config.home.listener, world, receiver)
    }

    fn secret_of(&self, facts: &Facts, name: &str, uid: &str) -> Option<InstanceSecret> {
        let secret = || URL_SAFE_NO_PAD.encode(self.key.instance_secret(name, uid));
        facts.bridge.then(|| InstanceSecret(secret().into()))
    }

    fn entry(&self, seen: Seen, facts: Facts) -> (Entry, mpsc::Receiver<Input>) {
        let (inbox, received) = mpsc::channel(INBOX);
        let entry = Entry {
            id: seen.id,
            name: seen.name.clone(),
            uid: seen.uid.clone(),
            slot_hash: names::slot_hash(&self.settings.installation, &facts.slot),
            secret: self.secret_of(&facts, &seen.name, &seen.uid),
            facts,
            orders: parking_lot::Mutex::default(),
            token: parking_lot::Mutex::default(),
            watched: tokio::sync::watch::Sender::new(Watched::Here(Arc::new(seen))),
            told: tokio::sync::watch::Sender::default(),
            inbox,
            agent: tokio::sync::watch::Sender::default(),
        };
        (entry, received)
    }

    fn launched(&self, entry: &Entry) -> Launched {
        let namespace = &self.settings.namespace;
        Launched {
            instance: entry.id,
            pid: None,
            log: Some(format!("kubectl logs -n {namespace} {} -c {}", entry.name, template::SERVER)),
        }
    }

    /// A pod that we have just made.
    fn take_in_new(
        self: &Arc<Self>,
        pod: &Pod,
        template: &Template,
        order: &LaunchOrder,
        token: LaunchToken,
    ) -> Option<Launched> {
        let (entry, inbox) = self.entry(Seen::of(pod)?, template.facts.clone());
        let secret = entry.secret.as_ref().map(|secret| secret.0.as_ref());
        let orders = launch::orders_of(self, order, template, secret);
        *entry.orders.lock() = Some(Box::new(orders));
        *entry.token.lock() = Some(token);
        Some(self.take_in(entry, inbox))
    }

    fn take_in(self: &Arc<Self>, entry: Entry, inbox: mpsc::Receiver<Input>) -> Launched {
        let launched = self.launched(&entry);
        let entry = Arc::new(entry);
        self.table.created(Arc::clone(&entry));
        PodTask::start(Arc::clone(self), entry, inbox);
        launched
    }

    /// A pod that was there before us, or that a leader before us made a moment ago.
    fn take_in_found(self: &Arc<Self>, pod: &Pod) -> Option<Found> {
        let seen = Seen::of(pod)?;
        let facts = pod.metadata.annotations.as_ref()?.get(names::FACTS)?;
        let Ok(facts) = serde_json::from_str::<Facts>(facts) else {
            tracing::warn!(pod = seen.name, "a pod with our labels is not understood; it is left alone");
            return None;
        };
        let stage = match (&seen.server, seen.deleting || seen.over) {
            (_, true) | (Container::Ended(_), _) => FoundStage::Ending,
            (Container::Running, false) => FoundStage::Running,
            (Container::Absent | Container::Waiting(_), false) => FoundStage::Starting,
        };
        let token = template::token_of(pod)
            .filter(|_| !seen.spent)
            .and_then(|token| URL_SAFE_NO_PAD.decode(token).ok())
            .and_then(|token| LaunchToken::from_bytes(&token));
        let (entry, inbox) = self.entry(seen, facts.clone());
        *entry.token.lock() = token;
        Some(Found {
            launched: self.take_in(entry, inbox),
            backend: facts.slot.backend.clone(),
            generation: facts.generation,
            slot: facts.slot,
            tenant: facts.tenant,
            stage,
        })
    }

    /// A pod of this installation that nobody here made: the autoscaler hears of it and ends what it does not know.
    fn take_in_stray(self: &Arc<Self>, pod: &Pod) {
        let newer = Seen::of(pod).and_then(|seen| seen.ended_by);
        if newer.is_some_and(|epoch| epoch > self.epoch) {
            return;
        }
        if let Some(found) = self.take_in_found(pod)
            && let Some(entry) = self.table.get(found.launched.instance)
        {
            let text = "a leader before this one made its pod".to_owned();
            let _ = entry.inbox.try_send(Input::AgentWarns(text));
        }
    }

    /// Lets every later leader know that a launch token was used.
    async fn keep_spent(&self, entry: &Entry) {
        let mark = serde_json::json!({"metadata": {
            "uid": entry.uid,
            "annotations": {names::SPENT: self.epoch.to_string()},
        }});
        let params = PatchParams::default();
        let patch = Patch::Merge(mark);
        let kept = self.pods.patch_metadata(&entry.name, &params, &patch);
        match tokio::time::timeout(end::CALL, kept).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => {
                tracing::debug!(pod = entry.name, %error, "that its token was used could not be kept");
            }
            Err(_) => {}
        }
    }
}

#[async_trait]
impl Runtime for KubernetesRuntime {
    async fn launch(&self, order: LaunchOrder) -> Result<Launched, ExitReport> {
        let world = Arc::clone(&self.world);
        // A task of its own: it runs to its end even if whoever asked has gone, so that no pod is made that nobody
        // looks after.
        match tokio::spawn(async move { launch::launch(&world, order).await }).await {
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

    async fn stderr_tail(&self, instance: InstanceId) -> Vec<String> {
        match self.world.table.get(instance) {
            Some(entry) => actor::logs(&self.world, &entry.name).await,
            None => Vec::new(),
        }
    }
}
