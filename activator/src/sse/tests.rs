use proptest::prelude::*;

use super::*;
use crate::message::RequestId;

fn id(raw: &str) -> RequestId {
    RequestId::parse(raw).unwrap()
}

fn scan(text: &[u8]) -> Vec<EventSummary> {
    Scanner::new().push(text)
}

fn json(text: &str) -> Vec<Seen> {
    let mut out = Vec::new();
    TopLevel::new().push(text.as_bytes(), &mut out);
    out
}

fn response(raw: &str) -> Seen {
    Seen::Response {
        id: Some(id(raw)),
        is_error: false,
    }
}

#[test]
fn a_response_is_recognised_wherever_its_id_stands() {
    for text in [
        r#"{"jsonrpc":"2.0","id":7,"result":{}}"#,
        r#" { "result" : {"id":8,"method":"x"} , "id" : 7 , "jsonrpc":"2.0" } "#,
        r#"{"result":"}\"{","i\u0064":7}"#,
        r#"{"result":[[{"id":1}]],"id":7.0}"#,
    ] {
        assert_eq!(json(text), [response("7")], "{text}");
    }
    let huge = format!(r#"{{"result":"{}","id":"a"}}"#, "x".repeat(1 << 20));
    assert_eq!(json(&huge), [response("\"a\"")]);
}

#[test]
fn requests_notifications_and_errors_are_told_apart() {
    assert_eq!(
        json(r#"{"id":1,"method":"ping"}"#),
        [Seen::Request {
            id: id("1"),
            method: "ping".into()
        }]
    );
    assert_eq!(
        json(
            r#"{"method":"notifications/cancelled","params":{"reason":"requestId","requestId":"q"}}"#
        ),
        [Seen::Notification {
            method: "notifications/cancelled".into(),
            request_id: Some(id("\"q\""))
        }]
    );
    assert_eq!(
        json(r#"{"id":null,"error":{"code":1}}"#),
        [Seen::Response {
            id: None,
            is_error: true
        }]
    );
    assert_eq!(
        json(r#"[{"id":1,"result":{}},{"id":2,"result":[]}]"#),
        [response("1"), response("2")]
    );
}

#[test]
fn what_is_no_json_rpc_yields_nothing() {
    for text in [
        "",
        "hello",
        "[]",
        "{}",
        "[1,2]",
        r#"{"id":1}"#,
        "}}}]]",
        "\"{\"",
    ] {
        assert_eq!(json(text), [], "{text}");
    }
}

#[test]
fn nested_members_are_not_taken_for_the_messages_own() {
    assert_eq!(
        json(r#"{"id":1,"result":{"requestId":3,"params":{"requestId":4},"error":1,"id":2}}"#),
        [response("1")]
    );
    assert_eq!(
        json(r#"{"method":"m","params":{"a":{"requestId":4}}}"#),
        [Seen::Notification {
            method: "m".into(),
            request_id: None
        }]
    );
    assert_eq!(
        json(r#"{"method":"m","params":[{"requestId":4}]}"#),
        [Seen::Notification {
            method: "m".into(),
            request_id: None
        }]
    );
}

#[test]
fn an_event_has_its_id_its_name_and_its_messages() {
    let text = b"\xef\xbb\xbf: hi\r\nid: a:b\r\nretry: 5\r\nevent: message\r\ndata: {\"id\":1,\r\ndata: \"result\":1}\r\n\r\n";
    let [event] = &scan(text)[..] else {
        panic!("one event")
    };
    assert_eq!(event.id.as_deref(), Some("a:b"));
    assert_eq!(event.event.as_deref(), Some("message"));
    assert_eq!(event.messages, [response("1")]);
    assert_eq!(event.plain, None);
    // The LF after the last CR is not there yet when the event ends.
    assert_eq!(event.end, text.len() as u64 - 1);
}

#[test]
fn a_priming_event_has_an_id_and_nothing_else() {
    let [event] = &scan(b"id: 1\ndata\n\n")[..] else {
        panic!("one event")
    };
    assert_eq!(event.id.as_deref(), Some("1"));
    assert!(event.messages.is_empty() && event.plain.is_none());
}

#[test]
fn the_endpoint_event_gives_its_text() {
    let [event] = &scan(b"event:endpoint\ndata:/messages?x=1\n\n")[..] else {
        panic!("one event")
    };
    assert_eq!(event.event.as_deref(), Some("endpoint"));
    assert_eq!(event.plain.as_deref(), Some("/messages?x=1"));
}

#[test]
fn comments_and_blank_lines_are_no_events_and_leave_a_boundary() {
    let mut scanner = Scanner::new();
    assert!(scanner.at_boundary());
    assert_eq!(scanner.push(b": ping\n\n\n"), []);
    assert!(scanner.at_boundary());
    for part in ["d", "ata", ":", " ", "x", "\n"] {
        assert_eq!(scanner.push(part.as_bytes()), []);
        assert!(!scanner.at_boundary(), "after {part:?}");
    }
    assert_eq!(scanner.push(b"\n").len(), 1);
    assert!(scanner.at_boundary());
}

#[test]
fn what_is_too_long_is_not_kept() {
    let long = "x".repeat(MAX_EVENT_ID + 1);
    let text = format!(
        "id: {long}\nevent: {long}\n{long}: a\ndata: {}\n\n",
        long.repeat(4)
    );
    let [event] = &scan(text.as_bytes())[..] else {
        panic!("one event")
    };
    assert_eq!(
        (&event.id, &event.event, &event.plain),
        (&None, &None, &None)
    );
}

#[test]
fn a_scanner_stays_small_however_long_an_event_is() {
    let mut scanner = Scanner::new();
    scanner.push(b"data: {\"result\":\"");
    for _ in 0..1_000 {
        scanner.push(&[b'x'; 4_096]);
    }
    assert!(scanner.plain.capacity() + scanner.value.capacity() < 8_192);
    let [event] = &scanner.push(b"\",\"id\":3}\n\n")[..] else {
        panic!("one event")
    };
    assert_eq!(event.messages, [response("3")]);
}

fn event_text() -> impl Strategy<Value = Vec<u8>> {
    let line = prop_oneof![
        Just(
            r#"data: {"jsonrpc":"2.0","id":1,"result":{"a":[1,"é\"\\"]}}"#
                .as_bytes()
                .to_vec()
        ),
        Just(b"data:{\"method\":\"m\",\"params\":{\"requestId\":2},".to_vec()),
        Just(b"data: \"id\":3}".to_vec()),
        Just(b"id: 5".to_vec()),
        Just(b"event: endpoint".to_vec()),
        Just(b": comment".to_vec()),
        Just(b"".to_vec()),
        Just(b"retry: 3".to_vec()),
        Just(b"data".to_vec()),
        Just(b"\xef\xbb\xbf".to_vec()),
        proptest::collection::vec(any::<u8>(), 0..12),
    ];
    let end = prop_oneof![Just(&b"\n"[..]), Just(&b"\r"[..]), Just(&b"\r\n"[..])];
    proptest::collection::vec((line, end), 0..24).prop_map(|lines| {
        lines
            .into_iter()
            .flat_map(|(l, e)| [l, e.to_vec()].concat())
            .collect()
    })
}

fn in_chunks(text: &[u8], cuts: &[prop::sample::Index]) -> Vec<Vec<u8>> {
    let mut at: Vec<usize> = cuts.iter().map(|c| c.index(text.len() + 1)).collect();
    at.extend([0, text.len()]);
    at.sort_unstable();
    at.windows(2).map(|w| text[w[0]..w[1]].to_vec()).collect()
}

proptest! {
    #[test]
    fn any_chunking_gives_the_same_events(
        text in event_text(),
        cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..12),
    ) {
        let mut whole = Scanner::new();
        let expected = whole.push(&text);
        let mut scanner = Scanner::new();
        let got: Vec<_> = in_chunks(&text, &cuts).iter().flat_map(|c| scanner.push(c)).collect();
        prop_assert_eq!(got, expected);
        prop_assert_eq!(scanner.at_boundary(), whole.at_boundary());
    }

    #[test]
    fn any_chunking_of_json_gives_the_same_messages(
        text in r#"[\[\]{}",:0-9a-z\\ ]{0,80}|\{"id":[0-9]{1,3},"(result|method|error)":("[a-z]{0,4}"|\{\}|[0-9])\}"#,
        cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..12),
    ) {
        let mut scanner = TopLevel::new();
        let mut got = Vec::new();
        for chunk in in_chunks(text.as_bytes(), &cuts) {
            scanner.push(&chunk, &mut got);
        }
        prop_assert_eq!(got, json(&text));
    }

    #[test]
    fn it_agrees_with_a_whole_parser(
        number in any::<u32>(),
        body in "[a-z\"\\\\{}\\[\\],:é]{0,40}",
        first in any::<bool>(),
    ) {
        let body = serde_json::json!({"x": [body.clone(), {"id": body, "method": 1}]});
        let text = if first {
            format!(r#"{{"id":{number},"result":{body}}}"#)
        } else {
            format!(r#"{{"result":{body},"id":{number}}}"#)
        };
        prop_assert_eq!(json(&text), vec![response(&number.to_string())]);
    }
}
