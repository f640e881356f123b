//! What Kubernetes says, as sentences that people understand. Pure.
//!
//! Every sentence has two voices. The public one may reach a client: it names no host, no image, no path and quotes
//! nothing. The private one, for operators, quotes Kubernetes. Both complete "The server x could not be started: …".

use mcp_gateway_api::failure::ExitReport;

use super::seen::{Container, Ended, Said, Seen};

/// Something that keeps a pod from running.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Trouble {
    /// Waiting longer helps nobody: the start is given up (and tried anew at the next demand).
    pub(crate) fatal: bool,
    pub(crate) public: &'static str,
    pub(crate) private: String,
}

impl Trouble {
    fn new(fatal: bool, public: &'static str, said: &Said) -> Self {
        let private = match (said.reason.as_str(), said.message.as_str()) {
            ("", "") => String::new(),
            (reason, "") => format!("Kubernetes: {reason}"),
            ("", message) => format!("Kubernetes: {message}"),
            (reason, message) => format!("Kubernetes: {reason}: {message}"),
        };
        Self {
            fatal,
            public,
            private,
        }
    }

    /// As the end of an instance.
    pub(crate) fn report(&self) -> ExitReport {
        report(self.public, &self.private)
    }

    /// Both voices, for operators.
    pub(crate) fn both(&self) -> String {
        if self.private.is_empty() {
            self.public.to_owned()
        } else {
            format!("{} ({})", self.public, self.private)
        }
    }
}

pub(crate) fn report(public: &str, private: &str) -> ExitReport {
    ExitReport {
        summary: public.to_owned(),
        stderr_tail: [private]
            .into_iter()
            .filter(|text| !text.is_empty())
            .map(Into::into)
            .collect(),
        ..ExitReport::default()
    }
}

/// What keeps this pod from running, if anything does.
pub(crate) fn trouble(seen: &Seen) -> Option<Trouble> {
    if let Some(message) = &seen.unschedulable {
        let said = Said {
            reason: "Unschedulable".into(),
            message: message.clone(),
        };
        let public = "no node of the cluster has room for its pod";
        return Some(Trouble::new(false, public, &said));
    }
    [&seen.lender, &seen.server, &seen.agent]
        .into_iter()
        .find_map(|container| match container {
            Container::Waiting(said) => waiting(said),
            Container::Absent | Container::Running | Container::Ended(_) => None,
        })
}

fn waiting(said: &Said) -> Option<Trouble> {
    let (fatal, public) = match said.reason.as_str() {
        "ErrImagePull" => (false, "its image could not be pulled; another try follows"),
        "ImagePullBackOff" => (
            true,
            "its image could not be pulled: it does not exist, or the cluster may not read it",
        ),
        "ErrImageNeverPull" => (
            true,
            "its image is not on the node, and imagePullPolicy Never forbids pulling it",
        ),
        "InvalidImageName" => (true, "its image's name is not a valid one"),
        "ImageInspectError" | "RegistryUnavailable" | "SignatureValidationFailed" => {
            (true, "its image could not be used")
        }
        "CreateContainerConfigError" => (!passes(&said.message), config_error(&said.message)),
        "CreateContainerError" | "RunContainerError" | "PostStartHookError" => {
            (!passes(&said.message), start_error(&said.message))
        }
        "CrashLoopBackOff" => (true, "its container ends as soon as it is started"),
        _ => return None,
    };
    Some(Trouble::new(fatal, public, said))
}

/// Whether a busy node was merely too slow: the kubelet tries again, and so need nobody else.
fn passes(message: &str) -> bool {
    ["timed out", "deadline exceeded", "failed to sync"]
        .iter()
        .any(|slow| message.contains(slow))
}

fn config_error(message: &str) -> &'static str {
    let says = |word: &str| message.contains(word);
    if says("non-root") || says("runAsNonRoot") {
        "its image wants to run as root, which is not allowed"
    } else if says("couldn't find key") || says("non-existent config key") {
        "a key is missing in a Secret or ConfigMap that it needs"
    } else if says("not found") {
        "a Secret or ConfigMap that it needs does not exist"
    } else if passes(message) {
        "its node has not got the Secrets and ConfigMaps that it needs yet; another try follows"
    } else {
        "its container could not be configured"
    }
}

fn start_error(message: &str) -> &'static str {
    let says = |word: &str| message.contains(word);
    if says("executable file not found") || says("no such file or directory") {
        "its command does not exist in its image"
    } else if says("permission denied") {
        "its command may not be executed"
    } else if passes(message) {
        "its node was too busy to start its container; another try follows"
    } else {
        "its container could not be started"
    }
}

/// How the server ended, if the pod's status says that it has.
pub(crate) fn ended(seen: &Seen) -> Option<ExitReport> {
    match (seen.said.reason.as_str(), &seen.server) {
        ("Evicted", _) if seen.over => {
            let public = "its node ran out of something, and Kubernetes evicted its pod";
            Some(Trouble::new(true, public, &seen.said).report())
        }
        ("NodeLost", _) => {
            let public = "the node it ran on was lost";
            Some(Trouble::new(true, public, &seen.said).report())
        }
        (_, Container::Ended(ended)) if !ended.ran => {
            Some(not_lent(&seen.lender, ended).unwrap_or_else(|| container_ended(ended)))
        }
        (_, Container::Ended(ended)) => Some(container_ended(ended)),
        (_, Container::Absent | Container::Waiting(_) | Container::Running) if seen.over => {
            Some(pod_over(seen))
        }
        (_, Container::Absent | Container::Waiting(_) | Container::Running) => None,
    }
}

/// How the agent beside a server ended, if it has: nobody will say that the server serves.
pub(crate) fn agent_ended(seen: &Seen) -> Option<ExitReport> {
    let Container::Ended(ended) = &seen.agent else {
        return None;
    };
    let how = container_ended(ended);
    let public = format!("its agent ended before its server served: {}", how.summary);
    // Code and signal would be taken for the server's.
    Some(ExitReport {
        stderr_tail: how.stderr_tail,
        ..report(&public, "")
    })
}

/// Whether its node is not there any more to confirm anything.
pub(crate) fn lost_its_node(seen: &Seen) -> bool {
    seen.said.reason == "NodeLost"
}

fn unlent(said: &Said) -> Trouble {
    let public = "the gateway's agent could not be put into its pod";
    Trouble::new(true, public, said)
}

/// The kubelet starts the server's container whatever became of the lender; without the agent, which is its command, it
/// cannot begin, and that is not the server's fault.
fn not_lent(lender: &Container, server: &Ended) -> Option<ExitReport> {
    let trouble = match lender {
        Container::Absent => return None,
        Container::Waiting(said) => waiting(said).unwrap_or_else(|| unlent(said)),
        Container::Ended(lender) => unlent(&lender.said),
        Container::Running => unlent(&server.said),
    };
    Some(trouble.report())
}

/// The pod is over though its server's container did not say that it ended.
fn pod_over(seen: &Seen) -> ExitReport {
    if let Container::Ended(lender) = &seen.lender
        && lender.code != 0
    {
        return unlent(&lender.said).report();
    }
    let public = match seen.said.reason.as_str() {
        "NodeShutdown" | "Terminated" => "its node was shut down",
        "DeadlineExceeded" => "its pod ran longer than Kubernetes allows it",
        "OutOfcpu" | "OutOfmemory" | "OutOfpods" | "OutOfephemeral-storage" => {
            "its node had no room for it after all"
        }
        "Preempting" | "Preempted" => "its pod had to make room for one of higher priority",
        _ => "its pod failed",
    };
    Trouble::new(true, public, &seen.said).report()
}

fn container_ended(ended: &Ended) -> ExitReport {
    // Container runtimes tell the signal only as 128 + n.
    let signal = ended.signal.or_else(|| {
        (129..=159)
            .contains(&ended.code)
            .then_some(ended.code - 128)
    });
    let public = match (ended.said.reason.as_str(), signal) {
        ("OOMKilled", _) => "it used more memory than its limit and was killed".to_owned(),
        ("StartError" | "ContainerCannotRun", _) => start_error(&ended.said.message).to_owned(),
        (_, Some(signal)) => format!("it was killed by signal {signal}"),
        (_, None) => format!("it exited with code {}", ended.code),
    };
    let private = match ended.said.reason.as_str() {
        "Error" | "Completed" | "" => ended.said.message.clone(),
        reason => format!("Kubernetes: {reason}: {}", ended.said.message),
    };
    ExitReport {
        code: signal.is_none().then_some(ended.code),
        signal,
        ..report(&public, &private)
    }
}

/// Whether a policy or a webhook refused it. Policies answer 422 unless they say otherwise, webhooks whatever they like.
pub(crate) fn is_denied(message: &str) -> bool {
    message.contains("denied request") || message.contains("denied the request")
}

fn has_no_right(message: &str) -> bool {
    message.contains("cannot ") && message.contains("User ")
}

fn no_right(doing: &str) -> String {
    format!("the gateway's service account may not {doing} (RBAC)")
}

/// That a pod cannot be ended, and why, if asking again alone will not help; `doing` is what was refused.
pub(crate) fn not_ended(error: &kube::Error, doing: &str) -> Option<String> {
    let kube::Error::Api(status) = error else {
        return None;
    };
    let why = match status.code {
        403 if has_no_right(&status.message) => no_right(doing),
        _ if is_denied(&status.message) => {
            format!("an admission rule of the cluster does not let the gateway {doing}")
        }
        403 | 422 => format!("the Kubernetes API server does not let the gateway {doing}"),
        _ => return None,
    };
    Some(format!("its pod cannot be ended: {why}"))
}

/// Why the API server refused something; `doing` is what was tried, such as `create pods`.
pub(crate) fn refused(error: &kube::Error, doing: &str, namespace: &str) -> ExitReport {
    let kube::Error::Api(status) = error else {
        return report(
            "the Kubernetes API server did not answer",
            &error.to_string(),
        );
    };
    let message = status.message.as_str();
    let says = |word: &str| message.contains(word);
    let public = match status.code {
        403 if says("exceeded quota") => {
            "the namespace's resource quota has no room for its pod".to_owned()
        }
        403 if says("violates PodSecurity") => {
            "the namespace's pod security rules do not admit its pod".to_owned()
        }
        403 if says("is being terminated") || says("forbidden: unable to create new content") => {
            "the namespace for its pod is being deleted".to_owned()
        }
        403 if has_no_right(message) => no_right(doing),
        _ if is_denied(message) => {
            "an admission rule of the cluster does not admit its pod".to_owned()
        }
        400 | 403 if says("admission") => {
            "an admission rule of the cluster does not admit its pod".to_owned()
        }
        403 => "the cluster does not admit its pod".to_owned(),
        401 => "the API server does not accept the gateway's credentials".to_owned(),
        404 if says("namespaces") => "the namespace for its pod does not exist".to_owned(),
        422 => {
            "the API server does not accept its pod: a field of its document is wrong".to_owned()
        }
        429 => "the Kubernetes API server is overloaded".to_owned(),
        _ => "the Kubernetes API server could not make its pod".to_owned(),
    };
    let verb = format!("Kubernetes, asked to {doing} in namespace {namespace}: {message}");
    report(&public, &verb)
}

#[cfg(test)]
mod tests;
