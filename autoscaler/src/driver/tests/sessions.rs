//! Initialize, sessions, revival, records.

use super::*;

#[tokio::test(start_paused = true)]
async fn under_session_isolation_each_initialize_gets_an_instance_of_its_own() {
    let bench = Bench::new(policy(Isolation::Session));
    let first = bench.claim(Purpose::Initialize).await.unwrap();
    let second = bench.claim(Purpose::Initialize).await.unwrap();
    assert_ne!(first.instance.id, second.instance.id);
    assert_ne!(first.session, second.session);
    assert!(first.session.is_some());
}

#[tokio::test(start_paused = true)]
async fn an_initialize_that_ran_out_of_time_is_found_again_by_its_retry() {
    let bench = Bench::new(policy(Isolation::Session));
    bench.script([Script::ReadyAfter(Duration::from_secs(70))]);
    assert_eq!(
        kind(bench.claim(Purpose::Initialize).await),
        FailureKind::HoldTimeout
    );
    sleep(Duration::from_secs(5)).await;
    bench.claim(Purpose::Initialize).await.unwrap();
    assert_eq!(bench.launches(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_start_made_for_a_probe_serves_the_same_owners_initialize() {
    let bench = Bench::new(policy(Isolation::Session));
    let probed = bench.claim(Purpose::Probe).await.unwrap().instance;
    let claimed = bench.claim(Purpose::Initialize).await.unwrap();
    assert_eq!(claimed.instance.id, probed.id);
    assert_ne!(claimed.instance.slot, probed.slot);
    assert!(claimed.instance.stamp > probed.stamp);
    // An exchange without session gets its own.
    let modern = bench.claim(Purpose::Exchange).await.unwrap().instance;
    assert_ne!(modern.id, probed.id);
    // And that one, which served more than probes, is nobody's for an initialize.
    let next = bench.claim(Purpose::Initialize).await.unwrap().instance;
    assert_ne!(next.id, modern.id);
}

#[tokio::test(start_paused = true)]
async fn an_initialize_that_overtakes_the_start_for_its_probe_shares_it() {
    let bench = Bench::new(policy(Isolation::Session));
    bench.script([Script::ReadyAfter(Duration::from_secs(1))]);
    let scaler = bench.scaler.clone();
    let probe = tokio::spawn(async move { scaler.claim(request(Purpose::Probe)).await });
    while bench.launches() < 1 {
        tokio::task::yield_now().await;
    }
    let claimed = bench.claim(Purpose::Initialize).await.unwrap();
    let probed = probe.await.unwrap().unwrap();
    assert_eq!(claimed.instance.id, probed.instance.id);
    assert_eq!(bench.launches(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_session_on_a_ready_instance_is_just_served() {
    let bench = Bench::new(policy(Isolation::Tenant));
    let home = bench.claim(Purpose::Initialize).await.unwrap().instance.id;
    let claimed = bench.claim(of_session(1, Some(home))).await.unwrap();
    assert_eq!(claimed.instance.id, home);
    assert_eq!(claimed.standing, FRESH);
}

#[tokio::test(start_paused = true)]
async fn a_lost_session_is_revived_by_one_and_the_others_wait_for_it() {
    let bench = Bench::new(policy(Isolation::Tenant));
    let lost = Some(InstanceId(7));
    let first = bench.claim(of_session(1, lost)).await.unwrap();
    assert_eq!(first.standing, Standing::Revive);
    let scaler = bench.scaler.clone();
    let second = tokio::spawn(async move { scaler.claim(request(of_session(1, lost))).await });
    // Another session is not held up by it.
    let other = bench.claim(of_session(2, lost)).await.unwrap();
    assert_eq!(other.standing, Standing::Revive);
    assert!(!second.is_finished());
    let home = binding(first.instance.id, "new");
    let update = news(1, SessionNews::Revived(home.clone()));
    bench.scaler.record(update).await.unwrap();
    let second = second.await.unwrap().unwrap();
    assert_eq!(second.standing, Standing::Bound(home.clone()));
    // Whoever still believes the old home is told the new one.
    let third = bench.claim(of_session(1, lost)).await.unwrap();
    assert_eq!(third.standing, Standing::Bound(home));
    assert_eq!(bench.launches(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_failed_revival_is_tried_by_the_next_or_ends_the_session() {
    let bench = Bench::new(policy(Isolation::Tenant));
    bench.claim(of_session(1, None)).await.unwrap();
    let scaler = bench.scaler.clone();
    let second = tokio::spawn(async move { scaler.claim(request(of_session(1, None))).await });
    tokio::task::yield_now().await;
    let again = news(1, SessionNews::RevivalFailed { retry: true });
    bench.scaler.record(again).await.unwrap();
    assert_eq!(second.await.unwrap().unwrap().standing, Standing::Revive);
    let end = news(1, SessionNews::RevivalFailed { retry: false });
    bench.scaler.record(end).await.unwrap();
    assert_eq!(
        kind(bench.claim(of_session(1, None)).await),
        FailureKind::SessionGone
    );
}

#[tokio::test(start_paused = true)]
async fn a_permit_that_is_not_used_goes_to_the_next() {
    let bench = Bench::new(policy(Isolation::Tenant));
    bench.claim(of_session(1, None)).await.unwrap();
    let patient = ClaimRequest {
        budget: Duration::from_secs(90),
        ..request(of_session(1, None))
    };
    let began = tokio::time::Instant::now();
    let second = bench.scaler.claim(patient).await.unwrap();
    assert_eq!(second.standing, Standing::Revive);
    assert_eq!(began.elapsed().as_secs(), 60);
}

/// Its answer was lost with a connection, and so was the permit in it.
#[tokio::test(start_paused = true)]
async fn a_claim_that_is_asked_again_is_given_its_permit_again_and_nobody_else_is() {
    let bench = Bench::new(policy(Isolation::Tenant));
    let began = tokio::time::Instant::now();
    let claim = request(of_session(1, None));
    for _ in 0..2 {
        let claimed = bench.scaler.claim(claim.clone()).await.unwrap();
        assert_eq!(claimed.standing, Standing::Revive);
    }
    assert!(began.elapsed().as_secs() < 1);
    let patient = ClaimRequest {
        budget: Duration::from_secs(90),
        ..request(of_session(1, None))
    };
    let other = bench.scaler.claim(patient).await.unwrap();
    assert_eq!(other.standing, Standing::Revive);
    assert_eq!(began.elapsed().as_secs(), 60);
}

/// The first answer comes back undelivered only when the second has been given.
#[tokio::test(start_paused = true)]
async fn an_answer_that_comes_back_late_does_not_take_the_permit_that_was_given_again() {
    let bench = Bench::new(policy(Isolation::Tenant));
    let claim = request(of_session(1, None));
    let mut first = Box::pin(bench.scaler.claim(claim.clone()));
    tokio::select! {
        biased;
        _ = first.as_mut() => panic!("nothing runs yet"),
        () = std::future::ready(()) => {}
    }
    // Answered by then, and read by nobody.
    sleep(Duration::from_secs(1)).await;
    let again = bench.scaler.claim(claim).await.unwrap();
    assert_eq!(again.standing, Standing::Revive);
    drop(first);
    let short = ClaimRequest {
        budget: Duration::from_secs(5),
        ..request(of_session(1, None))
    };
    let other = bench.scaler.claim(short).await;
    assert_eq!(kind(other), FailureKind::HoldTimeout);
}

#[tokio::test(start_paused = true)]
async fn under_expire_a_lost_session_is_gone() {
    let bench = Bench::new(ScalingPolicy {
        on_idle: EXPIRE,
        ..policy(Isolation::Tenant)
    });
    let home = bench.claim(Purpose::Initialize).await.unwrap().instance.id;
    bench.claim(of_session(1, Some(home))).await.unwrap();
    let mut activator = FakeActivator::new(&bench);
    activator.read().await;
    bench.runtime.crash(home).await;
    activator.read_until(|a| a.gone == [home]).await;
    let answer = bench.claim(of_session(1, Some(home))).await;
    assert_eq!(kind(answer), FailureKind::SessionGone);
    assert_eq!(bench.launches(), 1);
}

#[tokio::test(start_paused = true)]
async fn under_expire_an_ended_mark_goes_with_the_last_instance_of_its_slot() {
    let bench = Bench::new(ScalingPolicy {
        on_idle: EXPIRE,
        ..policy(Isolation::Tenant)
    });
    let mut activator = FakeActivator::new(&bench);
    let home = bench.claim(Purpose::Initialize).await.unwrap().instance.id;
    let ended = news(1, SessionNews::Ended);
    bench.scaler.record(ended.clone()).await.unwrap();
    assert_eq!(bench.scaler.status().await.session_records, 1);
    let answer = bench.claim(of_session(1, Some(home))).await;
    assert_eq!(kind(answer), FailureKind::SessionGone);
    activator.read_until(|a| a.gone == [home]).await;
    while bench.scaler.status().await.session_records > 0 {
        tokio::task::yield_now().await;
    }
    // And what ends when nothing runs needs no mark at all.
    bench.scaler.record(ended).await.unwrap();
    assert_eq!(bench.scaler.status().await.session_records, 0);
    let answer = bench.claim(of_session(1, Some(home))).await;
    assert_eq!(kind(answer), FailureKind::SessionGone);
}

#[tokio::test(start_paused = true)]
async fn an_ended_session_is_gone_and_its_own_instance_goes_without_waiting() {
    let bench = Bench::new(policy(Isolation::Session));
    let mut activator = FakeActivator::new(&bench);
    let claimed = bench.claim(Purpose::Initialize).await.unwrap();
    let ended = SessionRef {
        key: claimed.session.unwrap(),
        ..session(0)
    };
    for news in [SessionNews::Opened(claimed.instance.id), SessionNews::Ended] {
        let session = ended.clone();
        bench
            .scaler
            .record(SessionUpdate { session, news })
            .await
            .unwrap();
    }
    let began = tokio::time::Instant::now();
    activator.read_until(|a| !a.gone.is_empty()).await;
    assert!(began.elapsed() < Duration::from_secs(1));
    let purpose = Purpose::Session {
        session: ended,
        bound: Some(claimed.instance.id),
    };
    assert_eq!(kind(bench.claim(purpose).await), FailureKind::SessionGone);
}

#[tokio::test(start_paused = true)]
async fn a_session_asleep_is_revived_though_its_instance_still_runs() {
    let bench = Bench::new(policy(Isolation::Tenant));
    let home = bench.claim(Purpose::Initialize).await.unwrap().instance.id;
    bench
        .scaler
        .record(news(1, SessionNews::Asleep))
        .await
        .unwrap();
    let claimed = bench.claim(of_session(1, Some(home))).await.unwrap();
    assert_eq!(claimed.standing, Standing::Revive);
    assert_eq!(claimed.instance.id, home);
}

#[tokio::test]
async fn records_are_there_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let config = AutoscalerConfig {
        record_dir: Some(folder.path().join("sessions")),
        ..AutoscalerConfig::default()
    };
    let bench = Bench::with(policy(Isolation::Tenant), config.clone());
    bench
        .scaler
        .record(news(1, SessionNews::Ended))
        .await
        .unwrap();
    let level = SessionNews::LogLevel("debug".into());
    bench.scaler.record(news(2, level)).await.unwrap();
    drop(bench);
    let bench = Bench::with(policy(Isolation::Tenant), config);
    assert_eq!(
        kind(bench.claim(of_session(1, None)).await),
        FailureKind::SessionGone
    );
    let mut events = bench.scaler.subscribe(ActivatorId::random());
    let Some(ViewEvent::Snapshot { records, .. }) = events.recv().await else {
        panic!("a snapshot is first");
    };
    let levels: Vec<_> = records.iter().filter_map(|r| r.log_level.clone()).collect();
    assert_eq!(levels, ["debug"]);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_issues_no_id_keeps_the_instance_of_the_handshake_for_its_principal() {
    let bench = Bench::new(policy(Isolation::Session));
    let opened = bench.claim(Purpose::Initialize).await.unwrap();
    let key = opened.session.unwrap();
    let update = SessionUpdate {
        session: SessionRef { key, ..session(0) },
        news: SessionNews::Sessionless(request(Purpose::Exchange).principal),
    };
    bench.scaler.record(update).await.unwrap();
    let exchange = bench.claim(Purpose::Exchange).await.unwrap();
    assert_eq!(exchange.instance.id, opened.instance.id);
    // What is learned of the server spares the next handshake an instance of its own.
    let again = bench.claim(Purpose::Initialize).await.unwrap();
    assert_eq!(again.instance.id, opened.instance.id);
    assert_eq!(bench.launches(), 1);
}
