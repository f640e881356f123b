use k8s_openapi::api::core::v1::Pod;
use mcp_gateway_api::backend::{EnvValue, EnvVar, KeyRef, LaunchSpec};
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::*;
use crate::kubernetes::{
    fake::{self, Answer, status},
    template,
};

fn order(env: Vec<EnvVar>) -> LaunchOrder {
    template::tests::order(LaunchSpec {
        args: Vec::new(),
        env,
        ..template::tests::launch(&[])
    })
}

const UID: &str = "00000000-0000-0000-0000-000000000007";

/// As the API server keeps what it was asked to make.
fn kept(pod: &Value) -> Value {
    let mut kept = pod.clone();
    kept["metadata"]["uid"] = UID.into();
    kept["metadata"]["resourceVersion"] = "1".into();
    kept
}

fn quota() -> Answer {
    let used_up = "pods \"time-1\" is forbidden: exceeded quota: q, used: pods=1, limited: pods=1";
    status(403, "Forbidden", used_up)
}

fn exists() -> Answer {
    status(409, "AlreadyExists", "pods \"time-1\" already exists")
}

#[tokio::test(start_paused = true)]
async fn a_look_at_the_pod_that_has_the_name_is_not_waited_for_for_ever() {
    let (client, asked) = fake::api(|line, _| match line {
        line if line.starts_with("POST") => exists(),
        _ => Answer::Silent,
    });
    let (world, _events) = fake::world(client).await;
    let launched = launch(&world, order(Vec::new()));
    let launched = timeout(PATIENCE * 2, launched).await.expect("an end");
    let report = launched.unwrap_err();
    assert!(report.summary.contains("did not answer"), "{report:?}");
    let looks = asked.lock().iter().filter(|l| l.starts_with("GET")).count();
    assert!((2..20).contains(&looks), "{looks}");
}

/// The retry is refused because of the very pod that the first try made.
#[tokio::test(start_paused = true)]
async fn a_pod_whose_making_was_not_answered_is_looked_for_before_a_refusal_is_believed() {
    let mut made = Value::Null;
    let (client, asked) = fake::api(move |line, body| match line {
        line if line.starts_with("POST") && made.is_null() => {
            made = kept(body);
            Answer::Broken
        }
        line if line.starts_with("POST") => quota(),
        _ => Answer::Says(200, made.clone()),
    });
    let (world, _events) = fake::world(client).await;
    let launched = launch(&world, order(Vec::new())).await.expect("its pod");
    assert!(world.table.get(launched.instance).is_some());
    let methods: Vec<String> = asked.lock().iter().map(|l| l[..4].to_owned()).collect();
    assert_eq!(methods, ["POST", "POST", "GET "]);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_believed_at_once_unless_a_pod_may_have_been_made() {
    let (client, asked) = fake::api(|_, _| quota());
    let (world, _events) = fake::world(client).await;
    let report = launch(&world, order(Vec::new())).await.unwrap_err();
    assert!(report.summary.contains("quota"), "{report:?}");
    assert_eq!(asked.lock().len(), 1);
    let mut tries = 0;
    let (client, _asked) = fake::api(move |line, _| {
        tries += 1;
        match line {
            line if line.starts_with("GET") => status(404, "NotFound", "not found"),
            _ if tries == 1 => Answer::Silent,
            _ => quota(),
        }
    });
    let (world, _events) = fake::world(client).await;
    let report = launch(&world, order(Vec::new())).await.unwrap_err();
    assert!(report.summary.contains("quota"), "{report:?}");
}

/// Calls are cut off, the watch is not.
#[tokio::test(start_paused = true)]
async fn a_pod_that_was_seen_though_nothing_came_of_its_launch_is_looked_after() {
    let made: Arc<Mutex<Option<Value>>> = Arc::default();
    let keep = Arc::clone(&made);
    let (client, _asked) = fake::api(move |line, body| {
        if line.starts_with("POST") {
            keep.lock().get_or_insert_with(|| kept(body));
        }
        Answer::Broken
    });
    let (world, _events) = fake::world(client).await;
    let launching = tokio::spawn({
        let world = Arc::clone(&world);
        async move { launch(&world, order(Vec::new())).await }
    });
    sleep(PATIENCE / 2).await;
    let pod = made.lock().clone().expect("a try");
    let pod: Pod = serde_json::from_value(pod).unwrap();
    let seen = Seen::of(&pod).expect("a UID");
    let id = seen.id;
    world.table.seen(seen, &pod);
    assert!(world.table.get(id).is_none());
    launching.await.unwrap().unwrap_err();
    assert!(world.table.get(id).is_some());
}

/// A variable that takes its value from a Secret.
fn secret() -> Vec<EnvVar> {
    let key = KeyRef {
        name: "github".into(),
        key: "token".into(),
        optional: false,
    };
    vec![EnvVar {
        name: "TOKEN".into(),
        value: EnvValue::FromSecret(key),
    }]
}

#[tokio::test(start_paused = true)]
async fn a_secret_is_looked_at_until_the_api_server_is_back() {
    let labelled = json!({
        "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1",
        "metadata": {"name": "github", "labels": {names::BACKEND: "time"}},
    });
    let mut looks = 0;
    let (client, _asked) = fake::api(move |line, body| {
        if line.starts_with("POST") {
            return Answer::Says(201, kept(body));
        }
        looks += 1;
        match looks {
            1 => Answer::Broken,
            2 => status(429, "TooManyRequests", "too many requests"),
            3 => status(500, "InternalError", "etcdserver: leader changed"),
            4 => Answer::Silent,
            _ => Answer::Says(200, labelled.clone()),
        }
    });
    let (world, _events) = fake::world(client).await;
    launch(&world, order(secret())).await.expect("its pod");
}

#[tokio::test(start_paused = true)]
async fn an_api_server_that_stays_away_is_given_up_and_one_that_refuses_at_once() {
    for (refuses, words) in [(false, "did not answer"), (true, "may not get secrets")] {
        let (client, asked) = fake::api(move |_, _| {
            let refused = "secrets \"github\" is forbidden: User \"x\" cannot get resource";
            match refuses {
                true => status(403, "Forbidden", refused),
                false => Answer::Broken,
            }
        });
        let (world, _events) = fake::world(client).await;
        let begun = Instant::now();
        let report = launch(&world, order(secret())).await.unwrap_err();
        assert!(report.summary.contains(words), "{report:?}");
        assert_eq!(begun.elapsed() >= PATIENCE, !refuses);
        assert_eq!(asked.lock().len() == 1, refuses);
    }
}
