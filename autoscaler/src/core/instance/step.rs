//! The state machine of an instance, phase by phase.
//!
//! Invariants: pure and total; see [`super`] for what the phases mean.

use super::{Act, Input, Next, Phase};

/// The state machine.
#[must_use]
pub fn step(phase: Phase, input: Input) -> Next {
    match phase {
        Phase::Launching => launching(input),
        Phase::Abandoned => abandoned(input),
        Phase::Starting => starting(input),
        Phase::Adopted => adopted(input),
        Phase::Doomed => doomed(input),
        Phase::Ready => ready(input),
        Phase::IdleDraining => idle_draining(input),
        Phase::Retiring => retiring(input),
        Phase::Cut => cut(input),
        Phase::Stopping => stopping(input),
    }
}

fn launching(input: Input) -> Next {
    match input {
        Input::Created => Next::To(Phase::Starting, Act::Nothing),
        Input::GaveUp | Input::Retire => Next::To(Phase::Abandoned, Act::Nothing),
        Input::Exited => Next::Gone,
        Input::Accepts
        | Input::Found
        | Input::Condemn
        | Input::Idle
        | Input::Demand
        | Input::CutDue
        | Input::Drained => Next::Stay,
    }
}

fn abandoned(input: Input) -> Next {
    match input {
        Input::Created => Next::To(Phase::Stopping, Act::Terminate),
        Input::Exited => Next::Gone,
        Input::Accepts
        | Input::Found
        | Input::Condemn
        | Input::GaveUp
        | Input::Idle
        | Input::Demand
        | Input::Retire
        | Input::CutDue
        | Input::Drained => Next::Stay,
    }
}

fn starting(input: Input) -> Next {
    match input {
        Input::Accepts => Next::To(Phase::Ready, Act::Publish),
        Input::Found => Next::To(Phase::Adopted, Act::Nothing),
        Input::Condemn => Next::To(Phase::Doomed, Act::Nothing),
        Input::GaveUp | Input::Retire => Next::To(Phase::Stopping, Act::Terminate),
        Input::Exited => Next::Gone,
        Input::Created | Input::Idle | Input::Demand | Input::CutDue | Input::Drained => Next::Stay,
    }
}

fn adopted(input: Input) -> Next {
    match input {
        Input::Demand => Next::To(Phase::Ready, Act::Publish),
        Input::Idle => Next::To(Phase::IdleDraining, Act::Publish),
        Input::Retire | Input::Condemn => Next::To(Phase::Retiring, Act::Publish),
        Input::Exited => Next::Gone,
        Input::Created
        | Input::Accepts
        | Input::Found
        | Input::GaveUp
        | Input::CutDue
        | Input::Drained => Next::Stay,
    }
}

fn doomed(input: Input) -> Next {
    match input {
        Input::Accepts | Input::Found => Next::To(Phase::Retiring, Act::Publish),
        Input::GaveUp | Input::Retire => Next::To(Phase::Stopping, Act::Terminate),
        Input::Exited => Next::Gone,
        Input::Created
        | Input::Condemn
        | Input::Idle
        | Input::Demand
        | Input::CutDue
        | Input::Drained => Next::Stay,
    }
}

fn ready(input: Input) -> Next {
    match input {
        Input::Idle => Next::To(Phase::IdleDraining, Act::Publish),
        Input::Retire | Input::Condemn => Next::To(Phase::Retiring, Act::Publish),
        Input::Exited => Next::Gone,
        Input::Created
        | Input::Accepts
        | Input::Found
        | Input::GaveUp
        | Input::Demand
        | Input::CutDue
        | Input::Drained => Next::Stay,
    }
}

fn idle_draining(input: Input) -> Next {
    match input {
        Input::Demand => Next::To(Phase::Ready, Act::Publish),
        Input::Retire | Input::Condemn => Next::To(Phase::Retiring, Act::Publish),
        Input::Drained => Next::To(Phase::Stopping, Act::Depart),
        Input::Exited => Next::Gone,
        Input::Created
        | Input::Accepts
        | Input::Found
        | Input::GaveUp
        | Input::Idle
        | Input::CutDue => Next::Stay,
    }
}

fn retiring(input: Input) -> Next {
    match input {
        Input::CutDue => Next::To(Phase::Cut, Act::Publish),
        Input::Drained => Next::To(Phase::Stopping, Act::Depart),
        Input::Exited => Next::Gone,
        Input::Created
        | Input::Accepts
        | Input::Found
        | Input::Condemn
        | Input::GaveUp
        | Input::Idle
        | Input::Demand
        | Input::Retire => Next::Stay,
    }
}

fn cut(input: Input) -> Next {
    match input {
        // Due a second time: who has not acknowledged by now is cut by the end of the instance itself.
        Input::CutDue | Input::Drained => Next::To(Phase::Stopping, Act::Depart),
        Input::Exited => Next::Gone,
        Input::Created
        | Input::Accepts
        | Input::Found
        | Input::Condemn
        | Input::GaveUp
        | Input::Idle
        | Input::Demand
        | Input::Retire => Next::Stay,
    }
}

fn stopping(input: Input) -> Next {
    match input {
        // The runtime has not said that it is gone: told again, which costs nothing.
        Input::GaveUp => Next::To(Phase::Stopping, Act::Terminate),
        Input::Exited => Next::Gone,
        Input::Created
        | Input::Accepts
        | Input::Found
        | Input::Condemn
        | Input::Idle
        | Input::Demand
        | Input::Retire
        | Input::CutDue
        | Input::Drained => Next::Stay,
    }
}
