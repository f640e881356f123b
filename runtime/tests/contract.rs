//! What every runtime promises, as functions over any [`Runtime`]; run here for processes, and for pods of a real cluster
//! where there is one.
//!
//! A new kind of runtime writes a [`Stage`] and calls [`contract!`]. A stage is real: real servers, real time.

mod kubernetes_support;
mod support;

use std::{collections::HashMap, sync::Arc, time::Duration};

use kubernetes_support::{Space, server};
use mcp_gateway_api::{
    backend::{AgentForm, Transport},
    ids::InstanceId,
};
use mcp_gateway_runtime::{
    EventReceiver, Farewell, LaunchOrder, Launched, Runtime, RuntimeEvent,
    kubernetes::KubernetesRuntime,
    process::{ProcessConfig, ProcessRuntime},
};
use support::{alive, http, order, spec};
use tokio::time::timeout;

/// How a server behaves.
#[derive(Debug, Clone, Copy)]
enum Behaviour {
    /// It serves until it is told to end.
    Serves,
    /// It exits with this code before it serves.
    Exits(i32),
    /// It runs and never serves.
    NeverServes,
    /// It serves and ignores the polite signal.
    Ignores,
    /// There is nothing that could be started.
    Missing,
}

/// A runtime with servers to run on it.
trait Stage {
    /// Longer than anything takes here.
    const PATIENCE: Duration;
    /// Enough to end politely.
    const GRACE: Farewell;
    fn runtime(&self) -> Arc<dyn Runtime>;
    fn events(&mut self) -> &mut EventReceiver;
    fn order(&self, behaviour: Behaviour) -> LaunchOrder;
    /// Whether anything is left of an instance.
    async fn exists(&self, launched: &Launched) -> bool;
}

const SHORT: Farewell = Farewell {
    grace: Duration::from_millis(100),
};
/// How long nothing must happen to be believed.
const QUIET: Duration = Duration::from_millis(300);

async fn next<S: Stage>(stage: &mut S) -> RuntimeEvent {
    timeout(S::PATIENCE, stage.events().recv())
        .await
        .expect("an event in time")
        .expect("the runtime lives")
}

async fn quiet(stage: &mut impl Stage) -> bool {
    timeout(QUIET, stage.events().recv()).await.is_err()
}

async fn launch(stage: &impl Stage, behaviour: Behaviour) -> Launched {
    let order = stage.order(behaviour);
    stage.runtime().launch(order).await.expect("it starts")
}

/// Events up to `Exited`, which must come; as letters: R(unning), S(erves), W(arning), E(xited).
async fn life(stage: &mut impl Stage, id: InstanceId) -> String {
    let mut letters = String::new();
    loop {
        let (of, letter) = letter(&next(stage).await);
        assert_eq!(of, id, "an event of another instance");
        letters.push(letter);
        if letter == 'E' {
            return letters;
        }
    }
}

fn letter(event: &RuntimeEvent) -> (InstanceId, char) {
    match event {
        RuntimeEvent::Running(id) => (*id, 'R'),
        RuntimeEvent::Ready(id, _) => (*id, 'S'),
        RuntimeEvent::Warning(id, _) => (*id, 'W'),
        RuntimeEvent::Waits(id, _) => (*id, 'w'),
        RuntimeEvent::Exited(id, _) => (*id, 'E'),
    }
}

async fn a_server_runs_then_is_ready_then_has_exited<S: Stage>(mut stage: S) {
    let launched = launch(&stage, Behaviour::Serves).await;
    let id = launched.instance;
    assert_eq!(letter(&next(&mut stage).await), (id, 'R'));
    assert_eq!(letter(&next(&mut stage).await), (id, 'S'));
    stage.runtime().terminate(id, S::GRACE).await;
    assert_eq!(life(&mut stage, id).await, "E");
    assert!(!stage.exists(&launched).await);
}

async fn a_failed_launch_is_followed_by_nothing<S: Stage>(mut stage: S) {
    let order = stage.order(Behaviour::Missing);
    let answer = stage.runtime().launch(order).await;
    let report = answer.expect_err("nothing can be started");
    assert!(!report.summary.is_empty());
    assert!(quiet(&mut stage).await);
}

async fn an_exit_is_told_once_with_its_code<S: Stage>(mut stage: S) {
    let launched = launch(&stage, Behaviour::Exits(3)).await;
    assert_eq!(letter(&next(&mut stage).await).1, 'R');
    match next(&mut stage).await {
        RuntimeEvent::Exited(id, report) => {
            assert_eq!((id, report.code), (launched.instance, Some(3)));
        }
        other @ (RuntimeEvent::Running(_)
        | RuntimeEvent::Ready(..)
        | RuntimeEvent::Warning(..)
        | RuntimeEvent::Waits(..)) => {
            panic!("{other:?}")
        }
    }
    assert!(quiet(&mut stage).await);
    assert!(!stage.exists(&launched).await);
}

async fn ending_is_idempotent<S: Stage>(mut stage: S) {
    let runtime = stage.runtime();
    let launched = launch(&stage, Behaviour::NeverServes).await;
    for _ in 0..3 {
        runtime.terminate(launched.instance, S::GRACE).await;
    }
    let letters = life(&mut stage, launched.instance).await;
    assert!(["E", "RE"].contains(&letters.as_str()), "{letters}");
    runtime.terminate(launched.instance, S::GRACE).await;
    runtime.terminate(InstanceId::random(), S::GRACE).await;
    assert!(quiet(&mut stage).await);
}

async fn a_launch_can_be_ended_as_soon_as_it_is_answered<S: Stage>(mut stage: S) {
    let launched = launch(&stage, Behaviour::Serves).await;
    stage.runtime().terminate(launched.instance, SHORT).await;
    let letters = life(&mut stage, launched.instance).await;
    // What is ended at once may never have run.
    assert!(["E", "RE", "RSE"].contains(&letters.as_str()), "{letters}");
    assert!(!stage.exists(&launched).await);
}

async fn what_ignores_the_polite_signal_is_gone_after_its_grace<S: Stage>(mut stage: S) {
    let launched = launch(&stage, Behaviour::Ignores).await;
    assert_eq!(letter(&next(&mut stage).await).1, 'R');
    assert_eq!(letter(&next(&mut stage).await).1, 'S');
    stage.runtime().terminate(launched.instance, SHORT).await;
    assert_eq!(life(&mut stage, launched.instance).await, "E");
    assert!(!stage.exists(&launched).await);
}

async fn instances_live_side_by_side<S: Stage>(mut stage: S) {
    let mut letters: HashMap<InstanceId, String> = HashMap::new();
    for behaviour in [Behaviour::Serves, Behaviour::Exits(1), Behaviour::Serves] {
        let launched = launch(&stage, behaviour).await;
        letters.insert(launched.instance, String::new());
    }
    assert_eq!(letters.len(), 3, "ids differ");
    while letters.values().any(|seen| !seen.ends_with('E')) {
        let (id, letter) = letter(&next(&mut stage).await);
        letters
            .get_mut(&id)
            .expect("an id that was given")
            .push(letter);
        if letter == 'S' {
            stage.runtime().terminate(id, S::GRACE).await;
        }
    }
    let mut lives: Vec<String> = letters.into_values().collect();
    lives.sort();
    assert_eq!(lives, ["RE", "RSE", "RSE"]);
}

struct Processes {
    runtime: Arc<ProcessRuntime>,
    events: EventReceiver,
    _dir: tempfile::TempDir,
}

impl Processes {
    async fn new() -> Option<Self> {
        let dir = tempfile::tempdir().expect("a folder");
        let config = ProcessConfig::new(dir.path().join("state"));
        let (runtime, events, _) = ProcessRuntime::open(config).await.expect("it opens");
        Some(Self {
            runtime,
            events,
            _dir: dir,
        })
    }
}

impl Stage for Processes {
    const PATIENCE: Duration = support::PATIENCE;
    const GRACE: Farewell = Farewell {
        grace: support::PATIENCE,
    };

    fn runtime(&self) -> Arc<dyn Runtime> {
        Arc::<ProcessRuntime>::clone(&self.runtime)
    }

    fn events(&mut self) -> &mut EventReceiver {
        &mut self.events
    }

    fn order(&self, behaviour: Behaviour) -> LaunchOrder {
        order(match behaviour {
            Behaviour::Serves => http(&["serve"]),
            Behaviour::Exits(code) => http(&["exit", &code.to_string()]),
            Behaviour::NeverServes => http(&["never"]),
            Behaviour::Ignores => http(&["stubborn"]),
            Behaviour::Missing => spec(Transport::StreamableHttp, &["no-such-program-here"]),
        })
    }

    async fn exists(&self, launched: &Launched) -> bool {
        launched.pid.is_some_and(alive)
    }
}

/// Pods of one agent form.
struct Pods {
    runtime: Arc<KubernetesRuntime>,
    events: EventReceiver,
    space: Space,
    form: AgentForm,
}

impl Pods {
    async fn new(form: AgentForm) -> Option<Self> {
        let space = Space::new().await?;
        let (runtime, events, found) = space.open().await;
        assert!(found.is_empty());
        Some(Self {
            runtime,
            events,
            space,
            form,
        })
    }
}

impl Stage for Pods {
    const PATIENCE: Duration = Duration::from_secs(90);
    // The first process of a container ignores a SIGTERM that it does not handle.
    const GRACE: Farewell = Farewell {
        grace: Duration::from_secs(2),
    };

    fn runtime(&self) -> Arc<dyn Runtime> {
        Arc::<KubernetesRuntime>::clone(&self.runtime)
    }

    fn events(&mut self) -> &mut EventReceiver {
        &mut self.events
    }

    fn order(&self, behaviour: Behaviour) -> LaunchOrder {
        order(match behaviour {
            Behaviour::Serves => server(self.form, &["serve"]),
            Behaviour::Exits(code) => server(self.form, &["exit", &code.to_string()]),
            Behaviour::NeverServes => server(self.form, &["never"]),
            Behaviour::Ignores => server(self.form, &["stubborn"]),
            // A document for processes: it names no image.
            Behaviour::Missing => spec(Transport::StreamableHttp, &["no-image"]),
        })
    }

    async fn exists(&self, launched: &Launched) -> bool {
        let pods = self
            .space
            .pods()
            .list(&kube::api::ListParams::default())
            .await;
        let left = pods.expect("the pods are listed").items;
        left.iter().any(|pod| {
            let uid = pod
                .metadata
                .uid
                .as_deref()
                .unwrap_or_default()
                .replace('-', "");
            uid == launched.instance.to_string()
        })
    }
}

/// The whole contract for one kind of stage.
macro_rules! contract {
    ($($kind:ident: $stage:expr;)*) => {
        $(promises!($kind: $stage =>
            a_server_runs_then_is_ready_then_has_exited
            a_failed_launch_is_followed_by_nothing
            an_exit_is_told_once_with_its_code
            ending_is_idempotent
            a_launch_can_be_ended_as_soon_as_it_is_answered
            what_ignores_the_polite_signal_is_gone_after_its_grace
            instances_live_side_by_side
        );)*
    };
}

macro_rules! promises {
    ($kind:ident: $stage:expr => $($promise:ident)*) => {
        mod $kind {
            use super::*;

            $(#[tokio::test]
            async fn $promise() {
                // Where there is no cluster, this was said.
                if let Some(stage) = $stage {
                    super::$promise(stage).await;
                }
            })*
        }
    };
}

contract! {
    processes: Processes::new().await;
    pods_without_agent: Pods::new(AgentForm::None).await;
    pods_with_a_sidecar: Pods::new(AgentForm::Sidecar).await;
    pods_with_a_volume: Pods::new(AgentForm::ImageVolume).await;
    pods_with_a_copied_agent: Pods::new(AgentForm::Init).await;
}
