//! Quantiles and bootstrap intervals. Pure: the generator of random numbers is
//! an argument, so that the same sections always give the same report.

use rand::Rng;
use serde::Serialize;

/// Resamples behind an interval.
const RESAMPLES: usize = 2_000;

/// A figure with its 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Interval {
    /// The figure of all samples.
    pub value: f64,
    /// 2.5th percentile of the resampled figures.
    pub low: f64,
    /// 97.5th percentile of the resampled figures.
    pub high: f64,
}

/// The value at quantile `q` (0 to 1) of the values, linear between neighbours.
/// Not a number if there is none.
#[must_use]
pub fn quantile(values: &[f64], q: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let Some(last) = sorted.len().checked_sub(1) else {
        return f64::NAN;
    };
    let place = q.clamp(0.0, 1.0) * last as f64;
    let (below, above) = (place.floor() as usize, place.ceil() as usize);
    sorted[below] + (sorted[above] - sorted[below]) * (place - place.floor())
}

/// The median.
#[must_use]
pub fn median(values: &[f64]) -> f64 {
    quantile(values, 0.5)
}

/// A figure of the samples with its 95 % percentile-bootstrap interval. What ran
/// side by side must be one sample, so that it is drawn together.
pub fn bootstrap<T>(
    samples: &[T],
    random: &mut impl Rng,
    figure: impl Fn(&[&T]) -> f64,
) -> Interval {
    let all: Vec<&T> = samples.iter().collect();
    let value = figure(&all);
    if samples.is_empty() {
        return Interval {
            value,
            low: value,
            high: value,
        };
    }
    let figures: Vec<f64> = (0..RESAMPLES)
        .map(|_| {
            let drawn: Vec<&T> = all
                .iter()
                .map(|_| &samples[random.random_range(0..samples.len())])
                .collect();
            figure(&drawn)
        })
        .collect();
    Interval {
        value,
        low: quantile(&figures, 0.025),
        high: quantile(&figures, 0.975),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::SeedableRng as _;
    use rand::rngs::StdRng;

    use super::*;

    #[test]
    fn a_quantile_lies_between_its_neighbours() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[1.0, 2.0]), 1.5);
        assert_eq!(quantile(&[1.0, 2.0, 3.0], 1.0), 3.0);
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn constant_samples_have_no_width() {
        let mut random = StdRng::seed_from_u64(1);
        let got = bootstrap(&[2.0; 9], &mut random, |all| {
            all.iter().copied().sum::<f64>() / 9.0
        });
        assert_eq!(
            got,
            Interval {
                value: 2.0,
                low: 2.0,
                high: 2.0
            }
        );
    }

    #[test]
    fn no_samples_give_no_figure_and_no_panic() {
        let mut random = StdRng::seed_from_u64(1);
        let got = bootstrap(&[] as &[f64], &mut random, |_| f64::NAN);
        assert!(got.value.is_nan());
    }

    proptest! {
        // Each case resamples two thousand times.
        #![proptest_config(ProptestConfig::with_cases(16))]

        #[test]
        fn an_interval_stays_within_its_samples(samples in prop::collection::vec(-1e6..1e6f64, 1..40)) {
            let mut random = StdRng::seed_from_u64(1);
            let got = bootstrap(&samples, &mut random, |drawn| {
                median(&drawn.iter().map(|value| **value).collect::<Vec<_>>())
            });
            let (low, high) = (quantile(&samples, 0.0), quantile(&samples, 1.0));
            prop_assert!(low <= got.low && got.low <= got.high && got.high <= high);
        }
    }
}
