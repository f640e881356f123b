//! Fields of the document format that this build does not act on. They are refused with their own sentence, so that
//! nobody believes them to be in force.

/// The remedy for a field that is known but not built, by its path without list positions.
pub(crate) fn remedy(path: &str) -> Option<&'static str> {
    Some(match path {
        "spec.runtimeClassName"
        | "spec.nodeSelector"
        | "spec.tolerations"
        | "spec.affinity"
        | "spec.topologySpreadConstraints"
        | "spec.priorityClassName"
        | "spec.imagePullSecrets"
        | "spec.imagePullPolicy"
        | "spec.labels"
        | "spec.annotations" => "it belongs below spec.pod: move it there",
        "spec.pod.volumes"
        | "spec.pod.hostNetwork"
        | "spec.pod.hostPID"
        | "spec.pod.securityContext"
        | "spec.pod.serviceAccountName"
        | "spec.pod.containers"
        | "spec.pod.initContainers" => {
            "pods of servers are confined, and this is not a document's to change: remove it"
        }
        "spec.serviceAccountName" | "spec.volumes" | "spec.securityContext" => {
            "pods of servers are confined, and this is not a document's to change: remove it"
        }
        "spec.quota"
        | "spec.requestsPerHour"
        | "spec.sessions"
        | "spec.instances"
        | "spec.startsPerMinute" => "quotas are not supported yet: remove it",
        "spec.targetConcurrency"
        | "spec.maxSessionsPerInstance"
        | "spec.policy.targetConcurrency"
        | "spec.policy.maxSessionsPerInstance" => {
            "there is one instance per slot so far: remove it"
        }
        "metadata.namespace" => {
            "in files there are no namespaces: remove it, and say 'kubectl -n NAMESPACE' instead"
        }
        _ => return None,
    })
}
