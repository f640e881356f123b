//! What the cluster shows of the pods of a namespace, and when that arrived here.
//!
//! The kubelet writes times to the second and its status up to a second late; its
//! events leave at once and name each step. So moments are arrival times: of the
//! pod's binding and status on one watch, of its events on another. They lag behind
//! what they tell of by a few milliseconds.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use anyhow::bail;
use futures_util::StreamExt as _;
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::runtime::watcher;
use kube::{Api, Client};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

/// Pause after a watch broke.
const AGAIN: Duration = Duration::from_millis(200);

/// When what was seen of one pod; by container where it has several.
#[derive(Clone, Debug, Default)]
pub struct Marks {
    /// It exists.
    pub added: Option<Instant>,
    /// It has a node.
    pub scheduled: Option<Instant>,
    /// Its address.
    pub address: Option<(Instant, IpAddr)>,
    /// Its condition `Ready`.
    pub ready: Option<Instant>,
    /// Its containers' images are there: the sandbox is.
    pub pulled: BTreeMap<String, Instant>,
    /// Its containers were started.
    pub started: BTreeMap<String, Instant>,
    /// The first of its containers has to be done with something before the others are made.
    pub init: bool,
    /// It is no more.
    pub gone: bool,
}

impl Marks {
    /// It exists. Events may come before it is seen, and after it is gone.
    #[must_use]
    pub fn is_here(&self) -> bool {
        self.added.is_some() && !self.gone
    }
}

/// Pods by name.
pub type Pods = BTreeMap<String, Marks>;

/// The two watches; dropping it ends them.
#[derive(Debug)]
pub struct Watch {
    pods: watch::Sender<Pods>,
    _tasks: JoinSet<()>,
}

impl Watch {
    /// Begins to watch a namespace.
    #[must_use]
    pub fn start(client: &Client, namespace: &str) -> Self {
        let pods = watch::Sender::new(Pods::new());
        let mut tasks = JoinSet::new();
        tasks.spawn(follow_pods(
            Api::namespaced(client.clone(), namespace),
            pods.clone(),
        ));
        tasks.spawn(follow_events(
            Api::namespaced(client.clone(), namespace),
            pods.clone(),
        ));
        Self {
            pods,
            _tasks: tasks,
        }
    }

    /// Forgets what was seen of pods that are gone, and of those that never came.
    pub fn forget_gone(&self) {
        self.pods
            .send_modify(|pods| pods.retain(|_, marks| marks.is_here()));
    }

    /// What is known now.
    #[must_use]
    pub fn pods(&self) -> Pods {
        self.pods.borrow().clone()
    }

    /// Waits until `found` finds something.
    ///
    /// # Errors
    /// It did not within `patience`; says `what` was waited for.
    pub async fn until<T>(
        &self,
        what: &str,
        patience: Duration,
        mut found: impl FnMut(&Pods) -> Option<T>,
    ) -> anyhow::Result<T> {
        let mut pods = self.pods.subscribe();
        let waited = timeout(patience, async {
            loop {
                if let Some(found) = found(&pods.borrow_and_update()) {
                    return Some(found);
                }
                pods.changed().await.ok()?;
            }
        });
        match waited.await {
            Ok(Some(found)) => Ok(found),
            Ok(None) | Err(_) => bail!("{what}: not within {patience:?}; {:?}", self.pods()),
        }
    }
}

async fn follow_pods(api: Api<Pod>, pods: watch::Sender<Pods>) {
    let mut seen = std::pin::pin!(watcher(api, watcher::Config::default()));
    while let Some(event) = seen.next().await {
        let now = Instant::now();
        match event {
            Ok(watcher::Event::Apply(pod) | watcher::Event::InitApply(pod)) => {
                pods.send_modify(|pods| note_pod(pods, &pod, now));
            }
            Ok(watcher::Event::Delete(pod)) => pods.send_modify(|pods| {
                if let Some(marks) = pod.metadata.name.and_then(|name| pods.get_mut(&name)) {
                    marks.gone = true;
                }
            }),
            Ok(watcher::Event::Init | watcher::Event::InitDone) => {}
            Err(_) => sleep(AGAIN).await,
        }
    }
}

fn note_pod(pods: &mut Pods, pod: &Pod, now: Instant) {
    let Some(name) = pod.metadata.name.clone() else {
        return;
    };
    let marks = pods.entry(name).or_default();
    marks.added.get_or_insert(now);
    if let Some(spec) = &pod.spec {
        let mut containers = spec.containers.iter();
        marks.init = containers.any(|container| container.lifecycle.is_some());
        if spec.node_name.is_some() {
            marks.scheduled.get_or_insert(now);
        }
    }
    let Some(status) = &pod.status else { return };
    if let Some(address) = status.pod_ip.as_ref().and_then(|text| text.parse().ok()) {
        marks.address.get_or_insert((now, address));
    }
    let mut conditions = status.conditions.iter().flatten();
    if conditions.any(|condition| condition.type_ == "Ready" && condition.status == "True") {
        marks.ready.get_or_insert(now);
    }
}

async fn follow_events(api: Api<Event>, pods: watch::Sender<Pods>) {
    let of_pods = watcher::Config::default().fields("involvedObject.kind=Pod");
    let mut seen = std::pin::pin!(watcher(api, of_pods));
    while let Some(event) = seen.next().await {
        let now = Instant::now();
        match event {
            Ok(watcher::Event::Apply(event) | watcher::Event::InitApply(event)) => {
                pods.send_modify(|pods| note_event(pods, &event, now));
            }
            Ok(watcher::Event::Delete(_) | watcher::Event::Init | watcher::Event::InitDone) => {}
            Err(_) => sleep(AGAIN).await,
        }
    }
}

fn note_event(pods: &mut Pods, event: &Event, now: Instant) {
    let about = &event.involved_object;
    // `spec.containers{server}`.
    let container = about
        .field_path
        .as_deref()
        .and_then(|path| path.split_once('{'))
        .map(|(_, name)| name.trim_end_matches('}').to_owned());
    let (Some(name), Some(container)) = (about.name.as_ref(), container) else {
        return;
    };
    // Its pod's own watch may be behind.
    match event.reason.as_deref() {
        Some("Pulled") => {
            let marks = pods.entry(name.clone()).or_default();
            marks.pulled.entry(container).or_insert(now);
        }
        Some("Started") => {
            let marks = pods.entry(name.clone()).or_default();
            marks.started.entry(container).or_insert(now);
        }
        Some(_) | None => {}
    }
}
