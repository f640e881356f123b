use parking_lot::Mutex;
use serde_json::Value;
use tokio::time::Instant;

use super::*;
use crate::kubernetes::fake::{self, Answer, Asked, status};

const UID: &str = "00000000-0000-0000-0000-000000000007";
const OTHER_UID: &str = "00000000-0000-0000-0000-000000000008";
const GRACE: Duration = Duration::from_secs(5);

fn target() -> Target {
    Target {
        name: "time-1".into(),
        uid: UID.into(),
        version: "1".into(),
        marked_by: None,
        epoch: 3,
    }
}

/// A pod, as it is looked at and as it is answered with.
fn pod(uid: &str, marked_by: u64) -> Value {
    json!({
        "kind": "Pod", "apiVersion": "v1",
        "metadata": {
            "name": "time-1", "uid": uid, "resourceVersion": "2",
            "annotations": {names::ENDED_BY: marked_by.to_string()},
        },
    })
}

fn denied() -> Answer {
    let policy = "pods \"time-1\" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'b' denied request: no";
    status(422, "Invalid", policy)
}

/// Pods of an API server where a policy refuses the method so many times.
fn refusing(method: &'static str, mut times: u32) -> (Api<Pod>, Asked) {
    let (client, asked) = fake::api(move |line, _| {
        if line.starts_with(method) && times > 0 {
            times -= 1;
            return denied();
        }
        Answer::Says(200, pod(UID, 3))
    });
    (Api::namespaced(client, "mcp"), asked)
}

#[tokio::test(start_paused = true)]
async fn a_policy_that_refuses_the_end_is_told_of_and_asked_again_at_the_usual_pace() {
    for (method, verb) in [("PATCH", "patch pods"), ("DELETE", "delete pods")] {
        let (pods, asked) = refusing(method, 8);
        let told = Mutex::new(Vec::new());
        let begun = Instant::now();
        let outcome = end(&pods, target(), GRACE, |text| told.lock().push(text)).await;
        assert_eq!(outcome, Outcome::Asked);
        let text = format!(
            "its pod cannot be ended: an admission rule of the cluster does not let the gateway {verb}"
        );
        assert_eq!(*told.lock(), vec![text; 8]);
        assert!(begun.elapsed() > AGAIN_AT_MOST, "{:?}", begun.elapsed());
        let tries = asked
            .lock()
            .iter()
            .filter(|l| l.starts_with(method))
            .count();
        assert_eq!(tries, 9);
    }
}

#[tokio::test(start_paused = true)]
async fn a_policy_that_refuses_the_removal_is_told_of_too() {
    let (pods, _asked) = refusing("DELETE", 3);
    let told = Mutex::new(Vec::new());
    let outcome = bury(&pods, target(), |text| told.lock().push(text)).await;
    assert_eq!(outcome, Outcome::Asked);
    assert_eq!(told.lock().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn what_is_invalid_because_the_pod_is_another_or_anothers_is_nobodys_fault() {
    for (found, outcome) in [
        (pod(OTHER_UID, 3), Outcome::Gone),
        (pod(UID, 4), Outcome::Theirs),
    ] {
        let (client, asked) = fake::api(move |line, _| match line {
            line if line.starts_with("GET") => Answer::Says(200, found.clone()),
            _ => status(422, "Invalid", "metadata.uid: field is immutable"),
        });
        let pods = Api::namespaced(client, "mcp");
        let tell = |text| panic!("{text}");
        assert_eq!(end(&pods, target(), GRACE, tell).await, outcome);
        assert_eq!(asked.lock().len(), 2);
    }
}

/// Neither an operator nor the pod's node is to be blamed for what nobody knows.
#[tokio::test(start_paused = true)]
async fn what_is_invalid_and_cannot_be_looked_at_is_tried_again() {
    let mut tries = 0;
    let (client, _asked) = fake::api(move |line, _| {
        tries += u32::from(line.starts_with("PATCH"));
        match line {
            line if line.starts_with("GET") => Answer::Silent,
            _ if tries < 3 => denied(),
            _ => Answer::Says(200, pod(UID, 3)),
        }
    });
    let pods = Api::namespaced(client, "mcp");
    let tell = |text| panic!("{text}");
    assert_eq!(end(&pods, target(), GRACE, tell).await, Outcome::Asked);
}
