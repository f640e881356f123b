//! A runtime that plays a script, for component tests of whoever drives a [`Runtime`].
//!
//! The script lists the calls that must come, in order, and what follows each, after delays of Tokio's (pausable) time.
//! Any other call is a complaint; [`ScriptedRuntime::finish`] panics with all complaints and with what was not played.
//! Never starts anything.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use async_trait::async_trait;
use mcp_gateway_api::{
    failure::ExitReport,
    ids::{BackendName, InstanceId},
    view::Endpoint,
};
use parking_lot::Mutex;
use tokio::{sync::mpsc, time::sleep};

use crate::{EventReceiver, Farewell, LaunchOrder, Launched, Runtime, RuntimeEvent};

/// Something that happens to an instance; the script does not know ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Happening {
    /// [`RuntimeEvent::Running`]
    Running,
    /// [`RuntimeEvent::Ready`]
    Ready(Endpoint),
    /// [`RuntimeEvent::Warning`]
    Warning(String),
    /// [`RuntimeEvent::Exited`]
    Exited(ExitReport),
}

/// What follows a call: each happening so long after the one before it.
pub type Course = Vec<(Duration, Happening)>;

/// One call that must come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// A launch of this backend.
    Launch {
        /// Of which backend.
        backend: BackendName,
        /// How long the call itself takes.
        takes: Duration,
        /// Its answer; the instance's number is its place among the successful launches, from 0.
        answer: Result<Course, ExitReport>,
    },
    /// The end of an instance.
    Terminate {
        /// The number of the instance.
        number: usize,
        /// What follows.
        course: Course,
    },
}

/// See the module.
#[derive(Debug)]
pub struct ScriptedRuntime {
    events: mpsc::Sender<RuntimeEvent>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    script: VecDeque<Step>,
    launched: Vec<InstanceId>,
    complaints: Vec<String>,
}

impl ScriptedRuntime {
    /// Takes a script.
    #[must_use]
    pub fn new(script: impl IntoIterator<Item = Step>) -> (Arc<Self>, EventReceiver) {
        let (events, receiver) = mpsc::channel(1024);
        let state = Mutex::new(State {
            script: script.into_iter().collect(),
            ..State::default()
        });
        (Arc::new(Self { events, state }), receiver)
    }

    /// Takes a script for a runtime that was opened with instances of an earlier one: their numbers come first.
    #[must_use]
    pub fn with_found(
        found: impl IntoIterator<Item = InstanceId>,
        script: impl IntoIterator<Item = Step>,
    ) -> (Arc<Self>, EventReceiver) {
        let (runtime, receiver) = Self::new(script);
        runtime.state.lock().launched.extend(found);
        (runtime, receiver)
    }

    /// How many calls of the script have not come yet.
    #[must_use]
    pub fn left(&self) -> usize {
        self.state.lock().script.len()
    }

    /// The instance of a launch, if it has come.
    #[must_use]
    pub fn launched(&self, number: usize) -> Option<InstanceId> {
        self.state.lock().launched.get(number).copied()
    }

    /// Checks that the script was played, all of it and nothing else.
    ///
    /// # Panics
    /// If it was not.
    pub fn finish(&self) {
        let mut state = self.state.lock();
        let mut complaints = std::mem::take(&mut state.complaints);
        let missing = std::mem::take(&mut state.script);
        complaints.extend(missing.iter().map(|step| format!("never came: {step:?}")));
        assert!(
            complaints.is_empty(),
            "off the script:\n{}",
            complaints.join("\n")
        );
    }

    fn play(&self, instance: InstanceId, course: Course) {
        let events = self.events.clone();
        tokio::spawn(async move {
            for (after, happening) in course {
                sleep(after).await;
                let event = match happening {
                    Happening::Running => RuntimeEvent::Running(instance),
                    Happening::Ready(endpoint) => RuntimeEvent::Ready(instance, endpoint),
                    Happening::Warning(text) => RuntimeEvent::Warning(instance, text),
                    Happening::Exited(report) => RuntimeEvent::Exited(instance, report),
                };
                // The test has stopped listening.
                let _ = events.send(event).await;
            }
        });
    }

    fn complain(&self, call: &str, expected: Option<Step>) {
        let expected =
            expected.map_or_else(|| "nothing more".to_owned(), |step| format!("{step:?}"));
        let complaint = format!("came: {call}; expected: {expected}");
        self.state.lock().complaints.push(complaint);
    }
}

#[async_trait]
impl Runtime for ScriptedRuntime {
    async fn launch(&self, order: LaunchOrder) -> Result<Launched, ExitReport> {
        let step = self.state.lock().script.pop_front();
        let (takes, answer) = match step {
            Some(Step::Launch {
                backend,
                takes,
                answer,
            }) if backend == order.backend.name => (takes, answer),
            other @ (None | Some(Step::Launch { .. } | Step::Terminate { .. })) => {
                self.complain(&format!("launch of {}", order.backend.name), other);
                return Err(ExitReport {
                    summary: "it is not in the script".to_owned(),
                    ..ExitReport::default()
                });
            }
        };
        sleep(takes).await;
        let course = answer?;
        let instance = InstanceId::random();
        self.state.lock().launched.push(instance);
        self.play(instance, course);
        Ok(Launched {
            instance,
            pid: None,
            log: None,
        })
    }

    async fn terminate(&self, instance: InstanceId, _farewell: Farewell) {
        let (step, number) = {
            let mut state = self.state.lock();
            let number = state.launched.iter().position(|id| *id == instance);
            (state.script.pop_front(), number)
        };
        match step {
            Some(Step::Terminate {
                number: expected,
                course,
            }) if number == Some(expected) => self.play(instance, course),
            other @ (None | Some(Step::Launch { .. } | Step::Terminate { .. })) => {
                self.complain(&format!("terminate of instance {number:?}"), other);
            }
        }
    }

    async fn adopt(&self, _instance: InstanceId) -> bool {
        true
    }

    async fn stderr_tail(&self, _instance: InstanceId) -> Vec<String> {
        Vec::new()
    }
}

#[cfg(test)]
mod tests {
    use mcp_gateway_api::{
        backend::{Backend, LaunchSpec, Transport},
        ids::{Generation, TenantName},
        policy::{Isolation, ScalingPolicy},
        slot::{Owner, SlotKey},
    };
    use tokio::time::Instant;

    use super::*;

    fn name() -> BackendName {
        BackendName::new("demo").unwrap()
    }

    fn order() -> LaunchOrder {
        LaunchOrder {
            backend: Arc::new(Backend {
                name: name(),
                generation: Generation(1),
                description: None,
                launch: LaunchSpec {
                    image: None,
                    port: None,
                    pod: Arc::default(),
                    command: Vec::new(),
                    args: Vec::new(),
                    working_dir: None,
                    env: Vec::new(),
                    transport: Transport::Stdio,
                    path: "/mcp".into(),
                    host: None,
                    health_path: None,
                },
                policy: Arc::new(ScalingPolicy::for_processes(Isolation::Shared)),
                tenants: Vec::new(),
            }),
            slot: SlotKey {
                backend: name(),
                owner: Owner::Nobody,
            },
            tenant: TenantName::default(),
        }
    }

    fn starts(course: Course) -> Step {
        Step::Launch {
            backend: name(),
            takes: Duration::from_secs(1),
            answer: Ok(course),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_script_is_played_in_virtual_time() {
        let exit = Happening::Exited(ExitReport::default());
        let (runtime, mut events) = ScriptedRuntime::new([
            starts(vec![(Duration::from_secs(5), Happening::Running)]),
            Step::Terminate {
                number: 0,
                course: vec![(Duration::from_secs(10), exit)],
            },
        ]);
        let began = Instant::now();
        let id = runtime.launch(order()).await.unwrap().instance;
        assert_eq!(events.recv().await, Some(RuntimeEvent::Running(id)));
        let grace = Duration::ZERO;
        runtime.terminate(id, Farewell { grace }).await;
        let report = ExitReport::default();
        assert_eq!(events.recv().await, Some(RuntimeEvent::Exited(id, report)));
        assert_eq!(began.elapsed(), Duration::from_secs(16));
        runtime.finish();
    }

    #[tokio::test(start_paused = true)]
    #[should_panic(expected = "came: launch of demo; expected: nothing more")]
    async fn a_call_off_the_script_is_a_failure() {
        let (runtime, _events) = ScriptedRuntime::new([]);
        runtime.launch(order()).await.unwrap_err();
        runtime.finish();
    }

    #[tokio::test(start_paused = true)]
    #[should_panic(expected = "never came: Launch")]
    async fn a_script_not_played_to_its_end_is_a_failure() {
        let (runtime, _events) = ScriptedRuntime::new([starts(Vec::new())]);
        runtime.finish();
    }
}
