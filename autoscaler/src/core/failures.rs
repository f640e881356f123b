//! Starts that fail and instances that crash: who is told, and when it is tried again.
//!
//! The rule: what could not be launched at all, or ran out of time, is told to all who wait at once. A program that ran
//! and exited before it served is tried once more for those whose budget reaches the next try; from its second failure in
//! a row on, each failure is told at once. Invariant: a failing slot is never started at full speed, whoever asks.

use mcp_gateway_api::failure::{ExitReport, Failure, FailureKind};
use tokio::time::Instant;

use super::{
    Core, LastFailure, SlotId, Ticket, backoff,
    event::{Effect, Note, Transition},
    instance::Input,
    planner::{LAUNCH_DEADLINE, STABLE},
    slot::{self, SlotInput, owner_label},
};

impl Core {
    /// What a start that was given up had to say comes only when it has ended.
    pub(super) fn add_last_words(&mut self, ticket: Ticket, report: &ExitReport) {
        let Some(instance) = self.instances.get(&ticket) else {
            return;
        };
        if let Some(tally) = self.tallies.get_mut(&instance.key.backend)
            && let Some(last) = &mut tally.last_failure
            && last.ticket == ticket
        {
            last.exit.stderr_tail.clone_from(&report.stderr_tail);
        }
    }

    pub(super) fn crashed(&mut self, ticket: Ticket, report: &ExitReport) {
        let Some(instance) = self.instances.get(&ticket) else {
            return;
        };
        let served = instance.stages.ready.unwrap_or(self.now);
        let stable = self.now.saturating_duration_since(served) >= STABLE;
        let slot_id = instance.slot;
        if let Some(slot) = self.slots.get_mut(&slot_id)
            && stable
        {
            slot.failures = 0;
        }
        self.fail(ticket, report, !stable);
    }

    /// A start has failed: `refused` if it never ran, or ran out of time. Those who wait are told, except that the
    /// first failure of a program that ran is tried again at once for those with time to wait.
    pub(super) fn start_failed(&mut self, ticket: Ticket, report: &ExitReport, refused: bool) {
        let Some(until) = self.fail(ticket, report, true) else {
            return;
        };
        let Some(instance) = self.instances.get(&ticket) else {
            return;
        };
        let slot_id = instance.slot;
        let Some(slot) = self.slots.get(&slot_id) else {
            return;
        };
        let again = !refused && slot.failures <= 1;
        for id in slot.waiters.clone() {
            let patient = self.waiters.get(&id).is_some_and(|w| w.deadline >= until);
            if !(again && patient) {
                let failure = self.start_failure(slot_id, until);
                self.answer(id, Err(failure));
            }
        }
    }

    /// Counts a failure, tells of it, and says when the slot may try again.
    fn fail(&mut self, ticket: Ticket, report: &ExitReport, delayed: bool) -> Option<Instant> {
        let jitter = self.draw_jitter();
        let instance = self.instances.get(&ticket)?;
        let slot = self.slots.get_mut(&instance.slot)?;
        let from = instance.phase.label();
        slot.failures = slot.failures.saturating_add(1);
        let delay = backoff::delay(slot.failures, jitter);
        let until = self.now + delay;
        let (input, to) = if delayed {
            (SlotInput::Fail(ticket, until), "backoff")
        } else {
            (SlotInput::Leave(ticket), "cold")
        };
        slot.phase = slot::step(slot.phase, input);
        let (backend, in_a_row) = (slot.key.backend.clone(), slot.failures);
        let why = if delayed {
            format!("{}; next try in {delay:.0?}", report.summary)
        } else {
            report.summary.clone()
        };
        let tail = report.stderr_tail.join("\n");
        self.out
            .push(Effect::Note(Note::Transition(Box::new(Transition {
                backend: backend.clone(),
                owner: owner_label(&instance.key.owner),
                instance: instance.id(),
                from,
                to,
                why,
                trouble: true,
                private: (!tail.is_empty()).then_some(tail),
            }))));
        if let Some(tally) = self.tallies.get_mut(&backend) {
            tally.failures += 1;
            tally.last_failure = Some(LastFailure {
                ticket,
                at: self.now,
                exit: report.clone(),
                log: instance.launched.as_ref().and_then(|l| l.log.clone()),
                in_a_row,
            });
        }
        self.note(Note::Failed(backend));
        Some(until)
    }

    /// What those who wait are told of a failed start.
    pub(super) fn start_failure(&self, slot: SlotId, until: Instant) -> Failure {
        let slot = self.slots.get(&slot);
        let tally = slot.and_then(|slot| self.tallies.get(slot.backend()));
        let last = tally.and_then(|tally| tally.last_failure.as_ref());
        let name = slot.map_or("", |slot| slot.backend().as_str());
        let (why, private) = match last {
            None => ("its last starts failed", String::new()),
            Some(last) if last.exit.private => (
                "it could not be launched; the gateway's own status page says why",
                last.exit.summary.clone(),
            ),
            Some(last) => (
                last.exit.summary.trim_end_matches('.'),
                last.exit.stderr_tail.join("\n"),
            ),
        };
        Failure::new(
            FailureKind::StartFailed,
            format!("The server {name} could not be started: {why}."),
        )
        .because(private)
        .retry_after(until.saturating_duration_since(self.now))
    }

    pub(super) fn too_slow(&mut self, ticket: Ticket) {
        let Some(instance) = self.instances.get(&ticket) else {
            return;
        };
        let summary = match instance.stages.running {
            Some(_) => {
                let limit = instance.backend.policy.start_timeout;
                format!("it did not accept requests within {limit:?}")
            }
            None => format!("it was not running within {LAUNCH_DEADLINE:?}"),
        };
        let report = ExitReport {
            summary,
            ..ExitReport::default()
        };
        self.start_failed(ticket, &report, true);
        self.advance(ticket, Input::GaveUp, "its start took too long".into());
    }
}
