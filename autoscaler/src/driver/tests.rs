//! The loop under paused time, with a runtime that does what the test says.

use std::collections::HashMap;

use async_trait::async_trait;
use mcp_gateway_api::{
    activity::{ActivityReport, DrainAck, InstanceActivity},
    backend::{Backend, LaunchSpec, Transport},
    catalog::Catalog,
    claim::{ClaimRequest, Claimed, Purpose, Standing},
    failure::{ExitReport, Failure, FailureKind},
    ids::{
        ActivatorId, BackendName, ClaimId, Generation, InstanceId, SessionKey, TenantName,
        UpstreamSession,
    },
    policy::{Isolation, OnIdle, ScalingPolicy},
    principal::Principal,
    record::{SessionBinding, SessionNews, SessionRef, SessionUpdate},
    scaler::{ActivatorPod, Restatement, Scaler},
    view::{Endpoint, InstanceView, Lookup, Reach, Service, ViewEvent},
};
use mcp_gateway_runtime::{Farewell, LaunchOrder, Launched, RuntimeEvent};
use parking_lot::Mutex;
use tokio::{sync::watch, time::sleep};

use super::*;
use activator::FakeActivator;

mod activator;
mod ends;
mod sessions;
mod takeover;
mod walks;

/// How launches go.
#[derive(Clone, Default)]
pub(super) enum Script {
    /// Running after a millisecond, ready after that long.
    #[default]
    Prompt,
    ReadyAfter(Duration),
    /// The launch itself is refused.
    Refused,
    /// The same, and clients may read why.
    NotAdmitted,
    /// Runs, and exits after that long.
    Dies(Duration),
    /// Runs, and never accepts.
    Hangs,
}

#[derive(Default)]
pub(super) struct World {
    pub(super) launched: Vec<(InstanceId, LaunchOrder)>,
    pub(super) terminated: Vec<InstanceId>,
    pub(super) alive: HashMap<InstanceId, ()>,
    /// Scripts of the next launches, then `Prompt`.
    pub(super) scripts: Vec<Script>,
}

pub(super) struct FakeRuntime {
    pub(super) world: Arc<Mutex<World>>,
    events: mpsc::Sender<RuntimeEvent>,
}

impl FakeRuntime {
    fn exit(world: &Mutex<World>, id: InstanceId) -> bool {
        world.lock().alive.remove(&id).is_some()
    }

    pub(super) async fn waits(&self, id: InstanceId, what: Option<&str>) {
        let what = what.map(str::to_owned);
        let event = RuntimeEvent::Waits(id, what);
        self.events.send(event).await.unwrap();
    }

    pub(super) async fn crash(&self, id: InstanceId) {
        if Self::exit(&self.world, id) {
            let report = died("it was killed");
            self.events
                .send(RuntimeEvent::Exited(id, report))
                .await
                .unwrap();
        }
    }
}

pub(super) fn died(summary: &str) -> ExitReport {
    ExitReport {
        code: Some(3),
        summary: summary.into(),
        stderr_tail: vec!["secret detail".into()],
        ..ExitReport::default()
    }
}

#[async_trait]
impl Runtime for FakeRuntime {
    async fn launch(&self, order: LaunchOrder) -> Result<Launched, ExitReport> {
        let script = {
            let mut world = self.world.lock();
            if world.scripts.is_empty() {
                Script::Prompt
            } else {
                world.scripts.remove(0)
            }
        };
        if matches!(script, Script::Refused) {
            return Err(ExitReport {
                private: true,
                ..died("there is no such command")
            });
        }
        if matches!(script, Script::NotAdmitted) {
            return Err(died("a quota has no room for it"));
        }
        let instance = InstanceId::random();
        {
            let mut world = self.world.lock();
            world.launched.push((instance, order));
            world.alive.insert(instance, ());
        }
        let (events, world) = (self.events.clone(), Arc::clone(&self.world));
        tokio::spawn(async move {
            let say = async |event| events.send(event).await.unwrap();
            say(RuntimeEvent::Running(instance)).await;
            match script {
                Script::Prompt => sleep(Duration::from_millis(3)).await,
                Script::ReadyAfter(time) => sleep(time).await,
                Script::Dies(time) => {
                    sleep(time).await;
                    if FakeRuntime::exit(&world, instance) {
                        let report = died("it exited with code 3 before it served");
                        say(RuntimeEvent::Exited(instance, report)).await;
                    }
                    return;
                }
                Script::Hangs | Script::Refused | Script::NotAdmitted => return,
            }
            if world.lock().alive.contains_key(&instance) {
                say(RuntimeEvent::Ready(instance, endpoint())).await;
            }
        });
        Ok(Launched {
            instance,
            pid: Some(1),
            log: None,
        })
    }

    async fn terminate(&self, instance: InstanceId, _: Farewell) {
        self.world.lock().terminated.push(instance);
        if Self::exit(&self.world, instance) {
            let report = ExitReport::default();
            let event = RuntimeEvent::Exited(instance, report);
            self.events.send(event).await.unwrap();
        }
    }

    async fn adopt(&self, _: InstanceId) -> bool {
        true
    }

    async fn stderr_tail(&self, _: InstanceId) -> Vec<String> {
        vec!["a line".into()]
    }
}

pub(super) fn endpoint() -> Endpoint {
    Endpoint {
        secret: None,
        reach: Reach::InProcess,
        host: "localhost".into(),
        path: "/mcp".into(),
    }
}

pub(super) fn policy(isolation: Isolation) -> ScalingPolicy {
    ScalingPolicy {
        idle_timeout: Duration::from_secs(60),
        ..ScalingPolicy::for_processes(isolation)
    }
}

pub(super) fn backend(generation: u64, policy: ScalingPolicy) -> Backend {
    Backend {
        name: name(),
        generation: Generation(generation),
        description: None,
        launch: LaunchSpec {
            image: None,
            port: None,
            pod: std::sync::Arc::default(),
            command: vec!["server".into()],
            args: vec![],
            working_dir: None,
            env: vec![],
            transport: Transport::Stdio,
            path: "/mcp".into(),
            host: None,
            health_path: None,
        },
        policy: Arc::new(policy),
        tenants: vec![],
    }
}

pub(super) fn name() -> BackendName {
    BackendName::new("everything").unwrap()
}

pub(super) fn catalog_of(backends: impl IntoIterator<Item = Backend>) -> Arc<Catalog> {
    let backends = backends.into_iter();
    Arc::new(Catalog {
        backends: backends.map(|b| (b.name.clone(), Arc::new(b))).collect(),
    })
}

/// A loop with its surroundings.
pub(super) struct Bench {
    pub(super) scaler: InProcessScaler,
    pub(super) handle: AutoscalerHandle,
    pub(super) runtime: Arc<FakeRuntime>,
    pub(super) catalog: watch::Sender<Arc<Catalog>>,
}

impl Bench {
    pub(super) fn new(policy: ScalingPolicy) -> Self {
        Self::with(policy, AutoscalerConfig::default())
    }

    pub(super) fn with(policy: ScalingPolicy, config: AutoscalerConfig) -> Self {
        let (events, receiver) = mpsc::channel(64);
        let world = Arc::default();
        let runtime = Arc::new(FakeRuntime { world, events });
        let (catalog, watch) = watch::channel(catalog_of([backend(1, policy)]));
        let shared = Arc::clone(&runtime) as Arc<dyn Runtime>;
        let (scaler, handle) = Autoscaler::start(config, shared, receiver, watch).unwrap();
        Self {
            scaler,
            handle,
            runtime,
            catalog,
        }
    }

    /// A leader that took over in term 2 and found this.
    pub(super) fn lead(policy: ScalingPolicy, found: Vec<Found>) -> Self {
        let (events, receiver) = mpsc::channel(64);
        let alive = found.iter().map(|one| (one.launched.instance, ()));
        let world = Arc::new(Mutex::new(World {
            alive: alive.collect(),
            ..World::default()
        }));
        let runtime = Arc::new(FakeRuntime { world, events });
        let (catalog, watch) = watch::channel(catalog_of([backend(1, policy)]));
        let shared = Arc::clone(&runtime) as Arc<dyn Runtime>;
        let (config, takeover) = (AutoscalerConfig::default(), Takeover { epoch: 2, found });
        let (scaler, handle) = Autoscaler::lead(config, shared, receiver, watch, takeover).unwrap();
        Self {
            scaler,
            handle,
            runtime,
            catalog,
        }
    }

    pub(super) fn script(&self, scripts: impl IntoIterator<Item = Script>) {
        self.runtime.world.lock().scripts.extend(scripts);
    }

    pub(super) fn launches(&self) -> usize {
        self.runtime.world.lock().launched.len()
    }

    pub(super) fn alive(&self) -> usize {
        self.runtime.world.lock().alive.len()
    }

    pub(super) async fn claim(&self, purpose: Purpose) -> Result<Claimed, Failure> {
        self.scaler.claim(request(purpose)).await
    }
}

pub(super) fn request(purpose: Purpose) -> ClaimRequest {
    let principal = Principal::anonymous();
    ClaimRequest {
        id: ClaimId::random(),
        backend: name(),
        tenant: principal.tenant,
        principal: principal.id,
        purpose,
        budget: Duration::from_secs(55),
    }
}

pub(super) fn session(n: u8) -> SessionRef {
    SessionRef {
        key: SessionKey([n; 24]),
        backend: name(),
        tenant: TenantName::default(),
        expires_at: u64::MAX,
    }
}

pub(super) fn news(n: u8, news: SessionNews) -> SessionUpdate {
    SessionUpdate {
        session: session(n),
        news,
    }
}

pub(super) fn of_session(n: u8, bound: Option<InstanceId>) -> Purpose {
    Purpose::Session {
        session: session(n),
        bound,
    }
}

pub(super) fn binding(instance: InstanceId, upstream: &str) -> SessionBinding {
    SessionBinding {
        instance,
        upstream: UpstreamSession(upstream.into()),
    }
}

pub(super) fn kind(answer: Result<Claimed, Failure>) -> FailureKind {
    answer.expect_err("a failure").kind
}

pub(super) const EXPIRE: OnIdle = OnIdle::Expire;
pub(super) const FRESH: Standing = Standing::Fresh;
pub(super) fn gone() -> Lookup {
    Lookup::Gone
}
