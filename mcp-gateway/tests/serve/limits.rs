//! Sizes: what is let through is let through everywhere, and what is not is said to be so.

use serde_json::json;

use crate::support::{Home, Request, demo};

const MIB: usize = 1 << 20;

#[test]
fn a_body_within_max_body_reaches_a_stdio_server_whatever_the_default_is() {
    let home = Home::new();
    home.document("d.yaml", &demo("d", ""));
    for (most, size, status) in [
        (None, 3 * MIB, 200),
        (None, 5 * MIB, 413),
        (Some("8388608"), 6 * MIB, 200),
        (Some("8388608"), 9 * MIB, 413),
    ] {
        let more = most.map(|most| ["--max-body", most]);
        let gateway = home.serve(more.as_ref().map_or(&[], <[_; 2]>::as_slice));
        let opened = gateway.initialize("d", &[]);
        let session = [("mcp-session-id", opened.session())];
        let text = "x".repeat(size);
        let params = json!({"name": "echo", "arguments": {"message": text}});
        let reply = gateway.post("d", &session, "tools/call", &params);
        let what = format!("{size} bytes, --max-body {most:?}");
        assert_eq!(reply.status, status, "{what}");
        let came_back = reply.body.len() > size && reply.body.contains("\"result\"");
        assert_eq!(came_back, status == 200, "{what}");
    }
}

#[test]
fn headers_that_are_too_large_are_431() {
    let home = Home::new();
    home.document("d.yaml", &demo("d", ""));
    let gateway = home.serve(&[]);
    for (size, status) in [(30 << 10, 200), (80 << 10, 431)] {
        let long = "x".repeat(size);
        let reply = gateway.initialize("d", &[("mcp-param-long", &long)]);
        assert_eq!(reply.status, status, "{size} bytes");
        let page = Request::get("/livez");
        assert_eq!(gateway.admin(&page.header("x-long", &long)).status, status);
    }
    assert_eq!(gateway.initialize("d", &[]).status, 200, "others go on");
}
