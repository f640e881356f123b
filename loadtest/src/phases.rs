//! Where the time of a cold start went. Pure.
//!
//! What is known of a start are moments: some measured by the gateway itself, some
//! seen from outside a few milliseconds late. They are made to follow one another,
//! so that the phases of a start are never negative and always add up to its time.

use serde::{Deserialize, Serialize};

/// A part of a cold start, in the order in which they follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Phase {
    /// In the activator, before and after all the others.
    Hold,
    /// From the claim to the call that creates the pod.
    Claim,
    /// That call; of a Deployment, from its scaling until its pod exists.
    Create,
    /// Until the scheduler has found a node.
    Schedule,
    /// Until the pod's network and sandbox are there.
    Sandbox,
    /// The container that lends the agent, from its creation until the kubelet goes on to the next.
    Init,
    /// Until the last container that matters has started.
    Container,
    /// Until the agent has called home.
    Hello,
    /// Until the server accepts requests.
    Ready,
    /// Until whoever waits knows it from the pod's status.
    Noticed,
    /// From the pod's readiness until its Service leads there.
    Route,
    /// Until the first answer is complete.
    Answer,
}

impl Phase {
    /// All, in order.
    pub const ALL: [Self; 12] = [
        Self::Hold,
        Self::Claim,
        Self::Create,
        Self::Schedule,
        Self::Sandbox,
        Self::Init,
        Self::Container,
        Self::Hello,
        Self::Ready,
        Self::Noticed,
        Self::Route,
        Self::Answer,
    ];

    /// For people.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Hold => "hold",
            Self::Claim => "claim",
            Self::Create => "create",
            Self::Schedule => "schedule",
            Self::Sandbox => "sandbox",
            Self::Init => "agent lent",
            Self::Container => "container",
            Self::Hello => "agent hello",
            Self::Ready => "server ready",
            Self::Noticed => "noticed in status",
            Self::Route => "routed by Service",
            Self::Answer => "first answer",
        }
    }
}

/// How long a phase took, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Part {
    /// Which.
    pub phase: Phase,
    /// How long.
    pub millis: f64,
}

/// Splits `total` milliseconds at the moments when phases ended, in milliseconds
/// from the beginning; the last phase ends with the total.
///
/// A moment that is not known takes no part: the next phase has its time. One that
/// lies behind a later one was seen late and is moved before it.
#[must_use]
pub fn split(total: f64, ends: &[(Phase, Option<f64>)], last: Phase) -> Vec<Part> {
    let total = if total.is_finite() {
        total.max(0.0)
    } else {
        0.0
    };
    let mut bound = total;
    let mut known: Vec<(Phase, f64)> = ends
        .iter()
        .rev()
        .filter_map(|(phase, end)| {
            bound = end.filter(|end| end.is_finite())?.clamp(0.0, bound);
            Some((*phase, bound))
        })
        .collect();
    known.reverse();
    known.push((last, total));
    let mut begin = 0.0;
    known
        .into_iter()
        .map(|(phase, end)| {
            let millis = end - begin;
            begin = end;
            Part { phase, millis }
        })
        .collect()
}

/// What a `Server-Timing` header says of `name`, in milliseconds.
#[must_use]
pub fn server_timing(header: &str, name: &str) -> Option<f64> {
    header.split(',').find_map(|entry| {
        let (metric, parameters) = entry.trim().split_once(';')?;
        if metric.trim() != name {
            return None;
        }
        let duration = parameters
            .split(';')
            .find_map(|parameter| parameter.trim().strip_prefix("dur="))?;
        duration.trim_matches('"').parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn moments_become_phases() {
        let ends = [
            (Phase::Create, Some(10.0)),
            (Phase::Schedule, None),
            (Phase::Sandbox, Some(200.0)),
        ];
        let parts = split(250.0, &ends, Phase::Answer);
        let told: Vec<_> = parts.iter().map(|part| (part.phase, part.millis)).collect();
        let expected = [
            (Phase::Create, 10.0),
            (Phase::Sandbox, 190.0),
            (Phase::Answer, 50.0),
        ];
        assert_eq!(told, expected);
    }

    #[test]
    fn what_was_seen_late_is_moved_before_what_followed_it() {
        let ends = [(Phase::Container, Some(320.0)), (Phase::Hello, Some(300.0))];
        let parts = split(310.0, &ends, Phase::Answer);
        let told: Vec<_> = parts.iter().map(|part| part.millis).collect();
        assert_eq!(told, [300.0, 0.0, 10.0]);
    }

    #[test]
    fn a_header_tells_what_it_names() {
        let header = "hold;dur=512.3, claim;dur=0.4, create;desc=\"x\";dur=7.0";
        assert_eq!(server_timing(header, "hold"), Some(512.3));
        assert_eq!(server_timing(header, "create"), Some(7.0));
        assert_eq!(server_timing(header, "serve"), None);
        assert_eq!(server_timing("hold", "hold"), None);
    }

    proptest! {
        #[test]
        fn phases_add_up_to_the_total_and_none_is_negative(
            total in 0.0..1e5_f64,
            moments in prop::collection::vec(prop::option::of(-10.0..2e5_f64), Phase::ALL.len() - 1),
        ) {
            let ends: Vec<_> = Phase::ALL.into_iter().zip(moments).collect();
            let parts = split(total, &ends, Phase::Answer);
            let sum: f64 = parts.iter().map(|part| part.millis).sum();
            prop_assert!((sum - total).abs() < 1e-6 * total.max(1.0), "{sum} is not {total}");
            prop_assert!(parts.iter().all(|part| part.millis >= 0.0), "{parts:?}");
            prop_assert!(parts.windows(2).all(|two| two[0].phase < two[1].phase));
        }

        #[test]
        fn no_header_makes_it_panic(header in ".{0,80}") {
            let _ = server_timing(&header, "hold");
        }
    }
}
