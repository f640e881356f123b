//! A leader that took over, and activators in other processes.

use std::collections::BTreeMap;

use mcp_gateway_api::{
    record::SessionRecord,
    scaler::{Permit, PodUid, Presence},
    slot::{Owner, SlotKey},
    view::Stamp,
};
use mcp_gateway_runtime::FoundStage;
use tokio::time::{Instant, advance};

use super::*;

const ONE: InstanceId = InstanceId(1);
const POD: PodUid = PodUid(70);

fn pod(incarnation: u64) -> ActivatorPod {
    ActivatorPod {
        uid: POD,
        incarnation,
    }
}

fn slot() -> SlotKey {
    SlotKey {
        backend: name(),
        owner: Owner::Tenant(TenantName::default()),
    }
}

fn found() -> Found {
    Found {
        launched: Launched {
            instance: ONE,
            pid: None,
            log: None,
        },
        backend: name(),
        generation: Generation(1),
        slot: slot(),
        tenant: TenantName::default(),
        stage: FoundStage::Ready(endpoint()),
    }
}

/// What the leader of term 1 told of it.
fn told() -> InstanceView {
    InstanceView {
        id: ONE,
        slot: slot(),
        tenant: TenantName::default(),
        generation: Generation(1),
        endpoint: endpoint(),
        service: Service::Open,
        stamp: Stamp {
            epoch: 1,
            sequence: 5,
        },
    }
}

/// All that an activator of term 1 knows, told to the leader of a later one.
fn knows(epoch: u64, instances: Vec<InstanceView>) -> Restatement {
    let report = ActivityReport {
        activator: ActivatorId(0),
        sequence: 0,
        full: true,
        instances: vec![],
    };
    Restatement {
        epoch,
        report,
        instances,
        records: vec![],
        gone: vec![],
        permits: vec![],
    }
}

const fn completeness(event: &ViewEvent) -> Option<bool> {
    match event {
        ViewEvent::Snapshot { complete, .. } => Some(*complete),
        ViewEvent::Instance(_)
        | ViewEvent::Gone { .. }
        | ViewEvent::Record(_)
        | ViewEvent::Forget(_) => None,
    }
}

async fn heard_all(activator: &mut FakeActivator) {
    while completeness(&activator.read().await) != Some(true) {}
}

impl Bench {
    /// A leader of term 2 that found one instance, and the activator that it waits for.
    async fn taken_over() -> (Self, FakeActivator) {
        let bench = Self::lead(policy(Isolation::Tenant), vec![found()]);
        let mut activator = FakeActivator::far(&bench, pod(1));
        bench
            .scaler
            .expect(BTreeMap::from([(POD, Presence::Runs)]))
            .await;
        assert_eq!(completeness(&activator.read().await), Some(false));
        (bench, activator)
    }

    /// As [`Self::taken_over`], and the activator has said that it uses the instance.
    async fn adopted(leases: u32) -> (Self, FakeActivator) {
        let (bench, mut activator) = Self::taken_over().await;
        activator.leases.insert(ONE, leases);
        activator.restate(knows(2, vec![told()])).await;
        heard_all(&mut activator).await;
        (bench, activator)
    }

    fn terminated(&self) -> Vec<InstanceId> {
        self.runtime.world.lock().terminated.clone()
    }

    /// Lets everything happen that is due by then.
    async fn after(&self, time: Duration) {
        sleep(time).await;
        // Whatever was due has been done once the loop answers.
        self.scaler.status().await;
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_leader_ends_and_starts_nothing_before_everybody_has_been_heard_and_drains_afterwards()
 {
    let (bench, mut activator) = Bench::taken_over().await;
    let scaler = bench.scaler.clone();
    let stranger = ClaimRequest {
        tenant: TenantName::new("other").unwrap(),
        budget: Duration::from_secs(3_600),
        ..request(Purpose::Exchange)
    };
    let waits = tokio::spawn(async move { scaler.claim(stranger).await });
    bench.after(Duration::from_secs(300)).await;
    assert_eq!((bench.launches(), bench.terminated()), (0, vec![]));
    assert!(!waits.is_finished());
    activator.leases.insert(ONE, 1);
    // Said to the leader before, it says nothing of what has happened since.
    activator.restate(knows(1, vec![told()])).await;
    bench.after(Duration::from_secs(1)).await;
    assert!(!waits.is_finished());

    activator.restate(knows(2, vec![told()])).await;
    heard_all(&mut activator).await;
    waits.await.unwrap().unwrap();
    let known = &activator.known[&ONE];
    assert_eq!((known.service, known.stamp.epoch), (Service::Open, 2));
    // Its lease has come through the change of leaders.
    bench.after(Duration::from_secs(300)).await;
    assert!(!bench.terminated().contains(&ONE));
    activator.lease(ONE, 0).await;
    let began = Instant::now();
    activator.read_until(|a| a.gone.contains(&ONE)).await;
    assert_eq!(began.elapsed().as_secs(), 60);
    bench.after(Duration::ZERO).await;
    assert!(bench.terminated().contains(&ONE));
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_breaks_is_silence_and_silence_is_no_goodbye() {
    let (bench, activator) = Bench::adopted(1).await;
    drop(activator);
    bench.after(Duration::from_secs(599)).await;
    assert_eq!(bench.terminated(), []);
    // Its pod may be dead: after ten minutes its lease counts no more.
    bench.after(Duration::from_secs(2 + 60)).await;
    assert_eq!(bench.terminated(), [ONE]);
}

#[tokio::test(start_paused = true)]
async fn an_activator_that_listens_again_in_time_keeps_its_leases() {
    let (bench, activator) = Bench::adopted(1).await;
    let id = activator.id;
    drop(activator);
    bench.after(Duration::from_secs(500)).await;
    let mut again = bench.scaler.subscribe_from(id, pod(1));
    assert_eq!(completeness(&again.recv().await.unwrap()), Some(true));
    bench.after(Duration::from_secs(3_600)).await;
    assert_eq!(bench.terminated(), []);
}

#[tokio::test(start_paused = true)]
async fn the_leases_of_a_pod_that_is_gone_end_with_it() {
    let (bench, mut activator) = Bench::adopted(1).await;
    bench.scaler.expect(BTreeMap::new()).await;
    // Should it live after all, it hears that it is not heard, and listens anew.
    while activator.read_or_end().await.is_some() {}
    bench.after(Duration::from_secs(61)).await;
    assert_eq!(bench.terminated(), [ONE]);
}

#[tokio::test(start_paused = true)]
async fn a_later_process_of_a_pod_ends_the_leases_and_the_stream_of_the_one_before() {
    let (bench, mut before) = Bench::adopted(1).await;
    let mut after = FakeActivator::far(&bench, pod(2));
    after.read().await;
    // What the earlier one says is nobody's word, nor is it listened to again.
    before.lease(ONE, 7).await;
    let mut again = bench.scaler.subscribe_from(before.id, pod(1));
    assert!(again.recv().await.is_none());
    while before.read_or_end().await.is_some() {}
    let began = Instant::now();
    after.read_until(|a| a.gone.contains(&ONE)).await;
    assert_eq!(began.elapsed().as_secs(), 60);
}

#[tokio::test(start_paused = true)]
async fn no_drain_waits_for_an_activator_that_has_said_goodbye() {
    let (bench, mut one) = Bench::adopted(0).await;
    let mut other = FakeActivator::far(
        &bench,
        ActivatorPod {
            uid: PodUid(71),
            incarnation: 1,
        },
    );
    let drains = |a: &FakeActivator| {
        let known = a.known.get(&ONE);
        known.is_some_and(|view| view.service == Service::IdleDrain)
    };
    other.read_until(drains).await;
    bench.after(Duration::from_secs(60)).await;
    assert_eq!(bench.terminated(), [], "one has not acknowledged");
    bench.scaler.leave(one.id).await;
    other.read_until(|a| a.gone.contains(&ONE)).await;
    // Its stream ends where it left.
    while let Some(event) = one.read_or_end().await {
        assert!(!matches!(event, ViewEvent::Gone { .. }));
    }
}

#[tokio::test(start_paused = true)]
async fn news_of_sessions_and_their_records_wait_for_each_other() {
    let (bench, mut activator) = Bench::taken_over().await;
    let scaler = bench.scaler.clone();
    let level = news(1, SessionNews::LogLevel("debug".into()));
    let kept = tokio::spawn(async move { scaler.record(level).await });
    bench.after(Duration::from_secs(30)).await;
    assert!(!kept.is_finished());
    let record = SessionRecord {
        binding: Some(Some(binding(ONE, "u"))),
        stamp: told().stamp,
        ..SessionRecord::new(&session(1))
    };
    let all = Restatement {
        records: vec![Arc::new(record)],
        ..knows(2, vec![told()])
    };
    activator.restate(all).await;
    kept.await.unwrap().unwrap();
    let both = loop {
        if let ViewEvent::Record(record) = activator.read().await
            && record.log_level.is_some()
        {
            break record;
        }
    };
    assert_eq!(both.binding, Some(Some(binding(ONE, "u"))));
    assert_eq!(both.stamp.epoch, 2);
}

#[tokio::test(start_paused = true)]
async fn a_permit_that_is_held_through_a_change_of_leaders_is_given_to_nobody_else() {
    let (bench, mut activator) = Bench::taken_over().await;
    let held = Permit {
        session: session(1).key,
        instance: ONE,
    };
    let all = Restatement {
        permits: vec![held],
        ..knows(2, vec![told()])
    };
    activator.restate(all).await;
    heard_all(&mut activator).await;
    let scaler = bench.scaler.clone();
    let lost = Some(InstanceId(9));
    let second = tokio::spawn(async move { scaler.claim(request(of_session(1, lost))).await });
    let other = bench.claim(of_session(2, lost)).await.unwrap();
    assert_eq!(other.standing, Standing::Revive);
    assert!(!second.is_finished());
    let home = binding(ONE, "new");
    let revived = news(1, SessionNews::Revived(home.clone()));
    bench.scaler.record(revived).await.unwrap();
    let second = second.await.unwrap().unwrap();
    assert_eq!(second.standing, Standing::Bound(home));
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_steps_down_refuses_who_waits_and_ends_nothing() {
    let (bench, mut activator) = Bench::adopted(0).await;
    bench.script([Script::Hangs]);
    let scaler = bench.scaler.clone();
    let stranger = ClaimRequest {
        tenant: TenantName::new("other").unwrap(),
        ..request(Purpose::Exchange)
    };
    let waits = tokio::spawn(async move { scaler.claim(stranger).await });
    while bench.launches() < 1 {
        tokio::task::yield_now().await;
    }
    bench.handle.step_down();
    assert_eq!(kind(waits.await.unwrap()), FailureKind::ShuttingDown);
    while activator.read_or_end().await.is_some() {}
    // Nobody decides anything here any more, whatever is said.
    let scaler = bench.scaler;
    activator.lease(ONE, 0).await;
    scaler.leave(activator.id).await;
    advance(Duration::from_secs(3_600)).await;
    assert_eq!(scaler.lookup(ONE).await, Lookup::Unknown);
    let refused = scaler.claim(request(Purpose::Exchange)).await;
    assert_eq!(kind(refused), FailureKind::ShuttingDown);
    let refused = scaler.record(news(1, SessionNews::Asleep)).await;
    assert_eq!(refused.unwrap_err().kind, FailureKind::ShuttingDown);
    let world = bench.runtime.world.lock();
    assert!(world.terminated.is_empty() && world.alive.len() == 2);
}
