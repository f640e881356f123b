//! The core as a whole, where one step shows what matters.

use std::{sync::Arc, time::Duration};

use mcp_gateway_api::{
    backend::{Backend, LaunchSpec, Transport},
    catalog::Catalog,
    claim::{ClaimRequest, Purpose},
    failure::ExitReport,
    ids::{BackendName, ClaimId, Generation, InstanceId, SessionKey, TenantName},
    policy::{Isolation, ScalingPolicy},
    principal::Principal,
    record::{SessionNews, SessionRef, SessionUpdate},
    view::{Endpoint, Lookup, Reach},
};
use mcp_gateway_runtime::{Launched, RuntimeEvent};
use tokio::time::Instant;

use crate::core::{
    Core, Settings, Ticket, WaiterId,
    event::{Effect, Event},
    planner::LAUNCH_DEADLINE,
    records::{Change, RecordLimits},
};

pub(super) fn name() -> BackendName {
    BackendName::new("everything").unwrap()
}

pub(super) fn catalog(isolation: Isolation) -> Arc<Catalog> {
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
        policy: Arc::new(ScalingPolicy::for_processes(isolation)),
        tenants: vec![],
    };
    Arc::new(Catalog {
        backends: [(name(), Arc::new(backend))].into(),
    })
}

pub(super) fn settings(epoch: u64) -> Settings {
    Settings {
        max_instances: 8,
        max_waiters: 4,
        records: RecordLimits::default(),
        epoch,
        unix_now: 0,
        seed: 1,
    }
}

fn core(isolation: Isolation) -> (Core, Instant) {
    let now = Instant::now();
    (Core::new(settings(1), now, catalog(isolation), vec![]), now)
}

pub(super) fn claim(n: u64) -> Event {
    let principal = Principal::anonymous();
    Event::Claim {
        waiter: WaiterId(n),
        request: ClaimRequest {
            id: ClaimId::random(),
            backend: name(),
            tenant: TenantName::default(),
            principal: principal.id,
            purpose: Purpose::Exchange,
            budget: Duration::from_secs(3_600),
        },
        fresh: SessionKey([1; 24]),
    }
}

pub(super) fn launches(effects: &[Effect]) -> Vec<Ticket> {
    let tickets = effects.iter().filter_map(|effect| match effect {
        Effect::Launch { ticket, .. } => Some(*ticket),
        Effect::Terminate(..)
        | Effect::Mark(_)
        | Effect::Publish(_)
        | Effect::Answer { .. }
        | Effect::Persist(_)
        | Effect::Recorded { .. }
        | Effect::Note(_) => None,
    });
    tickets.collect()
}

pub(super) fn terminated(effects: &[Effect]) -> Vec<InstanceId> {
    let ids = effects.iter().filter_map(|effect| match effect {
        Effect::Terminate(id, _) => Some(*id),
        Effect::Launch { .. }
        | Effect::Mark(_)
        | Effect::Publish(_)
        | Effect::Answer { .. }
        | Effect::Persist(_)
        | Effect::Recorded { .. }
        | Effect::Note(_) => None,
    });
    ids.collect()
}

pub(super) fn answers(effects: &[Effect]) -> usize {
    let answer = |effect: &&Effect| matches!(effect, Effect::Answer { .. });
    effects.iter().filter(answer).count()
}

fn launched(ticket: Ticket, id: u128) -> Event {
    Event::Launched {
        ticket,
        outcome: Ok(Launched {
            instance: InstanceId(id),
            pid: None,
            log: None,
        }),
    }
}

fn ready(id: u128) -> Event {
    let endpoint = Endpoint {
        secret: None,
        reach: Reach::InProcess,
        host: "localhost".into(),
        path: "/mcp".into(),
    };
    Event::Runtime(RuntimeEvent::Ready(InstanceId(id), endpoint))
}

#[test]
fn events_that_come_before_the_answer_of_their_launch_are_kept_for_it() {
    let (mut core, now) = core(Isolation::Shared);
    let [ticket] = launches(&core.step(now, claim(1)))[..] else {
        panic!("one launch");
    };
    assert!(
        core.step(now, Event::Runtime(RuntimeEvent::Running(InstanceId(7))))
            .is_empty()
    );
    assert!(core.step(now, ready(7)).is_empty());
    assert_eq!(answers(&core.step(now, launched(ticket, 7))), 1);
    core.audit().unwrap();
}

#[test]
fn an_instance_that_nobody_launched_is_terminated() {
    let (mut core, now) = core(Isolation::Shared);
    assert_eq!(terminated(&core.step(now, ready(9))), [InstanceId(9)]);
    // While a launch is under way it might be its own, and is known not to be with the answer.
    let [ticket] = launches(&core.step(now, claim(1)))[..] else {
        panic!("one launch");
    };
    assert!(terminated(&core.step(now, ready(10))).is_empty());
    assert_eq!(
        terminated(&core.step(now, launched(ticket, 7))),
        [InstanceId(10)]
    );
}

#[test]
fn a_launch_that_is_answered_after_it_was_given_up_is_terminated() {
    let (mut core, now) = core(Isolation::Shared);
    let [ticket] = launches(&core.step(now, claim(1)))[..] else {
        panic!("one launch");
    };
    let late = now + LAUNCH_DEADLINE;
    assert_eq!(answers(&core.step(late, Event::Tick)), 1);
    assert_eq!(
        terminated(&core.step(late, launched(ticket, 7))),
        [InstanceId(7)]
    );
    assert_eq!(core.lookup(InstanceId(7)), Lookup::Gone);
    let exited = RuntimeEvent::Exited(InstanceId(7), ExitReport::default());
    core.step(late, Event::Runtime(exited));
    assert!(core.is_still());
    core.audit().unwrap();
}

#[test]
fn who_waits_for_the_next_launch_is_not_told_that_one_before_has_failed() {
    let (mut core, now) = core(Isolation::Shared);
    let [given_up] = launches(&core.step(now, claim(1)))[..] else {
        panic!("one launch");
    };
    let late = now + LAUNCH_DEADLINE;
    assert_eq!(answers(&core.step(late, Event::Tick)), 1);
    let after = late + Duration::from_secs(300);
    let [ticket] = launches(&core.step(after, claim(2)))[..] else {
        panic!("one more launch");
    };
    let failed = Event::Launched {
        ticket: given_up,
        outcome: Err(ExitReport::default()),
    };
    assert_eq!(answers(&core.step(after, failed)), 0);
    core.step(after, launched(ticket, 7));
    assert_eq!(answers(&core.step(after, ready(7))), 1);
    core.audit().unwrap();
}

#[test]
fn a_living_session_is_remembered_in_place_of_one_that_has_ended() {
    let now = Instant::now();
    let settings = Settings {
        records: RecordLimits {
            total: 10,
            per_tenant: 1,
        },
        ..settings(1)
    };
    let mut core = Core::new(settings, now, catalog(Isolation::Shared), vec![]);
    let mut says = |n: u8, news: SessionNews| {
        let session = SessionRef {
            key: SessionKey([n; 24]),
            backend: name(),
            tenant: TenantName::default(),
            expires_at: 100,
        };
        let update = SessionUpdate { session, news };
        core.step(now, Event::Record { reply: 1, update })
    };
    let kept = |effects: &[Effect]| {
        let fine = |one: &Effect| matches!(one, Effect::Recorded { result: Ok(()), .. });
        effects.iter().any(fine)
    };
    assert!(kept(&says(1, SessionNews::Ended)));
    let effects = says(2, SessionNews::LogLevel("debug".into()));
    assert!(kept(&effects));
    let gone = |one: &Effect| matches!(one, Effect::Persist(Change::Remove(key)) if *key == SessionKey([1; 24]));
    assert!(effects.iter().any(gone), "{effects:?}");
    assert!(!kept(&says(3, SessionNews::LogLevel("debug".into()))));
    core.audit().unwrap();
}

#[test]
fn more_waiters_than_may_wait_are_told_so() {
    let (mut core, now) = core(Isolation::Shared);
    for n in 0..4 {
        assert_eq!(answers(&core.step(now, claim(n))), 0);
    }
    assert_eq!(answers(&core.step(now, claim(4))), 1);
    core.audit().unwrap();
}

#[test]
fn an_unknown_backend_leaves_nothing_behind() {
    let (mut core, now) = core(Isolation::Shared);
    core.step(now, Event::Catalog(Arc::default()));
    assert_eq!(answers(&core.step(now, claim(1))), 1);
    assert!(core.sizes().iter().all(|(_, size)| *size == 0));
    assert!(core.status().backends.is_empty());
}
