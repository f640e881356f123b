//! What documents mean, and what is said of bad ones.

#![expect(
    clippy::unwrap_used,
    clippy::too_many_lines,
    reason = "tests: a failed unwrap is a failed test, and a table is long"
)]

use std::{path::Path, sync::Arc, time::Duration};

use mcp_gateway_api::{
    backend::{Backend, EnvValue, Transport},
    catalog::Catalog,
    ids::BackendName,
    policy::{Isolation, OnIdle},
};
use mcp_gateway_control::{
    Reading,
    register::{Outcome, Register},
    source::read_bytes,
};
use proptest::prelude::*;

fn read(name: &str, text: &str) -> Reading {
    read_bytes(Path::new(name), text.as_bytes())
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
            spec("  command: [a]\n  image: b"),
            7,
            vec!["spec.image", "pods are not supported yet", "remove it"],
        ),
        (
            spec("  command: [a]\n  resources: {}"),
            7,
            vec!["spec.resources", "remove it"],
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
    let bad = backend("a", "  command: [a]\n  image: x") + &backend("b", "  command: [new]");
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
        for name in ["x.yaml", "x.json"] {
            Register::default().update(vec![read_bytes(Path::new(name), &bytes)]);
        }
    }

    #[test]
    fn no_mangling_of_a_document_makes_the_reader_panic(
        at in 0_usize..400, cut in 0_usize..40, insert in "[-{}\\[\\]:,\"'&*!|> \n#a0$]{0,6}",
    ) {
        for (name, text) in [
            ("x.yaml", backend("x", "  command: [a, 'b']\n  env:\n  - {name: A, value: b}\n  policy: {idleTimeout: 1m}\n")),
            ("x.json", r#"{"mcpServers": {"a": {"command": "x", "args": ["b"], "env": {"T": "${X}"}}}}"#.to_owned()),
        ] {
            let mut bytes = text.into_bytes();
            let at = at.min(bytes.len());
            let end = (at + cut).min(bytes.len());
            bytes.splice(at..end, insert.bytes());
            Register::default().update(vec![read_bytes(Path::new(name), &bytes)]);
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
    assert_eq!(examples, 3);
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
