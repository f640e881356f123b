use serde_json::json;

use super::{Eras, PROBE, Verdict, verdict};
use crate::bridge::message::Message;

#[test]
fn the_probe_is_a_complete_modern_request() {
    let probe = Message::parse(PROBE).unwrap();
    assert_eq!(probe.method(), "server/discover");
    assert_eq!(probe.version(), Some(r#""2026-07-28""#));
    assert!(probe.has_capabilities());
}

#[test]
fn a_verdict_agrees_with_what_clients_make_of_the_same_answer() {
    let modern = [
        Ok(json!({"supportedVersions": ["2026-07-28", "2025-11-25"]})),
        Ok(json!({"supportedVersions": ["2031-01-01"]})),
        Err(json!({"code": -32022, "message": "", "data": {"supported": ["2027-01-01"]}})),
        Err(json!({"code": -32021, "message": ""})),
        Err(json!({"code": -32020, "message": ""})),
    ];
    let legacy = [
        Ok(json!({"supportedVersions": ["2025-11-25"]})),
        Ok(json!({})),
        Ok(json!(null)),
        Err(json!({"code": -32601, "message": "Method not found"})),
        Err(json!({"code": -32602, "message": "Invalid request parameters"})),
        Err(json!({"code": -32022, "message": "", "data": {"supported": ["2025-11-25"]}})),
        Err(json!({"code": -32022, "message": ""})),
        Err(json!("odd")),
    ];
    for (answers, expected) in [
        (modern.as_slice(), Verdict::Modern),
        (&legacy, Verdict::Legacy),
    ] {
        for answer in answers {
            let text = answer
                .as_ref()
                .map_or_else(ToString::to_string, ToString::to_string);
            let raw = if answer.is_ok() {
                Ok(text.as_str())
            } else {
                Err(text.as_str())
            };
            assert_eq!(verdict(raw), expected, "{raw:?}");
        }
    }
}

#[test]
fn the_refusal_names_what_the_server_was_seen_to_negotiate() {
    let mut eras = Eras::default();
    let refusal = eras.legacy_only(Some(r#""2026-07-28""#)).to(Some("5"));
    let text = refusal.text();
    assert!(
        text.contains(r#""id":5"#) && text.contains("2025-11-25"),
        "{text}"
    );
    // Codes that tell SDK clients that the server is modern would keep them from falling back.
    assert!(!(-32099..=-32020).contains(&refusal.code));
    eras.initialized(r#"{"protocolVersion":"2025-06-18"}"#);
    let text = eras.legacy_only(None).text();
    assert!(
        text.contains("2025-06-18") && !text.contains("2025-11-25"),
        "{text}"
    );
}

#[test]
fn only_an_error_that_names_modern_versions_alone_ends_the_hope_for_a_handshake() {
    for (error, refused) in [
        (
            r#"{"code":-32022,"message":"","data":{"supported":["2026-07-28"]}}"#,
            true,
        ),
        (
            r#"{"code":-32022,"message":"","data":{"supported":["2026-07-28","2025-11-25"]}}"#,
            false,
        ),
        (
            r#"{"code":-32022,"message":"","data":{"supported":[]}}"#,
            false,
        ),
        (r#"{"code":-32602,"message":""}"#, false),
        ("3", false),
    ] {
        let mut eras = Eras::default();
        let passed_on = eras.initialize_failed(error);
        assert_eq!(
            passed_on.contains("this server supports"),
            error.contains("2026")
        );
        assert_eq!(eras.initialize_refused().is_some(), refused, "{error}");
        assert_eq!(eras.modern(), refused.then_some(true));
    }
}
