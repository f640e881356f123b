use std::sync::Arc;

use mcp_gateway_api::{
    backend::{AgentForm, Backend, EnvVar, PodOptions},
    ids::{BackendName, TenantName},
    policy::{Isolation, ScalingPolicy},
    slot::{Owner, SlotKey},
};

use super::*;
use crate::kubernetes::orders::orders;

fn settings() -> Settings {
    Settings {
        namespace: "mcp".into(),
        installation: "prod".into(),
        agent_image: Some("localhost/agent:1".into()),
        agent_pull_policy: None,
        run_as: Some(65_532),
        home: "198.18.0.10:7443".into(),
        ca_pem: "CA".into(),
        max_body: 4096,
    }
}

pub(in crate::kubernetes) fn launch(command: &[&str]) -> LaunchSpec {
    LaunchSpec {
        image: Some("localhost/time:1".into()),
        port: None,
        pod: Arc::default(),
        command: command.iter().map(ToString::to_string).collect(),
        args: vec!["--port=${PORT}".into(), "$(HOME)".into()],
        working_dir: None,
        env: Vec::new(),
        transport: Transport::StreamableHttp,
        path: "/mcp".into(),
        host: None,
        health_path: None,
    }
}

pub(in crate::kubernetes) fn order(launch: LaunchSpec) -> LaunchOrder {
    let name = BackendName::new("time").unwrap();
    LaunchOrder {
        slot: SlotKey {
            backend: name.clone(),
            owner: Owner::Nobody,
        },
        backend: Arc::new(Backend {
            name,
            generation: Generation(1),
            description: None,
            launch,
            policy: Arc::new(ScalingPolicy::for_processes(Isolation::Shared)),
            tenants: Vec::new(),
        }),
        tenant: TenantName::default(),
    }
}

const PLACE: Place<'_> = Place {
    number: 1,
    owner_uid: Some("u-1"),
};

fn rendered(form: Form, launch: LaunchSpec) -> Value {
    let template = Template::render(&order(launch), form, &settings(), PLACE).unwrap();
    serde_json::to_value(template.pod("TOKEN").unwrap()).unwrap()
}

fn text(value: &Value) -> String {
    serde_json::to_string(value).unwrap()
}

fn security() -> Value {
    json!({
        "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]},
        "runAsGroup": 65_532, "runAsNonRoot": true, "runAsUser": 65_532,
    })
}

fn agent(form: &str) -> Vec<Value> {
    let field = |path: &str| json!({"fieldRef": {"fieldPath": path}});
    vec![
        json!({"name": "MCP_GATEWAY_AGENT_FORM", "value": form}),
        json!({"name": "MCP_GATEWAY_AGENT_HOME", "value": "198.18.0.10:7443"}),
        json!({"name": "MCP_GATEWAY_AGENT_CA", "value": "CA"}),
        json!({"name": "MCP_GATEWAY_AGENT_TOKEN", "value": "TOKEN"}),
        json!({"name": "MCP_GATEWAY_AGENT_POD", "valueFrom": field("metadata.name")}),
        json!({"name": "MCP_GATEWAY_AGENT_UID", "valueFrom": field("metadata.uid")}),
        json!({"name": "MCP_GATEWAY_AGENT_IP", "valueFrom": field("status.podIP")}),
    ]
}

fn server(more: Value) -> Value {
    let mut server = json!({
        "name": "server",
        "image": "localhost/time:1",
        "ports": [{"containerPort": 8000, "name": "mcp", "protocol": "TCP"}],
        "securityContext": security(),
    });
    merge(&mut server, more);
    server
}

fn direct() -> Value {
    server(json!({
        "env": [{"name": "HOST", "value": "0.0.0.0"}, {"name": "PORT", "value": "8000"}],
        "command": ["time"],
        "args": ["--port=8000", "$$(HOME)"],
    }))
}

fn bare(containers: Value, more: Value) -> Value {
    let mut spec = json!({
        "restartPolicy": "Never", "enableServiceLinks": false, "automountServiceAccountToken": false,
        "terminationGracePeriodSeconds": 5, "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}},
        "containers": containers,
    });
    merge(&mut spec, more);
    spec
}

fn alone(args: Option<&str>) -> Value {
    let mut agent = json!({
        "name": "agent",
        "image": "localhost/agent:1",
        "resources": {"requests": {"cpu": "5m", "memory": "8Mi"}, "limits": {"cpu": "500m", "memory": "64Mi"}},
        "securityContext": security(),
    });
    if let Some(word) = args {
        agent["args"] = json!([word, "/mcp-gateway"]);
    }
    agent
}

#[test]
fn the_pod_of_each_form_is_exactly_this() {
    let mount = json!([{"name": "agent", "mountPath": "/mcp-gateway", "readOnly": true}]);
    let started = |form: &str| {
        server(json!({
            "env": agent(form), "command": ["/mcp-gateway/mcp-gateway-agent"], "volumeMounts": mount,
        }))
    };
    let mut sidecar = alone(None);
    sidecar["env"] = agent("sidecar").into();
    let mut lender = alone(Some("lend"));
    lender["name"] = "lender".into();
    lender["lifecycle"] = json!({"postStart": {"exec": {
        "command": ["/mcp-gateway-agent", "lent", "/mcp-gateway"],
    }}});
    lender["volumeMounts"] = json!([{"name": "agent", "mountPath": "/mcp-gateway"}]);
    for (form, expected) in [
        (Form::None, bare(json!([direct()]), json!({}))),
        (
            Form::Embedded,
            bare(
                json!([server(json!({"env": agent("embedded")}))]),
                json!({}),
            ),
        ),
        (Form::Sidecar, bare(json!([direct(), sidecar]), json!({}))),
        (
            Form::ImageVolume,
            bare(
                json!([started("imageVolume")]),
                json!({"volumes": [{"name": "agent", "image": {"reference": "localhost/agent:1"}}]}),
            ),
        ),
        (
            Form::Init,
            bare(
                json!([lender, started("init")]),
                json!({"volumes": [{"name": "agent", "emptyDir": {}}]}),
            ),
        ),
    ] {
        assert_eq!(
            rendered(form, launch(&["time"]))["spec"],
            expected,
            "{form:?}"
        );
    }
}

#[test]
fn who_asks_for_logs_is_shown_the_servers() {
    for (form, expected) in [(Form::Init, json!("server")), (Form::Sidecar, Value::Null)] {
        let pod = rendered(form, launch(&["time"]));
        let default = &pod["metadata"]["annotations"]["kubectl.kubernetes.io/default-container"];
        assert_eq!(*default, expected, "{form:?}");
    }
}

#[test]
fn metadata_says_whose_it_is() {
    let metadata = &rendered(Form::None, launch(&[]))["metadata"];
    assert_eq!(metadata["labels"]["mcp-gateway.dev/installation"], "prod");
    assert_eq!(metadata["labels"]["mcp-gateway.dev/backend"], "time");
    assert_eq!(metadata["labels"]["mcp-gateway.dev/tenant"], "default");
    assert_eq!(metadata["ownerReferences"][0]["uid"], "u-1");
    let facts: Facts =
        serde_json::from_str(metadata["annotations"][names::FACTS].as_str().unwrap()).unwrap();
    assert_eq!(
        (facts.port, facts.host.as_str(), facts.form),
        (8000, "localhost:8000", Form::None)
    );
}

#[test]
fn what_a_document_may_say_is_said_and_cannot_displace_what_is_ours() {
    let mut launch = launch(&[]);
    let map = |key: &str, value: &str| BTreeMap::from([(key.to_owned(), value.to_owned())]);
    launch.pod = Arc::new(PodOptions {
        agent: AgentForm::None,
        requests: map("cpu", "50m"),
        labels: map(names::INSTALLATION, "other"),
        annotations: map(names::FACTS, "{}"),
        node_selector: map("disk", "ssd"),
        tolerations: vec![json!({"key": "gpu", "operator": "Exists"})],
        priority_class: Some("low".into()),
        pull_secrets: vec!["registry".into()],
        pull_policy: Some("Never".into()),
        ..PodOptions::default()
    });
    let pod = rendered(Form::None, launch);
    assert_eq!(pod["metadata"]["labels"][names::INSTALLATION], "prod");
    assert_ne!(pod["metadata"]["annotations"][names::FACTS], "{}");
    let spec = &pod["spec"];
    assert_eq!(spec["nodeSelector"]["disk"], "ssd");
    assert_eq!(spec["tolerations"][0]["key"], "gpu");
    assert_eq!(spec["priorityClassName"], "low");
    assert_eq!(spec["imagePullSecrets"][0]["name"], "registry");
    assert_eq!(spec["containers"][0]["imagePullPolicy"], "Never");
    assert_eq!(spec["containers"][0]["resources"]["requests"]["cpu"], "50m");
}

#[test]
fn values_stay_what_they_are_and_secrets_stay_references() {
    let mut launch = launch(&[]);
    let var = |name: &str, value: EnvValue| EnvVar {
        name: name.into(),
        value,
    };
    let key = KeyRef {
        name: "github".into(),
        key: "token".into(),
        optional: false,
    };
    launch.env = vec![
        var("PORT", EnvValue::Literal("9".into())),
        var("PRICE", EnvValue::Literal("$5 $(PORT)".into())),
        var("TOKEN", EnvValue::FromSecret(key)),
    ];
    let pod = rendered(Form::None, launch.clone());
    let env = text(&pod["spec"]["containers"][0]["env"]);
    assert!(
        env.contains(r#"{"name":"PORT","value":"9"}"#) && !env.contains("8000"),
        "{env}"
    );
    assert!(env.contains("$$5 $$(PORT)"), "{env}");
    assert!(
        env.contains(r#""secretKeyRef":{"key":"token","name":"github""#),
        "{env}"
    );
    for (name, value) in [
        ("X", EnvValue::FromEnv("X".into())),
        ("MCP_GATEWAY_AGENT_TOKEN", EnvValue::Literal("mine".into())),
    ] {
        launch.env = vec![var(name, value)];
        let refused = Template::render(&order(launch.clone()), Form::None, &settings(), PLACE);
        assert!(refused.is_err(), "{name}");
    }
}

#[test]
fn the_same_order_makes_the_same_pod_whatever_its_token() {
    let made = |token: &str, command: &[&str]| {
        let template =
            Template::render(&order(launch(command)), Form::Embedded, &settings(), PLACE).unwrap();
        let pod = template.pod(token).unwrap();
        (template, pod)
    };
    let (template, _) = made("a", &["time"]);
    assert!(template.is_of(&made("b", &["time"]).1));
    assert!(!template.is_of(&made("a", &["other"]).1));
    assert_eq!(token_of(&made("b", &["time"]).1), Some("b"));
}

#[test]
fn yaml_that_kubernetes_does_not_know_is_refused_by_name() {
    let mut launch = launch(&[]);
    launch.pod = Arc::new(PodOptions {
        tolerations: vec![json!("everything")],
        ..PodOptions::default()
    });
    let refused = Template::render(&order(launch), Form::None, &settings(), PLACE).unwrap_err();
    assert!(refused.contains("spec.pod"), "{refused}");
}

#[test]
fn a_sidecar_is_ordered_to_watch_and_a_bridge_gets_its_secret() {
    let mut launch = launch(&["time"]);
    let timeout = std::time::Duration::from_secs(60);
    let watching = orders(
        &launch,
        timeout,
        &facts(&order(launch.clone()), Form::Sidecar, 1),
        None,
        9,
    );
    assert!(watching.command.is_empty() && watching.args.is_empty());
    launch.transport = Transport::Stdio;
    let order = order(launch.clone());
    let bridged = orders(
        &launch,
        timeout,
        &facts(&order, Form::Init, 1),
        Some("s"),
        9,
    );
    assert_eq!(bridged.command, ["time"]);
    assert_eq!(
        (bridged.instance_secret.as_str(), bridged.start_timeout_ms),
        ("s", 60_000)
    );
}
