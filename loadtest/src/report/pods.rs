//! Figures of cold starts in pods. Pure.
//!
//! A ratio is one of medians over the rounds that have both roads; whole rounds are
//! drawn, so that a busy minute of the machine moves both. The phases of a road are
//! means over the middle half of its starts, by their total: medians of phases would
//! not add up, and the mean of all would be the outliers'.

use rand::SeedableRng as _;
use rand::rngs::StdRng;
use serde::Serialize;

use super::SEED;
use crate::phases::{Part, Phase};
use crate::pods::road::Road;
use crate::section::{Burst, PodRound, PodStart, PodStarts};
use crate::stats::{Interval, bootstrap, median, quantile};

/// Figures of cold starts in pods, in milliseconds.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PodFigures {
    /// The section's title.
    pub title: String,
    /// One per road.
    pub rows: Vec<PodRow>,
}

/// Figures of one road.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PodRow {
    /// Which.
    pub road: Road,
    /// How many starts.
    pub samples: usize,
    /// Median until the first answer.
    pub p50: Interval,
    /// 90th percentile.
    pub p90: Interval,
    /// Median over the floor's median; none for the floor.
    pub to_floor: Option<Interval>,
    /// Median over the Deployment's median, at kube-proxy's defaults.
    pub to_deployment: Option<Interval>,
    /// Median minus the floor's median.
    pub added: Option<Interval>,
    /// Median from the server's own stamp to the first answer.
    pub after_accept: Option<Interval>,
    /// Where the time went: means over the middle half of the starts.
    pub parts: Vec<Part>,
}

/// Figures of many starts at once, in milliseconds.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BurstFigures {
    /// The section's title.
    pub title: String,
    /// How many at once.
    pub pods: usize,
    /// How many rounds.
    pub rounds: usize,
    /// Until the last bare pod's server accepted.
    pub bare: Interval,
    /// Until the last answer through the gateway.
    pub gateway: Interval,
    /// Median of the rounds' ratios.
    pub ratio: Interval,
}

pub(super) fn burst_figures(burst: &Burst) -> BurstFigures {
    let over = |value: fn(&crate::section::BurstRound) -> f64| super::over(&burst.rounds, value);
    BurstFigures {
        title: burst.title.clone(),
        pods: burst.pods,
        rounds: burst.rounds.len(),
        bare: over(|round| round.bare_millis),
        gateway: over(|round| round.gateway_millis),
        ratio: over(|round| round.gateway_millis / round.bare_millis),
    }
}

pub(super) fn pod_figures(section: &PodStarts) -> PodFigures {
    let mut roads: Vec<Road> = section
        .rounds
        .iter()
        .flat_map(|round| round.starts.iter().map(|start| start.road))
        .collect();
    roads.sort_unstable();
    roads.dedup();
    PodFigures {
        title: section.title.clone(),
        rows: roads.iter().map(|road| row(section, *road)).collect(),
    }
}

fn of(round: &PodRound, road: Road) -> Option<&PodStart> {
    round.starts.iter().find(|start| start.road == road)
}

fn row(section: &PodStarts, road: Road) -> PodRow {
    let starts: Vec<&PodStart> = section
        .rounds
        .iter()
        .filter_map(|round| of(round, road))
        .collect();
    let at = |q: f64| {
        bootstrap(&starts, &mut StdRng::seed_from_u64(SEED), |drawn| {
            let totals: Vec<f64> = drawn.iter().map(|start| start.total_millis).collect();
            quantile(&totals, q)
        })
    };
    let after: Vec<f64> = starts
        .iter()
        .filter_map(|start| Some(start.total_millis - start.accepts_millis?))
        .collect();
    let is_floor = road == Road::Floor;
    PodRow {
        road,
        samples: starts.len(),
        p50: at(0.5),
        p90: at(0.9),
        to_floor: beside(section, road, Road::Floor, |own, other| own / other),
        to_deployment: beside(section, road, Road::Deployment, |own, other| own / other),
        added: beside(section, road, Road::Floor, |own, other| own - other),
        after_accept: (!is_floor && !after.is_empty())
            .then(|| super::over(&after, |millis| *millis)),
        parts: middle(&starts),
    }
}

/// A figure of two roads' medians, over the rounds that have both.
fn beside(
    section: &PodStarts,
    road: Road,
    other: Road,
    figure: impl Fn(f64, f64) -> f64,
) -> Option<Interval> {
    if road == other {
        return None;
    }
    let pairs: Vec<(f64, f64)> = section
        .rounds
        .iter()
        .filter_map(|round| {
            Some((
                of(round, road)?.total_millis,
                of(round, other)?.total_millis,
            ))
        })
        .collect();
    let medians = |drawn: &[&(f64, f64)]| {
        let (own, others): (Vec<f64>, Vec<f64>) = drawn.iter().copied().copied().unzip();
        figure(median(&own), median(&others))
    };
    let drawn = || bootstrap(&pairs, &mut StdRng::seed_from_u64(SEED), medians);
    (!pairs.is_empty()).then(drawn)
}

/// The phases of the middle half of some starts, by their total.
fn middle(starts: &[&PodStart]) -> Vec<Part> {
    let mut sorted: Vec<&PodStart> = starts.to_vec();
    sorted.sort_by(|one, other| one.total_millis.total_cmp(&other.total_millis));
    let cut = sorted.len() / 4;
    let half = &sorted[cut..sorted.len() - cut];
    let mean = |phase: Phase| {
        let parts = half.iter().flat_map(|start| &start.parts);
        let millis = parts
            .filter(|part| part.phase == phase)
            .map(|part| part.millis);
        millis.sum::<f64>() / half.len().max(1) as f64
    };
    Phase::ALL
        .into_iter()
        .map(|phase| Part {
            phase,
            millis: mean(phase),
        })
        .filter(|part| part.millis > 0.0)
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn start(road: Road, total: f64) -> PodStart {
        PodStart {
            road,
            total_millis: total,
            accepts_millis: Some(total * 0.9),
            parts: crate::phases::split(total, &[(Phase::Create, Some(5.0))], Phase::Answer),
        }
    }

    fn section(pairs: &[(f64, f64)]) -> PodStarts {
        let round = |(floor, own): &(f64, f64)| PodRound {
            starts: vec![start(Road::Embedded, *own), start(Road::Floor, *floor)],
        };
        PodStarts {
            title: "t".to_owned(),
            rounds: pairs.iter().map(round).collect(),
        }
    }

    #[test]
    fn what_slows_both_roads_alike_does_not_move_their_ratio() {
        let pairs: Vec<_> = (1..20)
            .map(|slow| (100.0 * f64::from(slow), 150.0 * f64::from(slow)))
            .collect();
        let figures = pod_figures(&section(&pairs));
        let [floor, embedded] = figures.rows.as_slice() else {
            panic!("two roads: {figures:?}")
        };
        assert_eq!(floor.road, Road::Floor);
        assert_eq!(floor.to_floor, None);
        let ratio = embedded.to_floor.unwrap();
        for figure in [ratio.value, ratio.low, ratio.high] {
            assert!((figure - 1.5).abs() < 1e-9, "{ratio:?}");
        }
        assert_eq!(embedded.to_deployment, None);
    }

    #[test]
    fn a_road_that_was_measured_in_some_rounds_is_compared_in_those() {
        let mut section = section(&[(100.0, 110.0), (100.0, 110.0)]);
        section.rounds.push(PodRound {
            starts: vec![start(Road::Floor, 9_000.0)],
        });
        let figures = pod_figures(&section);
        assert_eq!(figures.rows[1].samples, 2);
        assert!((figures.rows[1].to_floor.unwrap().value - 1.1).abs() < 1e-9);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]

        #[test]
        fn a_ratio_lies_in_its_interval_and_phases_within_the_totals(
            pairs in prop::collection::vec((1.0..1e4_f64, 1.0..1e4_f64), 1..20),
        ) {
            let figures = pod_figures(&section(&pairs));
            let embedded = &figures.rows[1];
            let ratio = embedded.to_floor.unwrap();
            prop_assert!(ratio.low <= ratio.high);
            let totals: Vec<f64> = pairs.iter().map(|pair| pair.1).collect();
            let sum: f64 = embedded.parts.iter().map(|part| part.millis).sum();
            prop_assert!(sum <= quantile(&totals, 1.0) + 1e-6);
            prop_assert!(sum >= quantile(&totals, 0.0) - 1e-6);
        }
    }
}
