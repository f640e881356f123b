use std::{fs, path::PathBuf};

use clap::Parser;

use super::{Access, ConfigError, Settings};
use crate::cli::{Cli, Command};

fn load(line: &str) -> Result<Settings, ConfigError> {
    let words = std::iter::once("mcp-gateway").chain(line.split_whitespace());
    let Command::Serve(args) = Cli::try_parse_from(words).unwrap().command else {
        panic!("not serve: {line}");
    };
    let outside = |name: &str| (name != "KUBERNETES_SERVICE_HOST").then(|| "/nonexistent".into());
    Settings::load(*args, outside, true)
}

#[test]
fn defaults_are_a_laptops() {
    let settings = load("serve --demo").unwrap();
    assert_eq!(settings.edge.listen.to_string(), "127.0.0.1:8080");
    assert_eq!(settings.edge.admin_listen.to_string(), "127.0.0.1:9090");
    assert_eq!(settings.access, Access::Anonymous);
    assert_eq!(settings.max_instances, 100);
    assert!(settings.state_dir.ends_with("mcp-gateway"));
}

#[test]
fn an_open_listener_without_keys_is_refused_and_names_the_remedies() {
    let error = load("serve --demo --listen 0.0.0.0:8080")
        .unwrap_err()
        .to_string();
    for remedy in ["keys add", "--allow-anonymous", "127.0.0.1"] {
        assert!(error.contains(remedy), "{error}");
    }
    load("serve --demo --listen 0.0.0.0:8080 --allow-anonymous").unwrap();
    let keys = load("serve --demo --listen 0.0.0.0:8080 --keys /k.json").unwrap();
    assert_eq!(keys.access, Access::Keys(PathBuf::from("/k.json")));
}

#[test]
fn an_exposed_admin_listener_keeps_its_status_to_itself_unless_told_otherwise() {
    let closed = load("serve --demo --admin-listen 0.0.0.0:9090 --allow-anonymous").unwrap();
    assert!(!closed.edge.admin_open);
    let open = load("serve --demo --admin-listen 0.0.0.0:9090 --admin-allow-anonymous").unwrap();
    assert!(open.edge.admin_open);
}

#[test]
fn nonsense_is_refused_with_its_own_sentence() {
    for (line, part) in [
        ("serve", "nothing to serve"),
        ("serve --demo --public-url example.com", "--public-url"),
        (
            "serve --demo --public-url ftp://example.com",
            "--public-url",
        ),
        ("serve --demo --allowed-host a/b", "--allowed-host"),
        ("serve --demo --allowed-origin nonsense", "--allowed-origin"),
        (
            "serve --demo --keys k --allow-anonymous",
            "exclude each other",
        ),
    ] {
        let error = load(line).unwrap_err().to_string();
        assert!(error.contains(part), "{line}: {error}");
    }
}

#[test]
fn flags_win_over_the_config_file_whose_paths_are_relative_to_it() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("gateway.yaml");
    fs::write(
        &file,
        "backends: [docs]\nlisten: localhost:7000\nmaxInstances: 7\nshutdownTimeout: 5s\nallowedHost: [a.example]\n",
    )
    .unwrap();
    let settings = load(&format!(
        "serve --config {} --max-instances 9",
        file.display()
    ))
    .unwrap();
    assert_eq!(settings.backends, [dir.path().join("docs")]);
    assert_eq!(settings.edge.listen.to_string(), "127.0.0.1:7000");
    assert_eq!(settings.max_instances, 9);
    assert_eq!(settings.shutdown_timeout.as_secs(), 5);
    assert!(settings.edge.hosts.admit(b"a.example:443"));
}

#[test]
fn a_mistake_in_the_config_file_names_file_line_and_field() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("gateway.yaml");
    for (text, parts) in [
        ("demo: true\nlissten: x\n", ["line 2", "lissten"]),
        ("demo: true\nlisten: 8080\n", ["line 2", "127.0.0.1:8080"]),
    ] {
        fs::write(&file, text).unwrap();
        let error = load(&format!("serve --config {}", file.display()))
            .unwrap_err()
            .to_string();
        for part in parts.into_iter().chain(["gateway.yaml"]) {
            assert!(error.contains(part), "{error}");
        }
    }
}

#[test]
fn an_address_that_is_listened_on_may_be_named_and_no_other() {
    let settings = load(
        "serve --demo --allow-anonymous --listen 192.0.2.7:80 --admin-listen [2001:db8::1]:81",
    );
    let hosts = settings.unwrap().edge.hosts;
    assert!(hosts.admit(b"192.0.2.7:80") && hosts.admit(b"[2001:db8::1]:81"));
    assert!(!hosts.admit(b"192.0.2.8:80"));
}

#[test]
fn the_public_urls_host_is_allowed() {
    let settings = load("serve --demo --public-url https://mcp.example.com/").unwrap();
    assert_eq!(
        settings.edge.public_url.as_deref(),
        Some("https://mcp.example.com")
    );
    assert!(settings.edge.hosts.admit(b"mcp.example.com"));
}

#[test]
fn every_setting_has_a_flag_a_variable_and_a_line_in_the_documentation() {
    use clap::CommandFactory;
    let docs = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/configuration.md");
    let docs = fs::read_to_string(docs).unwrap();
    let cli = Cli::command();
    let serve = cli.find_subcommand("serve").unwrap();
    for arg in serve.get_arguments().filter(|arg| arg.get_id() != "help") {
        let flag = arg.get_long().unwrap();
        let variable = arg.get_env().unwrap().to_str().unwrap();
        let expected = format!("MCP_GATEWAY_{}", flag.replace('-', "_").to_uppercase());
        assert_eq!(variable, expected);
        let line = docs
            .lines()
            .find(|line| line.starts_with(&format!("| `--{flag}")));
        let line = line.unwrap_or_else(|| panic!("docs/configuration.md lacks --{flag}"));
        assert!(line.contains(variable), "{line}");
    }
}

#[test]
fn pods_need_to_know_where_agents_find_the_gateway() {
    let error = load("serve --kubernetes").unwrap_err().to_string();
    assert!(error.contains("--home-advertise"), "{error}");
    let error = load("serve --kubernetes --home-advertise 0.0.0.0:7443");
    assert!(error.unwrap_err().to_string().contains("0.0.0.0:7443"));
    let settings = load("serve --kubernetes --home-listen 198.18.0.1:0").unwrap();
    let pods = settings.pods.unwrap();
    assert_eq!(pods.home_advertise, [pods.home_listen]);
    assert_eq!(
        (&*pods.namespace, &*pods.installation),
        ("mcp", "mcp-gateway")
    );
}

#[test]
fn what_concerns_pods_is_refused_without_them() {
    let error = load("serve --demo --namespace mcp")
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("--namespace") && error.contains("--kubernetes"),
        "{error}"
    );
    let error = load("serve --demo --kubernetes --home-listen 127.0.0.1:1").unwrap_err();
    assert!(error.to_string().contains("--demo"));
    let error = load("serve --kubernetes --home-listen 127.0.0.1:1 --namespace My_Space");
    let error = error.unwrap_err().to_string();
    assert!(error.contains("--namespace \"My_Space\""), "{error}");
}

#[test]
fn in_a_cluster_no_secret_is_made_up() {
    let words = "mcp-gateway serve --kubernetes --home-listen 127.0.0.1:1".split(' ');
    let Command::Serve(args) = Cli::try_parse_from(words).unwrap().command else {
        panic!("not serve");
    };
    let env = |name: &str| (name != "XDG_STATE_HOME").then(|| PathBuf::from("/nonexistent"));
    let error = Settings::load(*args, env, true).unwrap_err().to_string();
    assert!(error.contains("secrets create"), "{error}");
}
