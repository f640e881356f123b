//! What a step of the core costs with many sessions and slots: it must follow what changes, not what there is.
//!
//! `MCP_GATEWAY_SCALE_SESSIONS=1000000 cargo test -p mcp-gateway-autoscaler --release --test scale -- --nocapture`
//! measures the target of one million sessions in ten thousand slots; by default a tenth of both, so that it is quick
//! without optimisation too.

use std::{
    sync::Arc,
    time::{Duration, Instant as WallClock},
};

use mcp_gateway_api::{
    activity::{ActivityReport, DrainAck, InstanceActivity},
    backend::{Backend, LaunchSpec, Transport},
    catalog::Catalog,
    claim::{ClaimRequest, Purpose},
    ids::{
        ActivatorId, BackendName, ClaimId, Generation, InstanceId, SessionKey, TenantName,
        UpstreamSession,
    },
    policy::{Isolation, ScalingPolicy},
    principal::Principal,
    record::{SessionBinding, SessionRecord},
    view::{Endpoint, Reach, ViewEvent},
};
use mcp_gateway_autoscaler::core::{
    Core, Settings, Ticket, WaiterId,
    event::{Effect, Event},
    records::RecordLimits,
};
use mcp_gateway_runtime::{Launched, RuntimeEvent};
use tokio::time::Instant;

/// The target for one step (a planner tick of at most 50 ms).
const TARGET: Duration = Duration::from_millis(50);

#[expect(
    clippy::disallowed_methods,
    reason = "real cost is measured in real time"
)]
fn wall_clock() -> WallClock {
    WallClock::now()
}

fn key(n: usize) -> SessionKey {
    let mut key = [0; 24];
    key[..8].copy_from_slice(&(n as u64).to_be_bytes());
    SessionKey(key)
}

fn name() -> BackendName {
    BackendName::new("everything").expect("a label")
}

fn catalog() -> Arc<Catalog> {
    let policy = ScalingPolicy {
        max_slots: u32::MAX,
        ..ScalingPolicy::for_processes(Isolation::Session)
    };
    let backend = Backend {
        name: name(),
        generation: Generation(1),
        description: None,
        launch: LaunchSpec {
            image: None,
            port: None,
            pod: Arc::default(),
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
    };
    Arc::new(Catalog {
        backends: [(name(), Arc::new(backend))].into(),
    })
}

fn record(n: usize) -> SessionRecord {
    SessionRecord {
        key: key(n),
        backend: name(),
        tenant: TenantName::default(),
        expires_at: 1_000_000 + n as u64,
        ended: false,
        binding: Some(Some(SessionBinding {
            instance: InstanceId(n as u128),
            upstream: UpstreamSession("0123456789abcdef0123456789abcdef".into()),
        })),
        log_level: None,
        subscriptions: vec![],
        stamp: mcp_gateway_api::view::Stamp::default(),
    }
}

fn ticket(effects: &[Effect]) -> Ticket {
    let launch = effects.iter().find_map(|effect| match effect {
        Effect::Launch { ticket, .. } => Some(*ticket),
        Effect::Terminate(..)
        | Effect::Mark(_)
        | Effect::Publish(_)
        | Effect::Answer { .. }
        | Effect::Persist(_)
        | Effect::Recorded { .. }
        | Effect::Note(_) => None,
    });
    launch.expect("a launch")
}

/// A core with that many sessions and slots, each slot with a ready instance.
fn filled(sessions: usize, slots: usize, now: Instant) -> Core {
    let settings = Settings {
        max_instances: slots * 2,
        max_waiters: 1_000,
        records: RecordLimits {
            total: sessions * 2,
            per_tenant: sessions * 2,
        },
        epoch: 1,
        unix_now: 0,
        seed: 1,
    };
    let records = (0..sessions).map(record).collect();
    let mut core = Core::new(settings, now, catalog(), records);
    core.step(now, Event::Joined(ActivatorId(1)));
    let principal = Principal::anonymous();
    for n in 0..slots {
        let request = ClaimRequest {
            id: ClaimId::random(),
            backend: name(),
            tenant: principal.tenant.clone(),
            principal: principal.id,
            purpose: Purpose::Initialize,
            budget: Duration::from_secs(60),
        };
        let claim = Event::Claim {
            waiter: WaiterId(n as u64),
            request,
            fresh: key(sessions + n),
        };
        let ticket = ticket(&core.step(now, claim));
        let instance = InstanceId(n as u128 + 1);
        let outcome = Ok(Launched {
            instance,
            pid: None,
            log: None,
        });
        core.step(now, Event::Launched { ticket, outcome });
        let endpoint = Endpoint {
            secret: None,
            reach: Reach::InProcess,
            host: "localhost".into(),
            path: "/mcp".into(),
        };
        core.step(now, Event::Runtime(RuntimeEvent::Ready(instance, endpoint)));
    }
    core
}

fn median(mut costs: Vec<Duration>) -> Duration {
    costs.sort_unstable();
    costs[costs.len() / 2]
}

fn timed(core: &mut Core, now: Instant, event: Event) -> (Duration, Vec<Effect>) {
    let began = wall_clock();
    let effects = core.step(now, event);
    (began.elapsed(), effects)
}

fn report(sequence: u64, instances: impl Iterator<Item = usize>, leases: u32) -> Event {
    Event::Report(ActivityReport {
        activator: ActivatorId(1),
        sequence,
        full: false,
        instances: instances
            .map(|n| InstanceActivity {
                instance: InstanceId(n as u128 + 1),
                leases,
                idle_for: Duration::ZERO,
            })
            .collect(),
    })
}

#[test]
fn a_step_costs_what_changes_and_not_what_there_is() {
    let sessions = std::env::var("MCP_GATEWAY_SCALE_SESSIONS")
        .map_or(100_000, |text| text.parse().expect("a number"));
    let slots = sessions / 100;
    let start = Instant::now();
    let mut core = filled(sessions, slots, start);
    core.audit().expect("the parts agree");

    let ticks =
        (0..1_000).map(|n| timed(&mut core, start + Duration::from_millis(n), Event::Tick).0);
    let tick = median(ticks.collect());

    // A hundred instances become busy, and idle again.
    let mut sequence = 0;
    let mut reports = vec![];
    for round in 0..100_u64 {
        for leases in [1, 0] {
            sequence += 1;
            let some = (0..100).map(|n| (round as usize * 100 + n) % slots);
            let now = start + Duration::from_secs(2 + round);
            reports.push(timed(&mut core, now, report(sequence, some, leases)).0);
        }
    }
    let changes = median(reports);

    // All are found idle at the same moment: the worst there is.
    let idle = start + Duration::from_secs(900);
    let mut effects = vec![];
    let mut storm = Duration::ZERO;
    while core.next_deadline().is_some_and(|at| at <= idle) {
        let (cost, more) = timed(&mut core, idle, Event::Tick);
        storm = storm.max(cost);
        effects.extend(more);
    }
    let drains = effects.into_iter().filter_map(|effect| match effect {
        Effect::Publish(event) => match *event {
            ViewEvent::Instance(view) => Some(view),
            ViewEvent::Snapshot { .. }
            | ViewEvent::Gone { .. }
            | ViewEvent::Record(_)
            | ViewEvent::Forget(_) => None,
        },
        Effect::Launch { .. }
        | Effect::Terminate(..)
        | Effect::Mark(_)
        | Effect::Answer { .. }
        | Effect::Persist(_)
        | Effect::Recorded { .. }
        | Effect::Note(_) => None,
    });
    let drains: Vec<_> = drains.collect();
    let mut acks = vec![];
    for view in &drains {
        let ack = DrainAck {
            activator: ActivatorId(1),
            instance: view.id,
            stamp: view.stamp,
            leases: 0,
        };
        acks.push(timed(&mut core, idle, Event::Ack(ack)).0);
    }
    assert_eq!(drains.len(), slots);
    let ack = median(acks);
    println!(
        "{sessions} sessions, {slots} slots: empty tick {tick:?}, report of 100 changes {changes:?}, \
         {} drains due at once: longest tick {storm:?}, acknowledgement {ack:?}",
        drains.len()
    );
    assert!(tick < TARGET && changes < TARGET && ack < TARGET);
    core.audit().expect("the parts agree");
}
