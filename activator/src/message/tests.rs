use proptest::prelude::*;

use super::*;

fn id(raw: &str) -> RequestId {
    RequestId::parse(raw).unwrap()
}

#[test]
fn ids_are_compared_as_json_values() {
    for (a, b) in [
        ("1", "1.0"),
        ("1", "1e0"),
        ("100", "1E2"),
        ("0", "-0"),
        ("\"a\"", "\"\\u0061\""),
        ("1.5", "15e-1"),
    ] {
        assert_eq!(id(a), id(b), "{a} {b}");
        assert_eq!(id(a).raw(), a);
    }
    for (a, b) in [
        ("1", "\"1\""),
        ("1", "2"),
        ("9007199254740993", "9007199254740992"),
        ("-1", "1"),
        ("0.1", "0.2"),
    ] {
        assert_ne!(id(a), id(b), "{a} {b}");
    }
}

#[test]
fn what_is_no_id_is_refused() {
    for raw in [
        "null", "true", "{}", "[1]", "", "NaN", "1e999", "01", "\"a", "-", "+1", "1 2",
    ] {
        assert_eq!(RequestId::parse(raw), Err(Malformed::Id), "{raw}");
    }
    let long = format!("\"{}\"", "x".repeat(MAX_ID));
    assert_eq!(RequestId::parse(&long), Err(Malformed::Id));
}

#[test]
fn a_request_is_read_shallowly() {
    let body = br#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"echo","arguments":{"id":8},
        "_meta":{"progressToken":"t","io.modelcontextprotocol/protocolVersion":"2026-07-28","traceparent":"00-a-b-01"}}}"#;
    let Message::Request(request) = classify(body).unwrap() else {
        panic!("a request")
    };
    assert_eq!(request.id, id("7"));
    assert_eq!(&*request.method, "tools/call");
    assert_eq!(request.params.name.as_deref(), Some("echo"));
    assert_eq!(request.params.progress_token, Some(id("\"t\"")));
    assert_eq!(request.params.meta_version.as_deref(), Some("2026-07-28"));
    assert_eq!(request.params.traceparent.as_deref(), Some("00-a-b-01"));
}

#[test]
fn a_cancellation_names_its_request() {
    let body =
        br#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":"a\u0062"}}"#;
    let message = classify(body).unwrap();
    assert!(message.is_silent());
    assert_eq!(message.params().unwrap().request_id, Some(id("\"ab\"")));
}

#[test]
fn responses_and_their_ids_are_told_apart() {
    let ok = classify(br#"{"jsonrpc":"2.0","id":1,"result":null}"#).unwrap();
    assert_eq!(
        ok,
        Message::Response(Response {
            id: Some(id("1")),
            is_error: false
        })
    );
    let anonymous = classify(br#"{"jsonrpc":"2.0","id":null,"error":{"code":1,"message":""}}"#);
    assert_eq!(
        anonymous.unwrap(),
        Message::Response(Response {
            id: None,
            is_error: true
        })
    );
    assert_eq!(
        classify(br#"{"jsonrpc":"2.0","result":{}}"#),
        Err(Malformed::Id)
    );
}

#[test]
fn a_batch_keeps_its_order_and_its_bounds() {
    let two = br#" [{"jsonrpc":"2.0","id":1,"method":"ping"},{"jsonrpc":"2.0","method":"x"}]"#;
    let message = classify(two).unwrap();
    assert!(message.is_batch());
    assert_eq!(message.each().count(), 2);
    assert_eq!(message.request().unwrap().id, id("1"));
    assert_eq!(classify(b"[]"), Err(Malformed::Batch));
    assert_eq!(classify(b"[[]]"), Err(Malformed::Batch));
    let many = format!("[{}0]", "0,".repeat(MAX_BATCH));
    assert_eq!(classify(many.as_bytes()), Err(Malformed::Batch));
}

#[test]
fn what_is_no_message_is_refused_with_its_reason() {
    for (body, why) in [
        ("", Malformed::Json),
        ("{", Malformed::Json),
        ("\u{0}", Malformed::Json),
        ("1", Malformed::Shape),
        ("{}", Malformed::Shape),
        (r#"{"id":1,"method":"a"}"#, Malformed::Shape),
        (r#"{"jsonrpc":2.0,"id":1,"method":"a"}"#, Malformed::Shape),
        (r#"{"jsonrpc":"2.0","id":1,"method":1}"#, Malformed::Shape),
        (r#"{"jsonrpc":"2.0","id":null,"method":"a"}"#, Malformed::Id),
        (
            r#"{"jsonrpc":"2.0","id":1,"id":2,"method":"a"}"#,
            Malformed::Json,
        ),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"a","result":1}"#,
            Malformed::Shape,
        ),
        (
            r#"{"jsonrpc":"2.0","id":1,"result":1,"error":{}}"#,
            Malformed::Shape,
        ),
    ] {
        assert_eq!(classify(body.as_bytes()), Err(why), "{body}");
    }
    assert_eq!(classify(b"\xff\xfe"), Err(Malformed::Json));
}

#[test]
fn deep_nesting_is_read_without_a_deep_stack() {
    let body = format!(
        r#"{{"jsonrpc":"2.0","id":1,"method":"a","params":{{"x":{}{}}}}}"#,
        "[".repeat(200_000),
        "]".repeat(200_000)
    );
    assert!(classify(body.as_bytes()).is_ok());
    assert!(classify("[".repeat(1_000_000).as_bytes()).is_err());
}

proptest! {
    #[test]
    fn classifying_never_panics(body in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = classify(&body);
    }

    #[test]
    fn classifying_what_looks_like_json_never_panics(body in r#"[\[\]{}",:0-9a-z\\. -]{0,120}"#) {
        let _ = classify(body.as_bytes());
    }

    #[test]
    fn any_string_is_an_id_equal_to_itself(text in ".{0,60}") {
        let raw = serde_json::to_string(&text).unwrap();
        prop_assert_eq!(id(&raw), id(&raw));
        prop_assert_eq!(id(&raw).raw().to_owned(), raw);
    }

    #[test]
    fn integers_are_equal_however_they_are_written(n in -1_000_000_i64..1_000_000) {
        let float = format!("{n}.0");
        prop_assert_eq!(id(&n.to_string()), id(&float));
    }
}
