//! There and back is the same value, through the bytes of the wire; nonsense is named.

use std::{net::SocketAddr, sync::Arc};

use mcp_gateway_api::{
    activity::{ActivityReport, DrainAck, InstanceActivity},
    claim::{ClaimRequest, Claimed, ColdStart, Purpose, Standing},
    failure::{Failure, FailureKind},
    ids::{ClaimId, Generation, UpstreamSession},
    record::{SessionBinding, SessionNews, SessionRecord, SessionRef, SessionUpdate},
    scaler::{ActivatorPod, Permit, PodUid, Restatement},
    slot::{Owner, SlotKey},
    view::{Endpoint, InstanceSecret, InstanceView, Lookup, Reach, Service, ViewEvent},
};
use proptest::{collection::vec, option, prelude::*};
use prost::Message;

use super::*;
use crate::scaler as wire;

/// Through the conversion and the encoding, both ways.
fn there_and_back<T>(value: &T) -> T
where
    T: ToWire + FromWire<Wire = <T as ToWire>::Wire>,
    <T as ToWire>::Wire: Message + Default,
{
    let bytes = value.to_wire().encode_to_vec();
    T::from_wire(Message::decode(bytes.as_slice()).unwrap()).unwrap()
}

fn words() -> impl Strategy<Value = String> {
    any::<String>()
}

prop_compose! {
    fn time()(nanos: u64) -> Duration { Duration::from_nanos(nanos) }
}
prop_compose! {
    fn stamp()(epoch: u64, sequence: u64) -> Stamp { Stamp { epoch, sequence } }
}
prop_compose! {
    fn backend()(name in "[a-z0-9]([-a-z0-9]{0,20}[a-z0-9])?") -> BackendName {
        BackendName::new(&name).unwrap()
    }
}
prop_compose! {
    fn tenant()(name in "[a-z0-9]([-a-z0-9]{0,20}[a-z0-9])?") -> TenantName {
        TenantName::new(&name).unwrap()
    }
}
prop_compose! {
    fn key()(key: [u8; 24]) -> SessionKey { SessionKey(key) }
}
prop_compose! {
    fn instance()(id: u128) -> InstanceId { InstanceId(id) }
}
prop_compose! {
    fn binding()(instance in instance(), upstream in words()) -> SessionBinding {
        SessionBinding { instance, upstream: UpstreamSession(upstream.into()) }
    }
}
prop_compose! {
    fn session()(key in key(), backend in backend(), tenant in tenant(), expires_at: u64) -> SessionRef {
        SessionRef { key, backend, tenant, expires_at }
    }
}
prop_compose! {
    fn record()(
        session in session(),
        ended: bool,
        binding in option::of(option::of(binding())),
        log_level in option::of(words()),
        subscriptions in vec(words(), 0..5),
        stamp in stamp(),
    ) -> SessionRecord {
        SessionRecord { ended, binding, log_level, subscriptions, stamp, ..SessionRecord::new(&session) }
    }
}

fn news() -> impl Strategy<Value = SessionNews> {
    prop_oneof![
        instance().prop_map(SessionNews::Opened),
        any::<[u8; 16]>().prop_map(|id| SessionNews::Sessionless(PrincipalId(id))),
        binding().prop_map(SessionNews::Revived),
        any::<bool>().prop_map(|retry| SessionNews::RevivalFailed { retry }),
        Just(SessionNews::Asleep),
        words().prop_map(SessionNews::LogLevel),
        words().prop_map(SessionNews::Subscribed),
        words().prop_map(SessionNews::Unsubscribed),
        Just(SessionNews::Ended),
    ]
}

fn owner() -> impl Strategy<Value = Owner> {
    prop_oneof![
        key().prop_map(Owner::Session),
        any::<[u8; 16]>().prop_map(|id| Owner::Principal(PrincipalId(id))),
        tenant().prop_map(Owner::Tenant),
        Just(Owner::Nobody),
    ]
}

fn reach() -> impl Strategy<Value = Reach> {
    prop_oneof![
        any::<SocketAddr>()
            .prop_map(|address| Reach::Tcp(SocketAddr::new(address.ip(), address.port()))),
        Just(Reach::InProcess),
    ]
}

fn service() -> impl Strategy<Value = Service> {
    prop_oneof![
        Just(Service::Open),
        Just(Service::IdleDrain),
        Just(Service::RetireDrain),
        Just(Service::Cut),
    ]
}

prop_compose! {
    fn view()(
        id in instance(),
        (backend, owner) in (backend(), owner()),
        tenant in tenant(),
        generation: u64,
        (reach, host, path, secret) in (reach(), words(), words(), option::of(words())),
        service in service(),
        stamp in stamp(),
    ) -> InstanceView {
        let secret = secret.map(|secret| InstanceSecret(secret.into()));
        InstanceView {
            id,
            slot: SlotKey { backend, owner },
            tenant,
            generation: Generation(generation),
            endpoint: Endpoint { reach, host: host.into(), path: path.into(), secret },
            service,
            stamp,
        }
    }
}

fn purpose() -> impl Strategy<Value = Purpose> {
    prop_oneof![
        Just(Purpose::Initialize),
        (session(), option::of(instance()))
            .prop_map(|(session, bound)| Purpose::Session { session, bound }),
        Just(Purpose::Exchange),
        Just(Purpose::Probe),
    ]
}

fn standing() -> impl Strategy<Value = Standing> {
    prop_oneof![
        Just(Standing::Fresh),
        binding().prop_map(Standing::Bound),
        Just(Standing::Revive),
    ]
}

prop_compose! {
    fn cold()(claim in time(), create in time(), start in time(), serve in time()) -> ColdStart {
        ColdStart { claim, create, start, serve }
    }
}

const KINDS: [FailureKind; 16] = [
    FailureKind::BadRequest,
    FailureKind::TooLarge,
    FailureKind::MediaType,
    FailureKind::Method,
    FailureKind::Unauthenticated,
    FailureKind::Forbidden,
    FailureKind::UnknownBackend,
    FailureKind::SessionGone,
    FailureKind::Overloaded,
    FailureKind::Capacity,
    FailureKind::HoldTimeout,
    FailureKind::StartFailed,
    FailureKind::InstanceLost,
    FailureKind::RequestTimeout,
    FailureKind::ShuttingDown,
    FailureKind::Internal,
];

prop_compose! {
    fn report()(
        activator: u128,
        sequence: u64,
        full: bool,
        instances in vec((instance(), any::<u32>(), time()), 0..5),
    ) -> ActivityReport {
        let instances = instances.into_iter().map(|(instance, leases, idle_for)| InstanceActivity {
            instance, leases, idle_for,
        });
        ActivityReport {
            activator: ActivatorId(activator), sequence, full, instances: instances.collect(),
        }
    }
}

proptest! {
    #[test]
    fn claims_and_their_answers_come_back_the_same(
        (backend, tenant, principal) in (backend(), tenant(), any::<[u8; 16]>()),
        (id, purpose, budget) in (any::<[u8; 16]>(), purpose(), time()),
        (session, instance) in (option::of(key()), view()),
        (standing, cold) in (standing(), option::of(cold())),
    ) {
        let request = ClaimRequest {
            id: ClaimId(id), backend, tenant, principal: PrincipalId(principal), purpose, budget,
        };
        prop_assert_eq!(there_and_back(&request), request);
        let claimed = Claimed { session, instance, standing, cold };
        prop_assert_eq!(there_and_back(&claimed), claimed);
    }

    #[test]
    fn failures_come_back_the_same(
        kind in 0..KINDS.len(), public in words(), private in option::of(words()),
        retry_after in option::of(time()),
    ) {
        let failure = Failure { kind: KINDS[kind], public, private, retry_after };
        prop_assert_eq!(there_and_back(&failure), failure);
    }

    #[test]
    fn news_and_records_of_sessions_come_back_the_same(
        session in session(), news in news(), record in record(),
    ) {
        let update = SessionUpdate { session, news };
        prop_assert_eq!(there_and_back(&update), update);
        prop_assert_eq!(there_and_back(&record), record);
    }

    #[test]
    fn reports_acknowledgements_and_pods_come_back_the_same(
        report in report(), (activator, instance, stamp) in (any::<u128>(), instance(), stamp()),
        (leases, uid, incarnation) in any::<(u32, u128, u64)>(),
    ) {
        prop_assert_eq!(there_and_back(&report), report);
        let ack = DrainAck { activator: ActivatorId(activator), instance, stamp, leases };
        prop_assert_eq!(there_and_back(&ack), ack);
        let pod = ActivatorPod { uid: PodUid(uid), incarnation };
        prop_assert_eq!(there_and_back(&pod), pod);
    }

    #[test]
    fn lookups_come_back_the_same(view in view()) {
        for lookup in [Lookup::Ready(view), Lookup::Gone, Lookup::Unknown] {
            prop_assert_eq!(Lookup::from_wire(lookup.to_wire()), Ok(lookup));
        }
    }

    #[test]
    fn every_event_of_a_view_comes_back_the_same(
        (stamp, complete, why) in (stamp(), any::<bool>(), words()),
        instances in vec(view(), 0..5),
        records in vec(record(), 0..5),
        (one, gone, forgotten) in (view(), instance(), key()),
    ) {
        let records: Vec<_> = records.into_iter().map(Arc::new).collect();
        let record = Arc::new(SessionRecord::new(&SessionRef {
            key: forgotten, backend: one.slot.backend.clone(), tenant: one.tenant.clone(), expires_at: 3,
        }));
        let events = [
            ViewEvent::Snapshot { stamp, complete, instances, records },
            ViewEvent::Instance(one),
            ViewEvent::Gone { instance: gone, why: why.into(), stamp },
            ViewEvent::Record(record),
            ViewEvent::Forget(forgotten),
        ];
        let mut assembly = Assembly::default();
        for event in events {
            let mut back = None;
            for message in view_messages(&event) {
                prop_assert!(back.is_none(), "whole before its last part");
                let bytes = message.encode_to_vec();
                back = assembly.take(Message::decode(bytes.as_slice()).unwrap()).unwrap();
            }
            // Events have no equality of their own; what they show is everything but secrets, compared above.
            prop_assert_eq!(format!("{:?}", back), format!("{:?}", Some(event)));
        }
    }

    #[test]
    fn restatements_come_back_the_same(
        (epoch, report) in (any::<u64>(), report()),
        instances in vec(view(), 0..5),
        records in vec(record(), 0..5),
        (gone, permits) in (vec(instance(), 0..4), vec((key(), instance()), 0..4)),
    ) {
        let permits = permits.into_iter().map(|(session, instance)| Permit { session, instance });
        let whole = Restatement {
            epoch, report, instances,
            records: records.into_iter().map(Arc::new).collect(),
            gone,
            permits: permits.collect(),
        };
        let mut retelling = Retelling::default();
        let mut back = None;
        for part in restatement_parts(&whole) {
            back = retelling.take(part).unwrap();
        }
        prop_assert_eq!(back, Some(whole));
    }

    #[test]
    fn no_bytes_of_a_stranger_make_it_panic(bytes in vec(any::<u8>(), 0..200)) {
        if let Ok(message) = wire::ViewMessage::decode(bytes.as_slice()) {
            let _event = Assembly::default().take(message);
        }
        if let Ok(message) = wire::ClaimRequest::decode(bytes.as_slice()) {
            let _request = ClaimRequest::from_wire(message);
        }
        if let Ok(message) = wire::SessionUpdate::decode(bytes.as_slice()) {
            let _update = SessionUpdate::from_wire(message);
        }
    }
}

fn failure(kind: i32) -> wire::Failure {
    wire::Failure {
        kind,
        ..wire::Failure::default()
    }
}

#[test]
fn an_enum_value_from_the_future_is_named() {
    for kind in [0, 17, -1] {
        let why = Failure::from_wire(failure(kind)).unwrap_err();
        let field = "failure kind";
        assert_eq!(why, Nonsense::Unknown { field, value: kind });
    }
    assert!(matches!(
        Service::from_wire(9),
        Err(Nonsense::Unknown { .. })
    ));
}

#[test]
fn what_is_missing_or_malformed_is_named() {
    let mut request = wire::ClaimRequest {
        backend: "demo".into(),
        tenant: "default".into(),
        principal: vec![0; 16],
        ..wire::ClaimRequest::default()
    };
    let why = ClaimRequest::from_wire(request.clone()).unwrap_err();
    assert_eq!(why, Nonsense::Missing("purpose"));
    request.purpose = Some(wire::claim_request::Purpose::Probe(wire::Nothing {}));
    request.backend = "No Label".into();
    let why = ClaimRequest::from_wire(request.clone()).unwrap_err();
    assert_eq!(why, Nonsense::Malformed("backend name"));
    request.backend = "demo".into();
    // An activator of before: each of its tries is a claim of its own.
    let ids = [request.clone(), request.clone()]
        .map(|request| ClaimRequest::from_wire(request).unwrap().id);
    assert_ne!(ids[0], ids[1]);
    request.claim = vec![0; 15];
    let why = ClaimRequest::from_wire(request.clone()).unwrap_err();
    assert_eq!(why, Nonsense::Malformed("claim"));
    request.claim = vec![0; 16];
    request.principal = vec![0; 15];
    let why = ClaimRequest::from_wire(request).unwrap_err();
    assert_eq!(why, Nonsense::Malformed("principal"));
}

#[test]
fn a_text_that_is_too_long_is_refused_and_a_failure_that_quotes_too_much_is_cut() {
    let long = "ü".repeat(MAX_TEXT);
    let update = wire::session_update::News::LogLevel(long.clone());
    let update = wire::SessionUpdate {
        session: None,
        news: Some(update),
    };
    let why = SessionUpdate::from_wire(update).unwrap_err();
    assert_eq!(why, Nonsense::TooLong("log level"));

    let failure = Failure::new(FailureKind::StartFailed, "It does not start.").because(long);
    let arrived = there_and_back(&failure);
    assert_eq!(arrived.public, failure.public);
    assert!(
        arrived
            .private
            .is_some_and(|private| private.len() == MAX_TEXT)
    );
}

#[test]
fn a_field_that_a_newer_peer_added_is_ignored() {
    // Field 100, a varint, before the known ones.
    let mut bytes = vec![0xa0, 0x06, 0x01];
    bytes.extend(
        wire::Stamp {
            epoch: 3,
            sequence: 4,
        }
        .encode_to_vec(),
    );
    let stamp = Stamp::from_wire(Message::decode(bytes.as_slice()).unwrap());
    assert_eq!(
        stamp,
        Ok(Stamp {
            epoch: 3,
            sequence: 4
        })
    );
}
