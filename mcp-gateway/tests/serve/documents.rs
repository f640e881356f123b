//! Documents: good beside bad, and edited while the gateway runs.

use crate::support::{Home, demo, pid, until};

#[test]
fn a_bad_document_is_named_in_status_and_takes_no_good_one_down() {
    let home = Home::new();
    home.document("good.yaml", &demo("good", ""));
    home.document("bad.yaml", &demo("bad", "  volumes: []"));
    home.document("cut.yaml", "apiVersion: [");
    let gateway = home.serve(&[]);
    assert_eq!(gateway.initialize("good", &[]).status, 200);
    assert_eq!(gateway.initialize("bad", &[]).status, 404);
    let status = gateway.status();
    let problems = status["problems"].as_array().unwrap();
    assert_eq!(problems.len(), 2, "{problems:?}");
    let bad = &problems[0];
    assert!(bad["file"].as_str().unwrap().ends_with("docs/bad.yaml"));
    assert_eq!(bad["line"], 7);
    assert_eq!(bad["field"], "spec.volumes");
    assert!(bad["remedy"].as_str().unwrap().contains("remove it"));
    assert!(gateway.log().contains("bad.yaml:7"), "{}", gateway.log());
}

#[test]
fn a_document_added_changed_and_removed_takes_effect_while_the_gateway_runs() {
    let home = Home::new();
    home.document("first.yaml", &demo("first", ""));
    let gateway = home.serve(&[]);
    assert_eq!(gateway.initialize("second", &[]).status, 404);

    home.document("second.yaml", &demo("second", ""));
    let session = until("the new backend is served", || {
        let reply = gateway.initialize("second", &[]);
        (reply.status == 200).then(|| reply.session().to_owned())
    });
    let before = gateway.backend("second").and_then(|b| pid(&b)).unwrap();
    assert!(
        gateway
            .count("second", &session, &[])
            .body
            .contains("\"1\"")
    );

    home.document(
        "second.yaml",
        &demo("second", "  env: [{name: CHANGED, value: 'yes'}]"),
    );
    let after = until("the session moved to the new instance", || {
        assert_eq!(gateway.count("second", &session, &[]).status, 200);
        gateway
            .backend("second")
            .and_then(|b| pid(&b))
            .filter(|now| *now != before)
    });
    until("the old instance is gone", || {
        (!crate::support::lives(before)).then_some(())
    });

    home.document("second.yaml", &demo("second", "  nonsense: 1"));
    until("the mistake is seen", || {
        let status = gateway.status();
        status["problems"][0]["lastGoodKept"]
            .as_bool()
            .filter(|kept| *kept)
    });
    assert_eq!(gateway.count("second", &session, &[]).status, 200);
    assert_eq!(gateway.backend("second").and_then(|b| pid(&b)), Some(after));

    std::fs::remove_file(home.path("docs/second.yaml")).unwrap();
    until("the removed backend is unknown", || {
        (gateway.count("second", &session, &[]).status == 404).then_some(())
    });
    until("its instance is gone", || {
        (!crate::support::lives(after)).then_some(())
    });
}

#[test]
fn an_mcp_servers_file_is_served_as_it_is() {
    let home = Home::new();
    let text = serde_json::json!({"mcpServers": {
        "My Demo": {"command": crate::support::BINARY, "args": ["demo-server"]},
        "far": {"url": "https://example.com/mcp"},
    }});
    home.document("claude.json", &text.to_string());
    let gateway = home.serve(&[]);
    assert_eq!(gateway.initialize("my-demo", &[]).status, 200);
    let status = gateway.status();
    let all = status["problems"].to_string();
    assert!(
        all.contains("remote server") && all.contains("my-demo"),
        "{all}"
    );
}

#[test]
fn a_quiet_gateway_reads_its_documents_seldom() {
    let home = Home::new();
    home.document("d.yaml", &demo("d", ""));
    let gateway = home.serve(&["--log-filter", "mcp_gateway_control=trace"]);
    home.document("e.yaml", &demo("e", ""));
    until("the new document is served", || gateway.backend("e"));
    // Nothing is waited for: this is the stretch of quiet that is looked at.
    std::thread::sleep(std::time::Duration::from_secs(2));
    let readings = gateway.log().matches("reading the documents").count();
    assert!(
        readings <= 4,
        "{readings} readings: does reading wake the watcher?\n{}",
        gateway.log()
    );
}
