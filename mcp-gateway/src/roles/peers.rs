//! Which activators run: the pods of the system namespace that bear their labels, and those outside the cluster.
//!
//! Invariants: nothing is said before the pods were listed once, because a leader takes whoever is not named for gone;
//! a pod counts from the moment its containers run until it is gone, however long it takes to end.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use futures_util::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kube::{
    Api, Client,
    runtime::watcher::{self, Event},
};
use mcp_gateway_api::scaler::{PodUid, Presence};
use tokio::{sync::watch, time::sleep};

/// The wait after a watch that failed.
const PAUSE: Duration = Duration::from_secs(1);

/// Which pods are activators of this installation.
pub(super) struct Peers {
    pub(super) client: Client,
    pub(super) namespace: String,
    pub(super) installation: String,
    /// Outside the cluster.
    pub(super) outside: BTreeSet<PodUid>,
}

impl Peers {
    /// Follows them for as long as it is polled: `None` until they are known.
    pub(super) async fn follow(self, tell: watch::Sender<Option<BTreeMap<PodUid, Presence>>>) {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &self.namespace);
        loop {
            let Err(error) = self.watch(&api, &tell).await else {
                continue;
            };
            tracing::warn!(%error, namespace = self.namespace, "the activators' pods cannot be watched for now");
            sleep(PAUSE).await;
        }
    }

    async fn watch(
        &self,
        api: &Api<Pod>,
        tell: &watch::Sender<Option<BTreeMap<PodUid, Presence>>>,
    ) -> Result<(), watcher::Error> {
        let selector = selector(&self.installation);
        let mut events =
            watcher::watcher(api.clone(), watcher::Config::default().labels(&selector)).boxed();
        let mut running = BTreeMap::new();
        let mut listed = false;
        while let Some(event) = events.try_next().await? {
            match event {
                Event::Init => running.clear(),
                Event::InitApply(pod) | Event::Apply(pod) => take_in(&mut running, &pod),
                Event::InitDone => listed = true,
                Event::Delete(pod) => {
                    running.remove(&pod.metadata.name.unwrap_or_default());
                }
            }
            if listed {
                let outside = self.outside.iter().map(|uid| (*uid, Presence::Runs));
                let known: BTreeMap<PodUid, Presence> =
                    running.values().copied().chain(outside).collect();
                tell.send_if_modified(|now| {
                    let other = now.as_ref() != Some(&known);
                    if other {
                        *now = Some(known);
                    }
                    other
                });
            }
        }
        Ok(())
    }
}

/// The labels of activators, as a selector.
fn selector(installation: &str) -> String {
    format!(
        "app.kubernetes.io/name=mcp-gateway,app.kubernetes.io/component=activator,app.kubernetes.io/instance={installation}"
    )
}

/// Notes whether a pod runs, by its name.
fn take_in(running: &mut BTreeMap<String, (PodUid, Presence)>, pod: &Pod) {
    let name = pod.metadata.name.clone().unwrap_or_default();
    let status = pod.status.as_ref();
    let phase = status.and_then(|status| status.phase.as_deref());
    let uid = pod.metadata.uid.as_deref().and_then(|uid| uid.parse().ok());
    match uid {
        // A node that is lost says Unknown: its activator may well hold leases.
        Some(uid) if matches!(phase, Some("Running" | "Unknown")) => {
            running.insert(name, (uid, status.map_or(Presence::Runs, presence)));
        }
        Some(_) | None => {
            running.remove(&name);
        }
    }
}

/// A pod stays `Running` while its containers crash and wait to be started again.
fn presence(status: &PodStatus) -> Presence {
    let containers = status.container_statuses.iter().flatten();
    let mut states = containers.filter_map(|one| one.state.as_ref()).peekable();
    let known = states.peek().is_some();
    if known && states.all(|state| state.running.is_none()) {
        Presence::Down
    } else {
        Presence::Runs
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use k8s_openapi::api::core::v1::{
        ContainerState, ContainerStateRunning, ContainerStateWaiting, ContainerStatus, Pod,
        PodStatus,
    };
    use kube::api::ObjectMeta;
    use mcp_gateway_api::scaler::{PodUid, Presence};

    use super::take_in;

    fn pod(phase: &str) -> Pod {
        Pod {
            metadata: ObjectMeta {
                name: Some("activator-1".into()),
                uid: Some("00000000-0000-0000-0000-000000000007".into()),
                ..ObjectMeta::default()
            },
            status: Some(PodStatus {
                phase: Some(phase.into()),
                ..PodStatus::default()
            }),
            ..Pod::default()
        }
    }

    #[test]
    fn a_pod_counts_from_its_start_to_its_end_and_while_its_node_is_lost() {
        let mut running = BTreeMap::new();
        let steps = [
            ("Pending", false),
            ("Running", true),
            ("Unknown", true),
            ("Succeeded", false),
            ("Failed", false),
        ];
        for (phase, counts) in steps {
            take_in(&mut running, &pod(phase));
            let known: Vec<_> = running.values().copied().collect();
            assert_eq!(known == [(PodUid(7), Presence::Runs)], counts, "{phase}");
        }
    }

    #[test]
    fn a_pod_whose_containers_all_wait_or_have_ended_has_no_process() {
        let waits = || ContainerState {
            waiting: Some(ContainerStateWaiting::default()),
            ..ContainerState::default()
        };
        let runs = || ContainerState {
            running: Some(ContainerStateRunning::default()),
            ..ContainerState::default()
        };
        let cases = [
            (vec![waits()], Presence::Down),
            (vec![runs()], Presence::Runs),
            (vec![waits(), runs()], Presence::Runs),
            (vec![], Presence::Runs),
        ];
        for (states, expected) in cases {
            let mut pod = pod("Running");
            let statuses = states.into_iter().map(|state| ContainerStatus {
                state: Some(state),
                ..ContainerStatus::default()
            });
            if let Some(status) = &mut pod.status {
                status.container_statuses = Some(statuses.collect());
            }
            let mut running = BTreeMap::new();
            take_in(&mut running, &pod);
            let (_, presence) = running.values().next().expect("it counts");
            assert_eq!(*presence, expected, "{pod:?}");
        }
    }
}
