//! The gateway as the manifests install it: two activators, two autoscalers, each a pod.
//! Clients follow the activators that the cluster calls ready.
//!
//! Processes are killed from outside their pods, on the machine that is their node, so
//! that the moment of their death is known; what comes after it is the kubelet's and
//! the Deployment's work. Logs of what is killed are read before: they go with the pod.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::Context as _;
use http::HeaderMap;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kube::api::{ListParams, LogParams};
use kube::{Api, ResourceExt as _};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::super::Options;
use super::super::caller::Clock;
use super::super::cluster::{PATIENCE, Space, at_once, until};
use super::super::doors::{Door, Doors, Entrance};
use super::super::ledger::{Kill, Micros, Victim};
use super::super::node;
use super::{Goes, REPLICAS};
use installed::Installed;
use parted::Parted;

mod installed;
mod parted;

/// The lease and the ports that the manifests name.
const LEASE: &str = "mcp-gateway-mcp-gateway";
const CLIENTS: u16 = 8080;
const SCALER: u16 = 7444;
/// In the command line of both roles, and of nothing else in their pods.
const PROGRAM: &str = "mcp-gateway";
/// The kubelet starts a container again at once, then ever later, at last after 5 minutes.
const BACKOFF: Duration = Duration::from_secs(400);
/// Between two looks at which activators there are.
const FOLLOW: Duration = Duration::from_millis(100);
/// The longest such look.
const LOOK: Duration = Duration::from_secs(2);
/// Most of each log that is kept.
const LINES: i64 = 200;

/// What is installed.
#[derive(Debug)]
pub(super) struct Pods {
    doors: Doors,
    headers: HeaderMap,
    following: JoinHandle<()>,
    roles: Roles,
    /// Of what was killed.
    logs: Vec<String>,
    installed: Option<Installed>,
}

impl Pods {
    pub(super) async fn start(options: &Options, space: &Space) -> anyhow::Result<Self> {
        let (installed, headers) = Installed::new(options, &space.name).await?;
        let roles = Roles(space.api_in(&installed.system));
        roles.until_all_ready(ACTIVATOR, None).await?;
        let doors = Doors::new(roles.doors().await?)?;
        Ok(Self {
            following: tokio::spawn(follow(roles.clone(), doors.clone())),
            doors,
            headers,
            roles,
            logs: Vec::new(),
            installed: Some(installed),
        })
    }

    pub(super) fn entrance(&self) -> Entrance {
        Entrance {
            doors: self.doors.clone(),
            headers: self.headers.clone(),
        }
    }

    pub(super) async fn kill_leader(
        &mut self,
        space: &Space,
        goes: Goes,
        clock: Clock,
    ) -> anyhow::Result<()> {
        let leader = self.leader(space).await?;
        self.kill(AUTOSCALER, &leader, goes, clock).await?;
        Ok(())
    }

    pub(super) async fn kill_activator(
        &mut self,
        goes: Goes,
        clock: Clock,
    ) -> anyhow::Result<Kill> {
        let mut pods = self.roles.ready(ACTIVATOR).await?;
        // Whose container was started again most often waits longest the next time.
        pods.sort_by_key(restarts);
        let victim = match goes {
            Goes::Container => pods.first(),
            Goes::Pod => pods.last(),
        };
        let victim = victim.context("no activator is ready")?;
        let uid = victim.uid().context("a pod has a uid")?;
        let (from, to) = self.kill(ACTIVATOR, victim, goes, clock).await?;
        let place = self.doors.place(&uid);
        let place = place.with_context(|| format!("no client knew {}", victim.name_any()))?;
        Ok(Kill {
            victim: Victim::Activator(place),
            from,
            to,
        })
    }

    /// Kills a pod's process, between the two moments; then waits until all are there
    /// again.
    async fn kill(
        &mut self,
        role: &str,
        pod: &Pod,
        goes: Goes,
        clock: Clock,
    ) -> anyhow::Result<(Micros, Micros)> {
        let (name, uid) = (pod.name_any(), pod.uid().context("a pod has a uid")?);
        self.logs.push(self.roles.log(&name, false).await);
        let process = node::process_of(&uid, PROGRAM);
        let process = process.with_context(|| format!("no process of {name} is found here"))?;
        let moments = node::kill(process, clock).await?;
        match goes {
            Goes::Container => {
                let before = restarts(pod);
                let again = async || {
                    let pods = self.roles.ready(role).await.unwrap_or_default();
                    let same = pods.iter().find(|pod| pod.uid().as_ref() == Some(&uid));
                    same.is_some_and(|pod| restarts(pod) > before)
                };
                until(&format!("{name} again"), BACKOFF, again).await?;
                self.roles.until_all_ready(role, None).await?;
            }
            Goes::Pod => {
                self.roles.0.delete(&name, &at_once()).await?;
                self.roles.until_all_ready(role, Some(&uid)).await?;
            }
        }
        Ok(moments)
    }

    /// The pod of the autoscaler that leads.
    async fn leader(&self, space: &Space) -> anyhow::Result<Pod> {
        let system = &self.installed()?.system;
        let found = async || self.leads(space, system).await;
        until("a leader", PATIENCE, async || found().await.is_some()).await?;
        found().await.context("nobody leads any more")
    }

    async fn leads(&self, space: &Space, system: &str) -> Option<Pod> {
        let holder = space.leader(system, LEASE).await?;
        let pods = self.roles.ready(AUTOSCALER).await.ok()?;
        let leads = |pod: &Pod| {
            let own = address(pod).map(|ip| format!("_{}", SocketAddr::new(ip, SCALER)));
            own.is_some_and(|own| holder.ends_with(&own))
        };
        pods.into_iter().find(leads)
    }

    pub(super) async fn part(&mut self, space: &Space, long: Duration) -> anyhow::Result<()> {
        let leader = address(&self.leader(space).await?).context("the leader's address")?;
        let activators = self.roles.ready(ACTIVATOR).await?;
        let activator = activators.iter().find_map(address);
        let parted = Parted::between(activator.context("no activator is ready")?, leader)?;
        sleep(long).await;
        parted.mend()
    }

    /// Those of what was killed, and of what is there now.
    pub(super) async fn logs(&self) -> String {
        let mut logs = self.logs.clone();
        for role in [AUTOSCALER, ACTIVATOR] {
            for pod in self.roles.all(role).await.unwrap_or_default() {
                if restarts(&pod) > 0 {
                    logs.push(self.roles.log(&pod.name_any(), true).await);
                }
                logs.push(self.roles.log(&pod.name_any(), false).await);
            }
        }
        logs.join("\n---\n")
    }

    pub(super) async fn stop(mut self) -> anyhow::Result<()> {
        match self.installed.take() {
            Some(installed) => installed.uninstall().await,
            None => Ok(()),
        }
    }

    fn installed(&self) -> anyhow::Result<&Installed> {
        self.installed.as_ref().context("it was taken away")
    }
}

impl Drop for Pods {
    fn drop(&mut self) {
        self.following.abort();
    }
}

const ACTIVATOR: &str = "activator";
const AUTOSCALER: &str = "autoscaler";

/// The pods of both roles.
#[derive(Clone, Debug)]
struct Roles(Api<Pod>);

impl Roles {
    async fn all(&self, role: &str) -> anyhow::Result<Vec<Pod>> {
        let labels = format!("app.kubernetes.io/component={role}");
        let params = ListParams::default().labels(&labels);
        Ok(timeout(LOOK, self.0.list(&params)).await??.items)
    }

    /// Those that would be sent requests.
    async fn ready(&self, role: &str) -> anyhow::Result<Vec<Pod>> {
        let pods = self.all(role).await?.into_iter();
        Ok(pods.filter(is_ready).collect())
    }

    async fn doors(&self) -> anyhow::Result<Vec<Door>> {
        let door = |pod: &Pod| -> Option<Door> {
            let at = SocketAddr::new(address(pod)?, CLIENTS);
            Some((pod.uid()?, at.to_string()))
        };
        Ok(self
            .ready(ACTIVATOR)
            .await?
            .iter()
            .filter_map(door)
            .collect())
    }

    /// Waits until there are as many as there shall be, without the one of that uid.
    async fn until_all_ready(&self, role: &str, without: Option<&str>) -> anyhow::Result<()> {
        let all = async || {
            let pods = self.ready(role).await.unwrap_or_default();
            let others = pods.iter().filter(|pod| pod.uid().as_deref() != without);
            others.count() >= REPLICAS
        };
        until(&format!("every {role}"), PATIENCE, all).await
    }

    /// The end of a pod's log, or why it cannot be read.
    async fn log(&self, pod: &str, previous: bool) -> String {
        let params = LogParams {
            previous,
            tail_lines: Some(LINES),
            ..LogParams::default()
        };
        let text = match timeout(LOOK, self.0.logs(pod, &params)).await {
            Ok(Ok(text)) => text,
            Ok(Err(error)) => error.to_string(),
            Err(_elapsed) => "it cannot be read in time".to_owned(),
        };
        let before = if previous { " before" } else { "" };
        format!("{pod}{before}\n{text}")
    }
}

/// Keeps the doors as the cluster says; what it does not say changes nothing.
async fn follow(roles: Roles, doors: Doors) {
    loop {
        if let Ok(now) = roles.doors().await {
            doors.set(now);
        }
        sleep(FOLLOW).await;
    }
}

fn status(pod: &Pod) -> Option<&PodStatus> {
    pod.status.as_ref()
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = status(pod).and_then(|status| status.conditions.as_ref());
    let mut conditions = conditions.into_iter().flatten();
    let ready = conditions.any(|one| one.type_ == "Ready" && one.status == "True");
    ready && pod.metadata.deletion_timestamp.is_none()
}

fn address(pod: &Pod) -> Option<IpAddr> {
    status(pod)?.pod_ip.as_ref()?.parse().ok()
}

/// How often its container was started again.
fn restarts(pod: &Pod) -> i32 {
    let containers = status(pod).and_then(|status| status.container_statuses.as_ref());
    let containers = containers.into_iter().flatten();
    containers.map(|container| container.restart_count).sum()
}
