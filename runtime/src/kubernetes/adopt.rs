//! Taking over a pod of an older leader, so that what that one may still order for it fails: its end is a delete of the
//! version that it marked, and gives way to a newer leader's mark.
//!
//! Invariants: no newer leader's mark is replaced; a pod that is being deleted is not taken; an API server that is away
//! is asked again until it answers, because whoever asked leases the pod only then.

use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use tokio::time::timeout;

use super::{
    end::{self, Look, Target},
    names,
};

/// Marks the pod; whether it is this leader's from now on.
pub(crate) async fn adopt(pods: &Api<Pod>, mut target: Target) -> bool {
    let mut pause = end::AGAIN;
    if target.is_theirs() {
        return false;
    }
    loop {
        match timeout(end::CALL, end::mark(pods, &target, names::ADOPTED_BY)).await {
            Ok(Ok(pod)) => return pod.metadata.deletion_timestamp.is_none(),
            Ok(Err(kube::Error::Api(status))) if status.code == 404 => return false,
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
        end::wait(&mut pause).await;
        match end::look(pods, &mut target).await {
            Look::Over(_) | Look::Here { deleting: true } => return false,
            Look::Here { deleting: false } | Look::Unknown => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::VecDeque, sync::Arc};

    use http::Method;
    use parking_lot::Mutex;
    use serde_json::{Value, json};

    use super::*;
    use crate::kubernetes::fake::{Answer, api};

    const UID: &str = "00000000-0000-0000-0000-000000000007";

    /// Answers in their order, and the methods they were asked for by.
    type Script = Arc<Mutex<VecDeque<(Method, u16, Value)>>>;

    /// An API server that says these things, one after the other, and nothing else.
    fn pods(script: &Script) -> Api<Pod> {
        let script = Arc::clone(script);
        let (client, _asked) = api(move |line, _body| {
            let (method, code, body) = script.lock().pop_front().expect("not asked for more");
            assert!(line.starts_with(method.as_str()), "{line}");
            Answer::Says(code, body)
        });
        Api::namespaced(client, "mcp")
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
