//! What matters of a pod as Kubernetes shows it: a small value, so that thousands of pods cost little and everything
//! that decides can be tested without a cluster. Pure.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{ContainerState, ContainerStatus, Pod};
use mcp_gateway_api::ids::InstanceId;

use super::{
    names,
    template::{AGENT, LENDER, SERVER},
};

/// Characters kept of what Kubernetes says.
const MAX_TEXT: usize = 600;

/// What Kubernetes says about something: a word for programs, a text for people.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Said {
    pub(crate) reason: String,
    pub(crate) message: String,
}

impl Said {
    fn of(reason: Option<&String>, message: Option<&String>) -> Self {
        let cut = |text: Option<&String>| one_line(text.map_or("", String::as_str), MAX_TEXT);
        Self {
            reason: cut(reason),
            message: cut(message),
        }
    }
}

/// A text as it may be shown in a terminal or in JSON: one line, no control characters, at most so many characters.
pub(crate) fn one_line(text: &str, most: usize) -> String {
    let shown = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    shown.take(most).collect()
}

/// How a container ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ended {
    pub(crate) code: i32,
    pub(crate) signal: Option<i32>,
    pub(crate) said: Said,
    /// It had begun to run.
    pub(crate) ran: bool,
}

/// Where a container is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum Container {
    /// Not in the pod, or not mentioned yet.
    #[default]
    Absent,
    /// Not started; says why.
    Waiting(Said),
    /// It runs.
    Running,
    /// It has ended.
    Ended(Ended),
}

/// A pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) id: InstanceId,
    pub(crate) name: String,
    /// As written, for preconditions.
    pub(crate) uid: String,
    pub(crate) version: String,
    pub(crate) ip: Option<IpAddr>,
    /// Somebody has asked for its deletion.
    pub(crate) deleting: bool,
    /// The newest leadership term of ours that has ended it or taken it over.
    pub(crate) marked_by: Option<u64>,
    /// Its launch token has been used.
    pub(crate) spent: bool,
    /// `Failed` or `Succeeded`: nothing in it runs any more.
    pub(crate) over: bool,
    /// What is said of the pod as a whole: `Evicted`, `NodeLost`, …
    pub(crate) said: Said,
    /// The scheduler's message, if it found no node.
    pub(crate) unschedulable: Option<String>,
    pub(crate) server: Container,
    pub(crate) agent: Container,
    /// What puts the agent where the server's container finds it.
    pub(crate) lender: Container,
}

/// A pod's UID as an instance's id.
pub(crate) fn instance_of(uid: &str) -> Option<InstanceId> {
    let hex: String = uid.chars().filter(|c| *c != '-').collect();
    (hex.len() == 32)
        .then(|| u128::from_str_radix(&hex, 16).ok())
        .flatten()
        .map(InstanceId)
}

impl Seen {
    /// Reads a pod; `None` if it has no UID or name, which no pod of the API server lacks.
    pub(crate) fn of(pod: &Pod) -> Option<Self> {
        let meta = &pod.metadata;
        let uid = meta.uid.clone()?;
        let annotation = |key: &str| meta.annotations.as_ref().and_then(|all| all.get(key));
        let status = pod.status.as_ref();
        let find = |list: Option<&Vec<ContainerStatus>>, name: &str| {
            let status = list.and_then(|list| list.iter().find(|status| status.name == name));
            container(status.and_then(|status| status.state.as_ref()))
        };
        let containers = status.and_then(|status| status.container_statuses.as_ref());
        let phase = status.and_then(|status| status.phase.as_deref());
        Some(Self {
            id: instance_of(&uid)?,
            name: meta.name.clone()?,
            uid,
            version: meta.resource_version.clone().unwrap_or_default(),
            ip: status.and_then(|status| status.pod_ip.as_ref()?.parse().ok()),
            deleting: meta.deletion_timestamp.is_some(),
            marked_by: [names::ENDED_BY, names::ADOPTED_BY]
                .into_iter()
                .filter_map(|mark| annotation(mark)?.parse().ok())
                .max(),
            spent: annotation(names::SPENT).is_some(),
            over: matches!(phase, Some("Failed" | "Succeeded")),
            said: status.map_or_else(Said::default, |status| {
                Said::of(status.reason.as_ref(), status.message.as_ref())
            }),
            unschedulable: unschedulable(pod),
            server: find(containers, SERVER),
            agent: find(containers, AGENT),
            lender: find(containers, LENDER),
        })
    }
}

fn unschedulable(pod: &Pod) -> Option<String> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let said = conditions.iter().find(|condition| {
        condition.type_ == "PodScheduled"
            && condition.status == "False"
            && condition.reason.as_deref() == Some("Unschedulable")
    })?;
    Some(Said::of(None, said.message.as_ref()).message)
}

fn container(state: Option<&ContainerState>) -> Container {
    let Some(state) = state else {
        return Container::Absent;
    };
    if let Some(ended) = &state.terminated {
        return Container::Ended(Ended {
            code: ended.exit_code,
            signal: ended.signal.filter(|signal| *signal != 0),
            said: Said::of(ended.reason.as_ref(), ended.message.as_ref()),
            // The kubelet writes the Unix epoch for a container that never began.
            ran: ended
                .started_at
                .as_ref()
                .is_some_and(|at| at.0.as_second() > 0),
        });
    }
    if state.running.is_some() {
        return Container::Running;
    }
    state.waiting.as_ref().map_or(Container::Absent, |waiting| {
        Container::Waiting(Said::of(waiting.reason.as_ref(), waiting.message.as_ref()))
    })
}
