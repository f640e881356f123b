//! What a document says of its pods → `PodOptions`, or what is wrong with it. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Affinity, Toleration, TopologySpreadConstraint};
use mcp_gateway_api::backend::{AgentForm, PodOptions};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use super::explain::short;
use crate::document::{
    BackendSpec,
    pod::{PodSpec, Quantity, Resources},
};

/// A field, what is wrong with it, and the remedy.
pub(super) struct Wrong {
    pub(super) field: String,
    pub(super) message: String,
    pub(super) remedy: String,
}

fn wrong(field: String, message: impl Into<String>, remedy: impl Into<String>) -> Wrong {
    Wrong {
        field,
        message: message.into(),
        remedy: remedy.into(),
    }
}

/// Everything of `spec` that is about pods alone.
pub(super) fn options(spec: &BackendSpec) -> Result<PodOptions, Wrong> {
    let agent = spec
        .agent
        .as_ref()
        .map_or(AgentForm::Auto, |form| form.value);
    let mut options = PodOptions {
        agent,
        ..PodOptions::default()
    };
    if let Some(given) = &spec.resources {
        resources(&given.value)?;
        let texts = |amounts: &BTreeMap<String, Quantity>| -> BTreeMap<String, String> {
            let text = |(name, amount): (&String, &Quantity)| (name.clone(), amount.text.clone());
            amounts.iter().map(text).collect()
        };
        options.requests = texts(&given.value.requests);
        options.limits = texts(&given.value.limits);
    }
    if let Some(given) = &spec.pod {
        overrides(&given.value, &mut options)?;
    }
    Ok(options)
}

fn resources(given: &Resources) -> Result<(), Wrong> {
    for (list, amounts) in [("requests", &given.requests), ("limits", &given.limits)] {
        for name in amounts.keys() {
            if !is_qualified(name) {
                let field = format!("spec.resources.{list}");
                let message = format!("{:?} is no resource", short(name));
                let remedy = "write cpu, memory, ephemeral-storage, or the name of a device such as nvidia.com/gpu";
                return Err(wrong(field, message, remedy));
            }
        }
    }
    for (name, request) in &given.requests {
        let limit = given.limits.get(name);
        if let Some(limit) = limit.filter(|limit| limit.value < request.value) {
            let field = format!("spec.resources.requests.{name}");
            let message = format!("{} is more than its limit {}", request.text, limit.text);
            return Err(wrong(
                field,
                message,
                "lower the request or raise the limit",
            ));
        }
    }
    Ok(())
}

fn overrides(pod: &PodSpec, options: &mut PodOptions) -> Result<(), Wrong> {
    for (field, map, values) in [
        ("labels", &pod.labels, true),
        ("annotations", &pod.annotations, false),
    ] {
        own(&format!("spec.pod.{field}"), map)?;
        syntax(&format!("spec.pod.{field}"), map, values)?;
        let size: usize = map.iter().map(|(key, value)| key.len() + value.len()).sum();
        if size > 64 << 10 {
            let field = format!("spec.pod.{field}");
            return Err(wrong(field, "it is longer than 64 KiB", "shorten it"));
        }
    }
    syntax("spec.pod.nodeSelector", &pod.node_selector, true)?;
    let priority = pod.priority_class_name.as_ref().map(|name| name.0.clone());
    if let Some(name) = priority.as_ref().filter(|name| name.starts_with("system-")) {
        let field = "spec.pod.priorityClassName".to_owned();
        let message = format!("{name} is for parts of the cluster itself");
        return Err(wrong(field, message, "use a PriorityClass of your own"));
    }
    options.labels.clone_from(&pod.labels);
    options.annotations.clone_from(&pod.annotations);
    options.node_selector.clone_from(&pod.node_selector);
    options.tolerations = all::<Toleration>("spec.pod.tolerations", &pod.tolerations)?;
    options.affinity = match &pod.affinity {
        None => None,
        Some(value) => Some(one::<Affinity>("spec.pod.affinity", value)?),
    };
    options.topology_spread = all::<TopologySpreadConstraint>(
        "spec.pod.topologySpreadConstraints",
        &pod.topology_spread_constraints,
    )?;
    options.priority_class = priority;
    options.runtime_class = pod.runtime_class_name.as_ref().map(|name| name.0.clone());
    let secrets = pod.image_pull_secrets.iter();
    options.pull_secrets = secrets.map(|secret| secret.name.0.clone()).collect();
    options.pull_policy = pod
        .image_pull_policy
        .map(|policy| policy.as_str().to_owned());
    Ok(())
}

/// Labels and annotations by which the gateway or Kubernetes would be misled, or a pod's confinement loosened.
fn own(field: &str, map: &BTreeMap<String, String>) -> Result<(), Wrong> {
    let reserved = |key: &str| {
        let prefix = key.split_once('/').map_or("", |(prefix, _)| prefix);
        let of = |domain: &str| {
            let rest = prefix.strip_suffix(domain);
            rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        };
        // The recommended labels are for everybody.
        prefix != "app.kubernetes.io"
            && (of("mcp-gateway.dev") || of("kubernetes.io") || of("k8s.io"))
    };
    match map.keys().find(|key| reserved(key)) {
        None => Ok(()),
        Some(key) => {
            let message = format!("{:?} is not for documents to set", short(key));
            let remedy = "remove it; labels and annotations of mcp-gateway.dev, kubernetes.io and k8s.io are set by the gateway and by Kubernetes";
            Err(wrong(field.to_owned(), message, remedy))
        }
    }
}

fn syntax(field: &str, map: &BTreeMap<String, String>, values: bool) -> Result<(), Wrong> {
    for (key, value) in map {
        if !is_qualified(key) {
            let message = format!("{:?} is no key of a label or annotation", short(key));
            let remedy = "write up to 63 letters, digits, '-', '_' and '.', with or without a domain before them, such as example.com/team";
            return Err(wrong(field.to_owned(), message, remedy));
        }
        if values && !value.is_empty() && !is_name(value) {
            let message = format!("the value of {key} is no value of a label");
            let remedy = "write up to 63 letters, digits, '-', '_' and '.', beginning and ending with a letter or digit";
            return Err(wrong(field.to_owned(), message, remedy));
        }
    }
    Ok(())
}

/// `name` or `domain/name`.
fn is_qualified(key: &str) -> bool {
    match key.split_once('/') {
        None => is_name(key),
        Some((domain, name)) => crate::document::pod::is_subdomain(domain) && is_name(name),
    }
}

fn is_name(text: &str) -> bool {
    let bytes = text.as_bytes();
    let edge = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
    let inner = |b: &u8| b.is_ascii_alphanumeric() || b"-_.".contains(b);
    bytes.len() <= 63 && edge(bytes.first()) && edge(bytes.last()) && bytes.iter().all(inner)
}

fn all<T: DeserializeOwned + Serialize>(field: &str, given: &[Value]) -> Result<Vec<Value>, Wrong> {
    let one = |(index, value)| one::<T>(&format!("{field}[{index}]"), value);
    given.iter().enumerate().map(one).collect()
}

/// The value as Kubernetes' own type understands it. What that type does not know would be dropped in silence, and is
/// refused instead.
fn one<T: DeserializeOwned + Serialize>(field: &str, given: &Value) -> Result<Value, Wrong> {
    let see = "see 'kubectl explain pod.spec' for what may stand here";
    let mut path = String::new();
    let read: Result<T, _> = serde_path_to_error::deserialize(given).map_err(|error| {
        if error.path().iter().len() > 0 {
            path = format!(".{}", error.path());
        }
        error.into_inner()
    });
    let read = read.map_err(|error| {
        let said: String = error.to_string().chars().take(200).collect();
        wrong(format!("{field}{path}"), said, see)
    })?;
    let understood = serde_json::to_value(read)
        .map_err(|_unserialisable| wrong(field.to_owned(), "it cannot be understood", see))?;
    match lost(given, &understood) {
        None => Ok(understood),
        Some(inside) => {
            let message = "Kubernetes has no such field here";
            Err(wrong(format!("{field}{inside}"), message, see))
        }
    }
}

/// The first field of `given` that `kept` has not.
fn lost(given: &Value, kept: &Value) -> Option<String> {
    match (given, kept) {
        (Value::Object(given), Value::Object(kept)) => given
            .iter()
            .filter(|(_, value)| !value.is_null())
            .find_map(|(key, value)| match kept.get(key) {
                None => Some(format!(".{}", short(key))),
                Some(kept) => lost(value, kept).map(|rest| format!(".{}{rest}", short(key))),
            }),
        (Value::Array(given), Value::Array(kept)) => given
            .iter()
            .zip(kept)
            .enumerate()
            .find_map(|(at, (given, kept))| lost(given, kept).map(|rest| format!("[{at}]{rest}"))),
        (_, _) => None,
    }
}
