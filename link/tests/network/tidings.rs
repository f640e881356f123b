//! Reports, acknowledgements, records and restatements over connections that break.

use std::{sync::Arc, time::Duration};

use mcp_gateway_api::{
    activity::DrainAck,
    failure::FailureKind,
    ids::{ActivatorId, BackendName, InstanceId, SessionKey, TenantName},
    record::{SessionNews, SessionRecord, SessionRef, SessionUpdate},
    scaler::{Permit, Restatement, Scaler},
    view::Stamp,
};
use mcp_gateway_link::Lead;

use crate::support::{Fake, Installation, Wire, next, report, request, until, view_of};

const ME: ActivatorId = ActivatorId(5);

fn ack(instance: u128, epoch: u64, leases: u32) -> DrainAck {
    DrainAck {
        activator: ME,
        instance: InstanceId(instance),
        stamp: Stamp { epoch, sequence: 9 },
        leases,
    }
}

fn session() -> SessionRef {
    SessionRef {
        key: SessionKey([3; 24]),
        backend: BackendName::new("demo").unwrap(),
        tenant: TenantName::default(),
        expires_at: 99,
    }
}

#[tokio::test]
async fn what_was_said_while_nobody_listened_is_told_as_its_newest_when_somebody_does() {
    let installation = Installation::new();
    let (fake, replica) = (Fake::new(1), installation.replica().await);
    let activator = installation.activator(&[replica.address]);
    activator.report(report(1, true, &[(1, 3), (2, 1)])).await;
    activator.report(report(2, false, &[(1, 2)])).await;
    activator.acknowledge(ack(1, 1, 2)).await;
    activator.acknowledge(ack(1, 1, 0)).await;
    replica.lead(&fake);

    let told = until(&fake.reports, |reports| !reports.is_empty()).await;
    assert_eq!(told[0], report(2, true, &[(1, 2), (2, 1)]));
    let acks = until(&fake.acks, |acks| !acks.is_empty()).await;
    assert_eq!(acks, [ack(1, 1, 0)]);
}

#[tokio::test]
async fn a_report_and_an_acknowledgement_survive_a_broken_connection() {
    let installation = Installation::new();
    let (fake, replica) = (Fake::new(1), installation.replica().await);
    replica.lead(&fake);
    let wire = Wire::to(replica.address).await;
    let activator = installation.activator(&[wire.address]);
    activator.report(report(1, true, &[(1, 1)])).await;
    until(&fake.reports, |reports| reports.len() == 1).await;

    wire.cut();
    activator.report(report(2, false, &[(1, 7)])).await;
    activator.acknowledge(ack(1, 1, 7)).await;
    wire.mend();
    let acks = until(&fake.acks, |acks| !acks.is_empty()).await;
    assert_eq!(acks[0], ack(1, 1, 7));
    let told = until(&fake.reports, |reports| reports.len() > 1).await;
    assert_eq!(told.last().unwrap().instances[0].leases, 7);
}

#[tokio::test]
async fn each_new_leader_is_told_everything_first() {
    let installation = Installation::new();
    let (one, two) = (installation.replica().await, installation.replica().await);
    let (old, new) = (Fake::new(1), Fake::new(2));
    one.lead(&old);
    let activator = installation.activator(&[one.address, two.address]);
    let mut view = activator.subscribe(ME);
    next(&mut view).await;
    activator.report(report(1, true, &[(1, 3)])).await;
    activator.report(report(2, false, &[(2, 1)])).await;
    until(&old.reports, |all| {
        all.last().is_some_and(|r| r.sequence == 2)
    })
    .await;

    one.lead.send_replace(Lead::Elsewhere(None));
    two.lead(&new);
    let told = until(&new.reports, |reports| !reports.is_empty()).await;
    assert_eq!(told[0], report(2, true, &[(1, 3), (2, 1)]));
}

#[tokio::test]
async fn news_of_a_session_wait_for_a_leader_within_a_bound() {
    let installation = Installation::new();
    let (fake, replica) = (Fake::new(1), installation.replica().await);
    let mut config = installation.config();
    config.patience = Duration::from_millis(300);
    let (_, addresses) = tokio::sync::watch::channel(vec![replica.address]);
    let impatient = mcp_gateway_link::RemoteScaler::connect(config, addresses).unwrap();
    let update = SessionUpdate {
        session: session(),
        news: SessionNews::Ended,
    };
    let refused = impatient.record(update.clone()).await.unwrap_err();
    assert_eq!(refused.kind, FailureKind::HoldTimeout);

    let activator = installation.activator(&[replica.address]);
    let (kept, ()) = tokio::join!(activator.record(update.clone()), async {
        tokio::task::yield_now().await;
        replica.lead(&fake);
    });
    assert_eq!(kept, Ok(()));
    assert_eq!(*fake.records.borrow(), [update]);
}

#[tokio::test]
async fn a_restatement_larger_than_a_message_arrives_whole() {
    let installation = Installation::new();
    let (fake, replica) = (Fake::new(6), installation.replica().await);
    replica.lead(&fake);
    let activator = installation.activator(&[replica.address]);
    let records = (0..400_u32).map(|n| {
        let mut record = SessionRecord::new(&session());
        record.key.0[..4].copy_from_slice(&n.to_be_bytes());
        record.subscriptions = (0..50).map(|_| "x".repeat(2_000)).collect();
        Arc::new(record)
    });
    let whole = Restatement {
        epoch: 6,
        report: report(4, true, &[(1, 1)]),
        instances: vec![view_of(5, 1); 3_000],
        records: records.collect(),
        gone: vec![InstanceId(8), InstanceId(9)],
        permits: vec![Permit {
            session: SessionKey([1; 24]),
            instance: InstanceId(1),
        }],
    };
    activator.restate(whole.clone()).await.unwrap();
    assert_eq!(*fake.restated.borrow(), [whole]);
    activator.leave(ME).await;
    assert_eq!(*fake.left.borrow(), [ME]);
}

#[tokio::test]
async fn a_report_outlives_a_try_that_nobody_answered() {
    let installation = Installation::new();
    let (fake, replica) = (Fake::new(1), installation.replica().await);
    let mut config = installation.config();
    config.keepalive = Duration::from_millis(500);
    let (_, addresses) = tokio::sync::watch::channel(vec![replica.address]);
    let activator = mcp_gateway_link::RemoteScaler::connect(config, addresses).unwrap();
    activator.report(report(1, true, &[(1, 3)])).await;
    // Asks in vain for longer than one telling is tried.
    let waited = activator.claim(request(Duration::from_millis(1_200))).await;
    waited.unwrap_err();
    replica.lead(&fake);
    let told = until(&fake.reports, |reports| !reports.is_empty()).await;
    assert_eq!(told[0], report(1, true, &[(1, 3)]));
}
