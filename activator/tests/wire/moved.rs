//! A backend is edited while a call runs, and the session's client comes through two activators.

use http::Method;
use mcp_gateway_api::ids::InstanceId;

use crate::support::{Client, World, call, client::Coming};

const ANSWER: &str = r#"{"jsonrpc":"2.0","id":"ask-1","result":{"action":"accept"}}"#;
const CANCEL: &str =
    r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}}"#;

struct Edited {
    world: World,
    second: Client,
    session: String,
    /// The answer to call 1, which has asked its client something.
    coming: Coming,
    /// The instance that it runs on, which retires.
    old: InstanceId,
}

async fn edited() -> Edited {
    let world = World::new().await;
    let second = world.second().await;
    let session = world.open().await;
    let headers = [("mcp-session-id", session.as_str())];
    let posting = world.client.posting(&call(1, "elicit"), &headers);
    let mut coming = world.client.begin(posting).await;
    coming.until("ask-1").await;
    let old = world.scaler.retire();
    world
        .until("only the first keeps it", || world.scaler.drained(1))
        .await;
    Edited {
        world,
        second,
        session,
        coming,
        old,
    }
}

impl Edited {
    async fn post(&self, client: &Client, body: &str) -> u16 {
        let headers = [("mcp-session-id", self.session.as_str())];
        client.post(body, &headers).await.status
    }

    /// Where the last message went.
    fn heard_by(&self, body: &str) -> Option<String> {
        let last = self.world.upstream.last();
        assert_eq!(last.body, body.as_bytes());
        last.header("mcp-session-id").map(str::to_owned)
    }

    /// The call is answered in order.
    async fn is_answered(&mut self) {
        self.world.upstream.inner.finish_streams();
        let text = self.coming.until("\"result\"").await;
        assert!(!text.contains("error"), "{text}");
    }
}

#[tokio::test]
async fn what_a_call_on_a_retiring_instance_waits_for_reaches_it_through_another_activator() {
    for said in [ANSWER, CANCEL] {
        let mut edited = edited().await;
        let claims = edited.world.scaler.claims().len();
        assert_eq!(edited.post(&edited.second, said).await, 202);
        assert_eq!(edited.heard_by(said).as_deref(), Some("upstream-0"));
        assert_eq!(
            edited.world.scaler.claims().len(),
            claims,
            "it wakes nothing"
        );
        assert!(edited.world.scaler.drained(1), "and keeps nothing");
        edited.is_answered().await;
    }
}

#[tokio::test]
async fn a_delete_of_a_session_on_a_retiring_instance_is_its_servers_to_answer() {
    let edited = edited().await;
    let deleted = edited.second.delete(&edited.session).await;
    assert_eq!(deleted.status, 200);
    let last = edited.world.upstream.last();
    assert_eq!(last.method, Method::DELETE);
    assert_eq!(last.header("mcp-session-id"), Some("upstream-0"));
    // And with the session the call has ended.
    let gone = || edited.world.scaler.is_gone(edited.old);
    edited.world.until("the old instance ends", gone).await;
}

#[tokio::test]
async fn a_call_goes_on_where_it_runs_when_its_session_has_moved_through_another_activator() {
    let mut edited = edited().await;
    assert_eq!(edited.post(&edited.second, &call(2, "echo")).await, 200);
    let (first, moved) = (edited.world.client.clone(), call(3, "echo"));
    assert_eq!(edited.post(&first, &moved).await, 200);
    assert_eq!(edited.heard_by(&moved).as_deref(), Some("upstream-1"));
    // What the call asked is answered where it was asked.
    assert_eq!(edited.post(&first, ANSWER).await, 202);
    assert_eq!(edited.heard_by(ANSWER).as_deref(), Some("upstream-0"));
    let note = r#"{"jsonrpc":"2.0","method":"notifications/roots/list_changed"}"#;
    assert_eq!(edited.post(&first, note).await, 202);
    assert_eq!(edited.heard_by(note).as_deref(), Some("upstream-1"));
    edited.is_answered().await;
    let gone = || edited.world.scaler.is_gone(edited.old);
    edited.world.until("the old instance ends", gone).await;
}

#[tokio::test]
async fn a_call_whose_answer_has_not_begun_is_answered_though_its_session_has_moved() {
    let world = World::new().await;
    let second = world.second().await;
    let session = world.open().await;
    let (client, id) = (world.client.clone(), session.clone());
    let slow = tokio::spawn(async move {
        let headers = [("mcp-session-id", id.as_str())];
        client.post(&call(1, "slow"), &headers).await
    });
    world
        .until("it runs", || world.upstream.calls() == [1])
        .await;
    let old = world.scaler.retire();
    world
        .until("only the first keeps it", || world.scaler.drained(1))
        .await;
    let headers = [("mcp-session-id", session.as_str())];
    for (client, id) in [(&second, 2), (&world.client, 3)] {
        assert_eq!(client.post(&call(id, "echo"), &headers).await.status, 200);
    }
    assert!(!world.scaler.is_gone(old));
    world.upstream.inner.go.notify_one();
    let answer = slow.await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    world
        .until("the old instance ends", || world.scaler.is_gone(old))
        .await;
}

#[tokio::test]
async fn a_call_is_called_off_where_it_runs_when_its_session_has_moved() {
    let edited = edited().await;
    assert_eq!(edited.post(&edited.second, &call(2, "echo")).await, 200);
    let first = edited.world.client.clone();
    assert_eq!(edited.post(&first, CANCEL).await, 202);
    assert_eq!(edited.heard_by(CANCEL).as_deref(), Some("upstream-0"));
    assert_eq!(edited.post(&first, &call(3, "echo")).await, 200);
    let gone = || edited.world.scaler.is_gone(edited.old);
    edited.world.until("the old instance ends", gone).await;
}

#[tokio::test]
async fn what_a_server_has_forgotten_where_the_session_was_says_nothing_of_the_session() {
    let edited = edited().await;
    assert_eq!(edited.post(&edited.second, &call(2, "echo")).await, 200);
    edited.world.upstream.forget_session("upstream-0");
    let first = &edited.world.client;
    assert_eq!(edited.post(first, ANSWER).await, 202);
    assert_eq!(edited.heard_by(ANSWER).as_deref(), Some("upstream-0"));
    assert_eq!(edited.post(first, &call(3, "echo")).await, 200);
}
