//! A new leader, and activators in other processes: what one step shows. The rest is the simulation's.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use mcp_gateway_api::{
    activity::{ActivityReport, DrainAck, InstanceActivity},
    catalog::Catalog,
    ids::{ActivatorId, Generation, InstanceId, SessionKey, TenantName, UpstreamSession},
    policy::Isolation,
    record::{SessionBinding, SessionRecord},
    scaler::{ActivatorPod, PodUid, Presence, Restatement},
    slot::{Owner, SlotKey},
    view::{Endpoint, InstanceView, Lookup, Reach, Service, Stamp, ViewEvent},
};
use mcp_gateway_runtime::{Found, FoundStage, Launched};
use proptest::prelude::*;
use tokio::time::Instant;

use super::whole::{answers, catalog, claim, launches, name, settings, terminated};
use crate::core::{
    Core,
    event::{Effect, Event},
    planner::PARTITION,
};

const ONE: InstanceId = InstanceId(1);
const HERE: ActivatorId = ActivatorId(7);
const POD: PodUid = PodUid(70);

fn endpoint() -> Endpoint {
    Endpoint {
        reach: Reach::InProcess,
        host: "localhost".into(),
        path: "/mcp".into(),
        secret: None,
    }
}

fn slot() -> SlotKey {
    SlotKey {
        backend: name(),
        owner: Owner::Nobody,
    }
}

fn found(id: u128, generation: u64, stage: FoundStage) -> Found {
    Found {
        launched: Launched {
            instance: InstanceId(id),
            pid: None,
            log: None,
        },
        backend: name(),
        generation: Generation(generation),
        slot: slot(),
        tenant: TenantName::default(),
        stage,
    }
}

fn ready(id: u128) -> Found {
    found(id, 1, FoundStage::Ready(endpoint()))
}

fn leader(found: Vec<Found>) -> (Core, Instant) {
    let now = Instant::now();
    let catalog = catalog(Isolation::Shared);
    (Core::adopt(settings(2), now, catalog, vec![], found), now)
}

fn pod(incarnation: u64) -> ActivatorPod {
    ActivatorPod {
        uid: POD,
        incarnation,
    }
}

fn expected() -> Event {
    Event::Expected(BTreeMap::from([(POD, Presence::Runs)]))
}

fn restated(service: Option<Service>, leases: u32) -> Event {
    restated_to(2, service, leases)
}

fn restated_to(epoch: u64, service: Option<Service>, leases: u32) -> Event {
    let view = service.map(|service| InstanceView {
        id: ONE,
        slot: slot(),
        tenant: TenantName::default(),
        generation: Generation(1),
        endpoint: endpoint(),
        service,
        stamp: Stamp {
            epoch: 1,
            sequence: 5,
        },
    });
    let used = view.iter().map(|view| InstanceActivity {
        instance: view.id,
        leases,
        idle_for: Duration::ZERO,
    });
    Event::Restated(Box::new(Restatement {
        epoch,
        report: ActivityReport {
            activator: HERE,
            sequence: 1,
            full: true,
            instances: used.collect(),
        },
        instances: view.into_iter().collect(),
        records: vec![],
        gone: vec![],
        permits: vec![],
    }))
}

fn marks(effects: &[Effect]) -> usize {
    let mark = |effect: &&Effect| matches!(effect, Effect::Mark(_));
    effects.iter().filter(mark).count()
}

fn service_of(core: &Core, id: u128) -> Option<Service> {
    match core.lookup(InstanceId(id)) {
        Lookup::Ready(view) => Some(view.service),
        Lookup::Gone | Lookup::Unknown => None,
    }
}

#[test]
fn absence_means_nothing_until_every_expected_activator_has_been_heard() {
    let (mut core, now) = leader(vec![]);
    assert_eq!(core.lookup(ONE), Lookup::Unknown);
    assert!(launches(&core.step(now, claim(1))).is_empty());
    core.step(now, Event::Subscribed(HERE, pod(1)));
    core.step(now, expected());
    assert!(!core.is_complete());
    let effects = core.step(now, restated(None, 0));
    assert_eq!(launches(&effects).len(), 1, "who waited is served now");
    let told = effects.iter().any(|effect| {
        matches!(effect, Effect::Publish(event)
            if matches!(**event, ViewEvent::Snapshot { complete: true, .. }))
    });
    assert!(told && core.is_complete());
    assert_eq!(core.lookup(ONE), Lookup::Gone);
    core.audit().unwrap();
}

#[test]
fn what_was_said_to_another_leader_is_not_heard() {
    let (mut core, now) = leader(vec![ready(1)]);
    core.step(now, claim(1));
    core.step(now, Event::Subscribed(HERE, pod(1)));
    core.step(now, expected());
    for other in [1, 3] {
        let effects = core.step(now, restated_to(other, Some(Service::Open), 1));
        assert_eq!(answers(&effects), 0, "what it has open is not believed");
        assert!(!core.is_complete());
    }
    let effects = core.step(now, restated(Some(Service::Open), 1));
    assert_eq!(answers(&effects), 1);
    assert!(core.is_complete());
}

#[test]
fn a_pod_that_is_gone_is_not_waited_for_nor_is_anybody_for_ever() {
    let (mut core, now) = leader(vec![]);
    core.step(now, expected());
    core.step(now, Event::Expected(BTreeMap::new()));
    assert!(core.is_complete());
    let (mut core, now) = leader(vec![]);
    core.step(now, expected());
    core.step(now + PARTITION - Duration::from_secs(1), Event::Tick);
    assert!(!core.is_complete());
    core.step(now + PARTITION, Event::Tick);
    assert!(core.is_complete());
}

/// An upgrade that is stuck: its activator crashes again and again, and its pod stays.
#[test]
fn a_pod_whose_process_is_down_is_not_waited_for_but_its_leases_stay() {
    let (mut core, now) = leader(vec![ready(1)]);
    let down = || Event::Expected(BTreeMap::from([(POD, Presence::Down)]));
    core.step(now, down());
    assert!(core.is_complete());
    core.step(now, Event::Subscribed(HERE, pod(1)));
    core.step(now, restated(Some(Service::Open), 1));
    core.step(now, down());
    assert!(core.listens_to(HERE), "what is said of a pod may be late");
}

#[test]
fn what_an_activator_has_open_is_open_at_once_and_serves_who_waits() {
    let (mut core, now) = leader(vec![ready(1)]);
    core.step(now, claim(1));
    core.step(now, Event::Subscribed(HERE, pod(1)));
    let effects = core.step(now, restated(Some(Service::Open), 1));
    assert_eq!((answers(&effects), marks(&effects)), (1, 0));
    assert_eq!(service_of(&core, 1), Some(Service::Open));
}

#[test]
fn what_nobody_has_open_is_leased_only_when_no_older_order_can_end_it() {
    let (mut core, now) = leader(vec![ready(1)]);
    let asked = core.step(now, claim(1));
    assert_eq!((answers(&asked), marks(&asked)), (0, 1));
    core.step(now, Event::Subscribed(HERE, pod(1)));
    core.step(now, expected());
    let effects = core.step(now, restated(Some(Service::IdleDrain), 0));
    assert!(core.is_complete() && terminated(&effects).is_empty());
    assert_eq!(service_of(&core, 1), Some(Service::IdleDrain));
    let effects = core.step(now, Event::Marked(ONE, true));
    assert_eq!(answers(&effects), 1);
    assert_eq!(service_of(&core, 1), Some(Service::Open));
}

#[test]
fn what_an_older_order_has_ended_makes_room_for_a_successor() {
    let (mut core, now) = leader(vec![ready(1)]);
    core.step(now, claim(1));
    core.step(now, expected());
    core.step(now, Event::Expected(BTreeMap::new()));
    let effects = core.step(now, Event::Marked(ONE, false));
    assert_eq!((answers(&effects), launches(&effects).len()), (0, 1));
    core.audit().unwrap();
}

#[test]
fn of_two_for_one_slot_the_older_retires_and_waits_for_its_leases() {
    let (mut core, now) = leader(vec![ready(1), ready(2)]);
    core.step(now, Event::Subscribed(HERE, pod(1)));
    core.step(now, expected());
    let effects = core.step(now, restated(Some(Service::Open), 1));
    assert!(terminated(&effects).is_empty(), "it is leased");
    let Lookup::Ready(older) = core.lookup(ONE) else {
        panic!("it is gone");
    };
    assert_eq!(older.service, Service::RetireDrain);
    let ack = |leases| {
        Event::Ack(DrainAck {
            activator: HERE,
            instance: ONE,
            stamp: older.stamp,
            leases,
        })
    };
    assert!(terminated(&core.step(now, ack(1))).is_empty());
    assert_eq!(terminated(&core.step(now, ack(0))), [ONE]);
    core.audit().unwrap();
}

#[test]
fn what_was_found_of_another_text_or_of_none_retires_but_ends_only_when_all_are_heard() {
    for gone in [false, true] {
        let now = Instant::now();
        let catalog = if gone {
            Arc::new(Catalog::default())
        } else {
            catalog(Isolation::Shared)
        };
        let all = vec![
            found(1, 9, FoundStage::Ready(endpoint())),
            found(2, 9, FoundStage::Running),
        ];
        let mut core = Core::adopt(settings(2), now, catalog, vec![], all);
        let late = now + Duration::from_secs(300);
        assert!(terminated(&core.step(late, Event::Tick)).is_empty());
        assert_eq!(service_of(&core, 1), Some(Service::RetireDrain));
        let ended = terminated(&core.step(late, Event::Expected(BTreeMap::new())));
        let ended: BTreeSet<_> = ended.into_iter().collect();
        assert_eq!(ended, BTreeSet::from([ONE, InstanceId(2)]));
        core.audit().unwrap();
    }
}

#[test]
fn silence_is_not_idleness_until_ten_minutes_have_passed() {
    let (mut core, now) = leader(vec![ready(1), ready(2)]);
    core.step(now, Event::Subscribed(HERE, pod(1)));
    core.step(now, expected());
    core.step(now, restated(Some(Service::Open), 1));
    core.step(now, Event::Silent(HERE));
    let before = core.step(now + PARTITION - Duration::from_secs(1), Event::Tick);
    assert!(!terminated(&before).contains(&ONE));
    assert_eq!(terminated(&core.step(now + PARTITION, Event::Tick)), [ONE]);
    assert!(!core.listens_to(HERE));
}

#[test]
fn a_later_process_of_a_pod_voids_the_leases_of_the_one_before_and_is_not_displaced_by_it() {
    let (mut core, now) = leader(vec![ready(1), ready(2)]);
    core.step(now, Event::Subscribed(HERE, pod(1)));
    core.step(now, restated(Some(Service::Open), 1));
    let next = ActivatorId(8);
    core.step(now, Event::Subscribed(next, pod(2)));
    assert!(core.listens_to(next) && !core.listens_to(HERE));
    core.step(now, Event::Subscribed(HERE, pod(1)));
    assert!(core.listens_to(next) && !core.listens_to(HERE));
    // It would be waited for otherwise.
    assert_eq!(
        terminated(&core.step(now, Event::Expected(BTreeMap::new()))),
        []
    );
    assert!(!core.is_complete(), "the later process has not been heard");
    core.step(now, Event::Left(next));
    assert!(core.is_complete());
}

fn records() -> impl Strategy<Value = SessionRecord> {
    let binding = prop::option::of(prop::option::of((0..3_u128, "[ab]")));
    let rest = (
        prop::option::of("[de]"),
        prop::collection::vec("[fg]", 0..2),
    );
    (any::<bool>(), 0..3_u64, 0..3_u64, binding, rest).prop_map(
        |(ended, epoch, sequence, binding, (log_level, subscriptions))| SessionRecord {
            key: SessionKey([1; 24]),
            backend: name(),
            tenant: TenantName::default(),
            expires_at: 9,
            ended,
            binding: binding.map(|binding| {
                binding.map(|(instance, upstream)| SessionBinding {
                    instance: InstanceId(instance),
                    upstream: UpstreamSession(upstream.as_str().into()),
                })
            }),
            log_level,
            subscriptions,
            stamp: Stamp { epoch, sequence },
        },
    )
}

proptest! {
    #[test]
    fn records_may_be_joined_in_any_order_and_any_number_of_times(
        a in records(), b in records(), c in records(),
    ) {
        let join = |a: &SessionRecord, b: &SessionRecord| a.clone().join(b.clone());
        prop_assert_eq!(join(&a, &b), join(&b, &a));
        prop_assert_eq!(join(&a, &a), a.clone());
        prop_assert_eq!(join(&join(&a, &b), &c), join(&a, &join(&b, &c)));
        let both = join(&a, &b);
        prop_assert_eq!(both.ended, a.ended || b.ended);
        if a.ended == b.ended {
            prop_assert_eq!(both.stamp, a.stamp.max(b.stamp));
        }
    }
}
