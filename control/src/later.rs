//! Fields of the document format that this build does not act on. They are refused with their own sentence, so that
//! nobody believes them to be in force.

/// The remedy for a field that is known but not built, by its path without list positions.
pub(crate) fn remedy(path: &str) -> Option<&'static str> {
    Some(match path {
        "spec.image" | "spec.agent" | "spec.runtimeClassName" => {
            "servers run as processes here, and pods are not supported yet: remove it and say what to run in spec.command"
        }
        "spec.resources" | "spec.nodeSelector" | "spec.tolerations" | "spec.affinity" => {
            "it is a setting of pods, which are not supported yet: remove it"
        }
        "spec.env.valueFrom.secretKeyRef" | "spec.env.valueFrom.configMapKeyRef" => {
            "Secrets and ConfigMaps need a cluster, which is not supported yet: use 'valueFrom: {env: NAME}' to take the value from the gateway's own environment"
        }
        "spec.targetConcurrency"
        | "spec.maxSessionsPerInstance"
        | "spec.policy.targetConcurrency"
        | "spec.policy.maxSessionsPerInstance" => {
            "there is one instance per slot so far: remove it"
        }
        "metadata.namespace" => "namespaces are not supported yet: remove it",
        _ => return None,
    })
}
