//! Cold starts of pods: every road to a first answer, in turn on one cluster.
//!
//! ```text
//! road     which there are
//! place    the cluster, a namespace of our own, the stamp in a pod's log
//! watch    what the cluster shows of pods, and when it arrived
//! gateway  the gateway under test, a child of ours
//! bare     pods without it
//! start    one start, measured
//! burst    many at once
//! ```
//!
//! A round is one start on every road, in a random order, each after a random pause
//! of up to two seconds: the kubelet looks once a second, and a fixed pause would
//! start each sample at the same moment of that second. Nothing of a start is left
//! when the next begins.

pub mod bare;
pub mod burst;
pub mod gateway;
pub mod place;
pub mod road;
pub mod start;
pub mod watch;

use std::path::PathBuf;
use std::time::Duration;

use rand::Rng as _;
use rand::seq::SliceRandom as _;
use tokio::time::{Instant, sleep};

use self::bare::Scaled;
use self::gateway::Gateway;
use self::place::Place;
use self::road::Road;
use crate::section::{PodRound, PodStart};

/// What to measure, with what.
#[derive(Clone, Debug)]
pub struct Options {
    /// The roads; those through the gateway need it and its images.
    pub roads: Vec<Road>,
    /// The gateway's program.
    pub gateway: PathBuf,
    /// The cluster; else `KUBECONFIG`.
    pub kubeconfig: Option<PathBuf>,
    /// Where pods reach the gateway; else the first node's own address.
    pub home_advertise: Option<String>,
    /// The demo server's image.
    pub image: String,
    /// The same with the agent as its entry point.
    pub embedded_image: String,
    /// The agent's image.
    pub agent_image: String,
    /// The longest pause before a start.
    pub pause: Duration,
}

/// Everything that starts need.
pub struct Stage {
    /// With what.
    pub options: Options,
    /// Where.
    pub place: Place,
    /// If a road goes through it.
    pub gateway: Option<Gateway>,
    /// If a road goes by it.
    pub scaled: Option<Scaled>,
}

impl Stage {
    /// Makes the namespace, and in it what the roads need.
    ///
    /// # Errors
    /// There is no cluster, it does not let us, or the gateway does not start.
    pub async fn set(options: Options) -> anyhow::Result<Self> {
        let place = Place::open(options.kubeconfig.as_deref()).await?;
        let mut stage = Self {
            options,
            place,
            gateway: None,
            scaled: None,
        };
        match stage.furnish().await {
            Ok(()) => Ok(stage),
            Err(error) => {
                // The first error is the one to tell.
                let _ = stage.place.close().await;
                Err(error)
            }
        }
    }

    async fn furnish(&mut self) -> anyhow::Result<()> {
        let roads = &self.options.roads;
        if roads.iter().any(|road| road.form().is_some()) {
            self.gateway = Some(Gateway::start(&self.options, &self.place).await?);
        }
        if roads
            .iter()
            .any(|road| matches!(road, Road::Deployment | Road::DeploymentSync0))
        {
            self.scaled = Some(Scaled::create(&self.place, &self.options.image).await?);
        }
        Ok(())
    }

    /// Ends the gateway and removes the namespace.
    ///
    /// # Errors
    /// The API server refused.
    pub async fn strike(self) -> anyhow::Result<()> {
        drop(self.gateway);
        self.place.close().await
    }

    async fn pause(&self) {
        let most = self.options.pause;
        sleep(most.mul_f64(rand::rng().random_range(0.0..1.0))).await;
    }

    /// One start on every road. With `told`, each is said as it comes.
    ///
    /// # Errors
    /// A start failed.
    pub async fn round(&self, told: &mut impl FnMut(&PodStart)) -> anyhow::Result<PodRound> {
        let mut roads = self.options.roads.clone();
        roads.shuffle(&mut rand::rng());
        let mut starts = Vec::with_capacity(roads.len());
        for road in roads {
            self.pause().await;
            let started = start::start(self, road).await?;
            told(&started);
            starts.push(started);
        }
        Ok(PodRound { starts })
    }
}

/// Runs rounds until there are `samples` or the time is up; `keep` is given each.
///
/// # Errors
/// A start failed. The rounds before it were kept.
pub async fn run(
    options: Options,
    samples: usize,
    most: Option<Duration>,
    mut keep: impl FnMut(PodRound) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let began = Instant::now();
    let stage = Stage::set(options).await?;
    let outcome = rounds(&stage, samples, most.map(|most| began + most), &mut keep).await;
    let struck = stage.strike().await;
    outcome.and(struck)
}

async fn rounds(
    stage: &Stage,
    samples: usize,
    until: Option<Instant>,
    keep: &mut impl FnMut(PodRound) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    warm_up(stage).await?;
    let mut longest = Duration::ZERO;
    for number in 1..=samples {
        let began = Instant::now();
        if until.is_some_and(|until| began + longest > until) {
            break;
        }
        let round = stage
            .round(&mut |start| progress(number, samples, start))
            .await?;
        longest = longest.max(began.elapsed());
        keep(round)?;
    }
    Ok(())
}

/// A start without and one through the gateway, so that no sample pays for caches
/// and connections that are new.
async fn warm_up(stage: &Stage) -> anyhow::Result<()> {
    let roads = &stage.options.roads;
    let through = roads.iter().find(|road| road.form().is_some());
    let without = roads.iter().find(|road| road.form().is_none());
    for road in through.into_iter().chain(without) {
        start::start(stage, *road).await?;
    }
    Ok(())
}

#[expect(clippy::print_stderr, reason = "progress of a command-line tool")]
fn progress(number: usize, samples: usize, start: &PodStart) {
    let label = start.road.label();
    eprintln!("{number}/{samples}  {label}: {:.0} ms", start.total_millis);
}
