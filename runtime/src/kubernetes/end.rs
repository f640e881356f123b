//! Ending a pod so that nothing else is hit: mark it with our epoch, then delete it with its UID and that version.
//!
//! Invariants: a pod that a newer leader has marked is left to it; a pod of the same name that is not ours by UID is
//! never touched; an API server that is away is asked again until it answers, because a pod that nobody ends costs money
//! for ever.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api,
    api::{DeleteParams, PartialObjectMeta, Patch, PatchParams, Preconditions},
};
use serde_json::json;
use tokio::time::{sleep, timeout};

use super::{names, seen::Seen, sentences};

/// How long one call may take.
pub(crate) const CALL: Duration = Duration::from_secs(10);
/// From one try to the next, at first and at most.
pub(crate) const AGAIN: Duration = Duration::from_millis(50);
const AGAIN_AT_MOST: Duration = Duration::from_secs(5);

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The API server deletes it, or has.
    Asked,
    /// It is not there any more.
    Gone,
    /// A newer leader ends it.
    Theirs,
}

/// Which pod, as it was last seen.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) name: String,
    pub(crate) uid: String,
    pub(crate) version: String,
    /// Who had marked it in that version.
    pub(crate) marked_by: Option<u64>,
    pub(crate) epoch: u64,
}

impl Target {
    /// Whether a newer leader has marked it.
    pub(crate) fn is_theirs(&self) -> bool {
        self.marked_by.is_some_and(|epoch| epoch > self.epoch)
    }
}

enum Tried {
    Done(Outcome),
    /// Somebody else changed it meanwhile.
    Changed,
    /// It was called invalid (422), and which of two things that means is to be seen.
    Invalid(&'static str, kube::Error),
    /// What was tried, such as `delete pods`, and why it failed.
    Failed(&'static str, kube::Error),
    TimedOut,
}

/// What a look has shown.
pub(crate) enum Look {
    /// There is nothing left to do.
    Over(Outcome),
    /// It is there, and no newer leader's.
    Here {
        /// Somebody has asked for its deletion.
        deleting: bool,
    },
    /// Nothing.
    Unknown,
}

/// Marks and deletes; returns when that is done. What only an operator can help is told to `tell`, again and again.
pub(crate) async fn end(
    pods: &Api<Pod>,
    mut target: Target,
    grace: Duration,
    tell: impl Fn(String),
) -> Outcome {
    let mut pause = AGAIN;
    let mut changes = 0;
    if target.is_theirs() {
        return Outcome::Theirs;
    }
    loop {
        let tried = match timeout(CALL, once(pods, &target, grace)).await {
            Ok(tried) => tried,
            Err(_) => Tried::TimedOut,
        };
        match explained(pods, &mut target, tried).await {
            Tried::Done(outcome) => return outcome,
            Tried::Changed => {
                // The status of a starting pod changes often; what changes for ever must not be asked for at full speed.
                changes += 1;
                if changes > 3 {
                    wait(&mut pause).await;
                }
                if let Look::Over(outcome) = look(pods, &mut target).await {
                    return outcome;
                }
            }
            Tried::Failed(doing, error) | Tried::Invalid(doing, error) => {
                tracing::warn!(pod = target.name, %error, "a pod could not be ended; trying again");
                sentences::not_ended(&error, doing)
                    .into_iter()
                    .for_each(&tell);
                wait(&mut pause).await;
            }
            Tried::TimedOut => {
                tracing::warn!(
                    pod = target.name,
                    "the API server did not answer; trying again"
                );
                wait(&mut pause).await;
            }
        }
    }
}

/// Waits, the next time for longer.
pub(crate) async fn wait(pause: &mut Duration) {
    sleep(*pause).await;
    *pause = (*pause * 2).min(AGAIN_AT_MOST);
}

/// Notes this leader's term on the pod, if it still is as it was last seen.
pub(crate) async fn mark(
    pods: &Api<Pod>,
    target: &Target,
    annotation: &str,
) -> Result<PartialObjectMeta<Pod>, kube::Error> {
    let mark = json!({"metadata": {
        "uid": target.uid,
        "resourceVersion": target.version,
        "annotations": {annotation: target.epoch.to_string()},
    }});
    let (params, mark) = (PatchParams::default(), Patch::Merge(mark));
    pods.patch_metadata(&target.name, &params, &mark).await
}

async fn once(pods: &Api<Pod>, target: &Target, grace: Duration) -> Tried {
    let version = match mark(pods, target, names::ENDED_BY).await {
        Ok(meta) => meta.metadata.resource_version,
        Err(error) => return judge("patch pods", error),
    };
    // The API server counts in whole seconds, and 0 would mean without asking the node.
    let seconds = grace.as_millis().div_ceil(1000).max(1);
    delete(
        pods,
        target,
        version,
        u32::try_from(seconds).unwrap_or(u32::MAX),
    )
    .await
}

async fn delete(
    pods: &Api<Pod>,
    target: &Target,
    resource_version: Option<String>,
    seconds: u32,
) -> Tried {
    let params = DeleteParams {
        grace_period_seconds: Some(seconds),
        preconditions: Some(Preconditions {
            uid: Some(target.uid.clone()),
            resource_version,
        }),
        ..DeleteParams::default()
    };
    match pods.delete(&target.name, &params).await {
        Ok(_) => Tried::Done(Outcome::Asked),
        Err(error) => judge("delete pods", error),
    }
}

fn judge(doing: &'static str, error: kube::Error) -> Tried {
    let kube::Error::Api(status) = &error else {
        return Tried::Failed(doing, error);
    };
    match status.code {
        404 => Tried::Done(Outcome::Gone),
        // Webhooks answer whatever they like.
        _ if sentences::is_denied(&status.message) => Tried::Invalid(doing, error),
        409 => Tried::Changed,
        422 => Tried::Invalid(doing, error),
        _ => Tried::Failed(doing, error),
    }
}

/// Changing a UID is "invalid": the name is another pod's by now. If it is not, a policy of the cluster refuses what was
/// tried, and says so with the same code.
async fn explained(pods: &Api<Pod>, target: &mut Target, tried: Tried) -> Tried {
    if !matches!(tried, Tried::Invalid(..)) {
        return tried;
    }
    match look(pods, target).await {
        Look::Over(outcome) => Tried::Done(outcome),
        Look::Here { .. } => tried,
        Look::Unknown => Tried::TimedOut,
    }
}

/// Looks at it again.
pub(crate) async fn look(pods: &Api<Pod>, target: &mut Target) -> Look {
    let found = match timeout(CALL, pods.get_opt(&target.name)).await {
        Ok(Ok(found)) => found,
        Ok(Err(error)) => {
            tracing::debug!(pod = target.name, %error, "a pod could not be looked at");
            sleep(AGAIN).await;
            return Look::Unknown;
        }
        Err(_) => return Look::Unknown,
    };
    let Some(pod) = found else {
        return Look::Over(Outcome::Gone);
    };
    let Some(seen) = Seen::of(&pod) else {
        return Look::Unknown;
    };
    if seen.uid != target.uid {
        return Look::Over(Outcome::Gone);
    }
    if seen.marked_by.is_some_and(|epoch| epoch > target.epoch) {
        return Look::Over(Outcome::Theirs);
    }
    target.version = seen.version;
    Look::Here {
        deleting: seen.deleting,
    }
}

/// Removes a pod in which nothing runs any more: marked and then without waiting for its node.
pub(crate) async fn bury(pods: &Api<Pod>, target: Target, tell: impl Fn(String)) -> Outcome {
    let mut pause = AGAIN;
    let mut target = target;
    loop {
        // No version here: only the pod's end is still to come, and its status changes all the time meanwhile.
        let tried = match timeout(CALL, delete(pods, &target, None, 0)).await {
            Ok(tried) => tried,
            Err(_) => Tried::TimedOut,
        };
        match explained(pods, &mut target, tried).await {
            Tried::Done(outcome) => return outcome,
            Tried::Changed => {
                if let Look::Over(outcome) = look(pods, &mut target).await {
                    return outcome;
                }
            }
            Tried::Failed(doing, error) | Tried::Invalid(doing, error) => {
                tracing::warn!(pod = target.name, %error, "a pod could not be removed; trying again");
                sentences::not_ended(&error, doing)
                    .into_iter()
                    .for_each(&tell);
            }
            Tried::TimedOut => {}
        }
        wait(&mut pause).await;
    }
}

#[cfg(test)]
mod tests;
