//! The state machine of one pod: what was seen and heard of it in, what is to be said and done out. Pure.
//!
//! Invariants: `Running` precedes `Ready`, each is said once, and nothing is said after `Exited`, which is said when the
//! pod is gone from the API server and not before. A lost connection to the agent is no input here: it means nothing,
//! the pod's status decides.

use std::{net::IpAddr, time::Duration};

use mcp_gateway_api::{failure::ExitReport, ids::InstanceId, view::Endpoint};

use super::{
    forms::Form,
    seen::{Container, Seen},
    sentences,
};
use crate::RuntimeEvent;

/// Most warnings said of one pod.
const MAX_WARNINGS: usize = 16;
/// Grace for what is given up before it serves.
const GIVE_UP: Duration = Duration::from_secs(1);

/// How far it has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// It exists in the API server.
    Created,
    /// The server's container (or the agent in it) runs.
    Running,
    /// It accepts requests.
    Ready,
    /// It is being deleted, by us or somebody else, or has ended by itself.
    Ending,
    /// It is gone; `Exited` was said.
    Gone,
}

/// What happens to it.
#[derive(Debug, Clone)]
pub(crate) enum Input {
    /// Its state in the API server.
    Seen(Box<Seen>),
    /// The API server has begun to delete it, as we asked.
    Deleting,
    /// It is no longer in the API server; its last state, if that was told.
    Gone(Option<Box<Seen>>),
    /// Its agent has called home.
    Hello,
    /// The agent has started the server.
    AgentRuns,
    /// The server accepts requests, says the agent or our own probe.
    Serves(Endpoint),
    /// The server has ended, says the agent.
    AgentExited(ExitReport),
    /// There is something that operators should know.
    Warns(String),
    /// Our own probe does not find it serving, because.
    NotYet(String),
    /// The autoscaler ends it.
    Terminate(Duration),
    /// It took too long to get a running container.
    LaunchDeadline,
    /// It is long past its grace, and its node has not confirmed its end.
    Overdue,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Effect {
    /// Tell the autoscaler.
    Say(RuntimeEvent),
    /// Begin to probe the server at this address.
    Probe(IpAddr),
    /// Ask the agent to end the server within this time.
    Drain(Duration),
    /// Mark the pod as ours to end, then delete it with this grace.
    Delete(Duration),
    /// Nothing in it runs any more: read what the server last wrote, if `logs`, then remove the pod.
    Bury {
        /// Whether the logs are wanted for the report.
        logs: bool,
    },
}

/// One pod.
#[derive(Debug, Clone)]
pub(crate) struct Pod {
    id: InstanceId,
    form: Form,
    /// A leader before this one may have made it, and heard then that it serves.
    found: bool,
    stage: Stage,
    report: Option<ExitReport>,
    /// What last kept it from running, for the report of a start that took too long.
    trouble: Option<sentences::Trouble>,
    /// What was last said that its start waits for.
    waits: Option<&'static str>,
    /// Why our own probe does not take it as serving.
    not_yet: Option<String>,
    warnings: Vec<String>,
    probing: bool,
    told: bool,
    /// The API server is deleting it: what is waited for is its node.
    deleting: bool,
    buried: bool,
    said_running: bool,
}

impl Pod {
    pub(crate) fn new(id: InstanceId, form: Form, found: bool) -> Self {
        Self {
            id,
            form,
            found,
            stage: Stage::Created,
            report: None,
            trouble: None,
            waits: None,
            not_yet: None,
            warnings: Vec::new(),
            probing: false,
            told: false,
            deleting: false,
            buried: false,
            said_running: false,
        }
    }

    pub(crate) fn stage(&self) -> Stage {
        self.stage
    }

    /// Adds the last lines that a server wrote to the report of its end.
    pub(crate) fn last_words(&mut self, lines: Vec<String>) {
        if let Some(report) = &mut self.report {
            report.stderr_tail.extend(lines);
        }
    }

    /// The one place where anything changes.
    pub(crate) fn step(&mut self, input: Input) -> Vec<Effect> {
        if self.stage == Stage::Gone {
            return Vec::new();
        }
        let mut out = Vec::new();
        match input {
            Input::Seen(seen) => self.seen(&seen, &mut out),
            Input::Deleting => self.deleting = true,
            Input::Gone(last) => self.gone(last.as_deref(), &mut out),
            Input::Hello => self.hello(&mut out),
            Input::AgentRuns => self.runs(&mut out),
            Input::Serves(endpoint) => self.serves(endpoint, &mut out),
            Input::AgentExited(report) => self.agent_exited(report, &mut out),
            Input::Warns(text) => self.warn(text, &mut out),
            Input::NotYet(why) => self.not_yet = Some(why),
            Input::Terminate(grace) => self.terminate(grace, &mut out),
            Input::LaunchDeadline => self.too_late(&mut out),
            Input::Overdue => self.overdue(&mut out),
        }
        out
    }

    /// Where the agent is what the server's container runs, that has started. Beside it, the server's image may still be
    /// pulled, or not be there at all: the server's own container says, or its readiness.
    fn hello(&mut self, out: &mut Vec<Effect>) {
        if self.form.supervises() {
            self.runs(out);
        }
    }

    fn runs(&mut self, out: &mut Vec<Effect>) {
        match self.stage {
            Stage::Created => {
                self.stage = Stage::Running;
                self.said_running = true;
                out.push(Effect::Say(RuntimeEvent::Running(self.id)));
            }
            Stage::Running | Stage::Ready | Stage::Ending | Stage::Gone => {}
        }
    }

    fn serves(&mut self, endpoint: Endpoint, out: &mut Vec<Effect>) {
        self.runs(out);
        match self.stage {
            Stage::Running => {
                self.stage = Stage::Ready;
                out.push(Effect::Say(RuntimeEvent::Ready(self.id, endpoint)));
            }
            Stage::Created | Stage::Ready | Stage::Ending | Stage::Gone => {}
        }
    }

    fn warn(&mut self, text: String, out: &mut Vec<Effect>) {
        if self.warnings.len() < MAX_WARNINGS && !self.warnings.contains(&text) {
            self.warnings.push(text.clone());
            out.push(Effect::Say(RuntimeEvent::Warning(self.id, text)));
        }
    }

    fn seen(&mut self, seen: &Seen, out: &mut Vec<Effect>) {
        self.deleting |= seen.deleting;
        if self.stage == Stage::Ending {
            if self.report.is_none() && !self.told {
                self.report = sentences::ended(seen);
            }
            if nothing_runs(seen) {
                self.bury(!self.told && !self.form.supervises(), out);
            }
            return;
        }
        if let Some(report) = sentences::ended(seen) {
            self.ended_by_itself(seen, report, out);
            return;
        }
        if seen.deleting {
            self.stage = Stage::Ending;
            self.report = Some(sentences::report("somebody else deleted its pod", ""));
            return;
        }
        if seen.server == Container::Running {
            self.runs(out);
            if let Some(ip) = seen.ip
                && self.form == Form::None
                && !self.probing
            {
                self.probing = true;
                out.push(Effect::Probe(ip));
            }
        }
        match sentences::trouble(seen) {
            Some(trouble) => self.in_trouble(trouble, out),
            None => self.waits(None, out),
        }
        self.without_agent(seen, out);
    }

    /// Without the agent beside it nobody will say that the server serves; one that serves already goes on.
    fn without_agent(&mut self, seen: &Seen, out: &mut Vec<Effect>) {
        match self.stage {
            Stage::Created | Stage::Running if !self.found => {
                if let Some(report) = sentences::agent_ended(seen) {
                    self.give_up(report, out);
                }
            }
            Stage::Created | Stage::Running | Stage::Ready | Stage::Ending | Stage::Gone => {}
        }
    }

    fn give_up(&mut self, report: ExitReport, out: &mut Vec<Effect>) {
        self.report = Some(report);
        self.stage = Stage::Ending;
        out.push(Effect::Delete(GIVE_UP));
    }

    fn waits(&mut self, now: Option<&'static str>, out: &mut Vec<Effect>) {
        if now != self.waits {
            self.waits = now;
            let text = now.map(str::to_owned);
            out.push(Effect::Say(RuntimeEvent::Waits(self.id, text)));
        }
    }

    fn in_trouble(&mut self, trouble: sentences::Trouble, out: &mut Vec<Effect>) {
        let fatal = trouble.fatal && self.stage == Stage::Created;
        if fatal {
            self.give_up(trouble.report(), out);
        } else {
            self.waits(Some(trouble.public), out);
            self.warn(trouble.both(), out);
        }
        self.trouble = Some(trouble);
    }

    /// Its server has ended by itself, says the pod's status; a sidecar that goes on is of no use.
    fn ended_by_itself(&mut self, seen: &Seen, report: ExitReport, out: &mut Vec<Effect>) {
        if let Container::Ended(ended) = &seen.server
            && ended.ran
        {
            self.runs(out);
        }
        self.stage = Stage::Ending;
        self.report = Some(report);
        self.bury(!sentences::lost_its_node(seen), out);
    }

    fn bury(&mut self, logs: bool, out: &mut Vec<Effect>) {
        if !self.buried {
            self.buried = true;
            out.push(Effect::Bury { logs });
        }
    }

    fn agent_exited(&mut self, report: ExitReport, out: &mut Vec<Effect>) {
        match self.stage {
            Stage::Created | Stage::Running | Stage::Ready | Stage::Ending => {
                self.stage = Stage::Ending;
                self.report = Some(report);
                self.bury(false, out);
            }
            Stage::Gone => {}
        }
    }

    fn terminate(&mut self, grace: Duration, out: &mut Vec<Effect>) {
        match self.stage {
            Stage::Created | Stage::Running | Stage::Ready => {
                if let (Stage::Running, Some(why)) = (self.stage, &self.not_yet) {
                    let text = format!("it was told to end before it served: {why}");
                    self.report = Some(sentences::report(&text, ""));
                }
                self.stage = Stage::Ending;
                self.told = true;
                out.push(Effect::Drain(grace));
                out.push(Effect::Delete(grace));
            }
            Stage::Ending | Stage::Gone => {}
        }
    }

    fn too_late(&mut self, out: &mut Vec<Effect>) {
        match self.stage {
            Stage::Created => {
                let (public, private) = match &self.trouble {
                    None => ("its pod was not running in time", String::new()),
                    Some(trouble) => (trouble.public, trouble.private.clone()),
                };
                self.give_up(sentences::report(public, &private), out);
            }
            Stage::Running | Stage::Ready | Stage::Ending | Stage::Gone => {}
        }
    }

    fn overdue(&mut self, out: &mut Vec<Effect>) {
        if self.stage == Stage::Ending && !self.buried {
            let text = if self.deleting {
                "its node does not confirm that it has ended; its pod is removed all the same"
            } else {
                "its pod could not be ended in time; it is removed without waiting for its node"
            };
            self.warn(text.into(), out);
            self.bury(false, out);
        }
    }

    fn gone(&mut self, last: Option<&Seen>, out: &mut Vec<Effect>) {
        if self.report.is_none() && !self.told {
            self.report = last.and_then(sentences::ended);
        }
        // A short life may be seen only at its end.
        if let Some(Container::Ended(ended)) = last.map(|seen| &seen.server)
            && ended.ran
            && !self.said_running
            && !self.told
        {
            self.said_running = true;
            out.push(Effect::Say(RuntimeEvent::Running(self.id)));
        }
        let told = if self.told {
            "it was told to end"
        } else {
            "somebody else deleted its pod"
        };
        let report = self
            .report
            .take()
            .unwrap_or_else(|| sentences::report(told, ""));
        self.stage = Stage::Gone;
        out.push(Effect::Say(RuntimeEvent::Exited(self.id, report)));
    }
}

/// Whether nothing in it can serve any more, or nobody is left to say so.
fn nothing_runs(seen: &Seen) -> bool {
    seen.over || matches!(seen.server, Container::Ended(_)) || sentences::lost_its_node(seen)
}

#[cfg(test)]
pub(in crate::kubernetes) mod tests;
