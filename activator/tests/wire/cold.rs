//! Exchanges that find no instance: held, released in order, refused when it lasts too long or too many wait.

use std::{sync::atomic::Ordering, time::Duration};

use mcp_gateway_api::{
    claim::Purpose,
    failure::{Failure, FailureKind},
};

use crate::support::{INITIALIZE, Setup, World, call};

fn short_hold(ms: u64) -> Setup {
    let mut setup = Setup::default();
    setup.policy.hold_timeout = Duration::from_millis(ms);
    setup
}

#[tokio::test]
async fn a_first_initialize_is_held_until_the_instance_is_there() {
    let world = World::new().await;
    world.scaler.hold_claims();
    let client = world.client.clone();
    let waiting = tokio::spawn(async move { client.post(INITIALIZE, &[]).await });
    world
        .until("a claim", || world.scaler.claims().len() == 1)
        .await;
    assert!(matches!(
        world.scaler.claims()[0].purpose,
        Purpose::Initialize
    ));
    assert_eq!(world.activator.waiting(), 1);
    assert!(world.upstream.seen().is_empty());
    world.scaler.release_claims();
    let answer = waiting.await.unwrap();
    assert_eq!(answer.status, 200);
    assert!(
        answer
            .header("server-timing")
            .unwrap()
            .starts_with("hold;dur="),
        "says what it waited for"
    );
    assert_eq!(world.activator.waiting(), 0);
}

#[tokio::test]
async fn a_hold_that_lasts_too_long_is_503_with_the_requests_id() {
    let world = World::with(short_hold(50)).await;
    world.scaler.hold_claims();
    let answer = world.client.post(INITIALIZE, &[]).await;
    assert_eq!(answer.status, 503);
    assert_eq!(answer.header("retry-after"), Some("3"));
    let body = answer.json();
    assert_eq!(body["error"]["code"].as_i64(), Some(-31_503));
    assert_eq!(body["id"].as_i64(), Some(0));
    assert_eq!(body["jsonrpc"], "2.0");
}

#[tokio::test]
async fn a_failed_start_is_told_without_its_private_cause() {
    let world = World::new().await;
    let failure = Failure::new(FailureKind::StartFailed, "The server exited with code 3.")
        .because("stderr: secret token")
        .retry_after(Duration::from_secs(7));
    world.scaler.fail_claims(failure);
    let answer = world.client.post(INITIALIZE, &[]).await;
    assert_eq!(
        (answer.status, answer.header("retry-after")),
        (503, Some("7"))
    );
    assert!(answer.text().contains("exited with code 3") && !answer.text().contains("secret"));
}

#[tokio::test]
async fn more_than_may_wait_are_refused_and_the_others_served() {
    let mut setup = Setup::default();
    setup.policy.max_pending = 2;
    let world = World::with(setup).await;
    world.scaler.hold_claims();
    let mut waiting = Vec::new();
    for n in 1..=2 {
        let client = world.client.clone();
        waiting.push(tokio::spawn(
            async move { client.post(INITIALIZE, &[]).await },
        ));
        world
            .until("it waits", || world.activator.waiting() == n)
            .await;
    }
    let answer = world.client.post(INITIALIZE, &[]).await;
    assert_eq!(answer.status, 503);
    assert_eq!(answer.json()["error"]["code"].as_i64(), Some(-31_501));
    assert!(answer.header("retry-after").is_some());
    world.scaler.release_claims();
    for one in waiting {
        assert_eq!(one.await.unwrap().status, 200);
    }
}

#[tokio::test]
async fn bytes_that_wait_are_bounded_too() {
    let mut setup = Setup::default();
    setup.policy.max_pending_bytes = 100;
    let world = World::with(setup).await;
    let answer = world.client.post(INITIALIZE, &[]).await;
    assert_eq!(answer.json()["error"]["code"].as_i64(), Some(-31_501));
}

#[tokio::test]
async fn a_waiter_whose_client_left_never_reaches_the_instance() {
    let world = World::new().await;
    world.scaler.hold_claims();
    let raw = world.client.post_raw(INITIALIZE, &[]).await;
    world
        .until("a claim", || world.scaler.claims().len() == 1)
        .await;
    drop(raw);
    world
        .until("the claim is withdrawn", || {
            world.scaler.withdrawn.load(Ordering::SeqCst) == 1
        })
        .await;
    assert_eq!(world.activator.waiting(), 0);
    world.scaler.release_claims();
    world.open().await;
    assert_eq!(
        world.upstream.methods(),
        ["initialize", "notifications/initialized"]
    );
}

#[tokio::test]
async fn a_session_goes_on_in_the_order_in_which_its_exchanges_came() {
    let mut setup = Setup::default();
    // Only an answer releases the next, so that the order of arrival can be seen through several connections.
    setup.config.settle = Duration::from_secs(60);
    let world = World::with(setup).await;
    let id = world.open().await;
    world.scaler.lose();
    world.upstream.forget_sessions();
    world.scaler.hold_claims();
    let mut waiting = Vec::new();
    for n in 1..=8 {
        let (client, id) = (world.client.clone(), id.clone());
        waiting.push(tokio::spawn(async move {
            client
                .post(&call(n, "echo"), &[("mcp-session-id", &id)])
                .await
        }));
        world
            .until("it waits", || world.activator.waiting() == n)
            .await;
    }
    world.scaler.release_claims();
    for one in waiting {
        assert_eq!(one.await.unwrap().status, 200);
    }
    assert_eq!(world.upstream.calls(), (1..=8).collect::<Vec<u64>>());
    assert_eq!(
        world.scaler.starts.load(Ordering::SeqCst),
        2,
        "one start for all of them"
    );
}

#[tokio::test]
async fn a_waiter_that_its_client_cancels_never_reaches_the_instance() {
    let world = World::new().await;
    let id = world.open().await;
    world.scaler.lose();
    world.upstream.forget_sessions();
    world.scaler.hold_claims();
    let mut waiting = Vec::new();
    for n in 1..=3 {
        let (client, id) = (world.client.clone(), id.clone());
        waiting.push(tokio::spawn(async move {
            client
                .post(&call(n, "echo"), &[("mcp-session-id", &id)])
                .await
        }));
        world
            .until("it waits", || world.activator.waiting() == n)
            .await;
    }
    let cancel = r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":2}}"#;
    assert_eq!(
        world
            .client
            .post(cancel, &[("mcp-session-id", &id)])
            .await
            .status,
        202
    );
    world
        .until("two wait", || world.activator.waiting() == 2)
        .await;
    world.scaler.release_claims();
    let mut statuses = Vec::new();
    for one in waiting {
        statuses.push(one.await.unwrap().status);
    }
    assert_eq!(statuses, [200, 202, 200]);
    assert_eq!(world.upstream.calls(), [1, 3]);
    assert!(
        !world
            .upstream
            .methods()
            .contains(&"notifications/cancelled".to_owned())
    );
}

/// A batch is answered whole or not at all: one request of it cannot be called off here without the others.
#[tokio::test]
async fn a_held_batch_of_which_one_request_is_cancelled_goes_whole_and_the_cancellation_after_it() {
    let world = World::new().await;
    *world.upstream.inner.revision.lock() = Some("2025-03-26");
    let id = world.open().await;
    world.scaler.lose();
    world.upstream.forget_sessions();
    world.scaler.hold_claims();
    let batch = format!(
        "[{}, {}, {}]",
        call(1, "echo"),
        call(2, "echo"),
        call(3, "echo")
    );
    let post = |body: String| {
        let (client, id) = (world.client.clone(), id.clone());
        tokio::spawn(async move { client.post(&body, &[("mcp-session-id", &id)]).await })
    };
    let waiting = post(batch.clone());
    world
        .until("it waits", || world.activator.waiting() == 1)
        .await;
    let cancel = r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":2}}"#;
    let mut cancelling = post(cancel.to_owned());
    let early = tokio::time::timeout(Duration::from_millis(200), &mut cancelling).await;
    assert!(early.is_err(), "it comes after the batch, and waits too");
    assert_eq!(world.activator.waiting(), 1, "the batch is not called off");
    world.scaler.release_claims();
    let answer = waiting.await.unwrap();
    assert_eq!(answer.json().as_array().map(Vec::len), Some(3));
    assert_eq!(cancelling.await.unwrap().status, 202);
    let seen = world.upstream.seen();
    let at = |body: &str| seen.iter().position(|one| one.body == body.as_bytes());
    assert!(at(&batch).is_some() && at(&batch) < at(cancel), "{seen:?}");
}

#[tokio::test]
async fn what_wakes_nothing_is_answered_while_asleep() {
    let world = World::new().await;
    let id = world.open().await;
    world.scaler.lose();
    let claims = world.scaler.claims().len();
    let seen = world.upstream.seen().len();
    let session = [("mcp-session-id", id.as_str())];
    let ping = world
        .client
        .post(r#"{"jsonrpc":"2.0","id":"p","method":"ping"}"#, &session)
        .await;
    assert_eq!(
        (ping.status, ping.text()),
        (200, r#"{"jsonrpc":"2.0","id":"p","result":{}}"#)
    );
    for silent in [
        r#"{"jsonrpc":"2.0","method":"notifications/roots/list_changed"}"#,
        r#"{"jsonrpc":"2.0","id":3,"result":{}}"#,
        r#"[{"jsonrpc":"2.0","method":"notifications/initialized"}]"#,
    ] {
        let answer = world.client.post(silent, &session).await;
        assert_eq!((answer.status, answer.body.len()), (202, 0));
    }
    assert_eq!(
        (world.scaler.claims().len(), world.upstream.seen().len()),
        (claims, seen)
    );
}

#[tokio::test]
async fn a_claim_brings_a_draining_instance_back() {
    use mcp_gateway_api::view::Service;
    let world = World::new().await;
    let id = world.open().await;
    world.scaler.service(Service::IdleDrain);
    world
        .until("the drain is acknowledged", || {
            world.scaler.acks().iter().any(|ack| ack.leases == 0)
        })
        .await;
    let answer = world
        .client
        .post(&call(1, "echo"), &[("mcp-session-id", &id)])
        .await;
    assert_eq!(answer.status, 200);
    assert_eq!(
        world.scaler.starts.load(Ordering::SeqCst),
        1,
        "the same instance"
    );
    let last = world.scaler.claims().pop().unwrap();
    assert!(matches!(
        last.purpose,
        Purpose::Session { bound: Some(_), .. }
    ));
}
