//! Claims over the network.

use std::time::Duration;

use mcp_gateway_api::{
    failure::{Failure, FailureKind},
    scaler::Scaler,
};
use tokio::time::{Instant, timeout};

use crate::support::{Fake, Installation, Script, Wire, claimed, request, until};

const LONG: Duration = Duration::from_secs(20);

#[tokio::test]
async fn a_claim_is_answered_as_in_one_process() {
    let installation = Installation::new();
    let (fake, replica) = (Fake::new(4), installation.replica().await);
    replica.lead(&fake);
    let activator = installation.activator(&[replica.address]);

    let answer = activator.claim(request(LONG)).await;
    assert_eq!(answer, Ok(claimed(4)));
    let heard = fake.claims.lock().clone();
    assert!(heard[0].budget <= LONG && heard[0].budget > LONG / 2);
}

#[tokio::test]
async fn a_failure_passes_whole() {
    let installation = Installation::new();
    let (fake, replica) = (Fake::new(4), installation.replica().await);
    let failure = Failure::new(FailureKind::StartFailed, "It does not start.")
        .because("stderr: no such file")
        .retry_after(Duration::from_millis(1_234));
    *fake.script.lock() = Script::Answer(Box::new(Err(failure.clone())));
    replica.lead(&fake);
    let activator = installation.activator(&[replica.address]);
    assert_eq!(activator.claim(request(LONG)).await, Err(failure));
}

#[tokio::test]
async fn a_claim_is_withdrawn_when_nobody_waits_for_it_any_more() {
    let installation = Installation::new();
    let (fake, replica) = (Fake::new(4), installation.replica().await);
    *fake.script.lock() = Script::Hangs;
    replica.lead(&fake);
    let activator = installation.activator(&[replica.address]);
    {
        let claim = activator.claim(request(LONG));
        tokio::select! {
            answer = claim => panic!("answered: {answer:?}"),
            _ = until(&fake.waiting, |waiting| *waiting == 1) => {}
        }
    }
    until(&fake.waiting, |waiting| *waiting == 0).await;
}

#[tokio::test]
async fn claims_are_withdrawn_when_the_activator_is_cut_off() {
    let installation = Installation::new();
    let (fake, replica) = (Fake::new(4), installation.replica().await);
    *fake.script.lock() = Script::Hangs;
    replica.lead(&fake);
    let wire = Wire::to(replica.address).await;
    let activator = installation.activator(&[wire.address]);
    let claim = activator.claim(request(LONG));
    tokio::select! {
        answer = claim => panic!("answered: {answer:?}"),
        () = async {
            until(&fake.waiting, |waiting| *waiting == 1).await;
            wire.cut();
            until(&fake.waiting, |waiting| *waiting == 0).await;
        } => {}
    }
}

#[tokio::test]
async fn a_claim_waits_for_a_leader_as_long_as_its_budget_and_no_longer() {
    let installation = Installation::new();
    let replica = installation.replica().await;
    let activator = installation.activator(&[replica.address]);
    let begun = Instant::now();
    let refused = activator.claim(request(Duration::from_millis(300))).await;
    let refused = refused.unwrap_err();
    assert_eq!(refused.kind, FailureKind::HoldTimeout, "{refused:?}");
    assert!(begun.elapsed() >= Duration::from_millis(300));

    let fake = Fake::new(1);
    let (answer, ()) = tokio::join!(activator.claim(request(LONG)), async {
        // It asks in vain at first.
        tokio::task::yield_now().await;
        replica.lead(&fake);
    });
    assert_eq!(answer, Ok(claimed(1)));
}

#[tokio::test]
async fn a_claim_whose_connection_breaks_is_asked_again() {
    let installation = Installation::new();
    let (fake, replica) = (Fake::new(4), installation.replica().await);
    *fake.script.lock() = Script::Hangs;
    replica.lead(&fake);
    let wire = Wire::to(replica.address).await;
    let activator = installation.activator(&[wire.address]);
    let (answer, ()) = tokio::join!(activator.claim(request(LONG)), async {
        until(&fake.begun, |begun| *begun == 1).await;
        *fake.script.lock() = Script::Answer(Box::new(Ok(claimed(4))));
        wire.cut();
        wire.mend();
    });
    assert_eq!(answer, Ok(claimed(4)));
    let claims = fake.claims.lock();
    assert_eq!(claims.len(), 2);
    assert_eq!(
        claims[0].id, claims[1].id,
        "a permit that was lost is known by it"
    );
}

#[tokio::test]
async fn a_thousand_claims_wait_at_once_and_may_all_be_withdrawn_at_once() {
    let installation = Installation::new();
    let (fake, replica) = (Fake::new(4), installation.replica().await);
    *fake.script.lock() = Script::Hangs;
    replica.lead(&fake);
    let wire = Wire::to(replica.address).await;
    let activator = installation.activator(&[wire.address]);
    {
        let claims = (0..1_000).map(|_| activator.claim(request(LONG)));
        let all = futures_util::future::join_all(claims);
        tokio::select! {
            _ = all => panic!("answered"),
            _ = until(&fake.waiting, |waiting| *waiting == 1_000) => {}
        }
    }
    until(&fake.waiting, |waiting| *waiting == 0).await;
    *fake.script.lock() = Script::Answer(Box::new(Ok(claimed(4))));
    let after = timeout(LONG, activator.claim(request(LONG))).await.unwrap();
    assert_eq!(after, Ok(claimed(4)));
    let dialled = wire.dialled.load(std::sync::atomic::Ordering::Relaxed);
    assert_eq!(dialled, 1, "the connection did not outlive it");
}
