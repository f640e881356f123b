//! Streams that outlive instances: the legacy GET stream.

use std::{sync::Arc, time::Duration};

use http::Method;
use mcp_gateway_activator::ActivatorConfig;
use mcp_gateway_api::record::SessionNews;

use crate::support::{
    Answer, INITIALIZE, Names, PATIENCE, Setup, World, call, client::Coming, talker::Talker,
};

const NOTE: &str = "id: n1\nretry: 7\nevent: message\ndata: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/tools/list_changed\"}\n\n";

pub(crate) async fn talking(mut setup: Setup) -> (World, Talker) {
    // Unless a test says otherwise.
    if setup.config.keep_alive == ActivatorConfig::default().keep_alive {
        setup.config.keep_alive = Duration::from_millis(40);
    }
    let talker = Talker::start().await;
    let world = World::with(setup).await;
    world.scaler.move_upstream(talker.address);
    (world, talker)
}

async fn opened() -> (World, Talker, String) {
    let (world, talker) = talking(Setup::default()).await;
    let session = world.open().await;
    (world, talker, session)
}

async fn get(world: &World, session: &str, headers: &[(&str, &str)]) -> Coming {
    let mut all = vec![("accept", "text/event-stream"), ("mcp-session-id", session)];
    all.extend_from_slice(headers);
    let request = world
        .client
        .request(Method::GET, "/adapters/demo/mcp", &all, "");
    world.client.begin(request).await
}

async fn post(world: &World, session: &str, body: &str) -> Answer {
    let headers = [("mcp-session-id", session)];
    world.client.post(body, &headers).await
}

#[tokio::test]
async fn an_awake_session_gets_its_servers_events_as_they_are() {
    let (world, talker, session) = opened().await;
    let mut stream = get(&world, &session, &[]).await;
    assert_eq!(stream.status, 200);
    assert_eq!(stream.headers["content-type"], "text/event-stream");
    assert_eq!(stream.headers["x-accel-buffering"], "no");
    assert_eq!(stream.headers["mcp-session-id"], session.as_str());
    talker.say(NOTE);
    assert!(stream.until(NOTE).await.starts_with(": welcome\n\n"));
    assert_eq!(talker.gets()[0].header("mcp-session-id"), Some("talk-0"));
}

#[tokio::test]
async fn a_get_wakes_nothing_and_holds_no_lease() {
    let (world, talker, session) = opened().await;
    let stream = get(&world, &session, &[]).await;
    world
        .until("no lease is left", || world.scaler.leases() == Some(0))
        .await;
    world.scaler.lose();
    drop(stream);
    let mut parked = get(&world, &session, &[]).await;
    assert_eq!(parked.status, 200);
    parked.until(":\n\n:\n\n").await;
    assert_eq!(world.scaler.claims().len(), 1);
    assert_eq!(talker.gets().len(), 1);
}

#[tokio::test]
async fn a_stream_outlives_its_instance_and_attaches_after_the_next_wake() {
    let (world, talker, session) = opened().await;
    let mut stream = get(&world, &session, &[]).await;
    talker.say(NOTE);
    stream.until(NOTE).await;
    world.scaler.lose();
    world
        .until("the upstream stream is closed", || talker.open() == 0)
        .await;
    stream.until(":\n\n").await;
    assert_eq!(post(&world, &session, &call(5, "echo")).await.status, 200);
    world.until("attached again", || talker.open() == 1).await;
    assert_eq!(talker.gets()[1].header("mcp-session-id"), Some("talk-1"));
    talker.say("data: {\"jsonrpc\":\"2.0\",\"method\":\"again\"}\n\n");
    stream.until("again").await;
}

#[tokio::test]
async fn the_end_of_a_stream_that_its_instance_outlives_is_the_clients_to_see() {
    let (world, talker, session) = opened().await;
    let stream = get(&world, &session, &[]).await;
    talker.hang_up();
    let (_, in_order) = stream.rest().await;
    assert!(in_order);
}

#[tokio::test]
async fn a_second_get_takes_the_place_of_the_first() {
    let (world, talker, session) = opened().await;
    let first = get(&world, &session, &[]).await;
    let mut second = get(&world, &session, &[]).await;
    assert_eq!(second.status, 200);
    talker.say(NOTE);
    second.until(NOTE).await;
    let (text, in_order) = first.rest().await;
    assert!(in_order && !text.contains("list_changed"), "{text:?}");
    assert_eq!(talker.open(), 1);
}

#[tokio::test]
async fn a_server_without_streams_says_so_itself() {
    let (world, talker, session) = opened().await;
    talker.no_streams();
    let headers = [("mcp-session-id", session.as_str())];
    let request = world
        .client
        .request(Method::GET, "/adapters/demo/mcp", &headers, "");
    let answer = world.client.send(request).await;
    assert_eq!((answer.status, answer.text()), (405, "no streams"));
    // Which ends nothing.
    assert_eq!(post(&world, &session, &call(5, "echo")).await.status, 200);
}

#[tokio::test]
async fn last_event_id_goes_upstream_only_if_it_must_come_from_there() {
    let (world, talker, session) = opened().await;
    let mut stream = get(&world, &session, &[]).await;
    talker.say(NOTE);
    stream.until(NOTE).await;
    drop(stream);
    drop(get(&world, &session, &[("last-event-id", "n1")]).await);
    // Another activator may have passed it on: the session has lived nowhere else.
    drop(get(&world, &session, &[("last-event-id", "stranger")]).await);
    world.scaler.lose();
    assert_eq!(post(&world, &session, &call(5, "echo")).await.status, 200);
    drop(get(&world, &session, &[("last-event-id", "stranger")]).await);
    drop(get(&world, &session, &[("last-event-id", "n1")]).await);
    let gets: Vec<_> = talker
        .gets()
        .into_iter()
        .map(|get| get.header("last-event-id").map(str::to_owned))
        .collect();
    let answered: Vec<_> = gets.iter().map(Option::as_deref).collect();
    // A GET that met 409 was repeated, so equal neighbours are one.
    let mut answered = answered;
    answered.dedup();
    assert_eq!(answered, [None, Some("n1"), Some("stranger"), None]);
}

#[tokio::test]
async fn last_event_id_of_a_lost_server_does_not_reach_its_successor() {
    let (world, talker, session) = opened().await;
    let mut stream = get(&world, &session, &[]).await;
    talker.say(NOTE);
    stream.until(NOTE).await;
    world.scaler.lose();
    world
        .until("the upstream stream is closed", || talker.open() == 0)
        .await;
    let _resumed = get(&world, &session, &[("last-event-id", "n1")]).await;
    let body = call(5, "echo");
    assert_eq!(post(&world, &session, &body).await.status, 200);
    world
        .until("attached again", || talker.gets().len() == 2)
        .await;
    assert_eq!(talker.gets()[1].header("last-event-id"), None);
}

#[tokio::test]
async fn the_end_of_a_session_closes_its_stream() {
    let (world, _talker, session) = opened().await;
    let stream = get(&world, &session, &[]).await;
    assert_eq!(world.client.delete(&session).await.status, 200);
    assert!(stream.rest().await.1);
    let headers = [("mcp-session-id", session.as_str())];
    let request = world
        .client
        .request(Method::GET, "/adapters/demo/mcp", &headers, "");
    assert_eq!(world.client.send(request).await.status, 404);
}

#[tokio::test]
async fn the_end_of_a_sleeping_session_closes_its_parked_stream() {
    let (world, _talker, session) = opened().await;
    world.scaler.lose();
    let parked = get(&world, &session, &[]).await;
    assert_eq!(world.client.delete(&session).await.status, 204);
    assert!(parked.rest().await.1);
    assert_eq!(world.scaler.claims().len(), 1);
}

#[tokio::test]
async fn a_request_whose_stream_closed_keeps_its_instance_until_the_answer_passes_on_the_get_stream()
 {
    let (world, talker, session) = opened().await;
    let mut stream = get(&world, &session, &[]).await;
    let answer = post(&world, &session, &call(5, "poll")).await;
    assert_eq!(answer.text(), "id: p1\ndata:\n\n");
    world
        .until("a lease is reported", || world.scaler.leases() == Some(1))
        .await;
    talker.say("data: {\"jsonrpc\":\"2.0\",\"id\":5,\"result\":{}}\n\n");
    stream.until("\"id\":5").await;
    world
        .until("the lease has ended", || world.scaler.leases() == Some(0))
        .await;
}

#[tokio::test]
async fn a_request_whose_stream_closed_is_told_on_the_get_stream_when_its_server_is_lost() {
    let (world, talker, session) = opened().await;
    let mut stream = get(&world, &session, &[]).await;
    post(&world, &session, &call(5, "poll")).await;
    world.scaler.lose();
    let seen = stream.until("\"id\":5").await;
    assert!(seen.contains("instance_lost"), "{seen}");
    // Also when the client comes for the answer only now.
    post(&world, &session, &call(6, "poll")).await;
    world.until("attached again", || talker.open() == 1).await;
    drop(stream);
    world
        .until("its end is noticed", || talker.open() == 0)
        .await;
    world.scaler.lose();
    let mut later = get(&world, &session, &[]).await;
    later.until("\"id\":6").await;
}

#[tokio::test]
async fn a_servers_question_on_the_get_stream_keeps_its_instance_until_it_is_answered() {
    let (world, talker, session) = opened().await;
    let mut stream = get(&world, &session, &[]).await;
    world
        .until("no lease is left", || world.scaler.leases() == Some(0))
        .await;
    talker.say("data: {\"jsonrpc\":\"2.0\",\"id\":\"q\",\"method\":\"roots/list\"}\n\n");
    stream.until("roots/list").await;
    world
        .until("a lease is reported", || world.scaler.leases() == Some(1))
        .await;
    let said = post(
        &world,
        &session,
        r#"{"jsonrpc":"2.0","id":"q","result":{"roots":[]}}"#,
    )
    .await;
    assert_eq!(said.status, 202);
    world
        .until("the lease has ended", || world.scaler.leases() == Some(0))
        .await;
}

#[tokio::test]
async fn a_stream_that_loses_its_server_within_an_event_breaks_off() {
    let (world, talker, session) = opened().await;
    let mut stream = get(&world, &session, &[]).await;
    talker.say("data: {\"half\":");
    stream.until("half").await;
    world.scaler.lose();
    let (_, in_order) = stream.rest().await;
    assert!(!in_order);
}

#[tokio::test]
async fn a_get_of_a_strangers_session_or_of_none_is_refused_and_wakes_nothing() {
    let (world, talker) = talking(Setup::default()).await;
    let get = |headers: &[(&str, &str)]| {
        let request = world
            .client
            .request(Method::GET, "/adapters/demo/mcp", headers, "");
        world.client.send(request)
    };
    assert_eq!(get(&[("mcp-session-id", "forged")]).await.status, 404);
    assert_eq!(get(&[]).await.status, 405);
    assert!(world.scaler.claims().is_empty() && talker.seen().is_empty());
}

#[tokio::test]
async fn a_shutdown_ends_streams_in_order() {
    let (world, _talker, session) = opened().await;
    let stream = get(&world, &session, &[]).await;
    world.activator.shutdown(Duration::from_millis(50)).await;
    assert!(stream.rest().await.1);
    let news = world.scaler.updates();
    assert!(!news.contains(&SessionNews::Ended), "{news:?}");
}

#[tokio::test]
async fn a_shutdown_tells_who_awaits_an_answer_on_the_stream() {
    let (world, talker, session) = opened().await;
    let stream = get(&world, &session, &[]).await;
    post(&world, &session, &call(5, "poll")).await;
    assert_eq!(talker.open(), 1);
    world.activator.shutdown(Duration::from_millis(50)).await;
    let (text, in_order) = stream.rest().await;
    assert!(
        in_order && text.contains("shutting_down") && text.contains("\"id\":5"),
        "{text}"
    );
}

#[tokio::test]
async fn a_stream_ends_with_its_sessions_life() {
    let mut setup = Setup::default();
    setup.policy.session_lifetime = Duration::from_secs(3);
    let (world, _talker) = talking(setup).await;
    let session = world.open().await;
    let stream = get(&world, &session, &[]).await;
    assert_eq!(stream.status, 200);
    assert!(stream.rest().await.1);
}

#[tokio::test]
async fn a_stream_ends_when_its_tenant_may_no_longer_use_the_backend() {
    let (world, talker, session) = opened().await;
    let stream = get(&world, &session, &[]).await;
    world.withdraw();
    assert!(stream.rest().await.1);
    world
        .until("the upstream stream is closed", || talker.open() == 0)
        .await;
}

#[tokio::test]
async fn a_principal_has_its_share_of_streams_and_no_more() {
    let mut setup = Setup {
        auth: Arc::new(Names),
        ..Setup::default()
    };
    setup.config.max_streams = 2;
    let (world, _talker) = talking(setup).await;
    let open = async |name: &'static str| {
        let bearer = format!("Bearer {name}");
        let key = [("authorization", bearer.as_str())];
        let answer = world.client.post(INITIALIZE, &key).await;
        answer.header("mcp-session-id").unwrap().to_owned()
    };
    let (alice, bob) = (
        ("authorization", "Bearer alice"),
        ("authorization", "Bearer bob"),
    );
    let mut streams = Vec::new();
    world.scaler.lose();
    for _ in 0..2 {
        let session = open("alice").await;
        world.scaler.lose();
        streams.push(get(&world, &session, &[alice]).await);
    }
    let (third, bobs) = (open("alice").await, open("bob").await);
    world.scaler.lose();
    assert_eq!(get(&world, &third, &[alice]).await.status, 503);
    assert_eq!(get(&world, &bobs, &[bob]).await.status, 200);
    drop(streams);
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while get(&world, &third, &[alice]).await.status != 200 {
        assert!(tokio::time::Instant::now() < deadline, "never given back");
    }
}
