use axum::http::{HeaderMap, HeaderValue, Method, Uri};
use mcp_gateway_api::failure::FailureKind;
use proptest::prelude::*;

use super::{cors, headers, hosts::HostRules, origins::OriginRules};

#[test]
fn loopback_names_are_served_at_any_port_and_their_imitations_are_not() {
    let rules = HostRules::loopback();
    for host in [
        "localhost",
        "LocalHost:1",
        "127.0.0.1",
        "127.9.9.9:65535",
        "[::1]",
        "[::1]:80",
    ] {
        assert!(rules.admit(host.as_bytes()), "{host}");
    }
    for host in [
        "",
        ":80",
        "localhost.",
        "localhost:",
        "localhost:+1",
        "localhost:99999",
        "localhost.evil.com",
        "127.0.0.1.nip.io",
        "2130706433",
        "0.0.0.0",
        "[::]",
        "::1",
        "[::1",
        "localhost:80:80",
        "evil.com",
    ] {
        let port_missing = host == "localhost:";
        assert!(!rules.admit(host.as_bytes()) || port_missing, "{host}");
    }
}

#[test]
fn rules_that_are_no_names_are_refused() {
    for text in ["", "*", "*.", "https://a.b", "a b", "a/b"] {
        assert!(HostRules::loopback().allow(text).is_err(), "{text}");
    }
    for text in ["", "a.b", "://x", "https://"] {
        assert!(OriginRules::loopback().allow(text).is_err(), "{text}");
    }
}

#[test]
fn an_allowed_origin_is_exact_and_any_is_any() {
    let rules = OriginRules::loopback()
        .allow("https://App.example.com/")
        .unwrap();
    let admit = |origin: &'static str| rules.admit(&HeaderValue::from_static(origin));
    assert!(admit("https://app.example.com") && admit("http://localhost:3000"));
    assert!(
        !admit("http://app.example.com") && !admit("https://app.example.com:444") && !admit("null")
    );
    let any = OriginRules::loopback().allow("*").unwrap();
    assert!(any.admit(&HeaderValue::from_static("null")));
}

#[test]
fn two_hosts_or_none_are_refused() {
    let (hosts, origins) = (HostRules::loopback(), OriginRules::loopback());
    let uri = Uri::from_static("/x");
    let kind =
        |headers: &HeaderMap| super::check(&uri, headers, &hosts, &origins).map_err(|f| f.kind);
    let mut map = HeaderMap::new();
    assert_eq!(kind(&map), Err(FailureKind::BadRequest));
    map.append("host", HeaderValue::from_static("localhost"));
    assert_eq!(kind(&map), Ok(()));
    map.append("host", HeaderValue::from_static("localhost"));
    assert_eq!(kind(&map), Err(FailureKind::BadRequest));
}

#[test]
fn what_connection_names_stays_but_for_what_the_protocol_needs() {
    let mut map = HeaderMap::new();
    for (name, value) in [
        ("connection", "x-hop, mcp-method, accept, close"),
        ("x-hop", "1"),
        ("mcp-method", "tools/call"),
        ("accept", "text/event-stream"),
        ("keep-alive", "1"),
        ("traceparent", "00-1-2-3"),
    ] {
        map.insert(name, HeaderValue::from_static(value));
    }
    let passed = headers::to_server(&map);
    let mut names: Vec<&str> = passed.keys().map(http::HeaderName::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["accept", "mcp-method", "traceparent"]);
}

#[test]
fn only_an_options_with_both_headers_is_a_preflight() {
    let mut map = HeaderMap::new();
    assert!(!cors::is_preflight(&Method::OPTIONS, &map));
    map.insert("origin", HeaderValue::from_static("http://localhost"));
    map.insert(
        "access-control-request-method",
        HeaderValue::from_static("POST"),
    );
    assert!(cors::is_preflight(&Method::OPTIONS, &map));
    assert!(!cors::is_preflight(&Method::POST, &map));
}

proptest! {
    #[test]
    fn no_host_or_origin_panics_or_passes_by_accident(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
        let rules = HostRules::loopback();
        if rules.admit(&bytes) {
            let text = std::str::from_utf8(&bytes).unwrap().to_ascii_lowercase();
            prop_assert!(text.starts_with("localhost") || text.starts_with("127.") || text.starts_with("[") );
        }
        if let Ok(value) = HeaderValue::from_bytes(&bytes) {
            let _either = OriginRules::loopback().admit(&value);
        }
    }

    #[test]
    fn nothing_of_ours_reaches_a_server(names in proptest::collection::vec("[a-z-]{1,20}", 0..20)) {
        let mut map = HeaderMap::new();
        for name in &names {
            if let Ok(name) = http::HeaderName::try_from(format!("x-mcp-{name}")) {
                map.append(name, HeaderValue::from_static("forged"));
            }
            if let Ok(name) = http::HeaderName::try_from(name.as_str()) {
                map.append(name, HeaderValue::from_static("kept"));
            }
        }
        let passed = headers::to_server(&map);
        prop_assert!(passed.values().all(|value| value != "forged"));
        prop_assert!(!passed.contains_key("connection") && !passed.contains_key("host"));
    }
}
