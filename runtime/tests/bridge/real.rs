//! Over real children.

use std::time::Duration;

use crate::support::{LONG, Rig, call, initialize, modern, modern_call, rig, rig_with, said};
use http::{Method, StatusCode};
use mcp_gateway_runtime::bridge::BridgeEvent;
use serde_json::{Value, json};

#[tokio::test]
async fn a_legacy_session_is_opened_used_and_closed() {
    let rig = rig(&["--era", "legacy"]).await;
    let id = rig.open().await;
    assert_eq!(id.len(), 48);
    let reply = rig.call(&id, 7, "echo", json!({"a": 1})).await;
    assert_eq!(reply.status, StatusCode::OK);
    assert_eq!(reply.header("content-type"), Some("application/json"));
    let answer = reply.json().await;
    assert_eq!(answer["id"], 7);
    assert_eq!(said(&answer), r#"{"a": 1}"#);

    let headers = [("mcp-session-id", id.as_str())];
    let reply = rig.send(Method::DELETE, "/mcp", &headers, "").await;
    assert_eq!(reply.status, StatusCode::NO_CONTENT);
    let reply = rig.call(&id, 8, "echo", json!({})).await;
    assert_eq!(reply.status, StatusCode::NOT_FOUND);
    assert_eq!(reply.header("x-mcp-gateway-lost"), None);
    assert_eq!(reply.json().await["id"], 8);
}

#[tokio::test]
async fn each_session_has_a_child_of_its_own() {
    let rig = rig(&[]).await;
    let (a, b) = (rig.open().await, rig.open().await);
    for (session, expected) in [(&a, "1"), (&a, "2"), (&b, "1")] {
        let answer = rig.call(session, 1, "count", json!({})).await.json().await;
        assert_eq!(said(&answer), expected);
    }
    let first = rig.call(&a, 2, "pid", json!({})).await.json().await;
    assert_eq!(said(&first), rig.bridge.first_pid().unwrap().to_string());
}

#[tokio::test]
async fn progress_precedes_the_answer_on_the_stream_of_its_request() {
    let rig = rig(&["--garbage"]).await;
    let id = rig.open().await;
    let mut reply = rig.call(&id, 5, "progress", json!({"steps": 3})).await;
    assert!(reply.is_stream());
    assert_eq!(reply.header("x-accel-buffering"), Some("no"));
    assert_eq!(
        reply.header("cache-control"),
        Some("no-cache, no-transform")
    );
    for step in 0..3 {
        let event = reply.event().await.unwrap();
        assert_eq!(
            event["params"],
            json!({"progressToken": 5, "progress": step})
        );
    }
    assert_eq!(reply.event().await.unwrap()["id"], 5);
    assert_eq!(reply.event().await, None);
}

#[tokio::test]
async fn a_server_request_is_answered_by_a_post_of_its_own() {
    let rig = rig(&[]).await;
    let id = rig.open().await;
    let mut reply = rig.call(&id, 5, "sample", json!({})).await;
    let ask = reply.event().await.unwrap();
    assert_eq!(ask["method"], "sampling/createMessage");
    let body = json!({"jsonrpc": "2.0", "id": ask["id"], "result": {"role": "assistant"}});
    assert_eq!(
        rig.in_session(&id, &body).await.status,
        StatusCode::ACCEPTED
    );
    assert_eq!(
        said(&reply.event().await.unwrap()),
        r#"{"role": "assistant"}"#
    );
}

#[tokio::test]
async fn what_no_request_stream_takes_goes_to_the_get_stream_even_if_that_comes_later() {
    let rig = rig(&[]).await;
    let id = rig.open().await;
    let answer = rig.call(&id, 5, "later", json!({})).await.answer().await;
    assert_eq!(said(&answer), "soon");
    let mut stream = rig.listen(&id).await;
    assert_eq!(stream.status, StatusCode::OK);
    let ask = stream.event().await.unwrap();
    assert_eq!(ask["method"], "roots/list");
    let body = json!({"jsonrpc": "2.0", "id": ask["id"], "result": {"roots": []}});
    rig.in_session(&id, &body).await;
    let told = stream.event().await.unwrap();
    assert_eq!(told["params"]["data"], r#"{"roots": []}"#);
    assert_eq!(rig.listen(&id).await.status, StatusCode::CONFLICT);
    drop(stream);
    assert_eq!(rig.listen(&id).await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_batch_is_split_and_its_answers_are_gathered() {
    let rig = rig(&[]).await;
    let id = rig.open().await;
    let batch = json!([
        call(json!("a"), "echo", json!(1)),
        {"jsonrpc": "2.0", "method": "notifications/roots/list_changed"},
        call(json!("b"), "echo", json!(2)),
    ]);
    let reply = rig.in_session(&id, &batch).await;
    assert_eq!(reply.header("content-type"), Some("application/json"));
    let mut answers: Vec<Value> = serde_json::from_value(reply.json().await).unwrap();
    answers.sort_by_key(|a| a["id"].to_string());
    assert_eq!((said(&answers[0]), said(&answers[1])), ("1", "2"));
    let only_notifications = json!([{"jsonrpc": "2.0", "method": "notifications/x"}]);
    let reply = rig.in_session(&id, &only_notifications).await;
    assert_eq!(reply.status, StatusCode::ACCEPTED);
    let with_initialize = json!([initialize("2025-03-26")]);
    assert_eq!(
        rig.post(&[], &with_initialize).await.status,
        StatusCode::BAD_REQUEST
    );
}

#[tokio::test]
async fn a_cancelled_request_reaches_the_child_under_its_own_id_and_ends_its_stream() {
    let rig = rig(&[]).await;
    let id = rig.open().await;
    let hanging = call(json!("mine"), "never", json!({}));
    let hanging = rig.in_session(&id, &hanging);
    let cancel = async {
        // The request is written before the cancel, or there is nothing to cancel: the first cancel may come early.
        loop {
            let body = json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": "mine"}});
            assert_eq!(
                rig.in_session(&id, &body).await.status,
                StatusCode::ACCEPTED
            );
            let answer = rig.call(&id, 1, "cancelled", json!({})).await.json().await;
            if said(&answer) != "[]" {
                assert!(!said(&answer).contains("mine"), "{answer}");
                break;
            }
        }
    };
    let both = async { tokio::join!(hanging, cancel) };
    let (reply, ()) = tokio::time::timeout(LONG, both).await.unwrap();
    assert_eq!(reply.status, StatusCode::OK);
    assert_eq!(reply.text().await, "");
}

#[tokio::test]
async fn a_legacy_client_that_leaves_cancels_nothing() {
    let rig = rig(&[]).await;
    let id = rig.open().await;
    let mut reply = rig.call(&id, 5, "sample", json!({})).await;
    let ask = reply.event().await.unwrap();
    drop(reply);
    let mut stream = rig.listen(&id).await;
    let answer = json!({"jsonrpc": "2.0", "id": ask["id"], "result": {}});
    rig.in_session(&id, &answer).await;
    let answer = rig.call(&id, 6, "cancelled", json!({})).await.json().await;
    assert_eq!(said(&answer), "[]");
    rig.call(&id, 7, "later", json!({})).await.answer().await;
    assert_eq!(stream.event().await.unwrap()["method"], "roots/list");
}

#[tokio::test]
async fn requests_without_or_with_unknown_session_are_told_so() {
    let rig = rig(&[]).await;
    let list = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list"});
    assert_eq!(rig.post(&[], &list).await.status, StatusCode::BAD_REQUEST);
    let reply = rig.in_session("00ff", &list).await;
    assert_eq!(reply.status, StatusCode::NOT_FOUND);
    assert_eq!(rig.listen("00ff").await.status, StatusCode::NOT_FOUND);
}

async fn lost(rig: &mut Rig, id: &str) {
    let reply = rig.call(id, 9, "echo", json!({})).await;
    assert_eq!(reply.status, StatusCode::NOT_FOUND);
    assert_eq!(reply.header("x-mcp-gateway-lost"), Some("session"));
}

#[tokio::test]
async fn a_crash_answers_open_requests_loses_the_session_and_ends_the_instance() {
    let mut rig = rig(&[]).await;
    let id = rig.open().await;
    let mut stream = rig.listen(&id).await;
    let mut open = rig.call(&id, 1, "sample", json!({})).await;
    open.event().await.unwrap();
    let reply = rig.call(&id, 2, "crash", json!({"code": 3})).await;
    assert_eq!(reply.status, StatusCode::BAD_GATEWAY);
    let answer = reply.json().await;
    assert_eq!(answer["id"], 2);
    assert_eq!(answer["error"]["message"], "the server exited with code 3");
    let event = open.event().await.unwrap();
    assert_eq!(
        (&event["id"], &event["error"]["code"]),
        (&json!(1), &json!(-31520))
    );
    assert_eq!(open.event().await, None);
    assert_eq!(stream.event().await, None);
    let BridgeEvent::Failed(report) = rig.event().await else {
        panic!("the last child is gone");
    };
    assert_eq!(report.code, Some(3));
    lost(&mut rig, &id).await;
}

#[tokio::test]
async fn a_crash_costs_other_sessions_nothing() {
    let mut rig = rig(&[]).await;
    let (a, b) = (rig.open().await, rig.open().await);
    rig.call(&a, 2, "crash", json!({})).await;
    let event = rig.event().await;
    assert!(
        matches!(
            event,
            BridgeEvent::ChildLost {
                sessions_left: 1,
                ..
            }
        ),
        "{event:?}"
    );
    lost(&mut rig, &a).await;
    let answer = rig.call(&b, 1, "echo", json!(1)).await.json().await;
    assert_eq!(said(&answer), "1");
}

#[tokio::test]
async fn a_line_without_end_ends_the_child_with_a_reason() {
    let mut rig = rig_with(&[], |c| c.max_line = 10_000).await;
    let id = rig.open().await;
    let reply = rig.call(&id, 2, "line", json!({"bytes": 20_000})).await;
    assert_eq!(reply.status, StatusCode::BAD_GATEWAY);
    let BridgeEvent::Failed(report) = rig.event().await else {
        panic!("the last child is gone");
    };
    assert_eq!(report.summary, "it wrote a line of more than 10000 bytes");
}

#[tokio::test]
async fn a_modern_server_serves_exchanges_of_one_owner_on_one_child() {
    let rig = rig(&["--era", "modern"]).await;
    let discover = modern(json!(1), "server/discover", json!({}));
    let reply = rig.modern("alice", &discover).await;
    assert_eq!(reply.status, StatusCode::OK);
    assert_eq!(reply.header("mcp-session-id"), None);
    assert_eq!(
        reply.json().await["result"]["supportedVersions"],
        json!(["2026-07-28"])
    );
    for (owner, expected) in [("alice", "1"), ("alice", "2"), ("bob", "1")] {
        let body = modern_call(json!("same"), "count", json!({}));
        let answer = rig.modern(owner, &body).await.json().await;
        assert_eq!(answer["id"], "same");
        assert_eq!(said(&answer), expected);
    }
}

#[tokio::test]
async fn modern_exchanges_with_equal_ids_and_tokens_do_not_mix() {
    let rig = rig(&["--era", "modern"]).await;
    let body = |n: i64| modern_call(json!(1), "progress", json!({"steps": n}));
    let (a, b) = (body(2), body(4));
    let (mut a, mut b) = tokio::join!(rig.modern("x", &a), rig.modern("x", &b));
    for (reply, steps) in [(&mut a, 2), (&mut b, 4)] {
        for step in 0..steps {
            let event = reply.event().await.unwrap();
            assert_eq!(
                event["params"],
                json!({"progressToken": 1, "progress": step})
            );
        }
        assert_eq!(reply.event().await.unwrap()["id"], 1);
        assert_eq!(reply.event().await, None);
    }
}

#[tokio::test]
async fn of_many_requests_at_once_each_gets_its_own_answer() {
    let rig = rig(&["--era", "dual", "--garbage"]).await;
    let id = rig.open().await;
    let calls = (0..200_i64).map(|n| {
        let (rig, id) = (&rig, &id);
        async move {
            // Ids and tokens repeat on purpose.
            let reply = if n % 2 == 0 {
                rig.call(id, n % 5, "echo", json!(n)).await
            } else {
                let body = modern_call(json!(n % 5), "echo", json!(n));
                rig.modern(["a", "b"][usize::from(n % 3 == 0)], &body).await
            };
            let answer = reply.answer().await;
            assert_eq!(answer["id"], n % 5);
            assert_eq!(said(&answer), n.to_string());
        }
    });
    futures_util::future::join_all(calls).await;
}

#[tokio::test]
async fn modern_errors_keep_their_statuses() {
    let rig = rig(&["--era", "modern"]).await;
    let unknown = modern(json!(1), "no/such", json!({}));
    let reply = rig.modern("", &unknown).await;
    assert_eq!(reply.status, StatusCode::NOT_FOUND);
    assert_eq!(reply.json().await["error"]["code"], -32601);
    let mut future = modern(json!(2), "tools/list", json!({}));
    future["params"]["_meta"]["io.modelcontextprotocol/protocolVersion"] = json!("2099-01-01");
    let headers = [
        ("mcp-protocol-version", "2099-01-01"),
        ("mcp-method", "tools/list"),
    ];
    let reply = rig.post(&headers, &future).await;
    assert_eq!(reply.status, StatusCode::BAD_REQUEST);
    assert_eq!(reply.json().await["error"]["code"], -32022);
    let bare = json!({"jsonrpc": "2.0", "id": 3, "method": "tools/list", "params": {}});
    let reply = rig.modern("", &bare).await;
    assert_eq!(
        (reply.status, reply.json().await["error"]["code"].clone()),
        (StatusCode::BAD_REQUEST, json!(-32602))
    );
}

#[tokio::test]
async fn a_modern_client_that_leaves_cancels_its_request_at_once() {
    let rig = rig(&["--era", "modern"]).await;
    let mut hanging = rig
        .modern("", &modern(json!(1), "subscriptions/listen", json!({})))
        .await;
    let acknowledged = hanging.event().await.unwrap();
    assert_eq!(
        acknowledged["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"],
        1
    );
    drop(hanging);
    let seen = async {
        loop {
            let body = modern_call(json!(2), "cancelled", json!({}));
            let answer = rig.modern("", &body).await.json().await;
            if said(&answer) != "[]" {
                break;
            }
        }
    };
    tokio::time::timeout(LONG, seen).await.unwrap();
}

#[tokio::test]
async fn subscriptions_of_several_clients_keep_their_ids() {
    let rig = rig(&["--era", "modern"]).await;
    let mut streams = Vec::new();
    for id in [json!("a"), json!("a"), json!(7)] {
        let listen = modern(id.clone(), "subscriptions/listen", json!({}));
        let mut stream = rig.modern("", &listen).await;
        let event = stream.event().await.unwrap();
        assert_eq!(event["method"], "notifications/subscriptions/acknowledged");
        streams.push((id, stream));
    }
    rig.modern("", &modern_call(json!(1), "changed", json!({})))
        .await;
    for (id, stream) in &mut streams {
        let event = stream.event().await.unwrap();
        assert_eq!(event["method"], "notifications/tools/list_changed");
        assert_eq!(
            event["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"],
            *id
        );
    }
}

async fn falls_back(args: &[&str], remembered: bool) {
    let mut rig = rig(args).await;
    let reply = rig
        .modern("", &modern(json!(1), "server/discover", json!({})))
        .await;
    assert_eq!(reply.status, StatusCode::BAD_REQUEST);
    let for_now = reply.header("cache-control") == Some("no-store");
    assert_eq!(for_now, !remembered);
    let answer = reply.json().await;
    assert_eq!(answer["error"]["code"], -32600);
    assert_eq!(answer["error"]["data"]["supported"][0], "2025-11-25");
    assert_eq!(answer["error"]["data"]["requested"], "2026-07-28");
    let id = rig.open().await;
    let answer = rig.call(&id, 1, "echo", json!(1)).await.json().await;
    assert_eq!(said(&answer), "1");
    assert!(rig.events.try_recv().is_err(), "nothing crashed");
}

#[tokio::test]
async fn a_legacy_server_sends_dual_era_clients_to_initialize() {
    falls_back(&["--era", "legacy"], true).await;
}

#[tokio::test]
async fn a_server_that_exits_when_probed_is_legacy_and_has_not_crashed() {
    falls_back(&["--era", "legacy", "--exit-on-probe"], true).await;
}

#[tokio::test]
async fn a_server_that_ignores_the_probe_is_legacy_within_a_clients_patience() {
    falls_back(&["--era", "legacy", "--ignore-probe"], false).await;
}

#[tokio::test]
async fn a_server_that_cannot_start_has_crashed_even_if_it_was_probed() {
    let mut rig = rig(&["--exit", "4"]).await;
    let BridgeEvent::Failed(report) = rig.event().await else {
        panic!("it never served");
    };
    assert_eq!(report.code, Some(4));
    let reply = rig
        .modern("", &modern(json!(1), "server/discover", json!({})))
        .await;
    assert_eq!(reply.status, StatusCode::BAD_GATEWAY);
    let reply = rig.post(&[], &initialize("2025-11-25")).await;
    assert_eq!(reply.status, StatusCode::BAD_GATEWAY);
    let answer = reply.json().await;
    assert_eq!(answer["error"]["message"], "the server exited with code 4");
    assert_eq!(answer["id"], 0);
}

#[tokio::test]
async fn a_dual_era_server_serves_both_on_different_children() {
    let rig = rig(&["--era", "dual"]).await;
    let id = rig.open().await;
    let old = rig.call(&id, 1, "pid", json!({})).await.json().await;
    let new = rig
        .modern("", &modern_call(json!(1), "pid", json!({})))
        .await
        .json()
        .await;
    assert_ne!(said(&old), said(&new));
    let answer = rig.call(&id, 2, "count", json!({})).await.json().await;
    assert_eq!(said(&answer), "1");
}

#[tokio::test]
async fn a_modern_only_server_tells_legacy_clients_what_it_supports() {
    let rig = rig(&["--era", "modern"]).await;
    for id in [json!(0), json!("again")] {
        let mut body = initialize("2025-11-25");
        body["id"] = id.clone();
        let reply = rig.post(&[], &body).await;
        assert_eq!(reply.status, StatusCode::OK);
        assert_eq!(reply.header("mcp-session-id"), None);
        let answer = reply.json().await;
        assert_eq!(answer["id"], id);
        assert_eq!(answer["error"]["data"]["supported"], json!(["2026-07-28"]));
        let message = answer["error"]["message"].as_str().unwrap();
        assert!(message.contains("supports 2026-07-28"), "{message}");
    }
    for method in [Method::GET, Method::DELETE] {
        let reply = rig.send(method, "/mcp", &[], "").await;
        assert_eq!(reply.status, StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(reply.header("allow"), Some("POST"));
    }
}

#[tokio::test]
async fn the_2024_transport_has_everything_on_its_one_stream() {
    let rig = rig(&[]).await;
    let accept = [("accept", "text/event-stream")];
    let mut stream = rig.send(Method::GET, "/sse", &accept, "").await;
    let block = stream.block().await.unwrap();
    let path = block
        .strip_prefix("event: endpoint\ndata: ")
        .unwrap()
        .to_owned();
    assert!(path.starts_with("/messages?session_id="), "{path}");
    let json = [("content-type", "application/json")];
    let post = |body: Value| {
        let (rig, path) = (&rig, path.as_str());
        async move {
            let reply = rig.send(Method::POST, path, &json, body.to_string()).await;
            assert_eq!(reply.status, StatusCode::ACCEPTED);
        }
    };
    post(initialize("2024-11-05")).await;
    let answer = stream.event().await.unwrap();
    assert_eq!(answer["result"]["protocolVersion"], "2024-11-05");
    post(call(json!(5), "progress", json!({"steps": 1}))).await;
    assert_eq!(stream.event().await.unwrap()["params"]["progressToken"], 5);
    assert_eq!(stream.event().await.unwrap()["id"], 5);
    post(call(json!("x"), "crash", json!({"code": 5}))).await;
    let answer = stream.event().await.unwrap();
    assert_eq!(answer["id"], "x");
    assert_eq!(answer["error"]["message"], "the server exited with code 5");
    assert_eq!(stream.event().await, None);
    let reply = rig.send(Method::POST, &path, &json, "{}").await;
    assert_eq!(reply.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn the_2024_transport_is_legacy_even_for_a_server_of_both_eras() {
    let rig = rig(&["--era", "dual"]).await;
    let mut stream = rig.send(Method::GET, "/sse", &[], "").await;
    let block = stream.block().await.unwrap();
    let path = block.rsplit_once(' ').unwrap().1.to_owned();
    for body in [
        modern(json!("probe"), "server/discover", json!({})),
        initialize("2024-11-05"),
    ] {
        let reply = rig.send(Method::POST, &path, &[], body.to_string()).await;
        assert_eq!(reply.status, StatusCode::ACCEPTED);
    }
    let refused = stream.event().await.unwrap();
    assert_eq!(
        (&refused["id"], &refused["error"]["code"]),
        (&json!("probe"), &json!(-32600))
    );
    let answer = stream.event().await.unwrap();
    assert_eq!(answer["result"]["protocolVersion"], "2024-11-05");
}

#[tokio::test]
async fn closing_the_2024_stream_ends_its_child_on_purpose() {
    let mut rig = rig_with(&[], |c| c.max_children = 1).await;
    let stream = rig.send(Method::GET, "/sse", &[], "").await;
    let full = rig.post(&[], &initialize("2025-11-25")).await;
    assert_eq!(full.status, StatusCode::SERVICE_UNAVAILABLE);
    drop(stream);
    let room =
        async { while rig.post(&[], &initialize("2025-11-25")).await.status != StatusCode::OK {} };
    tokio::time::timeout(LONG, room).await.unwrap();
    rig.bridge.stop(Duration::from_secs(2)).await;
    assert!(rig.events.try_recv().is_err(), "nothing crashed");
}

#[tokio::test]
async fn bad_requests_get_answers_of_their_own() {
    let rig = rig_with(&[], |c| c.max_body = 2_000).await;
    let id = rig.open().await;
    let session = ("mcp-session-id", id.as_str());
    let both = ("accept", "application/json, text/event-stream");
    let json = ("content-type", "application/json");
    let big = "x".repeat(5_000);
    let long_id = format!(
        r#"{{"jsonrpc":"2.0","id":"{}","method":"x"}}"#,
        "i".repeat(1_100)
    );
    let cases = [
        (vec![session, both, json], "{", 400),
        (vec![session, both, json], "[]", 400),
        (vec![session, both, json], "3", 400),
        (
            vec![session, both, json],
            r#"{"jsonrpc":"2.0","id":{},"method":"x"}"#,
            400,
        ),
        (
            vec![session, both, json],
            r#"{"jsonrpc":"2.0","id":1,"id":2,"method":"x"}"#,
            400,
        ),
        (vec![session, both, json], big.as_str(), 413),
        (vec![session, both, json], long_id.as_str(), 400),
        (
            vec![session, both, ("content-type", "text/plain")],
            "{}",
            415,
        ),
        (
            vec![session, ("accept", "application/json"), json],
            "{}",
            406,
        ),
        (vec![session, session, both, json], "{}", 400),
    ];
    for (headers, body, status) in cases {
        let reply = rig
            .send(Method::POST, "/mcp", &headers, body.to_owned())
            .await;
        assert_eq!(reply.status.as_u16(), status, "{headers:?} {body}");
    }
    assert_eq!(rig.send(Method::PUT, "/mcp", &[], "").await.status, 405);
    assert_eq!(rig.send(Method::GET, "/nowhere", &[], "").await.status, 404);
    assert_eq!(rig.send(Method::GET, "/healthz", &[], "").await.status, 200);
    // And none of it cost the session anything.
    let answer = rig.call(&id, 1, "echo", json!(1)).await.json().await;
    assert_eq!(said(&answer), "1");
}

#[tokio::test]
async fn no_more_children_than_allowed_but_an_idle_owner_gives_way() {
    let rig = rig_with(&["--era", "dual"], |c| c.max_children = 2).await;
    rig.modern("a", &modern_call(json!(1), "echo", json!(1)))
        .await
        .json()
        .await;
    let first = rig.open().await;
    let second = rig.open().await;
    let reply = rig.post(&[], &initialize("2025-11-25")).await;
    assert_eq!(reply.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(reply.header("retry-after"), Some("1"));
    for id in [first, second] {
        let answer = rig.call(&id, 1, "echo", json!(1)).await.json().await;
        assert_eq!(said(&answer), "1");
    }
}

#[tokio::test]
async fn a_stop_ends_every_child() {
    let mut rig = rig(&[]).await;
    let id = rig.open().await;
    let mut open = rig.call(&id, 1, "sample", json!({})).await;
    open.event().await.unwrap();
    let report = rig.bridge.stop(Duration::from_secs(2)).await;
    assert_eq!(report.summary, "it was stopped");
    assert_eq!(open.event().await.unwrap()["id"], 1);
    assert_eq!(open.event().await, None);
    assert!(rig.events.try_recv().is_err());
}
