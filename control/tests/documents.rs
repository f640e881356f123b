//! What documents mean, and what is said of bad ones.

#![expect(
    clippy::unwrap_used,
    clippy::too_many_lines,
    reason = "tests: a failed unwrap is a failed test, and a table is long"
)]

use std::{path::Path, sync::Arc, time::Duration};

use mcp_gateway_api::{
    backend::{AgentForm, Backend, EnvValue, Transport},
    catalog::Catalog,
    ids::BackendName,
    policy::{Isolation, OnIdle},
};
use mcp_gateway_control::{
    Place, Reading,
    register::{Outcome, Register},
    source::read_bytes,
};
use proptest::prelude::*;

fn read(name: &str, text: &str) -> Reading {
    read_bytes(Path::new(name), text.as_bytes(), Place::Process)
}

fn outcome(name: &str, text: &str) -> Outcome {
    Register::default().update(vec![read(name, text)])
}

fn get(catalog: &Catalog, name: &str) -> Arc<Backend> {
    Arc::clone(
        catalog
            .get(&BackendName::new(name).unwrap())
            .unwrap_or_else(|| panic!("no backend {name}")),
    )
}

fn has(catalog: &Catalog, name: &str) -> bool {
    catalog.get(&BackendName::new(name).unwrap()).is_some()
}

fn backend(name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: mcp-gateway.dev/v1alpha1\nkind: McpBackend\nmetadata: {{name: {name}}}\nspec:\n{spec}\n"
    )
}

#[test]
fn a_whole_document_says_what_it_says() {
    let text = "# two documents
apiVersion: mcp-gateway.dev/v1alpha1
kind: McpBackend
metadata: {name: github, labels: {a: b}}
spec:
  description: GitHub issues
  command: [github-mcp-server, http]
  args: ['--port', '${PORT}']
  workingDir: sub
  env:
    - {name: LOG_LEVEL, value: info}
    - {name: GITHUB_TOKEN, valueFrom: {env: TOKEN}}
  transport: streamable-http
  port: 8000
  path: /rpc
  host: localhost:8000
  healthCheck: {path: /ready}
  policyRef: {name: interactive}
  tenants: [engineering]
  requiredRoles: []
---
apiVersion: mcp-gateway.dev/v1alpha1
kind: ScalingPolicy
metadata: {name: interactive}
spec: {isolation: shared, idleTimeout: 1h30m, onIdle: expire, maxSlots: 7, maxPendingBytes: 2Mi, minInstances: 0, maxInstances: 1}
";
    let Outcome { catalog, problems } = outcome("/etc/gw/all.yaml", text);
    assert_eq!(problems, []);
    let github = get(&catalog, "github");
    assert_eq!(github.description.as_deref(), Some("GitHub issues"));
    assert_eq!(github.launch.command, ["github-mcp-server", "http"]);
    assert_eq!(github.launch.args, ["--port", "${PORT}"]);
    assert_eq!(
        github.launch.working_dir.as_deref(),
        Some(Path::new("/etc/gw/sub"))
    );
    assert_eq!(
        github.launch.env[0].value,
        EnvValue::Literal("info".to_owned())
    );
    assert_eq!(
        github.launch.env[1].value,
        EnvValue::FromEnv("TOKEN".to_owned())
    );
    assert_eq!(github.launch.transport, Transport::StreamableHttp);
    assert_eq!(github.launch.path, "/rpc");
    assert_eq!(github.launch.health_path.as_deref(), Some("/ready"));
    assert_eq!(github.tenants[0].as_str(), "engineering");
    assert_eq!(github.policy.isolation, Isolation::Shared);
    assert_eq!(github.policy.idle_timeout, Duration::from_secs(5400));
    assert_eq!(github.policy.on_idle, OnIdle::Expire);
    assert_eq!(github.policy.max_slots, 7);
    assert_eq!(github.policy.max_pending_bytes, 2 << 20);
}

#[test]
fn defaults_depend_on_the_transport() {
    let text = backend("a", "  command: [a]")
        + &backend("b", "  command: [b]\n  transport: streamable-http")
        + &backend("c", "  command: [c]\n  transport: sse");
    let Outcome { catalog, problems } = outcome("x.yaml", &text);
    assert_eq!(problems, []);
    assert_eq!(get(&catalog, "a").policy.isolation, Isolation::Session);
    assert_eq!(get(&catalog, "b").policy.isolation, Isolation::Tenant);
    assert_eq!(get(&catalog, "b").launch.path, "/mcp");
    assert_eq!(get(&catalog, "c").launch.path, "/sse");
}

/// Text, line of the problem, and what its sentence must contain.
fn bad_documents() -> Vec<(String, u32, Vec<&'static str>)> {
    let spec = |spec: &str| backend("x", spec);
    let head = "apiVersion: mcp-gateway.dev/v1alpha1\n";
    vec![
        (
            spec("  comand: [a]"),
            6,
            vec!["comand", "spec", "did you mean \"command\""],
        ),
        (
            spec("  image: b"),
            6,
            vec![
                "spec.image",
                "an image needs a cluster",
                "command",
                "--kubernetes",
            ],
        ),
        (
            spec("  command: [a]\n  image: a b"),
            7,
            vec!["spec.image", "is no image", "ghcr.io"],
        ),
        (
            spec("  command: [a]\n  agent: sidecar"),
            7,
            vec![
                "spec.agent",
                "a stdio server needs the agent",
                "agent: auto",
            ],
        ),
        (
            spec("  command: [a]\n  agent: side"),
            7,
            vec!["spec.agent", "\"side\"", "sidecar or imageVolume"],
        ),
        (
            spec("  command: [a]\n  resources: {limits: {cpu: lots}}"),
            7,
            vec!["spec.resources.limits.cpu", "lots", "50m"],
        ),
        (
            spec("  command: [a]\n  resources: {limits: {cpu: 50m}, requests: {cpu: 1}}"),
            7,
            vec!["spec.resources.requests.cpu", "more than its limit 50m"],
        ),
        (
            spec("  command: [a]\n  resources: {claims: []}"),
            7,
            vec!["spec.resources", "claims"],
        ),
        (
            spec("  command: [a]\n  nodeSelector: {a: b}"),
            7,
            vec!["spec.nodeSelector", "below spec.pod"],
        ),
        (
            spec("  command: [a]\n  pod: {hostNetwork: true}"),
            7,
            vec!["spec.pod.hostNetwork", "confined", "remove it"],
        ),
        (
            spec("  command: [a]\n  pod: {labels: {mcp-gateway.dev/slot: a}}"),
            7,
            vec!["spec.pod.labels", "mcp-gateway.dev/slot", "remove it"],
        ),
        (
            spec("  command: [a]\n  pod: {annotations: {x.apparmor.kubernetes.io/y: unconfined}}"),
            7,
            vec!["spec.pod.annotations", "not for documents"],
        ),
        (
            spec("  command: [a]\n  pod: {labels: {team: 'a b'}}"),
            7,
            vec!["spec.pod.labels", "no value of a label"],
        ),
        (
            spec("  command: [a]\n  pod: {tolerations: [{key: a, opertor: Exists}]}"),
            7,
            vec![
                "spec.pod.tolerations[0].opertor",
                "no such field",
                "kubectl explain",
            ],
        ),
        (
            spec("  command: [a]\n  pod: {affinity: {nodeAffinity: 3}}"),
            7,
            vec!["spec.pod.affinity.nodeAffinity", "kubectl explain"],
        ),
        (
            spec("  command: [a]\n  pod: {priorityClassName: system-node-critical}"),
            7,
            vec!["spec.pod.priorityClassName", "parts of the cluster"],
        ),
        (
            spec("  command: [a]\n  pod: {imagePullPolicy: Sometimes}"),
            7,
            vec![
                "spec.pod.imagePullPolicy",
                "Always or IfNotPresent or Never",
            ],
        ),
        (
            spec("  command: [a]\n  transport: sse\n  port: 0"),
            8,
            vec!["spec.port", "1 to 65535"],
        ),
        (
            spec("  command: [a]\n  env: [{name: T, valueFrom: {}}]"),
            7,
            vec!["spec.env[0]", "valueFrom of T is empty"],
        ),
        (
            spec(
                "  command: [a]\n  env: [{name: T, valueFrom: {env: A, secretKeyRef: {name: a, key: b}}}]",
            ),
            7,
            vec!["spec.env[0]", "more than one source"],
        ),
        (
            spec(
                "  command: [a]\n  env: [{name: T, valueFrom: {secretKeyRef: {name: A_b, key: b}}}]",
            ),
            7,
            vec!["spec.env[0].valueFrom.secretKeyRef.name", "A_b", "kubectl"],
        ),
        (
            spec("  command: [a]\n  env: [{name: MCP_GATEWAY_AGENT_HOME, value: b}]"),
            7,
            vec!["spec.env[0]", "the gateway's own"],
        ),
        (
            format!("{head}kind: Tenant\nmetadata: {{name: x}}\nspec: {{displayname: X}}\n"),
            4,
            vec!["Tenant x", "displayname", "displayName"],
        ),
        (
            format!(
                "{head}kind: Tenant\nmetadata: {{name: x}}\nspec: {{quota: {{sessions: 1}}}}\n"
            ),
            4,
            vec!["spec.quota", "not supported yet"],
        ),
        (
            spec("  description: only"),
            6,
            vec!["there is no command", "spec.command", "npx"],
        ),
        (spec("  command: []"), 6, vec!["the command is empty"]),
        (spec("  command: npx"), 6, vec!["spec.command"]),
        (
            spec("  command: [a]\n  port: 80"),
            7,
            vec!["a stdio server has no port", "spec.port", "transport"],
        ),
        (
            spec("  command: [a]\n  transport: http"),
            7,
            vec!["spec.transport", "\"http\"", "streamable-http"],
        ),
        (
            spec("  command: [a]\n  transport: sse\n  path: sse"),
            8,
            vec!["spec.path", "begins with '/'"],
        ),
        (
            spec("  command: [a]\n  policy: {idleTimeout: 10}"),
            7,
            vec!["spec.policy.idleTimeout", "\"10\"", "30s, 10m"],
        ),
        (
            spec("  command: [a]\n  policy: {idleTimeout: soon}"),
            7,
            vec!["spec.policy.idleTimeout", "soon"],
        ),
        (
            spec("  command: [a]\n  policy: {idleTimeout: 0s}"),
            7,
            vec!["out of range"],
        ),
        (
            spec("  command: [a]\n  policy: {warmPool: 3}"),
            7,
            vec!["spec.policy.warmPool", "not supported yet"],
        ),
        (
            spec("  command: [a]\n  policy: {minInstances: 1}"),
            7,
            vec!["spec.policy.minInstances", "not supported yet"],
        ),
        (
            spec("  command: [a]\n  policy: {targetConcurrency: 1}"),
            7,
            vec!["spec.policy.targetConcurrency", "one instance per slot"],
        ),
        (
            spec("  command: [a]\n  policy: {maxSlots: 0}"),
            7,
            vec!["spec.policy.maxSlots", "1 to 1000000"],
        ),
        (
            spec("  command: [a]\n  policy: {isolation: none}"),
            7,
            vec!["spec.policy.isolation", "session or tenant or shared"],
        ),
        (
            spec("  command: [a]\n  policyRef: {name: nope}"),
            7,
            vec![
                "no ScalingPolicy nope",
                "spec.policyRef.name",
                "add a document",
            ],
        ),
        (
            spec("  command: [a]\n  policyRef: {name: p}\n  policy: {}"),
            7,
            vec!["both", "remove one"],
        ),
        (
            spec("  command: [a]\n  requiredRoles: [admin]"),
            7,
            vec!["spec.requiredRoles", "not supported yet"],
        ),
        (
            spec(
                "  command: [a]\n  env: [{name: T, valueFrom: {secretKeyRef: {name: a, key: b}}}]",
            ),
            7,
            vec!["secretKeyRef", "valueFrom: {env: NAME}"],
        ),
        (
            spec("  command: [a]\n  env:\n  - {name: T}"),
            8,
            vec!["spec.env[0]", "T has no value"],
        ),
        (
            spec("  command: [a]\n  env:\n  - {name: T, value: a}\n  - {name: T, value: b}"),
            9,
            vec!["spec.env[1]", "set twice"],
        ),
        (
            spec("  command: [a]\n  transport: sse\n  env: [{name: PORT, value: '1'}]"),
            8,
            vec!["PORT is the gateway's"],
        ),
        (
            spec("  command: [a]\n  tenants: [Engineering]"),
            7,
            vec!["spec.tenants[0]", "DNS label"],
        ),
        (
            spec("  command: [a]\n  command: [b]"),
            7,
            vec!["command", "twice"],
        ),
        (
            backend("Bad_Name", "  command: [a]"),
            4,
            vec!["metadata.name", "DNS label"],
        ),
        (
            format!("{head}kind: Backend\nmetadata: {{name: x}}\n"),
            1,
            vec!["\"Backend\"", "kind: McpBackend"],
        ),
        (
            format!("{head}metadata: {{name: x}}\n"),
            1,
            vec!["no kind", "kind: McpBackend"],
        ),
        (
            "apiVersion: v1\nkind: McpBackend\nmetadata: {name: x}\nspec: {command: [a]}\n"
                .to_owned(),
            1,
            vec!["apiVersion", "mcp-gateway.dev/v1alpha1"],
        ),
        (
            "kind: McpBackend\nmetadata: {name: x}\nspec: {command: [a]}\n".to_owned(),
            3,
            vec!["apiVersion is missing", "add"],
        ),
        (spec("  command: [a\n  x: y"), 7, vec!["correct the YAML"]),
        ("a: b: c\n".to_owned(), 1, vec!["correct the YAML"]),
        ("just text\n".to_owned(), 1, vec!["kind"]),
    ]
}

#[test]
fn every_bad_document_names_file_line_field_and_remedy_and_spares_its_neighbour() {
    for (text, _, parts) in bad_documents() {
        let good = backend("good", "  command: [a]");
        let marker = if text.starts_with("---") { "" } else { "---\n" };
        let after = backend("after", "  command: [a]");
        let text = format!("{good}{marker}{text}{after}");
        let Outcome { catalog, problems } = outcome("dir/bad.yaml", &text);
        assert!(has(&catalog, "good") && has(&catalog, "after"), "{text}");
        assert_eq!(problems.len(), 1, "{text}\n{problems:#?}");
        let sentence = problems[0].to_string();
        println!("{sentence}");
        for part in parts {
            assert!(sentence.contains(part), "{sentence}\nlacks {part}\n{text}");
        }
        assert!(sentence.starts_with("dir/bad.yaml:"), "{sentence}");
        assert!(!problems[0].remedy.is_empty(), "{sentence}");
    }
}

#[test]
fn every_problem_stands_on_its_line() {
    for (text, line, _) in bad_documents() {
        let Outcome { problems, .. } = outcome("bad.yaml", &text);
        assert_eq!(problems[0].line, Some(line), "{}\n{text}", problems[0]);
        let Outcome { problems, .. } = outcome("bad.yaml", &format!("# one\n# two\n\n{text}"));
        assert_eq!(problems[0].line, Some(line + 3), "{}\n{text}", problems[0]);
    }
}

#[test]
fn a_document_edited_to_something_bad_keeps_its_last_good_form() {
    let mut register = Register::default();
    let good = backend("a", "  command: [a]") + &backend("b", "  command: [b]");
    let first = register.update(vec![read("x.yaml", &good)]);
    let bad = backend("a", "  command: [a]\n  imag: x") + &backend("b", "  command: [new]");
    let second = register.update(vec![read("x.yaml", &bad)]);
    assert_eq!(get(&second.catalog, "a"), get(&first.catalog, "a"));
    assert_eq!(get(&second.catalog, "b").launch.command, ["new"]);
    assert!(second.problems[0].last_good_kept);
    let gone = register.update(vec![read("x.yaml", &backend("b", "  command: [b]"))]);
    assert!(!has(&gone.catalog, "a") && gone.problems.is_empty());
}

#[test]
fn a_file_that_is_cut_short_takes_nothing_away() {
    let mut register = Register::default();
    let good = backend("a", "  command: [a]") + &backend("b", "  command: [b]");
    register.update(vec![read("x.yaml", &good)]);
    let cut = backend("a", "  command: [a]") + "---\napiVersion: mcp-gateway.dev/v1alpha1\nkin";
    let outcome = register.update(vec![read("x.yaml", &cut)]);
    assert!(has(&outcome.catalog, "a") && has(&outcome.catalog, "b"));
}

#[test]
fn a_policy_that_disappears_leaves_its_backends_as_they_were() {
    let mut register = Register::default();
    let uses = backend("a", "  command: [a]\n  policyRef: {name: p}");
    let policy = "---\napiVersion: mcp-gateway.dev/v1alpha1\nkind: ScalingPolicy\nmetadata: {name: p}\nspec: {idleTimeout: 1m}\n";
    let first = register.update(vec![read("a.yaml", &uses), read("p.yaml", policy)]);
    assert_eq!(first.problems, []);
    let second = register.update(vec![read("a.yaml", &uses)]);
    assert_eq!(
        get(&second.catalog, "a").policy.idle_timeout,
        Duration::from_secs(60)
    );
    assert!(second.problems[0].last_good_kept);
}

#[test]
fn the_generation_follows_what_would_start_and_nothing_else() {
    let of = |spec: &str| get(&outcome("x.yaml", &backend("a", spec)).catalog, "a").generation;
    let base = of("  command: [a, b]");
    assert_eq!(
        base,
        of("  command: [a, b]\n  description: other\n  tenants: [t]\n  policy: {idleTimeout: 1s}")
    );
    for other in [
        "  command: [a]\n  args: [b]",
        "  command: [ab]",
        "  command: [a, b]\n  env: [{name: A, value: b}]",
        "  command: [a, b]\n  workingDir: /",
        "  command: [a, b]\n  policy: {isolation: shared}",
        "  command: [a, b]\n  transport: sse",
    ] {
        assert_ne!(base, of(other), "{other}");
    }
}

fn in_pods(text: &str) -> Outcome {
    Register::default().update(vec![read_bytes(
        Path::new("/etc/gw/x.yaml"),
        text.as_bytes(),
        Place::Pod,
    )])
}

#[test]
fn a_whole_document_for_pods_says_what_it_says() {
    let text = backend(
        "github",
        "  image: ghcr.io/github/github-mcp-server:v1
  command: [github-mcp-server, stdio]
  workingDir: .
  agent: imageVolume
  env:
    - {name: LOG_LEVEL, value: info}
    - {name: TOKEN, valueFrom: {secretKeyRef: {name: github, key: token}}}
    - {name: MODE, valueFrom: {configMapKeyRef: {name: modes, key: m, optional: true}}}
  resources: {requests: {cpu: 0.5, memory: 64Mi}, limits: {memory: 256Mi}}
  pod:
    labels: {team: a, app.kubernetes.io/part-of: tools}
    annotations: {example.com/note: 'any text'}
    nodeSelector: {kubernetes.io/arch: amd64}
    tolerations: [{key: gpu, operator: Equal, value: 'yes', effect: NoSchedule}]
    affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [{matchExpressions: [{key: a, operator: In, values: [b]}]}]}}}
    topologySpreadConstraints: [{maxSkew: 1, topologyKey: zone, whenUnsatisfiable: ScheduleAnyway}]
    priorityClassName: low
    runtimeClassName: gvisor
    imagePullSecrets: [{name: registry}]
    imagePullPolicy: IfNotPresent",
    );
    let Outcome { catalog, problems } = in_pods(&text);
    assert_eq!(problems, []);
    let launch = &get(&catalog, "github").launch;
    assert_eq!(
        launch.image.as_deref(),
        Some("ghcr.io/github/github-mcp-server:v1")
    );
    assert_eq!(launch.transport, Transport::Stdio);
    assert_eq!(launch.working_dir, None, "'.' is the image's own folder");
    let EnvValue::FromSecret(secret) = &launch.env[1].value else {
        panic!("{:?}", launch.env)
    };
    assert_eq!(
        (secret.name.as_str(), secret.key.as_str()),
        ("github", "token")
    );
    let EnvValue::FromConfigMap(config) = &launch.env[2].value else {
        panic!("{:?}", launch.env)
    };
    assert!(config.optional && !secret.optional);
    let pod = &launch.pod;
    assert_eq!(pod.agent, AgentForm::ImageVolume);
    assert_eq!(pod.requests["cpu"], "0.5");
    assert_eq!(pod.limits["memory"], "256Mi");
    assert_eq!(pod.labels["team"], "a");
    assert_eq!(pod.tolerations[0]["value"], "yes");
    assert_eq!(pod.topology_spread[0]["maxSkew"], 1);
    assert_eq!(pod.priority_class.as_deref(), Some("low"));
    assert_eq!(pod.runtime_class.as_deref(), Some("gvisor"));
    assert_eq!(pod.pull_secrets, ["registry"]);
    assert_eq!(pod.pull_policy.as_deref(), Some("IfNotPresent"));
    assert_eq!(
        get(&catalog, "github").policy.start_timeout,
        Duration::from_secs(60)
    );
}

#[test]
fn an_image_alone_is_an_http_server_and_one_document_serves_laptop_and_cluster() {
    let image = backend("a", "  image: a");
    let Outcome { catalog, problems } = in_pods(&image);
    assert_eq!(problems, []);
    let launch = &get(&catalog, "a").launch;
    assert_eq!(launch.transport, Transport::StreamableHttp);
    assert!(launch.command.is_empty());

    let both = backend(
        "b",
        "  image: b\n  command: [b]\n  workingDir: .\n  resources: {limits: {cpu: 1}}",
    );
    let cluster = in_pods(&both);
    let laptop = outcome("/etc/gw/x.yaml", &both);
    assert_eq!((cluster.problems, laptop.problems), (vec![], vec![]));
    let process = get(&laptop.catalog, "b");
    assert_eq!(process.launch.image, None);
    assert_eq!(process.policy.start_timeout, Duration::from_secs(300));
    let pod = get(&cluster.catalog, "b");
    assert_eq!(pod.launch.image.as_deref(), Some("b"));
    let bare = outcome(
        "/etc/gw/x.yaml",
        &backend("b", "  command: [b]\n  workingDir: ."),
    );
    assert_eq!(
        process.generation,
        get(&bare.catalog, "b").generation,
        "what only pods have does not restart a process"
    );
}

#[test]
fn the_generation_of_a_pod_follows_its_image_and_shape() {
    let of = |spec: &str| get(&in_pods(&backend("a", spec)).catalog, "a").generation;
    let base = of("  image: a");
    assert_eq!(base, of("  image: a\n  description: other"));
    for other in [
        "  image: b",
        "  image: a\n  port: 9000",
        "  image: a\n  agent: none",
        "  image: a\n  resources: {limits: {cpu: 1}}",
        "  image: a\n  pod: {labels: {a: b}}",
        "  image: a\n  pod: {tolerations: [{operator: Exists}]}",
    ] {
        assert_ne!(base, of(other), "{other}");
    }
    let env = |from: &str| {
        of(&format!(
            "  image: a\n  env: [{{name: T, valueFrom: {{{from}}}}}]"
        ))
    };
    assert_ne!(
        env("secretKeyRef: {name: a, key: b}"),
        env("configMapKeyRef: {name: a, key: b}")
    );
    assert_ne!(
        env("secretKeyRef: {name: a, key: b}"),
        env("secretKeyRef: {name: a, key: b, optional: true}")
    );
}

#[test]
fn what_a_pod_cannot_be_is_refused_with_field_and_remedy() {
    for (spec, parts) in [
        (
            "  command: [a]",
            ["spec.image", "there is no image", "ghcr.io"],
        ),
        (
            "  image: a\n  env: [{name: T, valueFrom: {env: T}}]",
            ["spec.env[0]", "no concern of a pod", "secretKeyRef"],
        ),
        (
            "  image: a\n  env: [{name: T}]",
            ["spec.env[0]", "T has no value", "secretKeyRef"],
        ),
        (
            "  image: a\n  transport: stdio",
            ["spec.agent", "needs a command", "embedded"],
        ),
        (
            "  image: a\n  agent: init",
            ["spec.agent", "there is no command", "spec.command"],
        ),
        (
            "  image: a\n  workingDir: sub",
            ["spec.workingDir", "relative", "begins with '/'"],
        ),
    ] {
        let Outcome { catalog, problems } = in_pods(&backend("x", spec));
        assert!(!has(&catalog, "x"), "{spec}");
        assert_eq!(problems.len(), 1, "{spec}: {problems:#?}");
        let sentence = problems[0].to_string();
        for part in parts {
            assert!(sentence.contains(part), "{sentence}\nlacks {part}");
        }
    }
    let servers = r#"{"mcpServers": {"a": {"command": "x"}}}"#;
    let reading = read_bytes(Path::new("x.json"), servers.as_bytes(), Place::Pod);
    let Outcome { problems, .. } = Register::default().update(vec![reading]);
    assert!(
        problems[0].to_string().contains("spec.image"),
        "{problems:?}"
    );
}

#[test]
fn two_documents_of_one_name_are_told_apart_by_coming_first() {
    let mut register = Register::default();
    let outcome = register.update(vec![
        read("a.yaml", &backend("x", "  command: [first]")),
        read(
            "b.yaml",
            &(backend("x", "  command: [second]") + &backend("x", "  command: [third]")),
        ),
    ]);
    assert_eq!(get(&outcome.catalog, "x").launch.command, ["first"]);
    assert_eq!(outcome.problems.len(), 2);
    assert!(outcome.problems[0].to_string().contains("came first"));
}

#[test]
fn an_mcp_servers_file_is_taken_as_it_is() {
    let text = r#"{
  // VS Code comments
  "mcpServers": {
    "Everything Server": {"command": "npx", "args": ["-y", "server-everything"], "timeout": 60},
    "files": {"command": "fs", "args": ["/tmp"], "env": {"A": "b", "T": "${env:TOKEN}"}, "cwd": "w", "type": "stdio"},
    "remote": {"type": "http", "url": "https://example.com/mcp"},
    "off": {"command": "x", "disabled": true},
    "broken": {"command": 7},
    "ask": {"command": "x", "env": {"K": "${input:key}"}},
    "files": {"command": "again"},
  },
  "otherSetting": true
}"#;
    let Outcome { catalog, problems } = outcome("/home/me/.cursor/mcp.json", text);
    let names: Vec<_> = catalog.backends.keys().map(BackendName::as_str).collect();
    assert_eq!(names, ["everything-server", "files"]);
    let files = get(&catalog, "files");
    assert_eq!(files.launch.command, ["fs"]);
    assert_eq!(
        files.launch.env[1].value,
        EnvValue::FromEnv("TOKEN".to_owned())
    );
    assert_eq!(
        files.launch.working_dir.as_deref(),
        Some(Path::new("/home/me/.cursor/w"))
    );
    let all: Vec<String> = problems.iter().map(ToString::to_string).collect();
    for (line, part) in [
        (4, "everything-server"),
        (4, "timeout"),
        (6, "remote server"),
        (7, "disabled"),
        (8, "command"),
        (9, "editor"),
        (10, "called files too"),
    ] {
        let found = all
            .iter()
            .any(|s| s.contains(&format!("mcp.json:{line}")) && s.contains(part));
        assert!(found, "{line} {part}: {all:#?}");
    }
}

#[test]
fn other_json_is_refused_with_a_sentence() {
    for (text, part) in [
        ("{\"a\": 1}", "mcpServers"),
        ("{\"mcpServers\": {", "correct the JSON"),
        ("{\"mcpServers\": []}", "an object of servers"),
    ] {
        let Outcome { problems, .. } = outcome("x.json", text);
        assert!(problems[0].to_string().contains(part), "{}", problems[0]);
    }
    let document = r#"{"apiVersion": "mcp-gateway.dev/v1alpha1", "kind": "McpBackend", "metadata": {"name": "j"}, "spec": {"command": ["a"]}}"#;
    assert!(has(&outcome("x.json", document).catalog, "j"));
}

#[test]
fn no_value_of_an_environment_variable_is_ever_quoted() {
    for text in [
        backend("x", "  command: [a]\n  env: [{name: T, value: [hunter2]}]"),
        backend(
            "x",
            "  command: [a]\n  env: [{name: T, value: {hunter2: hunter2}}]",
        ),
        backend(
            "x",
            "  command: [a]\n  env: [{name: T, value: hunter2}, {name: T, value: hunter2}]",
        ),
        backend(
            "x",
            "  command: [a]\n  env: [{name: T, value: hunter2, valueFrom: {env: A}}]",
        ),
    ] {
        let Outcome { problems, .. } = outcome("x.yaml", &text);
        assert!(!problems.is_empty(), "{text}");
        assert!(!format!("{problems:?}").contains("hunter2"), "{problems:?}");
    }
    for env in [
        r#"{"T": ["hunter2"]}"#,
        r#""hunter2""#,
        r#"{"T": {"a": "hunter2"}}"#,
        r#"["T=hunter2"]"#,
    ] {
        let json = format!(r#"{{"mcpServers": {{"a": {{"command": "x", "env": {env}}}}}}}"#);
        let Outcome { problems, .. } = outcome("x.json", &json);
        assert!(!problems.is_empty(), "{json}");
        assert!(!format!("{problems:?}").contains("hunter2"), "{problems:?}");
    }
    for env in ["hunter2", "[hunter2]", "[[hunter2]]", "{T: hunter2}"] {
        let text = backend("x", &format!("  command: [a]\n  env: {env}"));
        let Outcome { problems, .. } = outcome("x.yaml", &text);
        assert!(!problems.is_empty(), "{text}");
        let said = format!("{problems:?}").replace("spec.env.hunter2", "");
        assert!(!said.contains("hunter2"), "{problems:?}");
    }
}

proptest! {
    #[test]
    fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        for (name, place) in [("x.yaml", Place::Process), ("x.json", Place::Process), ("x.yaml", Place::Pod)] {
            Register::default().update(vec![read_bytes(Path::new(name), &bytes, place)]);
        }
    }

    #[test]
    fn no_mangling_of_a_document_makes_the_reader_panic(
        at in 0_usize..400, cut in 0_usize..40, insert in "[-{}\\[\\]:,\"'&*!|> \n#a0$]{0,6}",
    ) {
        for (name, place, text) in [
            ("x.yaml", Place::Pod, backend("x", "  image: i\n  command: [a]\n  resources: {limits: {cpu: 1}}\n  pod: {tolerations: [{key: a, operator: Exists}]}\n")),
            ("x.yaml", Place::Process, backend("x", "  command: [a, 'b']\n  env:\n  - {name: A, value: b}\n  policy: {idleTimeout: 1m}\n")),
            ("x.json", Place::Process, r#"{"mcpServers": {"a": {"command": "x", "args": ["b"], "env": {"T": "${X}"}}}}"#.to_owned()),
        ] {
            let mut bytes = text.into_bytes();
            let at = at.min(bytes.len());
            let end = (at + cut).min(bytes.len());
            bytes.splice(at..end, insert.bytes());
            Register::default().update(vec![read_bytes(Path::new(name), &bytes, place)]);
        }
    }
}

#[test]
fn the_examples_of_the_documentation_are_in_order_and_its_tables_hold_every_field() {
    let docs = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/configuration.md");
    let docs = std::fs::read_to_string(docs).unwrap();
    let mut examples = 0;
    for block in docs.split("```").skip(1).step_by(2) {
        let (kind, text) = block.split_once('\n').unwrap();
        let name = match kind {
            "yaml" if text.contains("kind:") => "x.yaml",
            "json" => "x.json",
            _ => continue,
        };
        assert_eq!(outcome(name, text).problems, [], "{text}");
        examples += 1;
    }
    assert_eq!(examples, 4);
    // The refusal of an unknown field lists all known ones.
    for (spec, prefix) in [
        ("  command: [a]\n  zzzzzz: 1", "`spec."),
        ("  command: [a]\n  policy: {zzzzzz: 1}", "`"),
    ] {
        let Outcome { problems, .. } = outcome("x.yaml", &backend("x", spec));
        let list = problems[0].remedy.strip_prefix("the fields are ").unwrap();
        for field in list.split(", ").filter(|field| *field != "requiredRoles") {
            let written = docs.contains(&format!("{prefix}{field}"));
            assert!(written, "docs/configuration.md lacks {field}");
        }
    }
}
