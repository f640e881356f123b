//! What all parts of the Kubernetes runtime share, and how a pod is taken in: from then on a task looks after it.

use std::{sync::Arc, time::Duration};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use mcp_gateway_api::view::InstanceSecret;
use mcp_gateway_link::token::{HomeKey, LaunchToken};
use tokio::{net::TcpListener, sync::mpsc};
use tokio_util::sync::CancellationToken;

use super::{
    KubernetesConfig, Owners,
    actor::PodTask,
    end,
    forms::Abilities,
    launch,
    names::{self, Facts},
    pods::Input,
    refusals::Refusals,
    seen::{Container, Seen},
    table::{Entry, Table, Watched},
    template::{self, Settings, Template},
};
use crate::{EventReceiver, Found, FoundStage, LaunchOrder, Launched, RuntimeEvent};

/// Events that may wait for their reader before pods wait with them.
const EVENTS: usize = 1024;
/// What an agent or a probe has said that may wait for the pod's task.
const INBOX: usize = 16;

/// From a pod's first call to its note on the pod, for later leaders: a change of the pod wakes whoever watches it, the
/// kubelet too, and that must not take from the starts of others in a burst.
const KEEP_SPENT: Duration = Duration::from_secs(30);

/// What all parts share.
pub(crate) struct World {
    pub(crate) pods: Api<Pod>,
    pub(crate) secrets: Api<Secret>,
    pub(crate) config_maps: Api<ConfigMap>,
    pub(crate) table: Table,
    pub(crate) settings: Settings,
    pub(crate) abilities: Abilities,
    pub(crate) owners: Owners,
    pub(crate) key: HomeKey,
    pub(crate) epoch: u64,
    pub(crate) launch_deadline: Duration,
    pub(crate) events: mpsc::Sender<RuntimeEvent>,
    pub(crate) refusals: Refusals,
    pub(crate) stop: CancellationToken,
}

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("World")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

impl World {
    pub(crate) fn new(
        config: KubernetesConfig,
        image_volumes: bool,
    ) -> (TcpListener, Self, EventReceiver) {
        let (events, receiver) = mpsc::channel(EVENTS);
        let advertise: Vec<String> = config
            .home
            .advertise
            .iter()
            .map(ToString::to_string)
            .collect();
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

    pub(crate) fn secret_of(&self, facts: &Facts, name: &str, uid: &str) -> Option<InstanceSecret> {
        let secret = || URL_SAFE_NO_PAD.encode(self.key.instance_secret(name, uid));
        facts.bridge.then(|| InstanceSecret(secret().into()))
    }

    pub(crate) fn entry(&self, seen: Seen, facts: Facts) -> (Entry, mpsc::Receiver<Input>) {
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

    pub(crate) fn launched(&self, entry: &Entry) -> Launched {
        let namespace = &self.settings.namespace;
        Launched {
            instance: entry.id,
            pid: None,
            log: Some(format!(
                "kubectl logs -n {namespace} {} -c {}",
                entry.name,
                template::SERVER
            )),
        }
    }

    /// A pod that we have just made.
    pub(crate) fn take_in_new(
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

    pub(crate) fn take_in(
        self: &Arc<Self>,
        entry: Entry,
        inbox: mpsc::Receiver<Input>,
    ) -> Launched {
        let launched = self.launched(&entry);
        // Only who made it has orders for its agent, which may take them as soon as it is in the table.
        let found = entry.orders.lock().is_none();
        let entry = Arc::new(entry);
        // A stray may be met by the watch and by the launch that left it behind at once.
        if self.table.created(Arc::clone(&entry)) {
            PodTask::start(Arc::clone(self), entry, inbox, found);
        }
        launched
    }

    /// A pod that was there before us, or that a leader before us made a moment ago.
    pub(crate) fn take_in_found(self: &Arc<Self>, pod: &Pod) -> Option<Found> {
        let seen = Seen::of(pod)?;
        let facts = pod.metadata.annotations.as_ref()?.get(names::FACTS)?;
        let Ok(facts) = serde_json::from_str::<Facts>(facts) else {
            tracing::warn!(
                pod = seen.name,
                "a pod with our labels is not understood; it is left alone"
            );
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

    /// A pod of this installation of which no launch here knows: the autoscaler hears of it and ends what it does not
    /// know.
    pub(crate) fn take_in_stray(self: &Arc<Self>, pod: &Pod) {
        let newer = Seen::of(pod).and_then(|seen| seen.marked_by);
        if newer.is_some_and(|epoch| epoch > self.epoch) {
            return;
        }
        if let Some(found) = self.take_in_found(pod)
            && let Some(entry) = self.table.get(found.launched.instance)
        {
            let text =
                "its pod was made by a leader before this one, or the API server's answer was lost"
                    .to_owned();
            let _ = entry.inbox.try_send(Input::Warns(text));
        }
    }

    /// Lets every later leader know that a launch token was used: after a while, or once this leader stands down.
    pub(crate) async fn keep_spent(&self, entry: &Entry) {
        let _ = tokio::time::timeout(KEEP_SPENT, self.stop.cancelled()).await;
        if self.table.get(entry.id).is_none() {
            return;
        }
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
