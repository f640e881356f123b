use mcp_gateway_api::backend::{EnvVar, Transport};
use proptest::prelude::*;

use super::*;

fn spec(command: &[&str]) -> LaunchSpec {
    LaunchSpec {
        image: None,
        port: None,
        pod: std::sync::Arc::default(),
        command: command.iter().map(ToString::to_string).collect(),
        args: Vec::new(),
        working_dir: None,
        env: Vec::new(),
        transport: Transport::StreamableHttp,
        path: "/mcp".into(),
        host: None,
        health_path: None,
    }
}

fn ambient(pairs: &'static [(&'static str, &'static str)]) -> Environment {
    Arc::new(move |name| {
        pairs
            .iter()
            .find(|(key, _)| *key == name)
            .map(|(_, value)| OsString::from(value))
    })
}

fn var(name: &str, value: EnvValue) -> EnvVar {
    EnvVar {
        name: name.into(),
        value,
    }
}

fn refusal(spec: &LaunchSpec, environment: &Environment) -> String {
    plan(spec, None, &environment.into()).err().unwrap().summary
}

fn names(plan: &Plan) -> Vec<&str> {
    plan.env
        .iter()
        .filter_map(|(name, _)| name.to_str())
        .collect()
}

#[test]
fn a_child_gets_the_listed_variables_and_no_others() {
    let environment = ambient(&[
        ("PATH", "/bin:/usr/bin"),
        ("HOME", "/home/me"),
        ("AWS_SECRET_ACCESS_KEY", "hush"),
    ]);
    let made = plan(
        &spec(&["sh"]),
        Some(Listen::on_loopback(4711)),
        &(&environment).into(),
    )
    .ok()
    .unwrap();
    assert_eq!(names(&made), ["HOME", "PATH", "HOST", "PORT"]);
}

#[test]
fn a_stdio_child_gets_neither_host_nor_port() {
    let made = plan(&spec(&["sh"]), None, &(&ambient(&[])).into())
        .ok()
        .unwrap();
    assert_eq!(names(&made), ["PATH"]);
}

#[test]
fn the_port_is_filled_into_command_and_args() {
    let mut spec = spec(&["sh", "--port=${PORT}"]);
    spec.args = vec!["${PORT}".into(), "$PORT".into()];
    let made = plan(
        &spec,
        Some(Listen::on_loopback(4711)),
        &(&ambient(&[])).into(),
    )
    .ok()
    .unwrap();
    assert_eq!(made.args, ["--port=4711", "4711", "$PORT"]);
}

#[test]
fn the_document_overrides_what_everybody_gets() {
    let mut spec = spec(&["sh"]);
    spec.env = vec![var("HOST", EnvValue::Literal("::1".into()))];
    let made = plan(
        &spec,
        Some(Listen::on_loopback(4711)),
        &(&ambient(&[])).into(),
    )
    .ok()
    .unwrap();
    let last = made.env.iter().rfind(|(name, _)| name == "HOST").unwrap();
    assert_eq!(last.1, "::1");
}

#[test]
fn a_missing_variable_is_named_with_the_remedy() {
    let mut spec = spec(&["sh"]);
    spec.env = vec![var("GITHUB_TOKEN", EnvValue::FromEnv("MY_TOKEN".into()))];
    let summary = refusal(&spec, &ambient(&[]));
    assert!(summary.contains("GITHUB_TOKEN"), "{summary}");
    assert!(summary.contains("valueFrom.env: MY_TOKEN"), "{summary}");
    assert!(summary.contains("set MY_TOKEN"), "{summary}");
}

#[test]
fn a_missing_command_is_told_from_a_missing_folder_and_a_file_that_cannot_run() {
    let here = ambient(&[("PATH", "/bin:/usr/bin")]);
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("tool"), "x").unwrap();

    assert!(refusal(&spec(&["no-such-tool"]), &here).contains("was not found in PATH"));
    assert!(refusal(&spec(&["/no/such/tool"]), &here).contains("does not exist"));
    assert!(refusal(&spec(&[]), &here).contains("no command"));

    let mut local = spec(&["./tool"]);
    local.working_dir = Some(folder.path().into());
    assert!(refusal(&local, &here).contains("not an executable file"));

    let mut lost = spec(&["sh"]);
    lost.working_dir = Some(folder.path().join("nowhere"));
    assert!(refusal(&lost, &here).contains("workingDir"));
}

#[test]
fn a_zero_byte_is_refused_before_the_spawn() {
    let mut spec = spec(&["sh"]);
    spec.args = vec!["a\0b".into()];
    assert!(refusal(&spec, &ambient(&[])).contains("zero byte"));
    spec.args.clear();
    spec.env = vec![var("A", EnvValue::Literal("x\0y".into()))];
    assert!(refusal(&spec, &ambient(&[])).contains("\"A\""));
}

proptest! {
    #[test]
    fn no_document_makes_the_plan_panic_or_leak_an_unlisted_variable(
        command in proptest::collection::vec("\\PC{0,8}", 0..3),
        name in "\\PC{0,8}",
        value in "\\PC{0,8}",
    ) {
        let mut spec = spec(&[]);
        spec.command = command;
        spec.env = vec![var(&name, EnvValue::Literal(value))];
        let all: Environment = Arc::new(|_| Some(OsString::from("/bin")));
        if let Ok(made) = plan(&spec, Some(Listen::on_loopback(1)), &(&all).into()) {
            prop_assert_eq!(made.env.len(), INHERITED.len() + 3);
        }
    }
}
