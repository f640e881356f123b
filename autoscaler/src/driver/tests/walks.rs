//! The three walks: cold, warm, idle.

use tokio::time::{Instant, advance};

use super::*;

#[tokio::test(start_paused = true)]
async fn a_hundred_claims_launch_one_instance() {
    let bench = Bench::new(policy(Isolation::Tenant));
    let claims = (0..100).map(|_| {
        let scaler = bench.scaler.clone();
        tokio::spawn(async move { scaler.claim(request(Purpose::Exchange)).await })
    });
    let claims: Vec<_> = claims.collect();
    let mut instances = std::collections::HashSet::new();
    for claim in claims {
        let claimed = claim.await.unwrap().unwrap();
        assert!(claimed.cold.is_some());
        instances.insert(claimed.instance.id);
    }
    assert_eq!(instances.len(), 1);
    assert_eq!(bench.launches(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_idle_instance_is_drained_acknowledged_and_ended() {
    let bench = Bench::new(policy(Isolation::Tenant));
    let mut activator = FakeActivator::new(&bench);
    let claimed = bench.claim(Purpose::Exchange).await.unwrap();
    let began = Instant::now();
    activator.read_until(|a| !a.gone.is_empty()).await;
    assert_eq!(activator.gone, [claimed.instance.id]);
    assert_eq!(began.elapsed().as_secs(), 60);
    assert_eq!(bench.scaler.lookup(claimed.instance.id).await, gone());
    while bench.alive() > 0 {
        tokio::task::yield_now().await;
    }
    let status = bench.scaler.status().await;
    assert_eq!(status.instances, 0);
    assert_eq!(status.backends[0].state, "cold");
}

#[tokio::test(start_paused = true)]
async fn a_leased_instance_is_not_drained_until_its_last_lease_has_ended() {
    let bench = Bench::new(policy(Isolation::Tenant));
    let mut activator = FakeActivator::new(&bench);
    let claimed = bench.claim(Purpose::Exchange).await.unwrap();
    let id = claimed.instance.id;
    activator.read_until(|a| a.known.contains_key(&id)).await;
    activator.lease(id, 1).await;
    advance(Duration::from_secs(3_600)).await;
    assert!(matches!(bench.scaler.lookup(id).await, Lookup::Ready(_)));
    assert_eq!(activator.known[&id].service, Service::Open);
    activator.lease(id, 0).await;
    let began = Instant::now();
    activator.read_until(|a| !a.gone.is_empty()).await;
    assert_eq!(began.elapsed().as_secs(), 60);
}

#[tokio::test(start_paused = true)]
async fn a_claim_brings_a_draining_instance_back() {
    let bench = Bench::new(policy(Isolation::Tenant));
    let mut activator = FakeActivator::new(&bench);
    let id = bench.claim(Purpose::Exchange).await.unwrap().instance.id;
    // A second one that never acknowledges keeps the drain from ending.
    let _silent = FakeActivator::new(&bench);
    activator
        .read_until(|a| {
            a.known
                .get(&id)
                .is_some_and(|v| v.service == Service::IdleDrain)
        })
        .await;
    let drained = activator.known[&id].stamp;
    let again = bench.claim(Purpose::Exchange).await.unwrap();
    assert_eq!(again.instance.id, id);
    assert_eq!(again.instance.service, Service::Open);
    assert!(again.instance.stamp > drained);
    assert_eq!(again.cold, None);
    assert_eq!(bench.launches(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_activator_that_still_leases_cancels_an_idle_drain() {
    let bench = Bench::new(policy(Isolation::Tenant));
    let mut activator = FakeActivator::new(&bench);
    let id = bench.claim(Purpose::Exchange).await.unwrap().instance.id;
    activator.read_until(|a| a.known.contains_key(&id)).await;
    // Leased, but the report was lost.
    activator.leases.insert(id, 2);
    activator
        .read_until(|a| a.known[&id].service == Service::IdleDrain)
        .await;
    activator
        .read_until(|a| a.known[&id].service == Service::Open)
        .await;
    assert_eq!(bench.alive(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_activator_that_leaves_is_not_waited_for() {
    let bench = Bench::new(policy(Isolation::Tenant));
    let mut leaving = FakeActivator::new(&bench);
    let mut activator = FakeActivator::new(&bench);
    let id = bench.claim(Purpose::Exchange).await.unwrap().instance.id;
    leaving.read_until(|a| a.known.contains_key(&id)).await;
    leaving.lease(id, 5).await;
    drop(leaving);
    activator.read_until(|a| !a.gone.is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn an_activator_that_reads_late_is_sent_a_snapshot() {
    let config = AutoscalerConfig {
        view_queue: 2,
        ..AutoscalerConfig::default()
    };
    let bench = Bench::with(policy(Isolation::Session), config);
    let mut activator = FakeActivator::new(&bench);
    for _ in 0..20 {
        bench.claim(Purpose::Initialize).await.unwrap();
    }
    activator.read_until(|a| a.known.len() == 20).await;
    // And it is told of changes again.
    let next = bench.claim(Purpose::Initialize).await.unwrap().instance.id;
    activator.read_until(|a| a.known.contains_key(&next)).await;
}

#[tokio::test(start_paused = true)]
async fn a_claim_whose_budget_passes_is_told_so_and_the_start_goes_on() {
    let bench = Bench::new(policy(Isolation::Tenant));
    bench.script([Script::ReadyAfter(Duration::from_secs(80))]);
    let failure = bench.claim(Purpose::Exchange).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::HoldTimeout);
    assert!(failure.retry_after.is_some());
    let claimed = bench.claim(Purpose::Exchange).await.unwrap();
    assert_eq!(claimed.cold.unwrap().serve, Duration::from_secs(80));
    assert_eq!(bench.launches(), 1);
}

#[tokio::test(start_paused = true)]
async fn who_waits_in_vain_hears_what_the_start_waits_for() {
    let bench = Bench::new(policy(Isolation::Tenant));
    bench.script([Script::ReadyAfter(Duration::from_secs(300))]);
    for (what, expected) in [(Some("no node has room"), true), (None, false)] {
        let told = async {
            sleep(Duration::from_secs(1)).await;
            let (id, _) = bench.runtime.world.lock().launched[0].clone();
            bench.runtime.waits(id, what).await;
        };
        let (claimed, ()) = tokio::join!(bench.claim(Purpose::Exchange), told);
        let failure = claimed.unwrap_err();
        assert_eq!(failure.kind, FailureKind::HoldTimeout);
        let says = failure.public.contains("no node has room");
        assert_eq!(says, expected, "{failure}");
    }
}
