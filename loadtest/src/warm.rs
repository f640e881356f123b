//! Closed loop of `tools/call` over kept connections, the targets in turn.
//!
//! Each target has its own connections and sessions, opened once. A round drives
//! one target while the others rest, and the order changes from round to round,
//! so that whatever else the machine does falls on all of them alike.

use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use futures_util::future::join_all;
use hdrhistogram::Histogram;
use tokio::time::Instant;

use crate::client::Client;
use crate::process;
use crate::section::{Round, Rounds, Warm};
use crate::target::{Pids, Target};

/// What to drive, and for how long.
#[derive(Clone, Debug)]
pub struct Options {
    /// What was measured, for the report.
    pub title: String,
    /// The first is what the others are compared with.
    pub targets: Vec<Target>,
    /// Processes whose CPU time counts for the target of that name.
    pub pids: Vec<Pids>,
    /// Connections per target.
    pub connections: usize,
    /// Rounds that count; one more warms up.
    pub rounds: usize,
    /// Length of a round.
    pub round: Duration,
    /// Body of every exchange.
    pub body: Bytes,
}

/// Runs all rounds.
///
/// # Errors
/// A target does not accept, or its sessions cannot be opened. Exchanges that
/// fail later are counted, not fatal.
pub async fn run(options: &Options) -> anyhow::Result<Warm> {
    let mut lanes = Vec::new();
    for target in &options.targets {
        lanes.push(Lane::open(target, options).await?);
    }
    for round in 0..=options.rounds {
        for turn in 0..lanes.len() {
            let place = (turn + round) % lanes.len();
            let lane = &mut lanes[place];
            let measured = lane.round(options).await;
            if round > 0 {
                lane.rounds.push(measured);
            }
        }
        progress(options, round, &lanes);
    }
    Ok(Warm {
        title: options.title.clone(),
        connections: options.connections,
        targets: lanes
            .into_iter()
            .map(|lane| Rounds {
                name: lane.target.name,
                rounds: lane.rounds,
            })
            .collect(),
    })
}

#[expect(clippy::print_stderr, reason = "progress of a command-line tool")]
fn progress(options: &Options, round: usize, lanes: &[Lane]) {
    let figures: Vec<String> = lanes
        .iter()
        .filter_map(|lane| {
            let last = lane.rounds.last()?;
            Some(format!("{} {:.0} µs", lane.target.name, last.p50_micros))
        })
        .collect();
    let what = if round == 0 {
        "warm-up".to_owned()
    } else {
        format!("round {round}")
    };
    eprintln!(
        "{}: {what}/{}  {}",
        options.title,
        options.rounds,
        figures.join(", ")
    );
}

/// One target with its open sessions and what was measured of it.
struct Lane {
    target: Target,
    pids: Vec<u32>,
    clients: Vec<Client>,
    rounds: Vec<Round>,
}

impl Lane {
    async fn open(target: &Target, options: &Options) -> anyhow::Result<Self> {
        let mut clients = Vec::with_capacity(options.connections);
        for _ in 0..options.connections {
            clients.push(open(target).await.with_context(|| target.name.clone())?);
        }
        let pids = options
            .pids
            .iter()
            .filter(|named| named.name == target.name)
            .flat_map(|named| named.pids.iter().copied())
            .collect();
        Ok(Self {
            target: target.clone(),
            pids,
            clients,
            rounds: Vec::new(),
        })
    }

    async fn round(&mut self, options: &Options) -> Round {
        let cpu_before = process::cpu_seconds(&self.pids);
        let start = Instant::now();
        let end = start + options.round;
        let loops = self
            .clients
            .iter_mut()
            .map(|client| drive(client, &self.target, options, end));
        let outcomes = join_all(loops).await;
        let seconds = start.elapsed().as_secs_f64();
        let cpu_after = process::cpu_seconds(&self.pids);

        let mut latencies = histogram();
        let mut errors = 0;
        for outcome in outcomes {
            errors += outcome.errors;
            // Both have the same bounds, so one always fits into the other.
            latencies.add(outcome.latencies).ok();
        }
        Round {
            exchanges: latencies.len(),
            errors,
            seconds,
            p50_micros: latencies.value_at_quantile(0.5) as f64 / 1e3,
            p99_micros: latencies.value_at_quantile(0.99) as f64 / 1e3,
            cpu_seconds: (!self.pids.is_empty())
                .then(|| Some(cpu_after? - cpu_before?))
                .flatten(),
        }
    }
}

async fn open(target: &Target) -> anyhow::Result<Client> {
    let mut client = Client::connect(target).await?;
    client.initialize().await?;
    client.initialized().await?;
    Ok(client)
}

struct Outcome {
    latencies: Histogram<u64>,
    errors: u64,
}

/// Nanoseconds up to a minute, to three digits.
fn histogram() -> Histogram<u64> {
    Histogram::new_with_max(60_000_000_000, 3).expect("the bounds are constant and valid")
}

/// One connection, one exchange after the other, until `end`.
async fn drive(client: &mut Client, target: &Target, options: &Options, end: Instant) -> Outcome {
    let mut outcome = Outcome {
        latencies: histogram(),
        errors: 0,
    };
    loop {
        let start = Instant::now();
        if start >= end {
            return outcome;
        }
        if let Err(error) = client.call(options.body.clone()).await {
            outcome.errors += 1;
            report_error(target, outcome.errors, &error);
            // A broken connection would fail at once again and again.
            match open(target).await {
                Ok(fresh) => *client = fresh,
                Err(_) => return outcome,
            }
            continue;
        }
        let nanos = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        outcome.latencies.saturating_record(nanos);
    }
}

#[expect(
    clippy::print_stderr,
    reason = "the first failures of a command-line tool"
)]
fn report_error(target: &Target, count: u64, error: &anyhow::Error) {
    if count <= 3 {
        eprintln!("{}: {error:#}", target.name);
    }
}
