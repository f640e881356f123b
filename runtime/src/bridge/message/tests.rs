use proptest::prelude::*;
use serde_json::{Value, json};

use super::{Key, Kind, Malformed, Message};

fn kind(text: &str) -> Result<Kind, Malformed> {
    Message::parse(text).map(|m| m.kind)
}

#[test]
fn messages_are_told_apart_by_their_members() {
    let cases = [
        (r#"{"id":1,"method":"m"}"#, Ok(Kind::Request)),
        (r#"{"method":"m"}"#, Ok(Kind::Notification)),
        (
            r#"{"id":"a","result":null}"#,
            Ok(Kind::Response { error: None }),
        ),
        (
            r#"{"id":null,"error":{"code":-1,"message":""}}"#,
            Ok(Kind::Response { error: Some(-1) }),
        ),
        (
            r#"{"id":1,"result":null,"error":{"code":-1}}"#,
            Ok(Kind::Response { error: Some(-1) }),
        ),
        (
            r#"{"id":1,"result":{},"error":null}"#,
            Ok(Kind::Response { error: None }),
        ),
        (
            r#"{"id":1,"error":"odd"}"#,
            Ok(Kind::Response { error: Some(0) }),
        ),
        (r#"{"id":null,"method":"m"}"#, Err(Malformed::Shape)),
        (r#"{"id":true,"method":"m"}"#, Err(Malformed::Shape)),
        (r#"{"id":{},"result":1}"#, Err(Malformed::Shape)),
        (r#"{"id":1}"#, Err(Malformed::Shape)),
        (r#"{"id":1,"id":1,"method":"m"}"#, Err(Malformed::Shape)),
        (
            r#"{"id":1,"method":"m","params":{"name":1,"name":2}}"#,
            Err(Malformed::Shape),
        ),
        (r#"[1,"m",{}]"#, Err(Malformed::Shape)),
        ("3", Err(Malformed::Shape)),
        ("{", Err(Malformed::Json)),
        ("", Err(Malformed::Json)),
    ];
    for (text, expected) in cases {
        assert_eq!(kind(text), expected, "{text}");
    }
}

#[test]
fn an_array_of_parameters_is_not_mistaken_for_named_ones() {
    let message = Message::parse(r#"{"id":1,"method":"tools/call","params":[{},"x"]}"#).unwrap();
    assert_eq!(message.mirrored_name(), Some(None));
}

#[test]
fn ids_are_compared_as_values() {
    for (a, b) in [
        ("1", "1.0"),
        ("1", "1e0"),
        ("-0", "0"),
        (r#""a""#, r#""\u0061""#),
    ] {
        assert_eq!(Key::of(a), Key::of(b), "{a} {b}");
    }
    for (a, b) in [
        ("1", r#""1""#),
        ("1", "1.5"),
        ("9007199254740993", "9007199254740992"),
    ] {
        assert_ne!(Key::of(a), Key::of(b), "{a} {b}");
    }
    for raw in ["null", "true", "{}", "[]", ""] {
        assert_eq!(Key::of(raw), None, "{raw}");
    }
}

#[test]
fn a_splice_changes_the_named_values_and_nothing_else() {
    let text = "{ \"method\":\"x\", \"params\":{\"n\":1.50,\"_meta\":{\"progressToken\":\"t\",\"a\":[1 ,2]}},\r\n\"id\" : 7 }\n";
    let message = Message::parse(text).unwrap();
    assert_eq!(
        message.edit().token("12").id("99").line(),
        "{ \"method\":\"x\", \"params\":{\"n\":1.50,\"_meta\":{\"progressToken\":12,\"a\":[1 ,2]}},  \"id\" : 99 }"
    );
}

fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        ".*".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::btree_map(".*", inner, 0..6)
                .prop_map(|m| Value::Object(m.into_iter().collect())),
        ]
    })
}

fn id() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<i64>().prop_map(Value::from),
        ".*".prop_map(Value::from)
    ]
}

proptest! {
    #[test]
    fn no_text_makes_the_reader_panic(text in ".*") {
        let _read = Message::parse(&text);
        let _read = Message::batch(&text);
    }

    #[test]
    fn no_json_makes_the_reader_panic(value in json()) {
        let _read = Message::parse(&value.to_string());
    }

    #[test]
    fn a_spliced_request_is_the_same_but_for_its_id_and_token(
        params in prop::collection::btree_map("[a-z]{1,8}", json(), 0..4),
        old in id(), new in id(), token in id(), new_token in id(), pretty in any::<bool>(),
    ) {
        let mut params: serde_json::Map<_, _> = params.into_iter().collect();
        params.insert("_meta".into(), json!({"progressToken": token}));
        let mut value = json!({"jsonrpc": "2.0", "id": old, "method": "m", "params": params});
        let text = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) };
        let text = text.unwrap();
        let message = Message::parse(&text).unwrap();
        let line = message.edit().id(&new.to_string()).token(&new_token.to_string()).line();
        prop_assert!(!line.contains(['\n', '\r']));
        value["id"] = new;
        value["params"]["_meta"]["progressToken"] = new_token;
        prop_assert_eq!(serde_json::from_str::<Value>(&line).unwrap(), value);
    }
}
