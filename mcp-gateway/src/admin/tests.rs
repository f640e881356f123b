use std::net::IpAddr;

use axum::{
    body::Body,
    http::{HeaderMap, HeaderValue, header},
};

use super::*;

fn ask(query: Option<&str>, accept: &'static str, agent: &'static str) -> bool {
    let mut headers = HeaderMap::new();
    headers.insert(header::ACCEPT, HeaderValue::from_static(accept));
    headers.insert(header::USER_AGENT, HeaderValue::from_static(agent));
    wants_text(query, &headers)
}

#[test]
fn terminals_and_browsers_get_text_and_scripts_json() {
    assert!(ask(None, "*/*", "curl/8.5.0"));
    assert!(ask(None, "text/html,*/*", "Mozilla/5.0"));
    assert!(!ask(None, "*/*", "python-requests/2"));
    assert!(!ask(None, "application/json", "curl/8.5.0"));
    assert!(!ask(Some("format=json"), "*/*", "curl/8.5.0"));
    assert!(ask(Some("a=b&format=text"), "application/json", "x"));
}

const HERE: &str = "127.0.0.1";
const THERE: &str = "192.0.2.9";
const ALL: [&str; 6] = [
    "/livez", "/readyz", "/healthz", "/metrics", "/status", "/else",
];

/// The paths that are shown.
fn shown(gate: &Gate, peer: &str, host: &str, origin: Option<&str>) -> Vec<&'static str> {
    let admitted = |path: &&str| {
        let mut request = Request::get(*path).header(header::HOST, host);
        if let Some(origin) = origin {
            request = request.header(header::ORIGIN, origin);
        }
        let mut request = request.body(Body::empty()).unwrap();
        let ip: IpAddr = peer.parse().unwrap();
        request.extensions_mut().insert(Peer(ip));
        gate.admit(&request).is_ok()
    };
    ALL.into_iter().filter(admitted).collect()
}

#[test]
fn other_machines_see_health_and_metrics_and_the_status_only_if_that_was_said() {
    let gate = |exposed, open| Gate {
        exposed,
        open,
        hosts: HostRules::loopback().allow("gw.example").unwrap(),
        origins: OriginRules::loopback(),
    };
    let evil = Some("https://evil.example");
    for open in [false, true] {
        let exposed = gate(true, open);
        // A kubelet, and Prometheus.
        assert_eq!(shown(&exposed, THERE, "10.1.2.3:9090", None), ALL[..4]);
        // `kubectl port-forward`, or a shell on the machine.
        assert_eq!(shown(&exposed, HERE, "localhost:9090", None), ALL);
        assert_eq!(shown(&exposed, "::1", "gw.example", None), ALL);
        // Whoever names an allowed host has proved nothing.
        let status = if open { &ALL[..] } else { &ALL[..4] };
        assert_eq!(shown(&exposed, THERE, "localhost", None), status);
        assert_eq!(shown(&exposed, THERE, "gw.example", None), status);
        // A page that was rebound to this machine, and one that was not.
        assert_eq!(shown(&exposed, HERE, "evil.example", None), ALL[..4]);
        assert_eq!(shown(&exposed, HERE, "localhost", evil), [""; 0]);

        let inside = gate(false, open);
        assert_eq!(shown(&inside, HERE, "localhost", None), ALL);
        assert_eq!(shown(&inside, HERE, "evil.example", None), [""; 0]);
        assert_eq!(shown(&inside, HERE, "localhost", evil), [""; 0]);
    }
}
