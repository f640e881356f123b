use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;

use super::{Row, initialize::promise, row, turn::Turns};
use crate::{era::Spoken, message::classify};
use mcp_gateway_api::ids::SessionKey;

const LEGACY: Spoken = Spoken::Legacy { stated: None };

fn modern() -> Spoken {
    Spoken::Modern {
        version: "2026-07-28".into(),
    }
}

#[test]
fn each_message_has_its_row() {
    let of = |spoken: &Spoken, body: &str, session| {
        row(spoken, &classify(body.as_bytes()).unwrap(), session)
    };
    let request = |method: &str| format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}"}}"#);
    let note = r#"{"jsonrpc":"2.0","method":"notifications/x"}"#;
    let response = r#"{"jsonrpc":"2.0","id":1,"result":{}}"#;
    let call = request("tools/call");
    for session in [false, true] {
        assert_eq!(
            of(&LEGACY, &request("initialize"), session),
            Row::Initialize
        );
        assert_eq!(of(&modern(), &call, session), Row::Modern);
        assert_eq!(of(&modern(), note, session), Row::Modern);
        assert_eq!(
            of(&modern(), &request("subscriptions/listen"), session),
            Row::Listen
        );
        assert_eq!(of(&modern(), &request("initialize"), session), Row::Modern);
    }
    assert_eq!(of(&LEGACY, &call, true), Row::Session);
    assert_eq!(of(&LEGACY, &call, false), Row::Sessionless);
    assert_eq!(of(&LEGACY, note, true), Row::SessionSilent);
    assert_eq!(of(&LEGACY, response, true), Row::SessionSilent);
    assert_eq!(of(&LEGACY, note, false), Row::Sessionless);
    assert_eq!(
        of(&LEGACY, &format!("[{note},{response}]"), true),
        Row::SessionSilent
    );
    assert_eq!(of(&LEGACY, &format!("[{note},{call}]"), true), Row::Session);
    // Never in a batch (2025-03-26 `basic/lifecycle`): the server refuses it.
    assert_eq!(
        of(&LEGACY, &format!("[{}]", request("initialize")), false),
        Row::Sessionless
    );
}

#[test]
fn a_promise_is_found_in_json_and_in_streams_of_any_line_end() {
    let json = r#"{"jsonrpc":"2.0","id":1,"result":{"protocolVersion":"2025-11-25","capabilities":{"a":{},"b":1}}}"#;
    let plain = promise(&[Bytes::from_static(json.as_bytes())]).unwrap();
    assert_eq!(&*plain.revision, "2025-11-25");
    for end in ["\n", "\r\n", "\r"] {
        let stream = format!(
            ": c{end}{end}data: {{\"jsonrpc\":\"2.0\",\"method\":\"x\"}}{end}{end}id: 1{end}data:{json}{end}{end}"
        );
        let (a, b) = stream.split_at(stream.len() / 2);
        let found = promise(&[
            Bytes::copy_from_slice(a.as_bytes()),
            Bytes::copy_from_slice(b.as_bytes()),
        ]);
        assert_eq!(found.as_ref(), Some(&plain), "{end:?}");
    }
    let other = json.replace(r#""a":{}"#, r#""a":{"x":1}"#);
    assert_ne!(promise(&[Bytes::from(other)]).unwrap(), plain);
    let turned = json.replace(r#""a":{},"b":1"#, r#""b":1,"a":{}"#);
    assert_eq!(
        promise(&[Bytes::from(turned)]).unwrap(),
        plain,
        "order means nothing"
    );
    assert!(promise(&[Bytes::from_static(br#"{"error":{}}"#)]).is_none());
}

proptest! {
    #[test]
    fn no_answer_to_initialize_panics(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _found = promise(&[Bytes::from(bytes)]);
    }
}

#[tokio::test(start_paused = true)]
async fn turns_are_taken_in_order_and_leave_nothing_behind() {
    let turns = Turns::default();
    let key = SessionKey::random();
    let message = |id: u32| {
        classify(format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"x"}}"#).as_bytes()).unwrap()
    };
    let first = turns.queue(key, &message(1)).turn().await;
    assert!(turns.is_busy(&key) && !turns.is_busy(&SessionKey::random()));
    let (tell, mut told) = tokio::sync::mpsc::channel(10);
    for id in 2..=4 {
        let place = turns.queue(key, &message(id));
        let tell = tell.clone();
        let called_off = place.cancelled();
        tokio::spawn(async move {
            tokio::select! {
                biased;
                () = called_off.cancelled() => {}
                turn = place.turn() => {
                    if turn.commit() {
                        tell.send(id).await.unwrap();
                    }
                }
            }
        });
        tokio::task::yield_now().await;
    }
    drop(tell);
    let three = crate::message::RequestId::parse("3").unwrap();
    assert!(turns.cancel(&key, &three));
    assert!(!turns.cancel(&key, &three), "once");
    drop(first);
    assert_eq!(told.recv().await, Some(2));
    assert_eq!(told.recv().await, Some(4));
    assert_eq!(told.recv().await, None);
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert!(!turns.is_busy(&key));
}

#[tokio::test(start_paused = true)]
async fn what_is_on_its_way_can_no_longer_be_called_off_here() {
    let turns = Turns::default();
    let key = SessionKey::random();
    let message = classify(br#"{"jsonrpc":"2.0","id":1,"method":"x"}"#).unwrap();
    let turn = turns.queue(key, &message).turn().await;
    assert!(turn.commit());
    assert!(!turns.cancel(&key, &crate::message::RequestId::parse("1").unwrap()));
}

#[tokio::test(start_paused = true)]
async fn two_that_wait_under_one_id_are_each_called_off() {
    let turns = Turns::default();
    let key = SessionKey::random();
    let message = classify(br#"{"jsonrpc":"2.0","id":1,"method":"x"}"#).unwrap();
    let one = crate::message::RequestId::parse("1").unwrap();
    let (first, second) = (turns.queue(key, &message), turns.queue(key, &message));
    let (a, b) = (first.cancelled(), second.cancelled());
    assert!(turns.cancel(&key, &one));
    assert!(a.is_cancelled() && b.is_cancelled());
    let (third, fourth) = (turns.queue(key, &message), turns.queue(key, &message));
    drop(third);
    assert!(turns.cancel(&key, &one), "the other still waits");
    assert!(fourth.cancelled().is_cancelled());
}
