//! What a server says of where a session was, when the session has long been revived elsewhere: it means nothing any more.

use std::sync::atomic::Ordering;

use http::Method;
use mcp_gateway_api::record::SessionNews;
use tokio::task::JoinHandle;

use crate::support::{Answer, World, call, client::Coming};

async fn ask(world: &World, id: &str, number: u32) -> String {
    let headers = [("mcp-session-id", id)];
    let answer = world.client.post(&call(number, "echo"), &headers).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.text().to_owned()
}

fn revivals(world: &World) -> usize {
    let revived = |news: &&SessionNews| matches!(news, SessionNews::Revived(_));
    world.scaler.updates().iter().filter(revived).count()
}

/// The bridge loses the session's child, and the session is revived on another child of it.
async fn revive(world: &World, id: &str) {
    world.upstream.inner.bridge.store(true, Ordering::SeqCst);
    world.upstream.forget_sessions();
    let text = ask(world, id, 1).await;
    assert!(text.contains("upstream-1"), "{text}");
    assert_eq!(revivals(world), 1);
}

fn get(world: &World, id: &str) -> JoinHandle<Coming> {
    let headers = [("mcp-session-id", id), ("accept", "text/event-stream")];
    let path = "/adapters/demo/mcp";
    let request = world.client.request(Method::GET, path, &headers, "");
    let client = world.client.clone();
    tokio::spawn(async move { client.begin(request).await })
}

#[tokio::test]
async fn a_late_404_to_a_get_neither_ends_a_revived_session_nor_sends_it_to_sleep() {
    for marked in [true, false] {
        let world = World::new().await;
        let id = world.open().await;
        world
            .upstream
            .inner
            .holds_gets
            .store(true, Ordering::SeqCst);
        let stream = get(&world, &id);
        let asked = || {
            world
                .upstream
                .seen()
                .iter()
                .any(|s| s.method == Method::GET)
        };
        world.until("the server has the GET", asked).await;
        world
            .upstream
            .inner
            .holds_gets
            .store(false, Ordering::SeqCst);
        revive(&world, &id).await;
        world.upstream.inner.bridge.store(marked, Ordering::SeqCst);
        world.upstream.inner.go.notify_one();
        assert_eq!(
            stream.await.unwrap().status,
            200,
            "it is listened to where it is"
        );
        let text = ask(&world, &id, 2).await;
        assert!(text.contains("upstream-1"), "{text}");
        assert_eq!(revivals(&world), 1);
        let news = world.scaler.updates();
        assert!(!news.contains(&SessionNews::Ended), "{news:?}");
    }
}

#[tokio::test]
async fn a_request_that_hears_late_of_its_lost_session_goes_where_it_was_revived() {
    for marked in [true, false] {
        let world = World::new().await;
        let id = world.open().await;
        let (client, session) = (world.client.clone(), id.clone());
        let late: JoinHandle<Answer> = tokio::spawn(async move {
            let headers = [("mcp-session-id", &*session)];
            client.post(&call(7, "late"), &headers).await
        });
        let times = |number| {
            let calls = world.upstream.calls();
            calls.iter().filter(|call| **call == number).count()
        };
        world.until("the server has it", || times(7) == 1).await;
        revive(&world, &id).await;
        world.upstream.inner.bridge.store(marked, Ordering::SeqCst);
        world.upstream.inner.go.notify_one();
        world.until("it is sent again", || times(7) == 2).await;
        world.upstream.inner.go.notify_one();
        let answer = late.await.unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.json()["result"]["session"], "upstream-1");
        assert_eq!(revivals(&world), 1, "it is revived once");
        let news = world.scaler.updates();
        assert!(!news.contains(&SessionNews::Ended), "{news:?}");
    }
}
