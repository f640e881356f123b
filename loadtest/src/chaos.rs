//! Kills one thing after the other under open-loop load, and accounts for every call.
//!
//! ```text
//! cluster   a namespace of the run's own on a real Kubernetes
//! role      a process of the gateway: started, killed, started again
//! relay     the network between them, which can be cut
//! site      all of it together, in one of two forms: processes, or the manifests' pods
//! doors     the activators that there are now, for clients
//! node      processes of pods on this machine, killed at a known moment
//! caller    a correct client of several activators
//! load      calls at random moments, sessions that stay, streams, new sessions
//! fault     what is taken away
//! ledger    what became of every call, and whose fault it was; pure
//! rounds    accounts of many rounds, one for each fault; pure
//! report    accounts -> Markdown; pure
//! timeline, overlay   calls -> SVG, of one round or of many; what both have: panel; pure
//! ```

use std::path::PathBuf;
use std::pin::pin;
use std::time::Duration;

use anyhow::Context as _;
use futures_util::FutureExt as _;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep};

use caller::Clock;
use fault::Fault;
use ledger::{Account, Mark, Seen};
use load::{Load, Rates};
use site::{Form, Site};

pub mod caller;
pub mod cluster;
pub mod command;
pub mod doors;
pub mod fault;
pub mod ledger;
pub mod load;
pub mod node;
pub mod overlay;
mod panel;
pub mod relay;
pub mod report;
pub mod role;
pub mod rounds;
pub mod site;
pub mod timeline;

/// Load before the first fault.
const BEFORE: Duration = Duration::from_secs(8);
/// Load after a fault is mended and an instance could be started again.
const AFTER: Duration = Duration::from_secs(5);
/// How long after the last call pods may take to be gone: idle time, farewells, and
/// a kubelet that has much to do.
const GONE: Duration = Duration::from_secs(90);

/// What to run.
#[derive(Clone, Debug)]
pub struct Options {
    /// What the gateway runs as.
    pub form: Form,
    /// The gateway's binary; of pods, what installs them.
    pub gateway: PathBuf,
    /// `dev/manifests`, for pods.
    pub manifests: PathBuf,
    /// The cluster.
    pub kubeconfig: PathBuf,
    /// `dev/cluster`, if the cluster is its.
    pub cluster: Option<PathBuf>,
    /// In this order.
    pub faults: Vec<Fault>,
    /// How often all of them.
    pub rounds: usize,
    /// How much load.
    pub rates: Rates,
    /// How long the API server is away.
    pub api_server_away: Duration,
}

/// What came of a run.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Chaos {
    /// What the gateway ran as.
    pub form: Form,
    /// For the time before the first fault, and for each fault.
    pub accounts: Vec<Account>,
    /// Everything behind them.
    pub seen: Seen,
    /// Calls that a server answered without having told the collector: the accounts
    /// are only as good as this is 0.
    pub unheard: usize,
    /// Faults that could not be made, and why.
    pub impossible: Vec<String>,
    /// Why there are fewer faults than were asked for, if there are.
    pub cut_short: Option<String>,
    /// The ends of the gateway's logs.
    #[serde(skip)]
    pub logs: String,
}

/// Runs all of it, or as much as there is time for until `enough`: hours of what was
/// seen are accounted for also when one fault could not be made.
///
/// # Errors
/// It could not be started. That calls fail is no error, nor that something could not be
/// mended or taken away: the report says so.
pub async fn run(options: &Options, enough: impl Future) -> anyhow::Result<Chaos> {
    let mut site = Site::start(options).await?;
    let mut done = under_load(options, &mut site, enough).await;
    if let Err(error) = done {
        done = Err(error.context(site.logs().await));
    }
    let mut troubles = Vec::from_iter(site.stop().await.err());
    let cluster = options.cluster.as_deref();
    if let Some(cluster) = cluster.filter(|_| options.faults.contains(&Fault::ApiServer)) {
        // What lost sight of the API server looks for it ever more rarely.
        troubles.extend(fault::mend(cluster).await.err());
    }
    let mut chaos = done?;
    for trouble in troubles {
        chaos.cut("what was made was not taken away", &trouble);
    }
    Ok(chaos)
}

async fn under_load(
    options: &Options,
    site: &mut Site,
    enough: impl Future,
) -> anyhow::Result<Chaos> {
    let clock = Clock::start();
    let tools = fault::Tools {
        form: options.form,
        cluster: options.cluster.clone(),
        api_server_away: options.api_server_away,
        clock,
    };
    let load = Load::open(site.entrance(), clock, &site::places()).await?;
    let running = load.run(options.rates);
    say(clock, "load");
    sleep(BEFORE).await;
    let mut seen = Seen::default();
    let (impossible, cut_short) = faults(options, site, &tools, &load, &mut seen, enough).await;
    say(clock, "the last calls");
    load.stop(running).await?;
    load.each().await;
    say(clock, "until nothing runs");
    let looked = orphans(site, &mut seen, clock).await;
    (seen.calls, seen.troubles) = load.close().await;
    seen.heard = site.collector.heard();
    let mut chaos = Chaos {
        form: options.form,
        accounts: ledger::accounts(&seen),
        unheard: ledger::unheard(&seen),
        seen,
        impossible,
        cut_short,
        logs: site.logs().await,
    };
    if let Err(error) = looked {
        chaos.cut("what runs for nobody was not looked for", &error);
    }
    Ok(chaos)
}

impl Chaos {
    /// The first reason is the one that counts.
    fn cut(&mut self, what: &str, why: &anyhow::Error) {
        let cut = || format!("{what}: {why:#}");
        self.cut_short.get_or_insert_with(cut);
    }
}

/// All faults in turn. What could not be made on this cluster, and why that was not all.
async fn faults(
    options: &Options,
    site: &mut Site,
    tools: &fault::Tools,
    load: &Load,
    seen: &mut Seen,
    enough: impl Future,
) -> (Vec<String>, Option<String>) {
    let mut enough = pin!(enough);
    let (possible, impossible): (Vec<&Fault>, Vec<&Fault>) = options
        .faults
        .iter()
        .partition(|fault| fault.obstacle(tools).is_none());
    let why = |fault: &Fault| Some(format!("{fault}: {}", fault.obstacle(tools)?));
    let impossible = impossible.into_iter().filter_map(why).collect();
    let all = options.rounds * possible.len();
    for (done, fault) in (0..options.rounds).flat_map(|_| &possible).enumerate() {
        if enough.as_mut().now_or_never().is_some() {
            let why = format!("interrupted after {done} of {all} faults");
            return (impossible, Some(why));
        }
        let (calls, failed) = load.tally();
        let so_far = format!("{calls} calls, {failed} of them without a result");
        say(
            tools.clock,
            &format!("{so_far}; {} of {all}: {fault}", done + 1),
        );
        let begun = tools.clock.now();
        let made = one(**fault, site, tools, load).await;
        if let Err(error) = &made {
            let why = format!("fault {} of {all}, {fault}: {error:#}", done + 1);
            seen.marks.push(begun_only(**fault, begun, tools.clock));
            return (impossible, Some(why));
        }
        seen.marks.extend(made);
    }
    (impossible, None)
}

/// Of a fault that was not made or not mended: what went wrong since is its doing, and not that of the one before.
fn begun_only(fault: Fault, begun: ledger::Micros, clock: Clock) -> Mark {
    Mark {
        name: fault.to_string(),
        begun,
        mended: clock.now(),
        kills: Vec::new(),
        orphaned: 0,
    }
}

async fn one(
    fault: Fault,
    site: &mut Site,
    tools: &fault::Tools,
    load: &Load,
) -> anyhow::Result<Mark> {
    let instance = load.busiest().context("no session was answered")?;
    let mark = fault::make(fault, site, tools, &instance).await?;
    say(tools.clock, "mended");
    // New sessions are what recovers last; and every session can still be used.
    load.one_cold().await;
    load.each().await;
    sleep(AFTER).await;
    Ok(mark)
}

/// Pods that stay though nobody uses them belong to the fault they were made in.
async fn orphans(site: &Site, seen: &mut Seen, clock: Clock) -> anyhow::Result<()> {
    let give_up = Instant::now() + GONE;
    while !site.space.is_empty().await {
        if Instant::now() > give_up {
            for (pod, age) in site.space.servers().await? {
                let made = clock.now().saturating_sub(age);
                say(clock, &format!("{pod} runs for nobody"));
                let place = seen.marks.partition_point(|mark| mark.begun <= made);
                if let Some(mark) = seen.marks.get_mut(place.saturating_sub(1)) {
                    mark.orphaned += 1;
                }
            }
            return Ok(());
        }
        sleep(Duration::from_millis(250)).await;
    }
    Ok(())
}

#[expect(clippy::print_stderr, reason = "progress of a command-line tool")]
fn say(clock: Clock, what: &str) {
    eprintln!("{:7.1} s  {what}", clock.now() as f64 / 1e6);
}
