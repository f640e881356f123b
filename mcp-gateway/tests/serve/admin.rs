//! The admin listener and the page at `/`.

use std::net::{IpAddr, Ipv4Addr, UdpSocket};

use crate::support::{Home, Request, demo, until};

#[test]
fn status_is_text_for_a_terminal_and_json_for_a_script() {
    let home = Home::new();
    home.document("d.yaml", &demo("d", ""));
    let gateway = home.serve(&[]);
    gateway.initialize("d", &[]);
    let text = gateway.admin(&Request::get("/status").header("user-agent", "curl/8"));
    assert!(text.body.contains("d        ready"), "{}", text.body);
    assert!(text.body.contains("/adapters/d/mcp"), "{}", text.body);
    let status = gateway.status();
    assert_eq!(status["backends"][0]["starts"], 1);
    assert_eq!(status["instances"], 1);
}

#[test]
fn health_and_metrics_answer_and_the_cold_start_is_counted_by_phase() {
    let home = Home::new();
    home.document("d.yaml", &demo("d", ""));
    let gateway = home.serve(&[]);
    for path in ["/livez", "/readyz", "/healthz"] {
        assert_eq!(gateway.admin(&Request::get(path)).status, 200, "{path}");
    }
    gateway.initialize("d", &[]);
    until("the cold start is counted", || {
        let page = gateway.admin(&Request::get("/metrics"));
        assert!(
            page.header("content-type")
                .unwrap()
                .starts_with("text/plain")
        );
        let counted = |line: &str| {
            line.starts_with("mcp_gateway_cold_start_duration_seconds_count")
                && line.contains("phase=\"create\"")
        };
        page.body.lines().any(counted).then_some(())
    });
}

#[test]
fn a_revival_counts_the_replay_of_its_handshake_as_a_phase() {
    let home = Home::new();
    home.document("d.yaml", &demo("d", "  policy: {idleTimeout: 100ms}"));
    let gateway = home.serve(&[]);
    let counted = || {
        let page = gateway.admin(&Request::get("/metrics")).body;
        let of_handshake = |line: &&str| {
            line.starts_with("mcp_gateway_cold_start_duration_seconds_count")
                && line.contains("phase=\"handshake\"")
        };
        let line = page.lines().find(of_handshake)?.to_owned();
        line.rsplit(' ').next()?.parse::<f64>().ok()
    };
    let session = gateway.initialize("d", &[]).session().to_owned();
    until("it is idled out", || {
        let state = gateway.backend("d")?["state"].as_str()?.to_owned();
        (state == "cold").then_some(())
    });
    assert_eq!(counted(), None, "a first start replays nothing");
    let reply = gateway.count("d", &session, &[]);
    assert_eq!(reply.status, 200, "{reply:?}");
    assert_eq!(counted(), Some(1.0));
}

#[test]
fn strange_hosts_and_origins_are_refused_on_both_listeners() {
    let home = Home::new();
    home.document("d.yaml", &demo("d", ""));
    let gateway = home.serve(&["--allowed-host", "gw.example"]);
    for path in ["/status", "/metrics", "/livez"] {
        let request = Request::get(path);
        assert_eq!(
            gateway.admin(&request.clone().host("evil.example")).status,
            403
        );
        assert_eq!(
            gateway.admin(&request.clone().host("gw.example:1")).status,
            200
        );
        let origin = request.header("origin", "https://evil.example");
        assert_eq!(gateway.admin(&origin).status, 403);
    }
    assert_eq!(
        gateway.ask(&Request::get("/").host("evil.example")).status,
        403
    );
}

/// An address of this machine that is not loopback. Nothing is sent.
fn own_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("198.51.100.1:9").ok()?;
    let ip = socket.local_addr().ok()?.ip();
    (!ip.is_loopback() && !ip.is_unspecified()).then_some(ip)
}

#[test]
fn other_machines_see_health_and_metrics_under_any_host_and_no_status() {
    let home = Home::new();
    home.document("d.yaml", &demo("d", ""));
    let here = IpAddr::from(Ipv4Addr::LOCALHOST);
    for more in [&[][..], &["--admin-allow-anonymous"]] {
        let arguments = [&["--admin-listen", "0.0.0.0:0"], more].concat();
        let gateway = home.serve(&arguments);
        let status = Request::get("/status");
        assert_eq!(gateway.admin_at(here, &status).status, 200);
        let Some(there) = own_address() else {
            eprintln!("skipped in part: this machine has no address but loopback");
            return;
        };
        for path in ["/livez", "/readyz", "/healthz", "/metrics"] {
            // As a kubelet and Prometheus name it: by its address.
            assert_eq!(gateway.admin_at(there, &Request::get(path)).status, 200);
        }
        let refused = gateway.admin_at(there, &status);
        assert_eq!(refused.status, 403, "a host that was never allowed");
        let reply = gateway.admin_at(there, &status.host("localhost"));
        if more.is_empty() {
            assert_eq!(reply.status, 403);
            assert!(reply.body.contains("--admin-allow-anonymous"), "{reply:?}");
        } else {
            assert_eq!(reply.status, 200);
        }
    }
}

#[test]
fn the_front_page_lists_urls_as_text_and_as_html() {
    let home = Home::new();
    home.document("d.yaml", &demo("d", "  description: <b>bold</b>"));
    let gateway = home.serve(&["--public-url", "https://mcp.example.com/"]);
    let text = gateway.ask(&Request::get("/"));
    assert!(
        text.body.contains("https://mcp.example.com/adapters/d/mcp"),
        "{}",
        text.body
    );
    let page = gateway.ask(&Request::get("/").header("accept", "text/html"));
    assert!(
        page.body
            .contains("<code>https://mcp.example.com/adapters/d/mcp")
    );
    assert!(
        !page.body.contains("<b>bold</b>"),
        "what documents say is escaped"
    );
    assert_eq!(gateway.status()["instances"], 0, "a look wakes nothing");
}
