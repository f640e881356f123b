//! Taking over a pod of an older leader, so that what that one may still order for it fails: its end is a delete of the
//! version that it marked, and gives way to a newer leader's mark.
//!
//! Invariants: no newer leader's mark is replaced; a pod that is being deleted is not taken; an API server that is away
//! is asked again until it answers, because whoever asked leases the pod only then.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::json;
use tokio::time::{sleep, timeout};

use super::{
    end::{CALL, Target},
    names,
    seen::Seen,
};

/// From one try to the next, at first and at most.
const AGAIN: Duration = Duration::from_millis(50);
const AGAIN_AT_MOST: Duration = Duration::from_secs(5);

/// Marks the pod; whether it is this leader's from now on.
pub(crate) async fn adopt(pods: &Api<Pod>, mut target: Target) -> bool {
    let mut pause = AGAIN;
    loop {
        match timeout(CALL, mark(pods, &target)).await {
            Ok(Ok(taken)) => return taken,
            Ok(Err(error)) => {
                tracing::debug!(pod = target.name, %error, "a pod could not be taken over; trying again");
            }
            Err(_) => {
                tracing::warn!(
                    pod = target.name,
                    "the API server did not answer; trying again"
                );
            }
        }
        sleep(pause).await;
        pause = (pause * 2).min(AGAIN_AT_MOST);
        if let Ok(Ok(false)) = timeout(CALL, look(pods, &mut target)).await {
            return false;
        }
    }
}

async fn mark(pods: &Api<Pod>, target: &Target) -> Result<bool, kube::Error> {
    if target.marked_by.is_some_and(|epoch| epoch > target.epoch) {
        return Ok(false);
    }
    let mark = json!({"metadata": {
        "uid": target.uid,
        "resourceVersion": target.version,
        "annotations": {names::ADOPTED_BY: target.epoch.to_string()},
    }});
    let (params, mark) = (PatchParams::default(), Patch::Merge(mark));
    match pods.patch_metadata(&target.name, &params, &mark).await {
        Ok(pod) => Ok(pod.metadata.deletion_timestamp.is_none()),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(false),
        Err(error) => Err(error),
    }
}

/// Looks at it again; whether there is still something to take.
async fn look(pods: &Api<Pod>, target: &mut Target) -> Result<bool, kube::Error> {
    let Some(seen) = pods
        .get_opt(&target.name)
        .await?
        .as_ref()
        .and_then(Seen::of)
    else {
        return Ok(false);
    };
    if seen.uid != target.uid || seen.deleting {
        return Ok(false);
    }
    (target.version, target.marked_by) = (seen.version, seen.marked_by);
    Ok(true)
}

#[cfg(test)]
mod tests {
    use std::{collections::VecDeque, convert::Infallible, sync::Arc};

    use http::{Method, Request, Response};
    use kube::client::Body;
    use parking_lot::Mutex;
    use serde_json::Value;

    use super::*;

    const UID: &str = "00000000-0000-0000-0000-000000000007";

    /// Answers in their order, and the methods they were asked for by.
    type Script = Arc<Mutex<VecDeque<(Method, u16, Value)>>>;

    /// An API server that says these things, one after the other, and nothing else.
    fn pods(script: &Script) -> Api<Pod> {
        let script = Arc::clone(script);
        let answer = tower::service_fn(move |request: Request<Body>| {
            let (method, code, body) = script.lock().pop_front().expect("not asked for more");
            assert_eq!(request.method(), method);
            let answer = Response::builder()
                .status(code)
                .body(Body::from(body.to_string().into_bytes()));
            async { Ok::<_, Infallible>(answer.expect("a response")) }
        });
        Api::namespaced(kube::Client::new(answer, "mcp"), "mcp")
    }

    fn pod(uid: &str, version: &str, marks: Value, deleting: bool) -> Value {
        let deleted = deleting.then_some("2026-01-01T00:00:00Z");
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {
            "name": "time-1", "uid": uid, "resourceVersion": version,
            "annotations": marks, "deletionTimestamp": deleted,
        }})
    }

    fn refused(code: u16) -> Value {
        json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": "no",
               "reason": "Conflict", "code": code})
    }

    async fn taken(script: impl IntoIterator<Item = (Method, u16, Value)>) -> bool {
        let script: Script = Arc::new(Mutex::new(script.into_iter().collect()));
        let target = Target {
            name: "time-1".into(),
            uid: UID.into(),
            version: "1".into(),
            marked_by: Some(1),
            epoch: 2,
        };
        let taken = adopt(&pods(&script), target).await;
        assert!(script.lock().is_empty(), "asked for all of it");
        taken
    }

    #[tokio::test(start_paused = true)]
    async fn a_pod_that_is_there_is_taken_also_after_its_status_changed_or_the_api_server_was_away()
    {
        let fine = || (Method::PATCH, 200, pod(UID, "3", json!({}), false));
        assert!(taken([fine()]).await);
        let seen = || (Method::GET, 200, pod(UID, "2", json!({}), false));
        for code in [409, 422, 500, 503] {
            let refused = (Method::PATCH, code, refused(code));
            assert!(taken([refused, seen(), fine()]).await, "{code}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_pod_that_ends_or_is_a_newer_leaders_is_not_taken() {
        let changed = || (Method::PATCH, 409, refused(409));
        let seen = |pod| (Method::GET, 200, pod);
        assert!(!taken([(Method::PATCH, 404, refused(404))]).await, "gone");
        let ending = pod(UID, "3", json!({}), true);
        assert!(
            !taken([(Method::PATCH, 200, ending.clone())]).await,
            "ending"
        );
        assert!(!taken([changed(), seen(ending)]).await, "ending meanwhile");
        let other = pod(
            "00000000-0000-0000-0000-000000000008",
            "3",
            json!({}),
            false,
        );
        assert!(
            !taken([changed(), seen(other)]).await,
            "another of its name"
        );
        for mark in [names::ADOPTED_BY, names::ENDED_BY] {
            let theirs = pod(UID, "3", json!({mark: "3"}), false);
            assert!(!taken([changed(), seen(theirs)]).await, "{mark}");
        }
    }
}
