//! Whom to call next, when, and when to give up. Pure but for the jitter: outcomes and `now` in, decision out.
//!
//! A home that cannot be reached is waited for without end, since a server that serves must outlive its gateway's
//! upgrades. Two answers are believed to be final only when they go on: a leader that has just begun may not know this
//! pod yet, and one of several homes may have the wrong key for a while. Any welcome takes all of it back.

use std::{net::SocketAddr, time::Duration};

use tokio::time::Instant;

/// The pause after all homes were tried once, at first and at most.
const PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));
/// A call that was shorter does not count as one that worked.
const WORKED: Duration = Duration::from_secs(1);
/// How long `UNAUTHENTICATED` must go on to be believed.
const REFUSED_FOR: Duration = Duration::from_secs(30);
/// How long `NOT_FOUND` must go on to be believed.
const UNKNOWN_FOR: Duration = Duration::from_secs(5);

/// How a call went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// There was a welcome; the call went on for so long.
    Welcomed(Duration),
    /// Nobody there, not the leader, or something else that will pass.
    Unavailable,
    /// The pod's proof was refused.
    Unauthenticated,
    /// Nobody knows this pod.
    NotFound,
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// Call this home, after this pause.
    Call(SocketAddr, Duration),
    /// Nobody wants this pod.
    GiveUp(&'static str),
}

/// The memory of earlier calls.
#[derive(Debug)]
pub(crate) struct Patience {
    homes: Vec<SocketAddr>,
    at: usize,
    /// Homes tried since the last pause.
    tried: usize,
    /// Pauses made since a call worked.
    pauses: u32,
    refused_since: Option<Instant>,
    unknown_since: Option<Instant>,
}

/// The pause after so many others.
fn pause(before: u32) -> Duration {
    PAUSE
        .0
        .saturating_mul(1_u32.checked_shl(before).unwrap_or(u32::MAX))
        .min(PAUSE.1)
}

/// Half as long to half as long again, so that the pods of a home that was away do not come back all at once.
fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(rand::random_range(0.5..1.5))
}

impl Patience {
    /// For these homes; at least one.
    pub(crate) fn new(homes: Vec<SocketAddr>) -> Self {
        Self {
            homes,
            at: 0,
            tried: 0,
            pauses: 0,
            refused_since: None,
            unknown_since: None,
        }
    }

    /// The first call.
    pub(crate) fn first(&self) -> Next {
        self.call(Duration::ZERO)
    }

    fn call(&self, after: Duration) -> Next {
        match self.homes.get(self.at) {
            Some(home) => Next::Call(*home, after),
            None => Next::GiveUp("no home is named"),
        }
    }

    /// What to do after a call.
    pub(crate) fn after(&mut self, outcome: Outcome, now: Instant) -> Next {
        match outcome {
            Outcome::Welcomed(lasted) => {
                self.refused_since = None;
                self.unknown_since = None;
                if lasted >= WORKED {
                    self.pauses = 0;
                    self.tried = 0;
                    // The same home again, at once: often only the connection is gone.
                    return self.call(Duration::ZERO);
                }
            }
            Outcome::Unavailable => {}
            Outcome::Unauthenticated => {
                let since = *self.refused_since.get_or_insert(now);
                if now - since >= REFUSED_FOR {
                    return Next::GiveUp("home refuses this pod's proof of identity");
                }
            }
            Outcome::NotFound => {
                let since = *self.unknown_since.get_or_insert(now);
                if now - since >= UNKNOWN_FOR {
                    return Next::GiveUp("home knows nothing of this pod");
                }
            }
        }
        self.tried += 1;
        self.at = (self.at + 1) % self.homes.len().max(1);
        if self.tried < self.homes.len() {
            return self.call(Duration::ZERO);
        }
        self.tried = 0;
        let pause = jittered(pause(self.pauses));
        self.pauses = self.pauses.saturating_add(1);
        self.call(pause)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn homes(n: u16) -> Vec<SocketAddr> {
        (0..n).map(|n| ([127, 0, 0, 1], 9000 + n).into()).collect()
    }

    fn port(next: Next) -> (u16, bool) {
        match next {
            Next::Call(home, after) => (home.port(), after > Duration::ZERO),
            Next::GiveUp(why) => panic!("{why}"),
        }
    }

    #[test]
    fn all_homes_are_tried_before_a_pause() {
        let mut patience = Patience::new(homes(3));
        let now = Instant::now();
        assert_eq!(port(patience.first()), (9000, false));
        assert_eq!(
            port(patience.after(Outcome::Unavailable, now)),
            (9001, false)
        );
        assert_eq!(
            port(patience.after(Outcome::Unavailable, now)),
            (9002, false)
        );
        assert_eq!(
            port(patience.after(Outcome::Unavailable, now)),
            (9000, true)
        );
    }

    #[test]
    fn pauses_double_up_to_their_bound() {
        let all: Vec<u128> = [0, 1, 2, 5, 6, 31, 32, u32::MAX]
            .map(|before| pause(before).as_millis())
            .into();
        assert_eq!(all, [50, 100, 200, 1_600, 2_000, 2_000, 2_000, 2_000]);
    }

    #[test]
    fn after_a_call_that_worked_the_same_home_is_called_at_once() {
        let mut patience = Patience::new(homes(2));
        let next = patience.after(Outcome::Welcomed(Duration::from_secs(60)), Instant::now());
        assert_eq!(port(next), (9000, false));
    }

    #[test]
    fn a_home_that_welcomes_and_drops_is_not_called_in_a_circle() {
        let mut patience = Patience::new(homes(1));
        let next = patience.after(Outcome::Welcomed(Duration::ZERO), Instant::now());
        assert!(port(next).1);
    }

    #[test]
    fn only_a_refusal_that_goes_on_ends_it_and_a_welcome_takes_it_back() {
        for (outcome, after) in [
            (Outcome::Unauthenticated, REFUSED_FOR),
            (Outcome::NotFound, UNKNOWN_FOR),
        ] {
            let mut patience = Patience::new(homes(1));
            let start = Instant::now();
            assert!(matches!(patience.after(outcome, start), Next::Call(..)));
            let almost = start + after - Duration::from_millis(1);
            assert!(matches!(patience.after(outcome, almost), Next::Call(..)));
            let _ = patience.after(Outcome::Welcomed(WORKED), almost);
            assert!(matches!(
                patience.after(outcome, start + after),
                Next::Call(..)
            ));
            assert!(matches!(
                patience.after(outcome, start + after * 2),
                Next::GiveUp(_)
            ));
        }
    }

    proptest! {
        #[test]
        fn pauses_stay_within_their_bounds_and_unreachable_homes_are_never_given_up(
            n in 1_u16..5, times in 1_usize..200,
        ) {
            let mut patience = Patience::new(homes(n));
            let mut now = Instant::now();
            for _ in 0..times {
                match patience.after(Outcome::Unavailable, now) {
                    Next::Call(_, after) => {
                        prop_assert!(after <= PAUSE.1 * 3 / 2);
                        now += after + Duration::from_secs(60);
                    }
                    Next::GiveUp(why) => prop_assert!(false, "{}", why),
                }
            }
        }
    }
}
