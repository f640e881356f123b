//! Sections in, figures out: what the report says, before it is drawn.
//!
//! Pure. Rounds that ran side by side are resampled together, so that a busy
//! moment of the machine moves both sides of a ratio and not the ratio.

mod markdown;
mod pods;
mod stacked;
mod svg;

use rand::SeedableRng as _;
use rand::rngs::StdRng;
use serde::Serialize;

use crate::process::Memory;
use crate::section::{AtRest, Cold, ColdPair, Round, Rounds, Section, Sessions, Warm};
use crate::stats::{Interval, bootstrap, median, quantile};

pub use markdown::markdown;
pub use pods::{BurstFigures, PodFigures, PodRow};
pub use svg::svg;

/// Seed of the resampling: the same sections always give the same report.
const SEED: u64 = 0x006d_6370;

/// Everything a report says.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Free lines: machine, versions, settings.
    pub notes: Vec<String>,
    /// One entry per section, in order.
    pub figures: Vec<Figures>,
    /// The raw values behind them.
    pub sections: Vec<Section>,
}

/// The figures of one section.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "camelCase")]
pub enum Figures {
    /// Of a closed loop.
    Warm(WarmFigures),
    /// Of cold starts.
    Cold(ColdFigures),
    /// Of many sessions.
    Sessions(Sessions),
    /// Of memory.
    Memory(AtRest),
    /// Of cold starts in pods.
    Pods(PodFigures),
    /// Of many pods at once.
    Burst(BurstFigures),
}

/// Figures of a closed loop.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct WarmFigures {
    /// The section's title.
    pub title: String,
    /// Connections per target.
    pub connections: usize,
    /// Per target, the baseline first.
    pub rows: Vec<WarmRow>,
    /// The second target against the third and later ones.
    pub comparisons: Vec<Comparison>,
}

/// Figures of one target; latencies in microseconds.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct WarmRow {
    /// The target's name.
    pub name: String,
    /// Median over rounds of the median latency.
    pub p50: Interval,
    /// Median over rounds of the 99th percentile.
    pub p99: Interval,
    /// What the target adds to the baseline's median; none for the baseline.
    pub added_p50: Option<Interval>,
    /// What the target adds to the baseline's 99th percentile.
    pub added_p99: Option<Interval>,
    /// Exchanges per second.
    pub rate: Interval,
    /// CPU microseconds of the target's own processes per exchange.
    pub cpu: Option<Interval>,
    /// Answers that were no result, over all rounds.
    pub errors: u64,
}

/// How the subject does against another proxy of the same run.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Comparison {
    /// The second target.
    pub subject: String,
    /// What it is compared with.
    pub reference: String,
    /// Added median latency, subject over reference; below 1 the subject adds less.
    pub added_p50: Interval,
    /// Added 99th percentile, subject over reference.
    pub added_p99: Interval,
    /// Exchanges per second, subject over reference; above 1 the subject does more.
    pub rate: Interval,
}

/// Figures of cold starts, in milliseconds.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ColdFigures {
    /// The section's title.
    pub title: String,
    /// How many pairs.
    pub samples: usize,
    /// Median by hand.
    pub by_hand_p50: Interval,
    /// 90th percentile by hand.
    pub by_hand_p90: Interval,
    /// Median through the gateway.
    pub gateway_p50: Interval,
    /// 90th percentile through the gateway.
    pub gateway_p90: Interval,
    /// Median of the pairs' differences.
    pub added_p50: Interval,
    /// Median of the pairs' ratios.
    pub ratio: Interval,
}

/// Makes the figures of all sections.
#[must_use]
pub fn report(sections: Vec<Section>, notes: Vec<String>) -> Report {
    let figures = sections
        .iter()
        .map(|section| match section {
            Section::Warm(warm) => Figures::Warm(warm_figures(warm)),
            Section::Cold(cold) => Figures::Cold(cold_figures(cold)),
            Section::Sessions(sessions) => Figures::Sessions(sessions.clone()),
            Section::Memory(memory) => Figures::Memory(memory.clone()),
            Section::Pods(starts) => Figures::Pods(pods::pod_figures(starts)),
            Section::Burst(burst) => Figures::Burst(pods::burst_figures(burst)),
        })
        .collect();
    Report {
        notes,
        figures,
        sections,
    }
}

fn warm_figures(warm: &Warm) -> WarmFigures {
    let baseline = warm.targets.first();
    let rows = warm
        .targets
        .iter()
        .enumerate()
        .map(|(place, target)| warm_row(target, baseline.filter(|_| place > 0)))
        .collect();
    let comparisons = match warm.targets.as_slice() {
        [baseline, subject, references @ ..] => references
            .iter()
            .map(|reference| compare(baseline, subject, reference))
            .collect(),
        [] | [_] => Vec::new(),
    };
    WarmFigures {
        title: warm.title.clone(),
        connections: warm.connections,
        rows,
        comparisons,
    }
}

fn rate(round: &Round) -> f64 {
    round.exchanges as f64 / round.seconds
}

/// The median of a value over rounds, with its interval.
fn over<T>(samples: &[T], value: impl Fn(&T) -> f64) -> Interval {
    bootstrap(samples, &mut StdRng::seed_from_u64(SEED), |drawn| {
        medians(drawn, &value)
    })
}

fn medians<T>(drawn: &[&T], value: impl Fn(&T) -> f64) -> f64 {
    median(&drawn.iter().map(|sample| value(sample)).collect::<Vec<_>>())
}

fn warm_row(target: &Rounds, baseline: Option<&Rounds>) -> WarmRow {
    let pairs: Option<Vec<(Round, Round)>> = baseline.map(|base| {
        base.rounds
            .iter()
            .copied()
            .zip(target.rounds.iter().copied())
            .collect()
    });
    let added = |value: fn(&Round) -> f64| {
        pairs
            .as_ref()
            .map(|pairs| over(pairs, |(base, own)| value(own) - value(base)))
    };
    let all_costs: Option<Vec<f64>> = target
        .rounds
        .iter()
        .map(|round| Some(round.cpu_seconds? * 1e6 / round.exchanges.max(1) as f64))
        .collect();
    WarmRow {
        name: target.name.clone(),
        p50: over(&target.rounds, |round| round.p50_micros),
        p99: over(&target.rounds, |round| round.p99_micros),
        added_p50: added(|round| round.p50_micros),
        added_p99: added(|round| round.p99_micros),
        rate: over(&target.rounds, rate),
        cpu: all_costs.map(|costs| over(&costs, |cost| *cost)),
        errors: target.rounds.iter().map(|round| round.errors).sum(),
    }
}

/// One round of three targets that ran side by side.
struct Trio {
    baseline: Round,
    subject: Round,
    reference: Round,
}

fn compare(baseline: &Rounds, subject: &Rounds, reference: &Rounds) -> Comparison {
    let trios: Vec<Trio> = baseline
        .rounds
        .iter()
        .zip(&subject.rounds)
        .zip(&reference.rounds)
        .map(|((baseline, subject), reference)| Trio {
            baseline: *baseline,
            subject: *subject,
            reference: *reference,
        })
        .collect();
    let added = |value: fn(&Round) -> f64| {
        bootstrap(&trios, &mut StdRng::seed_from_u64(SEED), |drawn| {
            medians(drawn, |trio| value(&trio.subject) - value(&trio.baseline))
                / medians(drawn, |trio| value(&trio.reference) - value(&trio.baseline))
        })
    };
    Comparison {
        subject: subject.name.clone(),
        reference: reference.name.clone(),
        added_p50: added(|round| round.p50_micros),
        added_p99: added(|round| round.p99_micros),
        rate: over(&trios, |trio| rate(&trio.subject) / rate(&trio.reference)),
    }
}

fn cold_figures(cold: &Cold) -> ColdFigures {
    let at = |q: f64, value: fn(&ColdPair) -> f64| {
        bootstrap(&cold.pairs, &mut StdRng::seed_from_u64(SEED), |drawn| {
            quantile(&drawn.iter().map(|pair| value(pair)).collect::<Vec<_>>(), q)
        })
    };
    ColdFigures {
        title: cold.title.clone(),
        samples: cold.pairs.len(),
        by_hand_p50: at(0.5, |pair| pair.by_hand_millis),
        by_hand_p90: at(0.9, |pair| pair.by_hand_millis),
        gateway_p50: at(0.5, |pair| pair.gateway_millis),
        gateway_p90: at(0.9, |pair| pair.gateway_millis),
        added_p50: at(0.5, |pair| pair.gateway_millis - pair.by_hand_millis),
        ratio: at(0.5, |pair| pair.gateway_millis / pair.by_hand_millis),
    }
}

/// Mebibytes, for people.
fn mebibytes(kibibytes: u64) -> f64 {
    kibibytes as f64 / 1024.0
}

/// A row of memory for people: resident and anonymous MiB.
fn memory_row(memory: Memory) -> (f64, f64) {
    (mebibytes(memory.resident), mebibytes(memory.anonymous))
}

#[cfg(test)]
mod tests;
