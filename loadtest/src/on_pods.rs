//! The commands that measure pods on a cluster. What was measured before is kept: a
//! long run can be taken in pieces.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use mcp_gateway_loadtest::pods::{self, road::Road};
use mcp_gateway_loadtest::section::{Burst, PodStarts, Section};

use crate::write_section;

/// The cluster, and what runs on it.
#[derive(Debug, Args)]
struct ClusterArgs {
    /// The gateway's program.
    #[arg(long)]
    gateway: PathBuf,
    /// Where pods reach it [default: the first node's own address].
    #[arg(long)]
    home_advertise: Option<String>,
    /// The demo server's image.
    #[arg(long, default_value = "localhost/mcp-gateway-demo:dev")]
    image: String,
    /// The same with the agent as its entry point.
    #[arg(long, default_value = "localhost/mcp-gateway-demo-embedded:dev")]
    embedded_image: String,
    /// The agent's image.
    #[arg(long, default_value = "localhost/mcp-gateway-agent:dev")]
    agent_image: String,
    /// Longest random pause before a start, in milliseconds.
    #[arg(long, default_value_t = 2_000)]
    pause_ms: u64,
    /// What the report calls it.
    #[arg(long)]
    title: String,
    /// The section's file; what it holds already is kept and added to.
    #[arg(long)]
    out: PathBuf,
}

/// Of `cold-pods`.
#[derive(Debug, Args)]
pub(crate) struct ColdPodsArgs {
    /// The roads [default: all that need no other settings of the cluster].
    #[arg(long = "road", value_enum)]
    roads: Vec<Road>,
    /// How many rounds of them.
    #[arg(long, default_value_t = 30)]
    samples: usize,
    /// Stop before a round that would end after so many seconds.
    #[arg(long)]
    seconds: Option<u64>,
    #[command(flatten)]
    cluster: ClusterArgs,
}

/// Of `burst-pods`.
#[derive(Debug, Args)]
pub(crate) struct BurstPodsArgs {
    /// The road through the gateway.
    #[arg(long, value_enum, default_value = "embedded")]
    road: Road,
    /// How many at once.
    #[arg(long, default_value_t = 50)]
    pods: usize,
    /// How many rounds.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds for which the node is left alone before each burst: a kubelet cleans up
    /// after pods that are gone once a minute.
    #[arg(long, default_value_t = 75)]
    settle: u64,
    #[command(flatten)]
    cluster: ClusterArgs,
}

impl ClusterArgs {
    fn options(&self, roads: Vec<Road>) -> pods::Options {
        pods::Options {
            roads,
            gateway: self.gateway.clone(),
            kubeconfig: None,
            home_advertise: self.home_advertise.clone(),
            image: self.image.clone(),
            embedded_image: self.embedded_image.clone(),
            agent_image: self.agent_image.clone(),
            pause: Duration::from_millis(self.pause_ms),
        }
    }
}

/// Adds rounds of every road to the section's file, each as soon as it is done.
pub(crate) async fn cold(args: ColdPodsArgs) -> anyhow::Result<()> {
    let (out, cluster) = (&args.cluster.out, &args.cluster);
    let mut section = match read_section(out)? {
        Some(Section::Pods(section)) => section,
        Some(_) => anyhow::bail!("{} is of another kind", out.display()),
        None => PodStarts {
            title: cluster.title.clone(),
            rounds: Vec::new(),
        },
    };
    let roads = if args.roads.is_empty() {
        Road::USUAL.to_vec()
    } else {
        args.roads
    };
    let most = args.seconds.map(Duration::from_secs);
    pods::run(cluster.options(roads), args.samples, most, |round| {
        section.rounds.push(round);
        write_section(out, &Section::Pods(section.clone()))
    })
    .await
}

/// Adds bursts to the section's file, each as soon as it is done.
pub(crate) async fn burst(args: BurstPodsArgs) -> anyhow::Result<()> {
    let (out, cluster) = (&args.cluster.out, &args.cluster);
    let mut section = match read_section(out)? {
        Some(Section::Burst(section)) if section.pods == args.pods => section,
        Some(_) => anyhow::bail!("{} is of another kind", out.display()),
        None => Burst {
            title: cluster.title.clone(),
            pods: args.pods,
            rounds: Vec::new(),
        },
    };
    let burst = pods::burst::Burst {
        road: args.road,
        pods: args.pods,
        rounds: args.rounds,
        settle: Duration::from_secs(args.settle),
    };
    pods::burst::run(cluster.options(vec![args.road]), burst, |round| {
        section.rounds.push(round);
        write_section(out, &Section::Burst(section.clone()))
    })
    .await
}

/// A section that is there already.
fn read_section(path: &Path) -> anyhow::Result<Option<Section>> {
    if !path.exists() {
        return Ok(None);
    }
    let text = std::fs::read_to_string(path)?;
    let section =
        serde_json::from_str(&text).with_context(|| format!("{} is no section", path.display()))?;
    Ok(Some(section))
}
