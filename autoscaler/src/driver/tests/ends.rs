//! Failures, room, edits, shutdown.

use tokio::time::Instant;

use super::*;

#[tokio::test(start_paused = true)]
async fn a_refused_launch_is_told_at_once() {
    let bench = Bench::new(policy(Isolation::Tenant));
    bench.script([Script::Refused]);
    let began = Instant::now();
    let failure = bench.claim(Purpose::Exchange).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::StartFailed);
    // What could not be launched is named by its command, which is the operator's business alone.
    assert!(
        failure.public.contains("could not be launched"),
        "{failure}"
    );
    let private = failure.private.as_deref();
    assert_eq!(private, Some("there is no such command"));
    assert!(failure.retry_after.unwrap() >= Duration::from_millis(250));
    assert!(began.elapsed() < Duration::from_millis(10));
}

#[tokio::test(start_paused = true)]
async fn a_launch_that_is_refused_for_a_reason_that_names_nothing_says_it_to_clients() {
    let bench = Bench::new(policy(Isolation::Tenant));
    bench.script([Script::NotAdmitted]);
    let failure = bench.claim(Purpose::Exchange).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::StartFailed);
    assert!(
        failure.public.ends_with(": a quota has no room for it."),
        "{failure}"
    );
    assert_eq!(failure.private.as_deref(), Some("secret detail"));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_dies_once_is_tried_again_within_the_hold() {
    let bench = Bench::new(policy(Isolation::Tenant));
    bench.script([Script::Dies(Duration::from_millis(50)), Script::Prompt]);
    let claimed = bench.claim(Purpose::Exchange).await.unwrap();
    assert_eq!(bench.launches(), 2);
    assert_eq!(claimed.standing, FRESH);
}

#[tokio::test(start_paused = true)]
async fn a_crash_loop_backs_off_and_says_when_it_is_tried_next() {
    let bench = Bench::new(policy(Isolation::Tenant));
    let dies = Script::Dies(Duration::from_millis(10));
    bench.script(std::iter::repeat_n(dies, 12));
    let mut last = Duration::ZERO;
    for n in 2..8 {
        let failure = bench.claim(Purpose::Exchange).await.unwrap_err();
        assert_eq!(failure.kind, FailureKind::StartFailed);
        assert_eq!(bench.launches(), n);
        let next = failure.retry_after.unwrap();
        assert!(next > last, "{next:?} after {last:?}");
        last = next;
    }
    let status = bench.scaler.status().await;
    assert_eq!(status.backends[0].state, "backoff");
    assert_eq!(
        status.backends[0].last_failure.as_ref().unwrap().in_a_row,
        7
    );
    assert!(status.backends[0].slots[0].next_try_ms.is_some());
    // A next try beyond the budget is not waited for.
    let short = ClaimRequest {
        budget: Duration::from_secs(1),
        ..request(Purpose::Exchange)
    };
    let began = Instant::now();
    assert_eq!(
        kind(bench.scaler.claim(short).await),
        FailureKind::StartFailed
    );
    assert!(began.elapsed() < Duration::from_millis(10));
}

#[tokio::test(start_paused = true)]
async fn a_start_that_works_ends_the_row_of_failures() {
    let bench = Bench::new(policy(Isolation::Tenant));
    let dies = Script::Dies(Duration::from_millis(10));
    bench.script([dies.clone(), dies, Script::default()]);
    bench.claim(Purpose::Exchange).await.unwrap_err();
    let in_a_row = async || {
        let status = bench.scaler.status().await;
        status.backends[0].last_failure.as_ref().unwrap().in_a_row
    };
    assert_eq!(in_a_row().await, 2);
    bench.claim(Purpose::Exchange).await.unwrap();
    assert_eq!(in_a_row().await, 0);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_never_listens_is_ended_at_its_start_timeout() {
    let bench = Bench::new(ScalingPolicy {
        start_timeout: Duration::from_secs(20),
        ..policy(Isolation::Tenant)
    });
    bench.script([Script::Hangs]);
    let began = Instant::now();
    let failure = bench.claim(Purpose::Exchange).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::StartFailed);
    assert_eq!(began.elapsed().as_secs(), 20);
    while bench.alive() > 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_dropped_claim_of_a_session_cancels_its_start_after_a_grace() {
    let bench = Bench::new(policy(Isolation::Session));
    bench.script([Script::Hangs]);
    let claim = bench.claim(Purpose::Initialize);
    assert!(
        tokio::time::timeout(Duration::from_secs(1), claim)
            .await
            .is_err()
    );
    sleep(Duration::from_secs(3)).await;
    assert_eq!(bench.alive(), 1);
    sleep(Duration::from_secs(3)).await;
    assert_eq!(bench.alive(), 0);
    assert_eq!(bench.scaler.status().await.backends[0].failures, 0);
}

#[tokio::test(start_paused = true)]
async fn room_is_bounded_for_each_backend_and_in_the_whole() {
    let few = ScalingPolicy {
        max_slots: 2,
        ..policy(Isolation::Session)
    };
    let bench = Bench::new(few);
    bench.claim(Purpose::Initialize).await.unwrap();
    bench.claim(Purpose::Initialize).await.unwrap();
    let failure = bench.claim(Purpose::Initialize).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Capacity);
    assert!(failure.retry_after.is_some());
    let config = AutoscalerConfig {
        max_instances: 1,
        ..AutoscalerConfig::default()
    };
    let bench = Bench::with(policy(Isolation::Session), config);
    bench.claim(Purpose::Initialize).await.unwrap();
    assert_eq!(
        kind(bench.claim(Purpose::Initialize).await),
        FailureKind::Capacity
    );
    // The first one idles out and makes room.
    sleep(Duration::from_secs(61)).await;
    bench.claim(Purpose::Initialize).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_edited_backend_gets_a_successor_beside_the_old_instance() {
    let bench = Bench::new(policy(Isolation::Tenant));
    let mut activator = FakeActivator::new(&bench);
    let old = bench.claim(Purpose::Exchange).await.unwrap().instance;
    activator
        .read_until(|a| a.known.contains_key(&old.id))
        .await;
    activator.lease(old.id, 1).await;
    bench
        .catalog
        .send_replace(catalog_of([backend(2, policy(Isolation::Tenant))]));
    activator
        .read_until(|a| a.known[&old.id].service == Service::RetireDrain)
        .await;
    let new = bench.claim(Purpose::Exchange).await.unwrap().instance;
    assert_ne!(new.id, old.id);
    assert_eq!(new.generation, Generation(2));
    // No deadline: an hour later the old one still serves its lease.
    activator.lease(new.id, 1).await;
    sleep(Duration::from_secs(3_600)).await;
    assert_eq!(bench.alive(), 2);
    activator.leases.insert(old.id, 0);
    activator.acknowledge(old.id).await;
    activator.read_until(|a| a.gone == [old.id]).await;
}

#[tokio::test(start_paused = true)]
async fn a_removed_backend_is_cut_after_its_drain_timeout_and_its_waiters_are_told() {
    let bench = Bench::new(policy(Isolation::Tenant));
    let mut activator = FakeActivator::new(&bench);
    let old = bench.claim(Purpose::Exchange).await.unwrap().instance;
    activator
        .read_until(|a| a.known.contains_key(&old.id))
        .await;
    activator.lease(old.id, 1).await;
    let began = Instant::now();
    bench.catalog.send_replace(catalog_of([]));
    activator
        .read_until(|a| a.known[&old.id].service == Service::Cut)
        .await;
    assert_eq!(began.elapsed().as_secs(), 30);
    activator.leases.insert(old.id, 0);
    activator.acknowledge(old.id).await;
    activator.read_until(|a| a.gone == [old.id]).await;
    assert_eq!(
        kind(bench.claim(Purpose::Exchange).await),
        FailureKind::UnknownBackend
    );
}

#[tokio::test(start_paused = true)]
async fn a_policy_takes_hold_without_retiring_anything() {
    let bench = Bench::new(policy(Isolation::Tenant));
    let mut activator = FakeActivator::new(&bench);
    bench.claim(Purpose::Exchange).await.unwrap();
    let began = Instant::now();
    let quick = ScalingPolicy {
        idle_timeout: Duration::from_secs(2),
        ..policy(Isolation::Tenant)
    };
    bench.catalog.send_replace(catalog_of([backend(1, quick)]));
    activator.read_until(|a| !a.gone.is_empty()).await;
    assert_eq!(began.elapsed().as_secs(), 2);
}

#[tokio::test(start_paused = true)]
async fn shutdown_tells_who_waits_drains_cuts_and_ends_everything() {
    let bench = Bench::new(policy(Isolation::Session));
    let mut activator = FakeActivator::new(&bench);
    let busy = bench.claim(Purpose::Initialize).await.unwrap().instance.id;
    activator.read_until(|a| a.known.contains_key(&busy)).await;
    activator.lease(busy, 1).await;
    bench.script([Script::Hangs]);
    let scaler = bench.scaler.clone();
    let waiting = tokio::spawn(async move { scaler.claim(request(Purpose::Initialize)).await });
    while bench.launches() < 2 {
        tokio::task::yield_now().await;
    }
    let Bench {
        handle, runtime, ..
    } = bench;
    let began = Instant::now();
    let stop = tokio::spawn(handle.shutdown(Duration::from_secs(10)));
    assert_eq!(kind(waiting.await.unwrap()), FailureKind::ShuttingDown);
    activator
        .read_until(|a| a.known[&busy].service == Service::Cut)
        .await;
    assert_eq!(stop.await.unwrap(), Ok(()));
    assert!(began.elapsed() < Duration::from_secs(10));
    assert!(runtime.world.lock().alive.is_empty());
}
