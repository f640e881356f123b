//! Starts, and refusals to start: each with its sentence.

use std::{net::TcpListener, os::unix::fs::PermissionsExt};

use crate::support::{Home, demo};

/// What `serve` says when it does not start, and its exit code.
fn refused(home: &Home, arguments: &[&str]) -> (Option<i32>, String) {
    let ports = ["serve", "--admin-listen", "127.0.0.1:0"];
    let output = home.run(&[&ports[..], arguments].concat());
    assert!(!output.status.success(), "{arguments:?} started");
    (
        output.status.code(),
        String::from_utf8(output.stderr).unwrap(),
    )
}

#[test]
fn what_cannot_be_is_refused_with_a_sentence_and_a_remedy() {
    let home = Home::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    for (arguments, code, parts) in [
        (vec![], 2, vec!["--backends", "--demo"]),
        (
            vec!["--demo", "--listen", "0.0.0.0:0"],
            2,
            vec!["keys add", "--allow-anonymous"],
        ),
        (
            vec!["--demo", "--listen", "nonsense"],
            2,
            vec!["nonsense", "127.0.0.1:8080"],
        ),
        (
            vec!["--demo", "--listen", &taken],
            1,
            vec!["--listen", "port 0"],
        ),
        (
            vec!["--listen", "127.0.0.1:0", "--backends", "/nowhere"],
            1,
            vec!["/nowhere", "--backends"],
        ),
        (
            vec!["--demo", "--listen", "127.0.0.1:0", "--keys", "/nowhere"],
            1,
            vec!["/nowhere", "--keys"],
        ),
        (
            vec!["--demo", "--listen", "127.0.0.1:0", "--log-filter", "a=b=c"],
            1,
            vec!["--log-filter"],
        ),
    ] {
        let (status, said) = refused(&home, &arguments);
        assert_eq!(status, Some(code), "{said}");
        for part in parts {
            assert!(said.contains(part), "{arguments:?}: {said}");
        }
    }
}

#[test]
fn two_gateways_do_not_share_a_state_folder() {
    let home = Home::new();
    home.document("d.yaml", &demo("d", ""));
    let gateway = home.serve(&[]);
    let (_, said) = refused(&home, &["--demo", "--listen", "127.0.0.1:0"]);
    let pid = gateway.ready["pid"].to_string();
    assert!(
        said.contains("another gateway uses") && said.contains(&pid),
        "{said}"
    );
    let mode = std::fs::metadata(home.path("state"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o700);
}

#[test]
fn the_banner_and_the_ready_file_say_where_everything_is() {
    let home = Home::new();
    home.document("d.yaml", &demo("d", ""));
    let gateway = home.serve(&["--log-format", "pretty", "--demo"]);
    let listen = gateway.ready["listen"].as_str().unwrap();
    let log = gateway.log();
    for name in ["d", "demo", "demo-http"] {
        let url = format!("http://{listen}/adapters/{name}/mcp");
        assert!(log.contains(&url), "{log}");
        assert_eq!(gateway.ready["backends"][name], url);
    }
    assert_eq!(gateway.initialize("demo-http", &[]).status, 200);
}

#[test]
fn the_version_is_on_standard_output() {
    let home = Home::new();
    let text = String::from_utf8(home.run(&["version"]).stdout).unwrap();
    assert_eq!(text, format!("mcp-gateway {}\n", env!("CARGO_PKG_VERSION")));
}
