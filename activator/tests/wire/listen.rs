//! Streams that outlive instances: the modern `subscriptions/listen`.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use mcp_gateway_api::{catalog::Catalog, scaler::Scaler, view::Service};

use crate::{
    streams::talking,
    support::{PATIENCE, Setup, World, client::Coming, talker::Talker},
};

const META: &str = r#""_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}"#;

async fn listening() -> (World, Talker, Coming) {
    listening_with(Setup::default()).await
}

async fn listening_with(setup: Setup) -> (World, Talker, Coming) {
    let (world, talker) = talking(setup).await;
    let body = format!(
        r#"{{"jsonrpc":"2.0","id":"sub-1","method":"subscriptions/listen","params":{{"notifications":{{}},{META}}}}}"#
    );
    let request = world.client.posting(&body, &modern("subscriptions/listen"));
    let mut stream = world.client.begin(request).await;
    assert_eq!(stream.status, 200);
    stream.until("acknowledged").await;
    (world, talker, stream)
}

fn modern(method: &'static str) -> [(&'static str, &'static str); 2] {
    [
        ("mcp-protocol-version", "2026-07-28"),
        ("mcp-method", method),
    ]
}

/// Some other modern exchange.
async fn list(world: &World) {
    let body = format!(r#"{{"jsonrpc":"2.0","id":2,"method":"tools/list","params":{{{META}}}}}"#);
    let answer = world.client.post(&body, &modern("tools/list")).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
}

fn listens(talker: &Talker) -> usize {
    let methods = talker.methods();
    methods
        .iter()
        .filter(|method| *method == "subscriptions/listen")
        .count()
}

const NOTE: &str =
    "data: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/tools/list_changed\"}\n\n";
const COMPLETION: &str = "event: message\ndata: {\"jsonrpc\":\"2.0\",\"id\":\"sub-1\",\"result\":{\"resultType\":\"complete\",\"_meta\":{\"io.modelcontextprotocol/subscriptionId\":\"sub-1\"}}}\n\n";

#[tokio::test]
async fn a_first_listen_wakes_and_holds_no_lease() {
    let (world, talker, mut stream) = listening().await;
    assert_eq!(world.scaler.claims().len(), 1);
    world
        .until("no lease is left", || world.scaler.leases() == Some(0))
        .await;
    talker.say(NOTE);
    stream.until(NOTE).await;
}

#[tokio::test]
async fn a_lost_instance_parks_it_and_the_next_wake_listens_again_with_one_acknowledgement() {
    let (world, talker, mut stream) = listening().await;
    world.scaler.lose();
    world
        .until("the upstream stream is closed", || talker.open() == 0)
        .await;
    stream.until(":\n\n:\n\n").await;
    assert_eq!(world.scaler.claims().len(), 1);
    list(&world).await;
    world
        .until("listened again", || {
            listens(&talker) == 2 && talker.open() == 1
        })
        .await;
    talker.say(NOTE);
    let seen = stream.until(NOTE).await;
    assert_eq!(seen.matches("acknowledged").count(), 1, "{seen}");
    let bodies: Vec<_> = talker
        .seen()
        .into_iter()
        .filter(|s| s.rpc_method().as_deref() == Some("subscriptions/listen"))
        .map(|s| s.body)
        .collect();
    assert_eq!(bodies[0], bodies[1]);
}

#[tokio::test]
async fn a_drain_parks_it_and_its_withdrawal_attaches_it_again() {
    let (world, talker, mut stream) = listening().await;
    world.scaler.service(Service::IdleDrain);
    world
        .until("the upstream stream is closed", || talker.open() == 0)
        .await;
    world.scaler.service(Service::Open);
    world.until("listened again", || talker.open() == 1).await;
    talker.say(NOTE);
    stream.until(NOTE).await;
}

#[tokio::test]
async fn a_listen_that_the_gateway_ends_has_its_completion_result() {
    let (world, _talker, stream) = listening().await;
    world.activator.shutdown(Duration::from_millis(50)).await;
    let (text, in_order) = stream.rest().await;
    assert!(in_order && text.ends_with(COMPLETION), "{text}");
}

#[tokio::test]
async fn a_parked_listen_of_a_deleted_backend_has_its_completion_result() {
    let (world, _talker, stream) = listening().await;
    world.scaler.lose();
    let none = Catalog {
        backends: BTreeMap::new(),
    };
    world.catalog.send_replace(Arc::new(none));
    let (text, in_order) = stream.rest().await;
    assert!(in_order && text.ends_with(COMPLETION), "{text}");
}

#[tokio::test]
async fn a_listen_that_the_server_ends_ends_as_the_server_says() {
    let (_world, talker, mut stream) = listening().await;
    talker.say(COMPLETION);
    stream.until(COMPLETION).await;
    talker.hang_up();
    let (text, in_order) = stream.rest().await;
    assert!(in_order);
    assert_eq!(text.matches("resultType").count(), 1);
}

#[tokio::test]
async fn a_client_that_leaves_is_told_upstream_at_once() {
    let (world, talker, stream) = listening().await;
    drop(stream);
    world
        .until("the upstream stream is closed", || talker.open() == 0)
        .await;
}

#[tokio::test]
async fn a_listen_ends_with_its_result_when_its_tenant_may_no_longer_use_the_backend() {
    // At once, and not with the next comment.
    let long = || {
        let mut setup = Setup::default();
        setup.config.keep_alive = PATIENCE * 2;
        setup
    };
    for parked in [false, true] {
        let (world, talker, stream) = listening_with(long()).await;
        if parked {
            world.scaler.lose();
            world
                .until("the upstream stream is closed", || talker.open() == 0)
                .await;
        }
        world.withdraw();
        let (text, in_order) = stream.rest().await;
        assert!(in_order && text.ends_with(COMPLETION), "{text}");
    }
}

#[tokio::test]
async fn a_parked_listen_without_a_right_to_it_is_not_listened_for_again() {
    let (world, talker, stream) = listening().await;
    let claim = world.scaler.claims().pop().unwrap();
    world.scaler.lose();
    world
        .until("the upstream stream is closed", || talker.open() == 0)
        .await;
    world.withdraw();
    // Its slot gets an instance again, of whoever asked just before.
    world.scaler.claim(claim).await.unwrap();
    let (text, in_order) = stream.rest().await;
    assert!(in_order && text.ends_with(COMPLETION), "{text}");
    assert_eq!(listens(&talker), 1);
}

#[tokio::test]
async fn a_server_behind_a_port_is_not_told_whose_listen_it_is() {
    let (_world, talker, _stream) = listening().await;
    let seen = talker.seen();
    let owner = seen.last().unwrap().header("x-mcp-gateway-owner");
    assert_eq!(owner, None);
}

#[tokio::test]
async fn a_listen_that_no_server_answers_holds_its_instance_no_longer_than_any_request() {
    let mut setup = Setup::default();
    setup.policy.request_timeout = Duration::from_millis(200);
    let (world, talker) = talking(setup).await;
    talker.mute();
    let body = format!(
        r#"{{"jsonrpc":"2.0","id":"sub-1","method":"subscriptions/listen","params":{{"notifications":{{}},{META}}}}}"#
    );
    let answer = world
        .client
        .post(&body, &modern("subscriptions/listen"))
        .await;
    assert_eq!(answer.status, 504, "{}", answer.text());
    world
        .until("the lease has ended", || world.scaler.leases() == Some(0))
        .await;
}
