//! Which activators run: the pods of the system namespace that bear their labels, and those outside the cluster.
//!
//! Invariants: nothing is said before the pods were listed once, because a leader takes whoever is not named for gone;
//! a pod counts from the moment its containers run until it is gone, however long it takes to end.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use futures_util::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client,
    runtime::watcher::{self, Event},
};
use mcp_gateway_api::scaler::PodUid;
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
    pub(super) async fn follow(self, tell: watch::Sender<Option<BTreeSet<PodUid>>>) {
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
        tell: &watch::Sender<Option<BTreeSet<PodUid>>>,
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
                let known: BTreeSet<PodUid> =
                    running.values().chain(&self.outside).copied().collect();
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
fn take_in(running: &mut BTreeMap<String, PodUid>, pod: &Pod) {
    let name = pod.metadata.name.clone().unwrap_or_default();
    let phase = pod
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref());
    let uid = pod.metadata.uid.as_deref().and_then(|uid| uid.parse().ok());
    match uid {
        // A node that is lost says Unknown: its activator may well hold leases.
        Some(uid) if matches!(phase, Some("Running" | "Unknown")) => {
            running.insert(name, uid);
        }
        Some(_) | None => {
            running.remove(&name);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use k8s_openapi::api::core::v1::{Pod, PodStatus};
    use kube::api::ObjectMeta;
    use mcp_gateway_api::scaler::PodUid;

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
            let known: Vec<PodUid> = running.values().copied().collect();
            assert_eq!(known == [PodUid(7)], counts, "{phase}");
        }
    }
}
