//! What is taken away, and given back.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::Command;
use tokio::time::{Instant, sleep};

use super::caller::Clock;
use super::cluster::PATIENCE;
use super::ledger::{Kill, Mark, Victim};
use super::site::Site;

/// How long a container is away before it is started again.
const RESTART: Duration = Duration::from_secs(1);
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
    /// The autoscaler that leads, by SIGKILL; started again a second later.
    Leader,
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
    /// `dev/cluster`; without it the cluster's own parts cannot be taken away.
    pub cluster: Option<PathBuf>,
    /// How long the API server is away.
    pub api_server_away: Duration,
    /// The run's time.
    pub clock: Clock,
}

impl Fault {
    /// Whether it can be made with these tools.
    #[must_use]
    pub fn is_possible(self, tools: &Tools) -> bool {
        match self {
            Self::ApiServer | Self::Kubelet | Self::Containerd | Self::Server => {
                tools.cluster.is_some()
            }
            Self::Pod
            | Self::Leader
            | Self::ActivatorContainer
            | Self::ActivatorPod
            | Self::Partition => true,
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
    let victim = usize::from(rand::random::<bool>()).min(site.activators.len() - 1);
    let kills = match fault {
        Fault::Server | Fault::Pod => vec![server(fault, site, clock, instance).await?],
        Fault::Leader => {
            let leader = site.leader().await?;
            site.autoscalers[leader].kill().await?;
            sleep(RESTART).await;
            site.autoscalers[leader].start().await?;
            Vec::new()
        }
        Fault::ActivatorContainer | Fault::ActivatorPod => {
            vec![activator(fault, site, clock, victim).await?]
        }
        Fault::Partition => {
            let leader = site.leader().await?;
            site.links[victim][leader].cut(true);
            sleep(PARTED).await;
            site.links[victim][leader].cut(false);
            Vec::new()
        }
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
    let process = process_of(&uid);
    let from = clock.now();
    match (fault, process) {
        (Fault::Server, Some(pid)) => kill_process(pid, Signal::KILL)?,
        (Fault::Server, None) => bail!("no process of {instance} is found on this machine"),
        _ => site.space.delete_pod(pod).await?,
    }
    let give_up = Instant::now() + PATIENCE;
    while process.is_some_and(is_alive) {
        if Instant::now() > give_up {
            bail!("the server in {instance} does not end");
        }
        sleep(Duration::from_millis(10)).await;
    }
    Ok(Kill {
        victim: Victim::Instance(instance.to_owned()),
        from,
        to: clock.now(),
    })
}

/// Whether a process may still take and answer what is sent to it: it loses its memory,
/// and so its command line, before its sockets are closed.
fn is_alive(pid: Pid) -> bool {
    let path = format!("/proc/{}/stat", pid.as_raw_nonzero());
    let line = std::fs::read_to_string(path).unwrap_or_default();
    let state = line.rsplit_once(") ").map(|(_, rest)| rest);
    state.is_some_and(|state| !state.starts_with(['Z', 'X']))
}

/// The server's process in the pod of that uid, if its node is this machine.
fn process_of(uid: &str) -> Option<Pid> {
    let all = std::fs::read_dir("/proc").ok()?;
    let mut pids = all.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    let pid = pids.find(|pid| {
        let proc = Path::new("/proc").join(pid.to_string());
        let command = std::fs::read(proc.join("cmdline")).unwrap_or_default();
        let groups = std::fs::read_to_string(proc.join("cgroup")).unwrap_or_default();
        groups.contains(&format!("/pod{uid}/"))
            && String::from_utf8_lossy(&command).contains("witness")
    })?;
    Pid::from_raw(pid)
}

async fn activator(
    fault: Fault,
    site: &mut Site,
    clock: Clock,
    victim: usize,
) -> anyhow::Result<Kill> {
    let from = clock.now();
    site.activators[victim].kill().await?;
    let to = clock.now();
    if fault == Fault::ActivatorPod {
        site.new_pod(victim).await?;
    } else {
        sleep(RESTART).await;
    }
    site.start_activator(victim).await?;
    Ok(Kill {
        victim: Victim::Activator(victim),
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
    let done = Command::new(cluster).args(arguments).output().await?;
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
