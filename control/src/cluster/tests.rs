//! The pure parts.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{
    objects::{Kind, Object},
    status::{BackendReport, Condition, Facts, References, Wanted, last_start, wanted},
    writer::{Finalizer, Order, Orders, Writing, render, same, write},
};

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

fn condition(kind: &'static str, good: bool, message: &str) -> Condition {
    Condition {
        kind,
        status: if good { "True" } else { "False" },
        reason: "Because",
        message: message.to_owned(),
    }
}

prop_compose! {
    fn any_wanted()(
        good in any::<[bool; 2]>(),
        message in "[a-z]{0,8}",
        state in proptest::option::of("[a-z]{1,5}"),
        instances in proptest::option::of(0_u32..9),
        start in proptest::option::of(0_u64..2_000_000_000),
        generation in 0_i64..5,
    ) -> Wanted {
        Wanted {
            generation,
            conditions: vec![condition("A", good[0], &message), condition("B", good[1], &message)],
            state,
            instances,
            sessions: None,
            last_start: start.map(at),
            why: None,
        }
    }
}

proptest! {
    /// Else a status would be written again and again.
    #[test]
    fn a_status_that_was_written_says_what_is_wanted(wanted in any_wanted(), first in 0_u64..1_000_000, later in 0_u64..1_000_000) {
        let written = render(&wanted, &Value::Null, at(first));
        let mut shuffled = written.clone();
        shuffled["conditions"].as_array_mut().expect("a list").reverse();
        prop_assert!(same(&render(&wanted, &shuffled, at(first + later)), &shuffled));
    }

    #[test]
    fn two_statuses_that_differ_are_not_the_same(one in any_wanted(), other in any_wanted()) {
        let (a, b) = (render(&one, &Value::Null, at(0)), render(&other, &Value::Null, at(0)));
        prop_assert_eq!(same(&a, &b), one == other);
    }

    #[test]
    fn the_last_start_never_goes_back_and_never_creeps(ages in proptest::collection::vec(0_u64..2_000, 1..20)) {
        let started = at(1_000_000);
        let mut known = None;
        for late in ages {
            // The same start, told a little later each time.
            known = last_start(known, Some(started + Duration::from_millis(late)));
        }
        let known = known.expect("it was told");
        prop_assert!(known >= started && known < started + Duration::from_secs(2));
        prop_assert_eq!(last_start(Some(known), None), Some(known));
    }
}

#[test]
fn a_condition_keeps_its_time_until_its_status_changes() {
    let mut wanted = Wanted {
        conditions: vec![condition("A", true, "one")],
        ..Wanted::default()
    };
    let first = render(&wanted, &Value::Null, at(10));
    wanted.conditions = vec![condition("A", true, "two")];
    let second = render(&wanted, &first, at(20));
    assert_eq!(
        second["conditions"][0]["lastTransitionTime"],
        "1970-01-01T00:00:10Z"
    );
    assert_eq!(second["conditions"][0]["message"], "two");
    wanted.conditions = vec![condition("A", false, "two")];
    let third = render(&wanted, &second, at(30));
    assert_eq!(
        third["conditions"][0]["lastTransitionTime"],
        "1970-01-01T00:00:30Z"
    );
}

#[test]
fn what_a_start_waits_for_is_told_while_it_waits_and_a_failure_while_it_is_the_last_word() {
    let report = |phase: &str, warnings: Value, in_a_row: u32| {
        let instance = json!({"id": "1", "phase": phase, "endpoint": null, "pid": null, "leases": 0, "ageMs": 1,
            "coldStartMs": null, "log": null, "warnings": warnings, "stderrTail": []});
        let slot = json!({"owner": "shared", "phase": phase, "waiting": 1, "nextTryMs": null, "idleDrainMs": null,
            "instance": instance});
        let exit = json!({"code": null, "signal": null, "stderr_tail": [], "summary": "it failed"});
        let status = json!({
            "backends": [{"name": "a", "state": phase, "waiting": 1, "starts": 1, "failures": 1, "slots": [slot],
                "lastFailure": {"agoMs": 1, "exit": exit, "log": null, "inARow": in_a_row}}],
            "instances": 1, "maxInstances": 9, "sessionRecords": 0, "draining": false,
        });
        let status = serde_json::from_value(status).expect("a status");
        BackendReport::all(&status, at(100))
            .into_values()
            .next()
            .expect("a")
    };
    let spec = json!({"apiVersion": "mcp-gateway.dev/v1alpha1", "kind": "McpBackend", "metadata": {"name": "a"},
        "spec": {"image": "i"}});
    let object = serde_json::from_value(spec).expect("an object");
    let object = Object::read(Kind::McpBackend, "mcp", &object, None);
    let said = |report: &BackendReport| {
        let said = wanted(Facts {
            object: &object,
            kind: Kind::McpBackend,
            problem: None,
            in_force: true,
            references: None,
            report: Some(report),
        });
        let available = said
            .conditions
            .into_iter()
            .find(|one| one.kind == "Available");
        (available.expect("it is there").reason, said.why)
    };
    let full = json!(["no node has room"]);
    let waits = said(&report("starting", full.clone(), 3));
    assert_eq!(waits, ("StartWaits", Some("no node has room".to_owned())));
    let fails = said(&report("starting", json!([]), 3));
    assert_eq!(fails, ("StartsFail", Some("it failed".to_owned())));
    let well = said(&report("ready", full, 0));
    assert_eq!(well, ("StartsOnRequest", None));
}

#[test]
fn what_no_start_can_get_round_is_told_before_one_was_tried() {
    let spec = json!({"apiVersion": "mcp-gateway.dev/v1alpha1", "kind": "McpBackend", "metadata": {"name": "a"},
        "spec": {"image": "i"}});
    let object = serde_json::from_value(spec).expect("an object");
    let object = Object::read(Kind::McpBackend, "mcp", &object, None);
    let available = |references: &References| {
        let said = wanted(Facts {
            object: &object,
            kind: Kind::McpBackend,
            problem: None,
            in_force: true,
            references: Some(references),
            report: None,
        });
        let mut conditions = said.conditions.into_iter();
        let available = conditions.find(|one| one.kind == "Available");
        let available = available.expect("it is there");
        (available.status, available.message, said.why)
    };
    let unlabelled = "the Secret t is not labelled for it".to_owned();
    assert_eq!(
        available(&References::Unusable("NotLabelled", unlabelled.clone())),
        ("False", unlabelled.clone(), Some(unlabelled))
    );
    let (status, _, why) = available(&References::Usable);
    assert_eq!((status, why), ("True", None));
}

#[test]
fn the_autoscalers_status_becomes_reports() {
    let status = json!({
        "backends": [
            {"name": "a", "state": "ready", "waiting": 0, "starts": 3, "failures": 0, "lastFailure": null, "slots": [
                {"owner": "session 1a", "phase": "ready", "waiting": 0, "nextTryMs": null, "idleDrainMs": null, "instance":
                    {"id": "1", "phase": "ready", "endpoint": null, "pid": null, "leases": 0, "ageMs": 4000, "coldStartMs": 1,
                     "log": null, "warnings": [], "stderrTail": []}},
                {"owner": "principal 2b", "phase": "backoff", "waiting": 0, "nextTryMs": 5, "idleDrainMs": null, "instance": null},
            ]},
            {"name": "b", "state": "cold", "waiting": 0, "starts": 0, "failures": 0, "lastFailure": null, "slots": [
                {"owner": "tenant x", "phase": "cold", "waiting": 0, "nextTryMs": null, "idleDrainMs": null, "instance": null},
            ]},
        ],
        "instances": 1, "maxInstances": 9, "sessionRecords": 0, "draining": false,
    });
    let status = serde_json::from_value(status).expect("a status");
    let reports: BTreeMap<_, _> = BackendReport::all(&status, at(100));
    let (_, a) = reports.iter().next().expect("a");
    assert_eq!(
        (a.instances, a.sessions, a.last_start),
        (1, Some(1), Some(at(96)))
    );
    let (_, b) = reports.iter().next_back().expect("b");
    assert_eq!((b.instances, b.sessions, b.last_start), (0, None, None));
}

/// An API server that takes what it is asked and never answers, and the objects that were asked for.
fn silent() -> (kube::Client, tokio::sync::mpsc::Receiver<String>) {
    let (asked, requests) = tokio::sync::mpsc::channel(64);
    let silence = tower::service_fn(move |request: http::Request<kube::client::Body>| {
        let name = request.uri().path().rsplit('/').next().map(str::to_owned);
        let _ = asked.try_send(name.unwrap_or_default());
        std::future::pending::<Result<http::Response<kube::client::Body>, std::convert::Infallible>>(
        )
    });
    (kube::Client::new(silence, "mcp"), requests)
}

#[tokio::test(start_paused = true)]
async fn a_write_that_is_never_answered_is_tried_again_and_holds_up_no_other_for_long() {
    let (client, mut requests) = silent();
    let order = |uid: &str| Order {
        uid: uid.to_owned(),
        resource_version: "1".to_owned(),
        finalizers: Vec::new(),
        status: Value::Null,
        wanted: Wanted::default(),
        finalizer: Finalizer::Add,
    };
    let id = |name: &str| (Kind::McpBackend, name.to_owned());
    let first = BTreeMap::from([(id("one"), order("1"))]);
    let (say, orders) = tokio::sync::watch::channel(Orders::from(first));
    let (_lead, leading) = tokio::sync::watch::channel(true);
    let writing = Writing {
        client,
        leading,
        reporter: "test".to_owned(),
    };
    tokio::spawn(write("mcp".to_owned(), writing, orders));
    assert_eq!(requests.recv().await.as_deref(), Some("one"));
    let both = BTreeMap::from([(id("one"), order("1")), (id("two"), order("2"))]);
    say.send_replace(Orders::from(both));
    let asked = tokio::time::Instant::now();
    let mut names = Vec::new();
    while !names.contains(&"two".to_owned()) {
        names.extend(requests.recv().await);
    }
    assert!(
        asked.elapsed() < Duration::from_secs(15),
        "{:?}",
        asked.elapsed()
    );
    while !names.contains(&"one".to_owned()) {
        names.extend(requests.recv().await);
    }
}
