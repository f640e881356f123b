//! The two state machines under any sequence of inputs.

use proptest::prelude::*;
use tokio::time::Instant;

use crate::core::{
    Ticket,
    instance::{self, Act, Input, Next, Phase},
    slot::{self, SlotInput, SlotPhase},
};

const PHASES: [Phase; 10] = [
    Phase::Launching,
    Phase::Abandoned,
    Phase::Starting,
    Phase::Adopted,
    Phase::Doomed,
    Phase::Ready,
    Phase::IdleDraining,
    Phase::Retiring,
    Phase::Cut,
    Phase::Stopping,
];

const INPUTS: [Input; 11] = [
    Input::Created,
    Input::Accepts,
    Input::Found,
    Input::Condemn,
    Input::GaveUp,
    Input::Idle,
    Input::Demand,
    Input::Retire,
    Input::CutDue,
    Input::Drained,
    Input::Exited,
];

#[test]
fn every_phase_ends_with_exited_and_with_nothing_else() {
    for phase in PHASES {
        for input in INPUTS {
            let gone = instance::step(phase, input) == Next::Gone;
            assert_eq!(gone, input == Input::Exited, "{phase:?} {input:?}");
        }
    }
}

#[test]
fn what_is_in_service_is_ended_only_by_a_finished_drain_or_a_cut() {
    for phase in PHASES.into_iter().filter(|phase| phase.service().is_some()) {
        for input in INPUTS {
            if let Next::To(Phase::Stopping, act) = instance::step(phase, input) {
                assert_eq!(act, Act::Depart, "activators knew {phase:?}");
                let cut = phase == Phase::Cut && input == Input::CutDue;
                assert!(input == Input::Drained || cut, "{phase:?} {input:?}");
                assert_ne!(phase, Phase::Ready);
            }
        }
    }
}

#[test]
fn activators_are_told_exactly_when_what_they_know_changes() {
    for phase in PHASES {
        for input in INPUTS {
            if let Next::To(to, act) = instance::step(phase, input) {
                let expected = match (phase.service(), to.service()) {
                    (_, Some(_)) => Act::Publish,
                    (Some(_), None) => Act::Depart,
                    (None, None) if to == Phase::Stopping => Act::Terminate,
                    (None, None) => Act::Nothing,
                };
                assert_eq!(act, expected, "{phase:?} {input:?}");
            }
        }
    }
}

#[test]
fn what_is_leaving_never_comes_back() {
    for phase in PHASES.into_iter().filter(|phase| !phase.is_current()) {
        for input in INPUTS {
            if let Next::To(to, _) = instance::step(phase, input) {
                assert!(!to.is_current(), "{phase:?} {input:?} {to:?}");
            }
        }
    }
}

fn slot_input() -> impl Strategy<Value = SlotInput> {
    let ticket = (0_u64..4).prop_map(Ticket);
    prop_oneof![
        ticket.clone().prop_map(SlotInput::Launch),
        ticket.clone().prop_map(SlotInput::Ready),
        ticket.clone().prop_map(SlotInput::Leave),
        ticket.prop_map(|ticket| SlotInput::Fail(ticket, Instant::now())),
        Just(SlotInput::Forgive),
    ]
}

proptest! {
    #[test]
    fn a_slot_keeps_its_instance_until_that_one_leaves_or_fails(
        inputs in proptest::collection::vec(slot_input(), 0..40),
    ) {
        let mut phase = SlotPhase::Cold;
        for input in inputs {
            let next = slot::step(phase, input);
            if let Some(current) = phase.current() {
                let ends = matches!(
                    input,
                    SlotInput::Leave(t) | SlotInput::Fail(t, _) if t == current
                );
                prop_assert_eq!(next.current(), (!ends).then_some(current));
            } else if let Some(new) = next.current() {
                prop_assert_eq!(input, SlotInput::Launch(new));
                prop_assert_eq!(next, SlotPhase::Starting(new));
            }
            phase = next;
        }
    }
}
