//! How long to wait after failures in a row.
//!
//! Deterministic: the same number of failures and the same jitter give the same delay. Never reads a clock, never draws
//! a random number. The only file that knows the crate `backoff` (unmaintained, RUSTSEC-2025-0012): leaving it is a
//! change to this file alone.

use std::time::Duration;

use backoff::{ExponentialBackoffBuilder, backoff::Backoff};

/// The delay after the first failure, before jitter.
pub const FIRST: Duration = Duration::from_millis(250);
/// The longest delay, before jitter.
pub const LONGEST: Duration = Duration::from_secs(60);

/// More failures than this change nothing any more: the delay has long been the longest.
const SATURATED: u32 = 16;

/// The delay before the next try after so many failures in a row. `jitter` in `0.0..=1.0` adds up to a quarter, so that
/// slots that failed together do not try again together.
#[must_use]
pub fn delay(failures: u32, jitter: f64) -> Duration {
    let mut policy = ExponentialBackoffBuilder::new()
        .with_initial_interval(FIRST)
        .with_multiplier(2.0)
        .with_max_interval(LONGEST)
        .with_randomization_factor(0.0)
        .with_max_elapsed_time(None)
        .build();
    let mut next = Duration::ZERO;
    for _ in 0..failures.min(SATURATED) {
        next = policy.next_backoff().unwrap_or(LONGEST);
    }
    next.mul_f64(1.0 + 0.25 * jitter.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_the_longest() {
        let plain: Vec<_> = (0..12).map(|n| delay(n, 0.0).as_millis()).collect();
        assert_eq!(
            plain,
            [
                0, 250, 500, 1000, 2000, 4000, 8000, 16000, 32000, 60000, 60000, 60000
            ]
        );
        assert_eq!(delay(u32::MAX, 1.0), Duration::from_secs(75));
    }

    #[test]
    fn the_same_input_gives_the_same_delay() {
        for failures in 0..20 {
            assert_eq!(delay(failures, 0.3), delay(failures, 0.3));
        }
    }
}
