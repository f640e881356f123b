//! Plans with their reasons.

use std::time::Duration;

use proptest::prelude::*;
use tokio::time::Instant;

use crate::core::{
    Ticket,
    planner::{
        FAILURE_MEMORY, GIVEN_GRACE, IdleFacts, IdlePlan, Room, SlotFacts, SlotPlan, plan_idle,
        plan_slot,
    },
    slot::SlotPhase,
};

fn cold() -> SlotFacts {
    SlotFacts {
        phase: SlotPhase::Cold,
        waiting: 0,
        room: Room::Free,
        cancel_at: None,
        leaving: false,
    }
}

#[test]
fn the_plans_of_a_slot_and_why() {
    let now = Instant::now();
    let soon = now + Duration::from_secs(1);
    let waiting = SlotFacts {
        waiting: 3,
        ..cold()
    };
    let failing = |until, waiting| SlotFacts {
        phase: SlotPhase::Backoff { until },
        waiting,
        ..cold()
    };
    let starting = |cancel_at| SlotFacts {
        phase: SlotPhase::Starting(Ticket(1)),
        cancel_at,
        ..cold()
    };
    let room = |room| SlotFacts { room, ..waiting };
    let said = [
        cold(),
        SlotFacts {
            leaving: true,
            ..cold()
        },
        waiting,
        room(Room::Soon),
        room(Room::NoSlots),
        room(Room::NoInstances),
        failing(now, 1),
        failing(now, 0),
        starting(Some(now)),
        starting(Some(soon)),
        starting(None),
    ]
    .map(|facts| {
        let plan = plan_slot(&facts, now);
        let name = format!("{plan:?}");
        let name = name.split('(').next().unwrap().to_owned();
        format!("{name}: {}", plan.why(&facts))
    });
    assert_eq!(
        said,
        [
            "Forget: nothing is left to remember",
            "Rest: nothing to do",
            "Launch: 3 waiting",
            "AwaitRoom: an instance is stopping and will make room",
            "Refuse: the backend has as many slots as it may",
            "Refuse: the gateway has as many instances as it may",
            "Launch: 1 waiting",
            "Rest: nothing to do",
            "CancelStart: nobody waits for it any more",
            "Rest: nothing to do",
            "Rest: nothing to do",
        ]
    );
    assert_eq!(
        plan_slot(&failing(soon, 1), now),
        SlotPlan::Rest(Some(soon))
    );
    let long_ago = failing(now, 0);
    assert_eq!(
        plan_slot(&long_ago, now + FAILURE_MEMORY),
        SlotPlan::Forgive
    );
}

fn facts() -> impl Strategy<Value = (SlotFacts, Instant)> {
    let base = Instant::now();
    let at = (0_u64..300).prop_map(move |s| base + Duration::from_secs(s));
    let phase = prop_oneof![
        Just(SlotPhase::Cold),
        Just(SlotPhase::Starting(Ticket(1))),
        Just(SlotPhase::Serving(Ticket(1))),
        at.clone().prop_map(|until| SlotPhase::Backoff { until }),
    ];
    let room = prop_oneof![
        Just(Room::Free),
        Just(Room::Soon),
        Just(Room::NoSlots),
        Just(Room::NoInstances),
    ];
    let cancel = proptest::option::of(at.clone());
    (phase, 0_usize..3, room, cancel, any::<bool>(), at).prop_map(
        |(phase, waiting, room, cancel_at, leaving, now)| {
            let facts = SlotFacts {
                phase,
                waiting,
                room,
                cancel_at,
                leaving,
            };
            (facts, now)
        },
    )
}

proptest! {
    #[test]
    fn nothing_is_launched_that_nobody_waits_for_or_that_there_is_no_room_for(
        (facts, now) in facts(),
    ) {
        if plan_slot(&facts, now) == SlotPlan::Launch {
            prop_assert!(facts.waiting > 0);
            prop_assert_eq!(facts.room, Room::Free);
            prop_assert_eq!(facts.phase.current(), None);
        }
    }

    #[test]
    fn who_waits_is_never_forgotten((facts, now) in facts()) {
        let plan = plan_slot(&facts, now);
        if facts.waiting > 0 {
            prop_assert!(!matches!(plan, SlotPlan::Forget | SlotPlan::Forgive));
            if facts.phase.current().is_none() {
                prop_assert_ne!(plan, SlotPlan::Rest(None));
            }
        }
        if let SlotPlan::Rest(Some(at)) = plan {
            prop_assert!(at > now, "a rest must end later than now, or it never ends");
        }
    }

    #[test]
    fn an_instance_is_drained_only_when_idle_so_long_and_not_just_given(
        idle in proptest::option::of(0_u64..1_000),
        given in proptest::option::of(0_u64..1_000),
        timeout in 0_u64..1_000,
        now in 0_u64..2_000,
    ) {
        let base = Instant::now();
        let ms = Duration::from_millis;
        let now = base + ms(now);
        let facts = IdleFacts {
            idle_since: idle.map(|t| base + ms(t)),
            given: given.map(|t| base + ms(t)),
            idle_timeout: ms(timeout),
        };
        match plan_idle(&facts, now) {
            IdlePlan::Busy => prop_assert!(facts.idle_since.is_none()),
            IdlePlan::CheckAt(at) => prop_assert!(at > now),
            IdlePlan::Drain(_) => {
                prop_assert!(facts.idle_since.unwrap() + facts.idle_timeout <= now);
                prop_assert!(facts.given.is_none_or(|at| at + GIVEN_GRACE <= now));
            }
        }
    }
}
