//! What a new leader is told, and what is believed of it.

use mcp_gateway_api::{record::SessionRecord, scaler::Permit};

use super::*;

fn at(epoch: u64, sequence: u64) -> Stamp {
    Stamp { epoch, sequence }
}

fn snapshot(
    stamp: Stamp,
    complete: bool,
    instances: Vec<InstanceView>,
    records: Vec<SharedRecord>,
) -> ViewEvent {
    ViewEvent::Snapshot {
        stamp,
        complete,
        instances,
        records,
    }
}

/// A session that lives on an instance, by what a leader wrote then.
fn bound(key: u8, on: u128, stamp: Stamp) -> SharedRecord {
    Arc::new(SessionRecord {
        binding: Some(Some(SessionBinding {
            instance: InstanceId(on),
            upstream: UpstreamSession("u".into()),
        })),
        stamp,
        ..SessionRecord::new(&about(key))
    })
}

fn asleep(key: u8) -> SessionUpdate {
    SessionUpdate {
        session: about(key),
        news: SessionNews::Asleep,
    }
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_has_not_heard_everybody_is_told_everything_as_it_was_told() {
    let mut running = running();
    let directory = running.directory.clone();
    let told = bound(1, 1, at(1, 4));
    let views = [view(1, Service::Open, 1), view(2, Service::IdleDrain, 2)];
    let first = snapshot(stamp(5), true, views.to_vec(), vec![Arc::clone(&told)]);
    running.view.send(first).await.unwrap();
    running.view.send(gone(3, 6)).await.unwrap();
    assert!(running.next_ack().await.leases == 0);
    while directory.lease(InstanceId(3)).err() != Some(NotNow::Gone) {
        tokio::task::yield_now().await;
    }
    let _lease = directory.lease(InstanceId(1)).unwrap();
    directory.permitted(about(2).key, InstanceId(1));
    directory.permitted(about(3).key, InstanceId(1));
    directory.permit_over(&about(3).key);
    // No leader has said so: it is not restated, and not lost either.
    let own = directory.learn(&asleep(1)).unwrap();
    directory.settle(&about(1).key, own, true);

    let asks = snapshot(at(2, 1), false, vec![], vec![]);
    running.view.send(asks).await.unwrap();
    let all = running.next_restatement().await;
    assert_eq!((all.epoch, all.report.full), (2, true));
    let uses = all
        .report
        .instances
        .iter()
        .map(|one| (one.instance.0, one.leases));
    let mut uses: Vec<_> = uses.collect();
    uses.sort_unstable();
    assert_eq!(uses, [(1, 1), (2, 0)]);
    let mut told_of = all.instances.clone();
    told_of.sort_by_key(|view| view.id);
    assert_eq!(told_of, views);
    assert_eq!(all.records, [told]);
    assert_eq!(all.gone, [InstanceId(3)]);
    let permit = Permit {
        session: about(2).key,
        instance: InstanceId(1),
    };
    assert_eq!(all.permits, [permit]);
    let record = directory.record(&about(1).key).unwrap();
    assert_eq!(record.binding, Some(None));
    // What it says later is later.
    assert!(running.next_report().await.sequence > all.report.sequence);
}

#[tokio::test(start_paused = true)]
async fn what_nobody_heard_is_said_again_as_it_stands_then_until_it_is_asked_for_no_more() {
    let mut running = running();
    running.scaler.deaf.store(2, Ordering::Relaxed);
    let asks = snapshot(at(2, 1), false, vec![view(1, Service::Open, 1)], vec![]);
    running.view.send(asks).await.unwrap();
    let first = running.next_restatement().await;
    let _lease = running.directory.lease(InstanceId(1)).unwrap();
    let second = running.next_restatement().await;
    let leases = |all: &Restatement| all.report.instances[0].leases;
    assert_eq!((leases(&first), leases(&second)), (0, 1));
    assert!(second.report.sequence > first.report.sequence);
    let complete = snapshot(at(2, 2), true, vec![view(1, Service::Open, 1)], vec![]);
    running.view.send(complete).await.unwrap();
    // Everything else is told, and nothing restated, for a while.
    for _ in 0..20 {
        assert!(!matches!(
            running.told.recv().await.unwrap(),
            Told::Restated(_)
        ));
    }
}

#[tokio::test(start_paused = true)]
async fn a_permit_counts_until_its_instance_is_gone_or_its_time_is_over() {
    let directory = directory();
    for id in 1..=2 {
        directory.apply_claimed(view(id, Service::Open, 1));
    }
    let held = || directory.restatement(1, 1).permits.len();
    directory.permitted(about(1).key, InstanceId(1));
    directory.permitted(about(2).key, InstanceId(2));
    assert_eq!(held(), 2);
    directory.apply(gone(1, 2));
    assert_eq!(held(), 1);
    tokio::time::advance(Duration::from_secs(59)).await;
    assert_eq!(held(), 1);
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(held(), 0);
}

#[test]
fn a_leader_that_knows_less_takes_nothing_back_until_it_knows_all() {
    let directory = directory();
    let (older, newer) = (bound(1, 1, at(1, 10)), bound(1, 2, at(1, 20)));
    directory.apply(snapshot(at(1, 30), true, vec![], vec![Arc::clone(&newer)]));
    let asks = snapshot(at(2, 1), false, vec![], vec![Arc::clone(&older)]);
    directory.apply(asks);
    assert_eq!(directory.record(&about(1).key), Some(Arc::clone(&newer)));
    directory.apply(ViewEvent::Record(Arc::clone(&older)));
    assert_eq!(directory.restatement(2, 1).records, [newer]);
    // It has waited for everybody long enough: what it knows is what counts now.
    directory.apply(snapshot(at(2, 2), true, vec![], vec![Arc::clone(&older)]));
    assert_eq!(directory.record(&about(1).key), Some(older));
}

#[test]
fn news_that_went_with_a_leader_is_due_again_when_the_next_one_knows_all() {
    let directory = directory();
    let mut terms = directory.terms();
    directory.apply(snapshot(at(1, 1), true, vec![], vec![]));
    assert!(terms.has_changed().unwrap());
    terms.mark_unchanged();
    // Kept and told, kept and not told, refused, on its way.
    for key in 1..=4 {
        let number = directory.learn(&asleep(key)).unwrap();
        if key < 4 {
            directory.settle(&about(key).key, number, key < 3);
        }
    }
    let mut echo = SessionRecord::clone(&directory.record(&about(1).key).unwrap());
    echo.stamp = at(1, 2);
    let echo = Arc::new(echo);
    directory.apply(ViewEvent::Record(Arc::clone(&echo)));
    for _ in 0..3 {
        directory.tidy();
    }
    directory.apply(snapshot(at(2, 1), false, vec![], vec![]));
    assert!(!terms.has_changed().unwrap());
    directory.apply(snapshot(at(2, 2), true, vec![], vec![echo]));
    assert!(terms.has_changed().unwrap());
    let mut due = directory.untold();
    due.sort_unstable();
    assert_eq!(due, [about(2).key, about(3).key]);
    let of = directory.untold_of(&about(2).key);
    assert_eq!(of.len(), 1);
    assert_eq!(of[0].1, asleep(2));
    // A leader that has listed everything again does not want it.
    directory.settle(&about(2).key, of[0].0, true);
    directory.apply(snapshot(at(2, 3), true, vec![], vec![]));
    assert_eq!(directory.untold(), [about(3).key]);
}

#[test]
fn a_session_is_not_said_to_live_on_what_is_gone() {
    let directory = directory();
    let revived = |key, on| SessionUpdate {
        session: about(key),
        news: SessionNews::Revived(SessionBinding {
            instance: InstanceId(on),
            upstream: UpstreamSession("u".into()),
        }),
    };
    directory.apply_claimed(view(1, Service::Open, 1));
    for (key, on) in [(1, 1), (2, 2)] {
        directory.apply_claimed(view(on, Service::Open, 1));
        let number = directory.learn(&revived(key, on)).unwrap();
        directory.settle(&about(key).key, number, true);
    }
    directory.apply(gone(1, 2));
    let only = vec![view(2, Service::Open, 1)];
    directory.apply(snapshot(at(2, 1), true, only, vec![]));
    assert_eq!(directory.untold_of(&about(1).key), []);
    assert_eq!(directory.untold_of(&about(2).key).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn goodbye_is_said_only_when_nothing_is_used_any_more() {
    let running = running();
    let (tell, mut told) = mpsc::channel(4);
    let scaler = Scripted {
        views: Mutex::default(),
        told: tell,
        deaf: AtomicU32::new(0),
    };
    let directory = running.directory.clone();
    directory.apply_claimed(view(1, Service::Open, 1));
    let lease = directory.lease(InstanceId(1)).unwrap();
    directory.leave(&scaler).await;
    assert!(told.try_recv().is_err());
    drop(lease);
    directory.leave(&scaler).await;
    assert!(matches!(told.try_recv(), Ok(Told::Left(ActivatorId(1)))));
}
