//! What is taken away, and given back.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::ValueEnum as _;
use tokio::process::Command;
use tokio::time::sleep;

use super::caller::Clock;
use super::ledger::{Kill, Mark, Victim};
use super::node;
use super::site::{Form, Goes, Site};

/// How long an activator and the leader do not hear of each other: longer than
/// either takes to give the other up.
const PARTED: Duration = Duration::from_secs(20);
/// How long the kubelet and containerd are away.
const NODE_AWAY: Duration = Duration::from_secs(10);

/// A fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Fault {
    /// The server's process in a pod, by SIGKILL.
    Server,
    /// A server's pod, deleted without grace.
    Pod,
    /// The autoscaler that leads, by SIGKILL; started again, in the same pod with --form pods.
    Leader,
    /// The same, and its pod; another takes its place. With --form pods only.
    LeaderPod,
    /// An activator, by SIGKILL; started again in the same pod.
    ActivatorContainer,
    /// An activator, by SIGKILL, and its pod; another takes its place.
    ActivatorPod,
    /// Nothing passes between an activator and the leader for 20 seconds.
    Partition,
    /// The API server is away.
    ApiServer,
    /// The kubelet is away for 10 seconds.
    Kubelet,
    /// containerd is away for 10 seconds.
    Containerd,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Server => "server process",
            Self::Pod => "server's pod",
            Self::Leader => "leader",
            Self::LeaderPod => "leader's pod",
            Self::ActivatorContainer => "activator's container",
            Self::ActivatorPod => "activator's pod",
            Self::Partition => "activator parted from the leader",
            Self::ApiServer => "API server",
            Self::Kubelet => "kubelet",
            Self::Containerd => "containerd",
        })
    }
}

/// With what faults are made.
#[derive(Debug)]
pub struct Tools {
    /// What the gateway runs as.
    pub form: Form,
    /// `dev/cluster`; without it the cluster's own parts cannot be taken away, and no
    /// process of a pod is looked for on this machine.
    pub cluster: Option<PathBuf>,
    /// How long the API server is away.
    pub api_server_away: Duration,
    /// The run's time.
    pub clock: Clock,
}

impl Fault {
    /// All that a form has.
    #[must_use]
    pub fn all(form: Form) -> Vec<Self> {
        let all = Self::value_variants().iter().copied();
        all.filter(|fault| form == Form::Pods || *fault != Self::LeaderPod)
            .collect()
    }

    /// Why it cannot be made with these tools, if it cannot.
    #[must_use]
    pub fn obstacle(self, tools: &Tools) -> Option<&'static str> {
        let elsewhere = tools.cluster.is_none();
        match (self, tools.form) {
            (Self::ApiServer | Self::Kubelet | Self::Containerd, _) => {
                elsewhere.then_some("this cluster's parts cannot be stopped")
            }
            (Self::LeaderPod, Form::Processes) => Some("a process beside the cluster has no pod"),
            (Self::Server, _)
            | (
                Self::Leader
                | Self::LeaderPod
                | Self::ActivatorContainer
                | Self::ActivatorPod
                | Self::Partition,
                Form::Pods,
            ) => elsewhere.then_some("this cluster's pods may be on another machine"),
            (
                Self::Leader | Self::ActivatorContainer | Self::ActivatorPod | Self::Partition,
                Form::Processes,
            )
            | (Self::Pod, _) => None,
        }
    }
}

/// Makes a fault and mends it; `instance` is the server's that is to suffer.
///
/// # Errors
/// It cannot be made or mended.
pub async fn make(
    fault: Fault,
    site: &mut Site,
    tools: &Tools,
    instance: &str,
) -> anyhow::Result<Mark> {
    let clock = tools.clock;
    let begun = clock.now();
    let nobody = |()| Vec::new();
    let kills = match fault {
        Fault::Server | Fault::Pod => vec![server(fault, site, clock, instance).await?],
        Fault::Leader => site.kill_leader(Goes::Container, clock).await.map(nobody)?,
        Fault::LeaderPod => site.kill_leader(Goes::Pod, clock).await.map(nobody)?,
        Fault::ActivatorContainer => vec![site.kill_activator(Goes::Container, clock).await?],
        Fault::ActivatorPod => vec![site.kill_activator(Goes::Pod, clock).await?],
        Fault::Partition => site.part(PARTED).await.map(nobody)?,
        Fault::ApiServer => away(tools, "apiserver", tools.api_server_away).await?,
        Fault::Kubelet => away(tools, "kubelet", NODE_AWAY).await?,
        Fault::Containerd => away(tools, "containerd", NODE_AWAY).await?,
    };
    Ok(Mark {
        name: fault.to_string(),
        begun: kills.first().map_or(begun, |kill| kill.from),
        mended: clock.now(),
        kills,
        orphaned: 0,
    })
}

async fn server(fault: Fault, site: &Site, clock: Clock, instance: &str) -> anyhow::Result<Kill> {
    let pod = instance.rsplit_once('.').map_or(instance, |(pod, _)| pod);
    let uid = site.space.uid(pod).await?;
    let process = node::process_of(&uid, "witness");
    let (from, to) = match (fault, process) {
        (Fault::Server, Some(process)) => node::kill(process, clock).await?,
        (Fault::Server, None) => bail!("no process of {instance} is found on this machine"),
        (_, process) => {
            let from = clock.now();
            site.space.delete_pod(pod).await?;
            if let Some(process) = process {
                node::dead(process).await?;
            }
            (from, clock.now())
        }
    };
    Ok(Kill {
        victim: Victim::Instance(instance.to_owned()),
        from,
        to,
    })
}

/// Takes a part of the cluster away for a while. It is given back even if that fails.
async fn away(tools: &Tools, part: &str, long: Duration) -> anyhow::Result<Vec<Kill>> {
    let cluster = tools.cluster.as_deref().context("no dev/cluster")?;
    let stopped = run(cluster, &["stop", "--now", part]).await;
    if stopped.is_ok() {
        sleep(long).await;
    }
    run(cluster, &["start", part]).await?;
    stopped.map(|()| Vec::new())
}

/// Puts a cluster right whose API server was away.
///
/// # Errors
/// It cannot be.
pub async fn mend(cluster: &Path) -> anyhow::Result<()> {
    run(cluster, &["up"]).await
}

async fn run(cluster: &Path, arguments: &[&str]) -> anyhow::Result<()> {
    let mut tool = Command::new(cluster);
    // An interrupt at the terminal is the run's: what was taken away is given back.
    let done = tool.args(arguments).process_group(0).output().await?;
    if !done.status.success() {
        bail!(
            "{} {}: {}",
            cluster.display(),
            arguments.join(" "),
            String::from_utf8_lossy(&done.stderr)
        );
    }
    Ok(())
}
