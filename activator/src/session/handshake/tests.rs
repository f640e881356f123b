use serde_json::json;

use super::*;

#[test]
fn only_the_three_members_are_kept() {
    let body = br#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"_meta":{"x":1},"clientInfo":{"name":"a"},"capabilities":{"n":1.0},"protocolVersion":"2025-06-18"}}"#;
    assert_eq!(
        Handshake::of(body).unwrap().params().unwrap(),
        r#"{"protocolVersion":"2025-06-18","capabilities":{"n":1.0},"clientInfo":{"name":"a"}}"#
    );
}

#[test]
fn what_is_no_initialize_has_no_handshake() {
    for body in ["", "{}", r#"{"params":[]}"#, r#"{"params":1}"#] {
        // An array of fewer than three would read as absent members; what counts is that nothing panics.
        let _ = Handshake::of(body.as_bytes());
    }
    assert_eq!(Handshake::of(b"{}"), None);
    let huge = format!(
        r#"{{"params":{{"capabilities":"{}"}}}}"#,
        "x".repeat(MAX_JSON)
    );
    assert_eq!(Handshake::of(huge.as_bytes()), None);
}

#[test]
fn capabilities_are_compared_whatever_their_order() {
    let a = json!({"tools": {"listChanged": true}, "logging": {}});
    let b: Value = serde_json::from_str(r#"{"logging":{},"tools":{"listChanged":true}}"#).unwrap();
    assert_eq!(fingerprint(&a), fingerprint(&b));
    for other in [
        json!({}),
        json!({"tools": {}, "logging": {}}),
        json!({"tools": {"listChanged": false}, "logging": {}}),
        json!({"tools": {"listChanged": true, "logging": {}}}),
    ] {
        assert_ne!(fingerprint(&a), fingerprint(&other));
    }
}

#[test]
fn a_deflated_bomb_is_cut() {
    let mut deflate = DeflateEncoder::new(Vec::new(), Compression::best());
    deflate.write_all(&vec![b'x'; 10 << 20]).unwrap();
    let bomb = Handshake(deflate.finish().unwrap().into());
    assert!(bomb.params().is_none_or(|text| text.len() <= MAX_JSON));
}
