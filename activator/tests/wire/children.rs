//! Sessions whose child a bridge lost while the bridge itself lives on: its 404 bears a mark, and ends nothing.

use std::{pin::pin, sync::atomic::Ordering, time::Duration};

use mcp_gateway_api::record::SessionNews;

use crate::support::{World, call};

const SILENT: [&str; 2] = [
    r#"{"jsonrpc":"2.0","method":"notifications/roots/list_changed"}"#,
    r#"{"jsonrpc":"2.0","id":3,"result":{}}"#,
];

fn lose_child(world: &World) {
    world.upstream.inner.bridge.store(true, Ordering::SeqCst);
    world.upstream.forget_sessions();
}

async fn ask(world: &World, id: &str, number: u32) -> (u16, String) {
    let headers = [("mcp-session-id", id)];
    let answer = world.client.post(&call(number, "echo"), &headers).await;
    (answer.status, answer.text().to_owned())
}

#[tokio::test]
async fn what_wakes_nothing_is_taken_though_the_sessions_child_was_lost() {
    for silent in SILENT {
        let world = World::new().await;
        let id = world.open().await;
        lose_child(&world);
        let claims = world.scaler.claims().len();
        let answer = world.client.post(silent, &[("mcp-session-id", &id)]).await;
        assert_eq!((answer.status, answer.body.len()), (202, 0));
        assert_eq!(answer.header("x-mcp-gateway-lost"), None);
        assert_eq!(world.scaler.claims().len(), claims, "it wakes nothing");
        let (status, text) = ask(&world, &id, 1).await;
        assert!(status == 200 && text.contains("upstream-1"), "{text}");
        assert!(!world.scaler.updates().contains(&SessionNews::Ended));
    }
}

/// The claim would else be answered with where the record says that the session is: with the dead child.
#[tokio::test]
async fn the_loss_of_a_revived_sessions_child_is_kept_before_anything_is_claimed() {
    let world = World::new().await;
    let id = world.open().await;
    world.scaler.lose();
    world.upstream.forget_sessions();
    let (status, text) = ask(&world, &id, 1).await;
    assert!(status == 200 && text.contains("upstream-1"), "{text}");
    let claims = world.scaler.claims().len();
    lose_child(&world);
    world.scaler.hold_records();
    let mut answer = pin!(ask(&world, &id, 2));
    let early = tokio::time::timeout(Duration::from_millis(200), &mut answer).await;
    assert!(early.is_err(), "the loss is not kept yet");
    assert_eq!(world.upstream.calls(), [1, 2], "and it is known");
    assert_eq!(world.scaler.claims().len(), claims);
    world.scaler.release_records();
    let (status, text) = answer.await;
    assert!(status == 200 && text.contains("upstream-2"), "{text}");
    let news = world.scaler.updates();
    let asleep = news.iter().position(|one| *one == SessionNews::Asleep);
    let revived = |one: &SessionNews| matches!(one, SessionNews::Revived(_));
    assert!(asleep < news.iter().rposition(revived), "{news:?}");
    assert_eq!(world.upstream.calls(), [1, 2, 2]);
}
