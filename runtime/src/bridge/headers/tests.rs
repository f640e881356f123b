use http::{HeaderMap, HeaderValue};
use proptest::prelude::*;

use super::{accepts, check_modern, check_post, check_single, decoded, is_modern};
use crate::bridge::message::Message;

type Pair<'a> = (&'static str, &'a str);

fn map(pairs: &[Pair<'_>]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        headers.append(*name, HeaderValue::from_str(value).unwrap());
    }
    headers
}

#[test]
fn accept_is_read_as_http_says() {
    for (accept, json, events) in [
        ("application/json, text/event-stream", true, true),
        ("*/*", true, true),
        ("application/*;q=0.5", true, false),
        ("Text/Event-Stream", false, true),
        ("application/json", true, false),
        ("text/html", false, false),
        ("", false, false),
    ] {
        let headers = map(&[("accept", accept)]);
        assert_eq!(accepts(&headers, "application", "json"), json, "{accept}");
        assert_eq!(
            accepts(&headers, "text", "event-stream"),
            events,
            "{accept}"
        );
    }
    assert!(accepts(&HeaderMap::new(), "text", "event-stream"));
}

#[test]
fn a_post_states_its_type_and_takes_both_answers() {
    let status =
        |pairs: &[(&'static str, &str)]| check_post(&map(pairs)).map_err(|r| r.status.as_u16());
    let both = ("accept", "application/json, text/event-stream");
    assert_eq!(
        status(&[both, ("content-type", "application/json; charset=utf-8")]),
        Ok(())
    );
    assert_eq!(status(&[both]), Err(415));
    assert_eq!(status(&[both, ("content-type", "text/plain")]), Err(415));
    assert_eq!(
        status(&[
            ("accept", "application/json"),
            ("content-type", "application/json")
        ]),
        Err(406)
    );
}

#[test]
fn eras_are_told_apart_in_the_order_on_which_sdks_agree() {
    let meta = r#"{"id":1,"method":"tools/list","params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}}"#;
    let plain = r#"{"id":1,"method":"tools/list"}"#;
    let initialize = r#"{"id":1,"method":"initialize","params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}}"#;
    let cases: &[(&[Pair<'_>], Option<&str>, bool)] = &[
        (&[("mcp-protocol-version", "2025-11-25")], Some(meta), false),
        (&[("mcp-protocol-version", "2026-07-28")], Some(plain), true),
        (&[("mcp-protocol-version", "2099-01-01")], Some(plain), true),
        (&[], Some(meta), true),
        (&[], Some(plain), false),
        (&[], Some(initialize), false),
        (&[("mcp-session-id", "x")], Some(meta), false),
        (&[], None, false),
        (&[("mcp-protocol-version", "2026-07-28")], None, true),
    ];
    for (headers, body, modern) in cases {
        let message = body.map(|b| Message::parse(b).unwrap());
        assert_eq!(
            is_modern(&map(headers), message.as_ref()),
            *modern,
            "{headers:?} {body:?}"
        );
    }
}

const CALL: &str = r#"{"id":1,"method":"tools/call","params":{"name":"grün","_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}}}"#;

fn code(pairs: &[(&'static str, &str)], body: &str) -> Option<i64> {
    let message = Message::parse(body).unwrap();
    check_modern(&map(pairs), &message).err().map(|r| r.code)
}

#[test]
fn modern_headers_must_mirror_the_body() {
    let version = ("mcp-protocol-version", "2026-07-28");
    let method = ("mcp-method", "tools/call");
    let name = ("mcp-name", "=?base64?Z3LDvG4=?=");
    assert_eq!(code(&[version, method, name], CALL), None);
    for wrong in [
        vec![method, name],
        vec![("mcp-protocol-version", "2026-07-29"), method, name],
        vec![version, name],
        vec![version, ("mcp-method", "Tools/Call"), name],
        vec![version, method],
        vec![version, method, ("mcp-name", "=?base64?Z3LDvG4?=")],
        vec![version, method, ("mcp-name", "grun")],
    ] {
        assert_eq!(code(&wrong, CALL), Some(-32020), "{wrong:?}");
    }
    let task = CALL
        .replace("tools/call", "tasks/get")
        .replace("name", "taskId");
    assert_eq!(
        code(&[version, ("mcp-method", "tasks/get")], &task),
        Some(-32020)
    );
}

#[test]
fn a_modern_request_without_its_meta_is_refused_as_invalid() {
    for body in [
        r#"{"id":1,"method":"x"}"#,
        r#"{"id":1,"method":"x","params":{"_meta":3}}"#,
        r#"{"id":1,"method":"x","params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}}"#,
        r#"{"id":1,"method":"x","params":{"_meta":{"io.modelcontextprotocol/clientCapabilities":{}}}}"#,
    ] {
        assert_eq!(
            code(&[("mcp-protocol-version", "2026-07-28")], body),
            Some(-32602),
            "{body}"
        );
    }
    // A null version can equal no header.
    let null = CALL.replace(r#""2026-07-28""#, "null");
    assert_eq!(code(&[("mcp-method", "tools/call")], &null), Some(-32020));
}

#[test]
fn routing_headers_may_stand_only_once() {
    let twice = map(&[("mcp-name", "a"), ("mcp-name", "a")]);
    assert_eq!(check_single(&twice).unwrap_err().code, -32020);
    assert!(check_single(&map(&[("accept", "a"), ("accept", "b")])).is_ok());
}

proptest! {
    #[test]
    fn every_name_survives_its_encoding(name in ".*") {
        use base64::{Engine, engine::general_purpose::STANDARD};
        let encoded = format!("=?base64?{}?=", STANDARD.encode(&name));
        prop_assert_eq!(decoded(&encoded), Some(name));
    }

    #[test]
    fn no_value_makes_the_decoder_panic(value in ".*") {
        let _decoded = decoded(&value);
    }
}
