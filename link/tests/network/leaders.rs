//! Leaders that change, and views that follow them.

use std::time::Duration;

use mcp_gateway_api::{
    failure::{Failure, FailureKind},
    ids::{ActivatorId, InstanceId},
    scaler::{PodUid, Scaler},
    view::{Lookup, ViewEvent},
};
use mcp_gateway_link::Lead;

use crate::support::{
    Fake, Installation, Script, Wire, claimed, next, request, term_of, until, view_of,
};

const LONG: Duration = Duration::from_secs(20);
const ME: ActivatorId = ActivatorId(5);

#[tokio::test]
async fn the_leader_is_found_by_the_name_that_another_replica_gives() {
    let installation = Installation::new();
    let (fake, leader, other) = (
        Fake::new(2),
        installation.replica().await,
        installation.replica().await,
    );
    leader.lead(&fake);
    other
        .lead
        .send_replace(Lead::Elsewhere(Some(leader.address)));
    let activator = installation.activator(&[other.address]);
    assert_eq!(activator.claim(request(LONG)).await, Ok(claimed(2)));
}

#[tokio::test]
async fn a_waiting_claim_moves_to_the_next_leader() {
    let installation = Installation::new();
    let (one, two) = (installation.replica().await, installation.replica().await);
    let (old, new) = (Fake::new(1), Fake::new(2));
    *old.script.lock() = Script::Hangs;
    one.lead(&old);
    let activator = installation.activator(&[one.address, two.address]);
    let (answer, ()) = tokio::join!(activator.claim(request(LONG)), async {
        until(&old.waiting, |waiting| *waiting == 1).await;
        one.lead.send_replace(Lead::Elsewhere(None));
        until(&old.waiting, |waiting| *waiting == 0).await;
        two.lead(&new);
    });
    assert_eq!(answer, Ok(claimed(2)));
}

#[tokio::test]
async fn a_leader_that_is_stopping_is_none_and_its_successor_answers() {
    let installation = Installation::new();
    let (one, two) = (installation.replica().await, installation.replica().await);
    let (old, new) = (Fake::new(1), Fake::new(2));
    let stopping = Failure::new(FailureKind::ShuttingDown, "The gateway is shutting down.");
    *old.script.lock() = Script::Answer(Box::new(Err(stopping)));
    one.lead(&old);
    let activator = installation.activator(&[one.address, two.address]);
    let (answer, ()) = tokio::join!(activator.claim(request(LONG)), async {
        until(&old.begun, |begun| *begun > 0).await;
        one.lead.send_replace(Lead::Elsewhere(Some(two.address)));
        two.lead(&new);
    });
    assert_eq!(answer, Ok(claimed(2)));
}

#[tokio::test]
async fn the_view_follows_the_leader_and_begins_again_with_a_snapshot() {
    let installation = Installation::new();
    let (one, two) = (installation.replica().await, installation.replica().await);
    let (old, new) = (Fake::new(1), Fake::new(2));
    one.lead(&old);
    let activator = installation.activator(&[one.address, two.address]);
    let mut view = activator.subscribe(ME);
    assert_eq!(term_of(&next(&mut view).await), Some(1));

    let listeners = until(&old.views, |views| views.len() == 1).await;
    let (who, pod, said) = &listeners[0];
    assert_eq!((*who, pod.map(|pod| pod.uid)), (ME, Some(PodUid(77))));
    said.send(ViewEvent::Instance(view_of(1, 2))).await.unwrap();
    let change = next(&mut view).await;
    assert!(matches!(change, ViewEvent::Instance(view) if view == view_of(1, 2)));

    one.lead.send_replace(Lead::Elsewhere(None));
    two.lead(&new);
    assert_eq!(term_of(&next(&mut view).await), Some(2));
    // The old leader's view was let go of.
    said.closed().await;
}

#[tokio::test]
async fn a_leader_of_a_lower_term_than_the_highest_heard_of_is_not_believed() {
    let installation = Installation::new();
    let (one, two) = (installation.replica().await, installation.replica().await);
    let (old, new) = (Fake::new(1), Fake::new(2));
    two.lead(&new);
    let wire = Wire::to(two.address).await;
    let activator = installation.activator(&[one.address, wire.address]);
    let mut view = activator.subscribe(ME);
    assert_eq!(term_of(&next(&mut view).await), Some(2));

    // The new leader is cut off, and a replica that does not know it was deposed takes its place.
    one.lead(&old);
    wire.cut();
    let refused = activator.claim(request(Duration::from_millis(400))).await;
    assert_eq!(refused.unwrap_err().kind, FailureKind::HoldTimeout);
    assert_eq!(old.claims.lock().len(), 0);
    assert_eq!(activator.lookup(InstanceId(1)).await, Lookup::Unknown);

    wire.mend();
    assert_eq!(term_of(&next(&mut view).await), Some(2));
    assert_eq!(activator.claim(request(LONG)).await, Ok(claimed(2)));
    assert!(old.views.borrow().is_empty());
}

#[tokio::test]
async fn a_broken_connection_is_followed_by_a_new_snapshot() {
    let installation = Installation::new();
    let (fake, replica) = (Fake::new(3), installation.replica().await);
    replica.lead(&fake);
    let wire = Wire::to(replica.address).await;
    let activator = installation.activator(&[wire.address]);
    let mut view = activator.subscribe(ME);
    next(&mut view).await;
    wire.cut();
    let listeners = until(&fake.views, |views| views.len() == 1).await;
    listeners[0].2.closed().await;
    wire.mend();
    assert_eq!(term_of(&next(&mut view).await), Some(3));
}

#[tokio::test]
async fn a_reader_that_goes_ends_its_subscription() {
    let installation = Installation::new();
    let (fake, replica) = (Fake::new(3), installation.replica().await);
    replica.lead(&fake);
    let activator = installation.activator(&[replica.address]);
    let mut view = activator.subscribe(ME);
    next(&mut view).await;
    drop(view);
    let listeners = until(&fake.views, |views| views.len() == 1).await;
    listeners[0].2.closed().await;
}

#[tokio::test]
async fn lookups_tell_ready_from_gone_and_unknown_while_nobody_answers() {
    let installation = Installation::new();
    let (fake, replica) = (Fake::new(3), installation.replica().await);
    let mut config = installation.config();
    config.lookup = Duration::from_millis(200);
    let (_, addresses) = tokio::sync::watch::channel(vec![replica.address]);
    let activator = mcp_gateway_link::RemoteScaler::connect(config, addresses).unwrap();
    assert_eq!(activator.lookup(InstanceId(1)).await, Lookup::Unknown);
    replica.lead(&fake);
    // On a busy machine an answer may take longer than that.
    let mut config = installation.config();
    config.lookup = LONG;
    let (_, addresses) = tokio::sync::watch::channel(vec![replica.address]);
    let activator = mcp_gateway_link::RemoteScaler::connect(config, addresses).unwrap();
    assert_eq!(
        activator.lookup(InstanceId(1)).await,
        Lookup::Ready(view_of(3, 1))
    );
    assert_eq!(activator.lookup(InstanceId(2)).await, Lookup::Gone);
}
