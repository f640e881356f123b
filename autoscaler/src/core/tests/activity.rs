//! Drains and use, whatever the order of words.

use std::{collections::BTreeMap, time::Duration};

use mcp_gateway_api::{ids::ActivatorId, view::Stamp};
use proptest::prelude::*;
use tokio::time::Instant;

use crate::core::activity::{Drain, Heard, Usage};

fn stamp(sequence: u64) -> Stamp {
    Stamp { epoch: 1, sequence }
}

#[test]
fn an_acknowledgement_of_an_older_drain_is_ignored() {
    let mut drain = Drain::new(stamp(2), [ActivatorId(1)]);
    assert_eq!(
        drain.acknowledge(ActivatorId(1), stamp(1), 0),
        Heard::Ignored
    );
    assert!(!drain.is_over());
    assert_eq!(
        drain.acknowledge(ActivatorId(1), stamp(2), 0),
        Heard::Drained
    );
}

#[test]
fn of_two_acknowledgements_that_overtook_each_other_the_lower_counts() {
    let mut drain = Drain::new(stamp(1), [ActivatorId(1), ActivatorId(2)]);
    drain.acknowledge(ActivatorId(1), stamp(1), 0);
    drain.acknowledge(ActivatorId(1), stamp(1), 3);
    assert_eq!(
        drain.acknowledge(ActivatorId(2), stamp(1), 0),
        Heard::Drained
    );
}

#[test]
fn a_drain_without_activators_is_over_at_once() {
    assert!(Drain::new(stamp(1), []).is_over());
}

#[test]
fn idleness_counts_from_the_last_lease_of_all() {
    let ready = Instant::now();
    let at = |s| ready + Duration::from_secs(s);
    let mut usage = Usage::default();
    assert_eq!(usage.idle_since(ready), Some(ready));
    usage.report(ActivatorId(1), at(10), 2, Duration::ZERO);
    assert_eq!(usage.idle_since(ready), None);
    usage.report(ActivatorId(1), at(20), 0, Duration::from_secs(4));
    assert_eq!(usage.idle_since(ready), Some(at(16)));
    usage.report(ActivatorId(2), at(21), 1, Duration::ZERO);
    usage.leave(ActivatorId(2), at(30));
    assert_eq!(usage.idle_since(ready), Some(at(30)));
}

proptest! {
    #[test]
    fn a_drain_is_over_exactly_when_all_who_listened_have_let_go_or_left(
        words in proptest::collection::vec((0_u128..5, 0_u64..3, 0_u32..3, any::<bool>()), 0..40),
    ) {
        let mut drain = Drain::new(stamp(1), (0..4).map(ActivatorId));
        let mut model: BTreeMap<u128, Option<u32>> = (0..4).map(|id| (id, None)).collect();
        for (from, at, leases, leaves) in words {
            if leaves {
                drain.leave(ActivatorId(from));
                model.remove(&from);
            } else {
                drain.acknowledge(ActivatorId(from), stamp(at), leases);
                if let Some(said) = model.get_mut(&from) && at == 1 {
                    *said = Some(said.map_or(leases, |before| before.min(leases)));
                }
            }
            prop_assert_eq!(drain.is_over(), model.values().all(|said| *said == Some(0)));
        }
    }
}
