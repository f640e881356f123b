//! The cluster that is measured on, and a namespace of the measurement's own.
//!
//! The API server is reached by the gateway's own client, without Nagle's algorithm
//! and on a kept connection, so that nobody is compared with a slower client.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, bail};
use k8s_openapi::api::core::v1::{Namespace, Node, Pod, ServiceAccount};
use kube::api::{DeleteParams, ListParams, LogParams, ObjectMeta, PostParams};
use kube::{Api, Client};
use mcp_gateway_runtime::kubernetes::client;
use tokio::time::{Instant, sleep};

use super::watch::{Marks, Watch};

/// How long anything may take.
pub const PATIENCE: Duration = Duration::from_secs(120);
/// The container of the server, in our pods and in the gateway's.
pub const SERVER: &str = "server";
/// Between two looks.
const LOOK: Duration = Duration::from_millis(50);

/// A namespace on a cluster.
pub struct Place {
    /// For calls that are measured, on a connection of its own.
    pub client: Client,
    /// Its name.
    pub namespace: String,
    /// Pods in it, over `client`.
    pub pods: Api<Pod>,
    /// What is seen of them.
    pub watch: Watch,
    /// An address of the first node.
    pub node: String,
}

/// A moment on both clocks: ours, and the one that pods stamp with.
#[derive(Clone, Copy, Debug)]
pub struct Begin {
    /// Ours.
    pub at: Instant,
    wall: SystemTime,
}

impl Begin {
    /// Now.
    #[must_use]
    pub fn now() -> Self {
        Self {
            at: Instant::now(),
            wall: SystemTime::now(),
        }
    }

    /// Milliseconds until `moment`; negative if that was before.
    #[must_use]
    pub fn until(&self, moment: Instant) -> f64 {
        let later = moment.saturating_duration_since(self.at).as_secs_f64();
        let before = self.at.saturating_duration_since(moment).as_secs_f64();
        (later - before) * 1e3
    }

    /// Milliseconds until a stamp in Unix seconds. Subtracted as durations: a float
    /// of today's Unix time is only good to a quarter of a microsecond, which is enough.
    fn until_stamp(&self, stamp: f64) -> Option<f64> {
        let begin = self.wall.duration_since(SystemTime::UNIX_EPOCH).ok()?;
        Some((stamp - begin.as_secs_f64()) * 1e3)
    }
}

impl Place {
    /// Makes the namespace and begins to watch it.
    ///
    /// # Errors
    /// There is no cluster, or it does not let us.
    pub async fn open(kubeconfig: Option<&Path>) -> anyhow::Result<Self> {
        let config = client::config(kubeconfig).await?;
        let client = client::client(&config)?;
        let namespace = format!("mcp-load-{:08x}", rand::random::<u32>());
        let nodes: Api<Node> = Api::all(client.clone());
        let nodes = nodes.list(&ListParams::default()).await.context("nodes")?;
        let node = nodes
            .items
            .into_iter()
            .filter_map(|node| node.status)
            .flat_map(|status| status.addresses.unwrap_or_default())
            .find(|address| address.type_ == "InternalIP")
            .context("no node has an address")?
            .address;
        let all: Api<Namespace> = Api::all(client.clone());
        let wanted = Namespace {
            metadata: ObjectMeta {
                name: Some(namespace.clone()),
                ..ObjectMeta::default()
            },
            ..Namespace::default()
        };
        all.create(&PostParams::default(), &wanted)
            .await
            .context("a namespace of our own")?;
        let place = Self {
            watch: Watch::start(&client::client(&config)?, &namespace),
            pods: Api::namespaced(client.clone(), &namespace),
            client,
            namespace,
            node,
        };
        place.until_usable().await?;
        Ok(place)
    }

    /// Pods cannot be made before the namespace's service account is there.
    async fn until_usable(&self) -> anyhow::Result<()> {
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client.clone(), &self.namespace);
        let give_up = Instant::now() + PATIENCE;
        while accounts.get_opt("default").await?.is_none() {
            if Instant::now() > give_up {
                bail!("{} gets no service account", self.namespace);
            }
            sleep(LOOK).await;
        }
        Ok(())
    }

    /// Removes the namespace and all in it; does not wait.
    ///
    /// # Errors
    /// The API server refused.
    pub async fn close(self) -> anyhow::Result<()> {
        let all: Api<Namespace> = Api::all(self.client.clone());
        all.delete(&self.namespace, &DeleteParams::default())
            .await?;
        Ok(())
    }

    /// Waits until no pod is left, not even one that ends.
    ///
    /// # Errors
    /// One stays.
    pub async fn until_empty(&self) -> anyhow::Result<()> {
        self.watch
            .until("pods end", PATIENCE, |pods| {
                (!pods.values().any(Marks::is_here)).then_some(())
            })
            .await?;
        self.watch.forget_gone();
        Ok(())
    }

    /// The moment that a pod's server stamped its log with, in milliseconds from
    /// `begin`: when it could be spoken to.
    ///
    /// # Errors
    /// There is no such line.
    pub async fn stamp(&self, pod: &str, begin: Begin) -> anyhow::Result<f64> {
        let give_up = Instant::now() + PATIENCE;
        loop {
            if let Some(stamp) = self.stamp_now(pod, begin).await {
                return Ok(stamp);
            }
            if Instant::now() > give_up {
                bail!("{pod} stamped no moment");
            }
            sleep(LOOK).await;
        }
    }

    /// The same, if it can be read now: until the kubelet knows of the container it
    /// has no log of it.
    pub async fn stamp_now(&self, pod: &str, begin: Begin) -> Option<f64> {
        let params = LogParams {
            container: Some(SERVER.to_owned()),
            ..LogParams::default()
        };
        let text = self.pods.logs(pod, &params).await.ok()?;
        begin.until_stamp(stamp_in(&text)?)
    }
}

/// `… since 1700000000.123456789` on a line of the demo server.
fn stamp_in(log: &str) -> Option<f64> {
    log.lines()
        .filter(|line| line.contains("demo server:"))
        .find_map(|line| line.rsplit_once(" since ")?.1.trim().parse().ok())
}

/// Labels of everything that is ours.
#[must_use]
pub fn labels(app: &str) -> BTreeMap<String, String> {
    BTreeMap::from([("app".to_owned(), app.to_owned())])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stamp_is_found_among_other_lines() {
        let log = "x since 3\ndemo server: accepts at 0.0.0.0:8000 since 1700000000.250000000\n";
        assert_eq!(stamp_in(log), Some(1_700_000_000.25));
        assert_eq!(stamp_in("demo server: accepts since never"), None);
        assert_eq!(stamp_in(""), None);
    }
}
