//! Keys: made, used, refused, removed.

use rustix::process::Signal;

use crate::support::{Gateway, Home, Request, demo, until};

fn add(home: &Home, tenant: &str, subject: &str) -> String {
    let made = home.run(&["keys", "add", "--tenant", tenant, "--subject", subject]);
    assert!(made.status.success(), "{made:?}");
    let key = String::from_utf8(made.stdout).unwrap().trim().to_owned();
    assert!(
        key.starts_with("mgk_") && !key.contains('\n'),
        "only the key is on stdout"
    );
    key
}

fn instances(gateway: &Gateway<'_>) -> u64 {
    gateway.status()["instances"].as_u64().unwrap()
}

#[test]
fn without_the_right_key_nothing_wakes_and_with_it_tenants_are_apart() {
    let home = Home::new();
    home.document("d.yaml", &demo("d", "  tenants: [engineering, sales]"));
    let alice = format!("Bearer {}", add(&home, "engineering", "alice"));
    let bob = format!("Bearer {}", add(&home, "sales", "bob"));
    let eve = format!("Bearer {}", add(&home, "strangers", "eve"));
    let gateway = home.serve(&[]);

    for wrong in [&[][..], &[("authorization", "Bearer mgk_wrong")]] {
        let reply = gateway.initialize("d", wrong);
        assert_eq!(reply.status, 401);
        assert!(
            reply
                .header("www-authenticate")
                .unwrap()
                .starts_with("Bearer")
        );
    }
    assert_eq!(
        gateway.initialize("d", &[("authorization", &eve)]).status,
        403
    );
    assert_eq!(instances(&gateway), 0);

    let page = |key: &str| {
        gateway
            .ask(&Request::get("/").header("authorization", key))
            .body
    };
    assert!(page(&alice).contains("/adapters/d/mcp"));
    for other in [&eve, "Bearer mgk_wrong"] {
        assert!(
            !page(other).contains("/adapters/"),
            "a stranger's page names no backend"
        );
    }

    let as_alice = [("authorization", alice.as_str())];
    let reply = gateway.initialize("d", &as_alice);
    let session = reply.session();
    assert_eq!(gateway.count("d", session, &as_alice).status, 200);
    let foreign = gateway.count("d", session, &[("authorization", &bob)]);
    assert_eq!(foreign.status, 404, "another's session id");
    let log = gateway.log();
    assert!(
        !log.contains(&alice["Bearer ".len()..]),
        "no key in the log"
    );
}

#[test]
fn a_key_added_or_removed_takes_effect_while_the_gateway_runs() {
    let home = Home::new();
    home.document("d.yaml", &demo("d", ""));
    let first = format!("Bearer {}", add(&home, "engineering", "alice"));
    let gateway = home.serve(&[]);
    assert_eq!(
        gateway.initialize("d", &[("authorization", &first)]).status,
        200
    );

    let second = format!("Bearer {}", add(&home, "engineering", "bob"));
    until("the new key is known", || {
        (gateway
            .initialize("d", &[("authorization", &second)])
            .status
            == 200)
            .then_some(())
    });

    let list = String::from_utf8(home.run(&["keys", "list"]).stdout).unwrap();
    let id = list.lines().find(|line| line.contains("alice")).unwrap();
    let id = id.split_whitespace().next().unwrap();
    assert!(home.run(&["keys", "remove", id]).status.success());
    until("the removed key is refused", || {
        (gateway.initialize("d", &[("authorization", &first)]).status == 401).then_some(())
    });
    gateway.signal(Signal::TERM);
}

/// Even where an operator asks for every word, what would let a reader act for somebody is not among them.
#[test]
fn no_key_session_id_or_parameter_is_in_the_most_talkative_log() {
    let home = Home::new();
    home.document("d.yaml", &demo("d", ""));
    let alice = format!("Bearer {}", add(&home, "engineering", "alice"));
    let mut gateway = home.serve(&["--log-filter", "trace"]);
    let headers = [
        ("authorization", alice.as_str()),
        ("mcp-param-account", "parameter-of-mine"),
    ];
    let opened = gateway.initialize("d", &headers);
    let session = opened.session();
    assert_eq!(gateway.count("d", session, &headers).status, 200);
    let forged = gateway.count("d", "AQforged-session-id", &headers);
    assert_eq!(forged.status, 404);
    let strange = gateway.initialize("d", &[("authorization", "Bearer mgk_somebody-elses")]);
    assert_eq!(strange.status, 401);
    gateway.signal(Signal::TERM);
    gateway.ended();

    let log = gateway.log();
    assert!(
        log.contains("\"TRACE\"") || log.contains("\"DEBUG\""),
        "it is talkative"
    );
    let secrets = [
        &alice["Bearer ".len()..],
        session,
        "parameter-of-mine",
        "AQforged-session-id",
        "mgk_somebody-elses",
    ];
    for secret in secrets {
        assert!(!log.contains(secret), "the log holds {secret}");
    }
}
