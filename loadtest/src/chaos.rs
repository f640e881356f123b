//! Kills one thing after the other under open-loop load, and accounts for every call.
//!
//! ```text
//! cluster   a namespace of the run's own on a real Kubernetes
//! role      a process of the gateway: started, killed, started again
//! relay     the network between them, which can be cut
//! site      all of it together
//! caller    a correct client of several activators
//! load      calls at random moments, sessions that stay, streams, new sessions
//! fault     what is taken away
//! ledger    what became of every call, and whose fault it was; pure
//! report    accounts -> Markdown; timeline -> SVG; pure
//! ```

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use serde::Serialize;
use tokio::time::{Instant, sleep};

use caller::Clock;
use fault::Fault;
use ledger::{Account, Seen};
use load::{Load, Rates};
use site::Site;

pub mod caller;
pub mod cluster;
pub mod command;
pub mod fault;
pub mod ledger;
pub mod load;
pub mod relay;
pub mod report;
pub mod role;
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
    /// The gateway's binary.
    pub gateway: PathBuf,
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
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Chaos {
    /// For the time before the first fault, and for each fault.
    pub accounts: Vec<Account>,
    /// Everything behind them.
    pub seen: Seen,
    /// Calls that a server answered without having told the collector: the accounts
    /// are only as good as this is 0.
    pub unheard: usize,
    /// Faults that this cluster does not allow.
    pub impossible: Vec<String>,
    /// The ends of the processes' logs.
    #[serde(skip)]
    pub logs: String,
}

/// Runs all of it.
///
/// # Errors
/// Something could not be started, killed or mended. That calls fail is no error.
pub async fn run(options: &Options) -> anyhow::Result<Chaos> {
    let mut site = Site::start(&options.gateway, &options.kubeconfig).await?;
    let done = under_load(options, &mut site).await;
    let done = done.with_context(|| site.logs());
    site.stop().await;
    let cluster = options.cluster.as_deref();
    if let Some(cluster) = cluster.filter(|_| options.faults.contains(&Fault::ApiServer)) {
        // What lost sight of the API server looks for it ever more rarely.
        fault::mend(cluster).await?;
    }
    done
}

async fn under_load(options: &Options, site: &mut Site) -> anyhow::Result<Chaos> {
    let clock = Clock::start();
    let tools = fault::Tools {
        cluster: options.cluster.clone(),
        api_server_away: options.api_server_away,
        clock,
    };
    let load = Load::open(site.addresses(), clock, &site::places()).await?;
    let running = load.run(options.rates);
    say(clock, "load");
    sleep(BEFORE).await;
    let mut seen = Seen::default();
    let mut impossible = Vec::new();
    for fault in (0..options.rounds).flat_map(|_| &options.faults) {
        if !fault.is_possible(&tools) {
            impossible.push(fault.to_string());
            continue;
        }
        say(clock, &fault.to_string());
        let instance = load.busiest().context("no session was answered")?;
        let mark = fault::make(*fault, site, &tools, &instance).await?;
        seen.marks.push(mark);
        say(clock, "mended");
        // New sessions are what recovers last; and every session can still be used.
        load.one_cold().await;
        load.each().await;
        sleep(AFTER).await;
    }
    say(clock, "the last calls");
    load.stop(running).await?;
    load.each().await;
    say(clock, "until nothing runs");
    orphans(site, &mut seen, clock).await?;
    (seen.calls, seen.troubles) = load.close().await;
    seen.heard = site.collector.heard();
    Ok(Chaos {
        accounts: ledger::accounts(&seen),
        unheard: ledger::unheard(&seen),
        seen,
        impossible,
        logs: site.logs(),
    })
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
