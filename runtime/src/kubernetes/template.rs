//! From an order to the pod that is created. Pure.
//!
//! Invariants: nothing in a document reaches the pod but what is on the allow-list; our own labels, annotations and
//! the agent's environment win over a document's; the pod runs without root, capabilities, a service account's token
//! or a shell's worth of surprises (`restartPolicy: Never`, no service links). Whatever a document says stays what it
//! says: Kubernetes expands `$(NAME)`, so every `$` is doubled.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Pod;
use mcp_gateway_api::{
    backend::{EnvValue, KeyRef, LaunchSpec, Transport},
    ids::Generation,
};
use serde_json::{Value, json};

use super::{
    forms::Form,
    names::{self, Facts},
};
use crate::LaunchOrder;

mod fields;

use fields::{merge, some, some_map, without_nulls};

/// The port of servers and bridges whose document names none.
pub(crate) const DEFAULT_PORT: u16 = 8000;
/// The container in which the server runs.
pub(crate) const SERVER: &str = "server";
/// The container of the agent alone.
pub(crate) const AGENT: &str = "agent";
/// The container that puts the agent where the server's container finds it.
pub(crate) const LENDER: &str = "lender";
/// The variable that bears the launch token.
pub(crate) const TOKEN: &str = "MCP_GATEWAY_AGENT_TOKEN";
/// What documents may not set.
const RESERVED: &str = "MCP_GATEWAY_AGENT_";
/// Seconds from SIGTERM to SIGKILL when nobody says otherwise (an eviction, `kubectl delete`).
const GRACE: i64 = 5;
/// Where the agent is found in forms `imageVolume` and `init`.
const MOUNT: &str = "/mcp-gateway";
/// The agent's share of a pod: enough for its threads and TLS, too little to matter.
const AGENT_REQUESTS: [(&str, &str); 2] = [("cpu", "5m"), ("memory", "8Mi")];
const AGENT_LIMITS: [(&str, &str); 2] = [("cpu", "500m"), ("memory", "64Mi")];

/// What all pods of an installation share.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) namespace: String,
    pub(crate) installation: String,
    pub(crate) agent_image: Option<String>,
    pub(crate) agent_pull_policy: Option<String>,
    pub(crate) run_as: Option<i64>,
    /// Where agents call home, as the agent's environment has it.
    pub(crate) home: String,
    pub(crate) ca_pem: String,
    pub(crate) max_body: usize,
}

/// Which pod of its slot it is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) number: u64,
    /// Of the `McpBackend` that owns it.
    pub(crate) owner_uid: Option<&'a str>,
}

/// A pod that may be created.
#[derive(Debug, Clone)]
pub(crate) struct Template {
    pub(crate) name: String,
    pub(crate) facts: Facts,
    rendered: Value,
    spec_hash: String,
}

impl Template {
    /// Renders everything but the token.
    ///
    /// # Errors
    /// A sentence naming the field of the document that cannot be used.
    pub(crate) fn render(
        order: &LaunchOrder,
        form: Form,
        settings: &Settings,
        place: Place<'_>,
    ) -> Result<Self, String> {
        let facts = facts(order, form, place.number);
        let name = names::pod_name(&settings.installation, &order.slot, 0, place.number);
        let mut rendered = json!({
            "metadata": metadata(order, settings, &name, place.owner_uid),
            "spec": spec(&order.backend.launch, form, settings, facts.port)?,
        });
        // What the agent is ordered to run is not in the pod, and is what it is made of all the same.
        let launch = &order.backend.launch;
        let run = json!([launch.command, launch.args, facts.generation]);
        let spec_hash = names::spec_hash(format!("{rendered}{run}").as_bytes());
        let facts_text = serde_json::to_string(&facts).map_err(|error| error.to_string())?;
        let annotations = &mut rendered["metadata"]["annotations"];
        annotations[names::FACTS] = facts_text.into();
        if form == Form::Init {
            // The lender is the first of the containers; who asks for logs wants the server's.
            annotations["kubectl.kubernetes.io/default-container"] = SERVER.into();
        }
        annotations[names::SPEC_HASH] = spec_hash.as_str().into();
        let template = Self {
            name,
            facts,
            rendered,
            spec_hash,
        };
        // Only here can what the document wrote as free YAML (tolerations, affinity) turn out not to fit.
        template.pod("").map(|_| template)
    }

    /// Whether a pod that exists was made of the same.
    pub(crate) fn is_of(&self, pod: &Pod) -> bool {
        let annotations = pod.metadata.annotations.as_ref();
        annotations.and_then(|all| all.get(names::SPEC_HASH)) == Some(&self.spec_hash)
    }

    /// The pod, with its token.
    ///
    /// # Errors
    /// As [`Self::render`].
    pub(crate) fn pod(&self, token: &str) -> Result<Pod, String> {
        let mut rendered = self.rendered.clone();
        if let Some(containers) = rendered["spec"]["containers"].as_array_mut() {
            let vars = containers
                .iter_mut()
                .filter_map(|container| container["env"].as_array_mut())
                .flatten();
            for var in vars.filter(|var| var["name"] == TOKEN) {
                var["value"] = token.into();
            }
        }
        serde_json::from_value(rendered).map_err(|error| {
            format!("`spec.pod` is not what Kubernetes takes ({error}): correct it")
        })
    }
}

/// The token that a pod was created with; of pods that another leader made.
pub(crate) fn token_of(pod: &Pod) -> Option<&str> {
    let containers = &pod.spec.as_ref()?.containers;
    let mut vars = containers.iter().filter_map(|c| c.env.as_ref()).flatten();
    vars.find(|var| var.name == TOKEN)?.value.as_deref()
}

fn facts(order: &LaunchOrder, form: Form, number: u64) -> Facts {
    let launch = &order.backend.launch;
    let port = launch.port.unwrap_or(DEFAULT_PORT);
    Facts {
        slot: order.slot.clone(),
        tenant: order.tenant.clone(),
        generation: Generation(order.backend.generation.0),
        number,
        form,
        port,
        path: launch.path.clone(),
        host: launch
            .host
            .clone()
            .unwrap_or_else(|| format!("localhost:{port}")),
        health_path: launch.health_path.clone(),
        bridge: launch.transport == Transport::Stdio,
    }
}

fn metadata(order: &LaunchOrder, settings: &Settings, name: &str, owner: Option<&str>) -> Value {
    let options = &order.backend.launch.pod;
    let mut labels = options.labels.clone();
    labels.extend(names::labels(
        &settings.installation,
        &order.slot,
        &order.tenant,
    ));
    let mut metadata = json!({
        "name": name,
        "namespace": settings.namespace,
        "labels": labels,
        "annotations": options.annotations,
    });
    if let Some(uid) = owner {
        metadata["ownerReferences"] = json!([{
            "apiVersion": "mcp-gateway.dev/v1alpha1",
            "kind": "McpBackend",
            "name": order.backend.name.as_str(),
            "uid": uid,
        }]);
    }
    metadata
}

fn spec(launch: &LaunchSpec, form: Form, settings: &Settings, port: u16) -> Result<Value, String> {
    let options = &launch.pod;
    let mut server = server(launch, form, settings, port)?;
    let mut containers = Vec::new();
    let mut spec = json!({
        "restartPolicy": "Never",
        "enableServiceLinks": false,
        "automountServiceAccountToken": false,
        "terminationGracePeriodSeconds": GRACE,
        "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}},
    });
    match form {
        Form::Embedded | Form::None => {}
        Form::Sidecar => containers.push(agent_container(settings, &agent_env(form, settings))),
        Form::ImageVolume => {
            spec["volumes"] = json!([{"name": AGENT, "image": without_nulls(json!({
                "reference": settings.agent_image,
                "pullPolicy": settings.agent_pull_policy,
            }))}]);
        }
        Form::Init => {
            spec["volumes"] = json!([{"name": AGENT, "emptyDir": {}}]);
            containers.push(lender(settings));
        }
    }
    if matches!(form, Form::ImageVolume | Form::Init) {
        server["command"] = json!([format!("{MOUNT}/mcp-gateway-agent")]);
        server["volumeMounts"] = json!([{"name": AGENT, "mountPath": MOUNT, "readOnly": true}]);
    }
    // The kubelet starts containers in this order, and waits for a lender's hook before the next; a sidecar, which nothing
    // waits for, must not delay the server.
    let first = usize::from(form == Form::Init);
    containers.insert(first, server);
    spec["containers"] = containers.into();
    let pull_secrets: Vec<Value> = options
        .pull_secrets
        .iter()
        .map(|name| json!({"name": name}))
        .collect();
    let chosen = json!({
        "nodeSelector": some_map(&options.node_selector),
        "tolerations": some(options.tolerations.clone()),
        "affinity": options.affinity,
        "topologySpreadConstraints": some(options.topology_spread.clone()),
        "priorityClassName": options.priority_class,
        "runtimeClassName": options.runtime_class,
        "imagePullSecrets": some(pull_secrets),
    });
    merge(&mut spec, without_nulls(chosen));
    Ok(spec)
}

/// The container of the server itself.
fn server(
    launch: &LaunchSpec,
    form: Form,
    settings: &Settings,
    port: u16,
) -> Result<Value, String> {
    let mut env = Vec::new();
    let direct = matches!(form, Form::Sidecar | Form::None);
    if direct {
        // The activators come from other machines: a server that asks $HOST must not choose loopback.
        env.push(json!({"name": "HOST", "value": "0.0.0.0"}));
        env.push(json!({"name": "PORT", "value": port.to_string()}));
    }
    for var in &launch.env {
        env.retain(|own: &Value| own["name"] != var.name.as_str());
        env.push(variable(&var.name, &var.value)?);
    }
    if !matches!(form, Form::Sidecar | Form::None) {
        env.extend(agent_env(form, settings));
    }
    let mut container = without_nulls(json!({
        "name": SERVER,
        "image": launch.image,
        "imagePullPolicy": launch.pod.pull_policy,
        "ports": [{"name": "mcp", "containerPort": port, "protocol": "TCP"}],
        "env": env,
        "resources": resources(&launch.pod.requests, &launch.pod.limits),
        "securityContext": security(settings),
    }));
    if direct {
        let fill = |words: &[String]| -> Vec<Value> {
            let filled = words
                .iter()
                .map(|word| word.replace("${PORT}", &port.to_string()));
            filled.map(|word| unexpanded(&word).into()).collect()
        };
        let dir = launch
            .working_dir
            .as_ref()
            .map(|dir| dir.display().to_string());
        merge(
            &mut container,
            without_nulls(json!({
                "command": some(fill(&launch.command)),
                "args": some(fill(&launch.args)),
                "workingDir": dir,
            })),
        );
    }
    Ok(container)
}

fn agent_container(settings: &Settings, env: &[Value]) -> Value {
    without_nulls(json!({
        "name": AGENT,
        "image": settings.agent_image,
        "imagePullPolicy": settings.agent_pull_policy,
        "env": some(env.to_vec()),
        "resources": {
            "requests": BTreeMap::from(AGENT_REQUESTS),
            "limits": BTreeMap::from(AGENT_LIMITS),
        },
        "securityContext": security(settings),
    }))
}

/// Copies the agent's binary; its hook returns when that is done.
fn lender(settings: &Settings) -> Value {
    let mut lender = agent_container(settings, &[]);
    lender["name"] = json!(LENDER);
    lender["args"] = json!(["lend", MOUNT]);
    lender["lifecycle"] =
        json!({"postStart": {"exec": {"command": ["/mcp-gateway-agent", "lent", MOUNT]}}});
    lender["volumeMounts"] = json!([{"name": AGENT, "mountPath": MOUNT}]);
    lender
}

fn agent_env(form: Form, settings: &Settings) -> Vec<Value> {
    let field = |name: &str, path: &str| json!({"name": format!("{RESERVED}{name}"), "valueFrom": {"fieldRef": {"fieldPath": path}}});
    let text = |name: &str, value: &str| json!({"name": format!("{RESERVED}{name}"), "value": unexpanded(value)});
    vec![
        text("FORM", form.label()),
        text("HOME", &settings.home),
        text("CA", &settings.ca_pem),
        json!({"name": TOKEN, "value": ""}),
        field("POD", "metadata.name"),
        field("UID", "metadata.uid"),
        field("IP", "status.podIP"),
    ]
}

fn variable(name: &str, value: &EnvValue) -> Result<Value, String> {
    if name.starts_with(RESERVED) {
        return Err(format!(
            "its variable {name} begins with {RESERVED}, which is the gateway's own: rename it"
        ));
    }
    let key = |kind: &str, key: &KeyRef| {
        json!({"name": name, "valueFrom": {kind: {
            "name": key.name, "key": key.key, "optional": key.optional,
        }}})
    };
    match value {
        EnvValue::Literal(text) => Ok(json!({"name": name, "value": unexpanded(text)})),
        EnvValue::FromSecret(from) => Ok(key("secretKeyRef", from)),
        EnvValue::FromConfigMap(from) => Ok(key("configMapKeyRef", from)),
        EnvValue::FromEnv(from) => Err(format!(
            "its variable {name} takes its value from the gateway's own environment (valueFrom.env: {from}), which pods \
             never see: use valueFrom.secretKeyRef or configMapKeyRef"
        )),
    }
}

/// Kubernetes expands `$(NAME)` in values, commands and arguments, and turns `$$` into `$`.
fn unexpanded(text: &str) -> String {
    text.replace('$', "$$")
}

fn security(settings: &Settings) -> Value {
    without_nulls(json!({
        "runAsNonRoot": true,
        "runAsUser": settings.run_as,
        "runAsGroup": settings.run_as,
        "allowPrivilegeEscalation": false,
        "capabilities": {"drop": ["ALL"]},
    }))
}

fn resources(requests: &BTreeMap<String, String>, limits: &BTreeMap<String, String>) -> Value {
    let resources = without_nulls(json!({
        "requests": some_map(requests),
        "limits": some_map(limits),
    }));
    if resources == json!({}) {
        Value::Null
    } else {
        resources
    }
}

#[cfg(test)]
pub(in crate::kubernetes) mod tests;
