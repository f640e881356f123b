//! What is told, whatever is lost on the way, is in the end what the activator last said.

use mcp_gateway_api::view::Stamp;
use proptest::{collection::vec, prelude::*};

use super::*;

const ME: ActivatorId = ActivatorId(1);

fn report(sequence: u64, full: bool, uses: &[(u8, u32)]) -> ActivityReport {
    let instances = uses.iter().map(|(id, leases)| InstanceActivity {
        instance: InstanceId(u128::from(*id)),
        leases: *leases,
        idle_for: Duration::ZERO,
    });
    ActivityReport {
        activator: ME,
        sequence,
        full,
        instances: instances.collect(),
    }
}

fn ack(instance: u8, sequence: u64, leases: u32) -> DrainAck {
    DrainAck {
        activator: ME,
        instance: InstanceId(u128::from(instance)),
        stamp: Stamp { epoch: 1, sequence },
        leases,
    }
}

#[test]
fn an_answer_covers_what_was_told_and_not_what_changed_meanwhile() {
    let (mut outbox, now) = (Outbox::default(), Instant::now());
    outbox.report(now, report(1, true, &[(1, 1)]));
    let told = outbox.due(now).unwrap();
    outbox.report(now, report(2, false, &[(1, 0)]));
    outbox.acknowledge(ack(1, 5, 0));
    outbox.told(&told);
    let rest = outbox.due(now).unwrap();
    assert_eq!(rest.report, Some(report(2, false, &[(1, 0)])));
    assert_eq!(rest.acks, [ack(1, 5, 0)]);
    outbox.told(&rest);
    assert_eq!(outbox.due(now), None);
}

#[test]
fn an_instance_goes_on_being_idle_while_its_report_waits() {
    let (mut outbox, now) = (Outbox::default(), Instant::now());
    outbox.report(now, report(1, false, &[(1, 0), (2, 3)]));
    let later = outbox.due(now + Duration::from_secs(9)).unwrap();
    let idle: Vec<_> = later
        .report
        .unwrap()
        .instances
        .iter()
        .map(|i| i.idle_for)
        .collect();
    assert_eq!(idle, [Duration::from_secs(9), Duration::ZERO]);
}

#[test]
fn no_full_report_is_made_up_before_the_activator_has_given_one() {
    let (mut outbox, now) = (Outbox::default(), Instant::now());
    outbox.subscribed();
    assert_eq!(outbox.due(now), None);
    outbox.report(now, report(1, false, &[(1, 1)]));
    outbox.subscribed();
    assert_eq!(
        outbox.due(now).unwrap().report,
        Some(report(1, false, &[(1, 1)]))
    );
}

#[test]
fn an_older_acknowledgement_does_not_replace_a_newer_one() {
    let mut outbox = Outbox::default();
    outbox.acknowledge(ack(1, 7, 2));
    outbox.acknowledge(ack(1, 6, 0));
    assert_eq!(outbox.due(Instant::now()).unwrap().acks, [ack(1, 7, 2)]);
}

#[test]
fn what_is_gone_is_told_no_more() {
    let (mut outbox, now) = (Outbox::default(), Instant::now());
    outbox.report(now, report(1, false, &[(1, 1)]));
    outbox.acknowledge(ack(1, 7, 2));
    outbox.gone(InstanceId(1));
    assert_eq!(outbox.due(now), None);
}

#[derive(Debug, Clone)]
enum Happens {
    Uses(Vec<(u8, u32)>, bool),
    /// Tells; whether it arrives, and whether the answer does.
    Tells(bool, bool),
    /// A new leader, who knows nothing, listens.
    NewLeader,
}

fn happens() -> impl Strategy<Value = Happens> {
    prop_oneof![
        (vec((0..6_u8, 0..3_u32), 0..4), any::<bool>())
            .prop_map(|(uses, full)| Happens::Uses(uses, full)),
        any::<(bool, bool)>()
            .prop_map(|(arrives, answered)| Happens::Tells(arrives, arrives && answered)),
        Just(Happens::NewLeader),
    ]
}

/// What one who takes reports knows.
fn take(known: &mut BTreeMap<InstanceId, u32>, report: &ActivityReport) {
    if report.full {
        known.clear();
    }
    known.extend(
        report
            .instances
            .iter()
            .map(|one| (one.instance, one.leases)),
    );
}

proptest! {
    #[test]
    fn a_leader_knows_in_the_end_what_the_activator_last_said(all in vec(happens(), 0..40)) {
        let (mut outbox, now) = (Outbox::default(), Instant::now());
        let (mut truth, mut leader) = (BTreeMap::new(), BTreeMap::new());
        // An activator begins with a full report.
        outbox.report(now, report(0, true, &[]));
        for (sequence, happens) in (1..).zip(all) {
            match happens {
                Happens::Uses(uses, full) => {
                    let report = report(sequence, full, &uses);
                    take(&mut truth, &report);
                    outbox.report(now, report);
                }
                Happens::Tells(arrives, answered) => if let Some(tidings) = outbox.due(now) {
                    if let (true, Some(report)) = (arrives, &tidings.report) {
                        take(&mut leader, report);
                    }
                    if answered {
                        outbox.told(&tidings);
                    }
                },
                Happens::NewLeader => {
                    leader.clear();
                    outbox.subscribed();
                }
            }
        }
        while let Some(tidings) = outbox.due(now) {
            if let Some(report) = &tidings.report {
                take(&mut leader, report);
            }
            outbox.told(&tidings);
        }
        prop_assert_eq!(leader, truth);
    }
}
