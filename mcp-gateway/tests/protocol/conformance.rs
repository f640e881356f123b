//! The official conformance suite scores the same through the gateway as directly, check by check.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::OnceLock,
    time::Duration,
};

use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::{
    documents::Backend,
    gateway::{Gateway, PATIENCE},
    roles::Installation,
    tools::{self, Tools},
    wire::{self, Peer},
};

/// Nobody else takes it: it is below the range from which the system serves `bind(0)` and outgoing connections, and the
/// gateway gives its servers higher ones.
fn free_address() -> SocketAddr {
    loop {
        let address = (Ipv4Addr::LOCALHOST, rand::random_range(10_000..20_000)).into();
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
}

/// The fixture without a gateway, for as long as this lives.
struct Direct {
    child: Child,
    url: String,
}

impl Direct {
    async fn start(tools: &Tools) -> Self {
        let address = free_address();
        let child = Command::new(tools.path("PY2"))
            .arg(tools.path("FIXTURE"))
            .env("PORT", address.port().to_string())
            .stdin(Stdio::null())
            .spawn()
            .expect("the fixture can be started");
        let give_up = Instant::now() + PATIENCE;
        while TcpStream::connect(address).is_err() {
            assert!(Instant::now() < give_up, "the fixture does not listen");
            sleep(Duration::from_millis(20)).await;
        }
        Self {
            child,
            url: format!("http://{address}/mcp"),
        }
    }
}

impl Drop for Direct {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Where the checks are kept for whoever wants to read them.
fn results() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("conformance")
}

/// Runs `dev/protocol/conformance` beside the runtime.
async fn conformance(tools: &Tools, arguments: &[&str]) -> (bool, String) {
    let mut command = Command::new(tools.path("CONFORMANCE_RUN"));
    command
        .args(arguments)
        .env("MCP_GATEWAY_PROTOCOL_DIR", tools.path("PROTOCOL_DIR"));
    let run = move || command.stdin(Stdio::null()).output();
    let Output {
        status,
        stdout,
        stderr,
    } = tokio::task::spawn_blocking(run)
        .await
        .expect("no panic")
        .expect("the suite can be run");
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&stdout),
        String::from_utf8_lossy(&stderr)
    );
    println!("conformance {}: {said}", arguments[0]);
    (status.success(), said)
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a readable path")
}

/// What the fixture scores without a gateway; run once.
async fn direct(tools: &Tools) -> PathBuf {
    static DONE: OnceLock<()> = OnceLock::new();
    let out = results().join("direct");
    if DONE.get().is_none() {
        let fixture = Direct::start(tools).await;
        let ran = conformance(tools, &["run", "--url", &fixture.url, "--out", text(&out)]).await;
        assert!(ran.0, "the direct run: {}", ran.1);
        let base = conformance(tools, &["baseline", text(&out)]).await;
        assert!(
            base.0,
            "the fixture no longer scores what it should: {}",
            base.1
        );
        let _ = DONE.set(());
    }
    out
}

async fn same_as_direct(tools: &Tools, run: &[&str], out: &Path) {
    let direct = direct(tools).await;
    let ran = conformance(tools, run).await;
    assert!(ran.0, "{}", ran.1);
    let compared = conformance(tools, &["compare", text(&direct), text(out)]).await;
    assert!(compared.0, "{}", compared.1);
}

/// Longer than any pause within a scenario: what it keeps in the server's memory must outlast that, and the suite gives a
/// stream 800 ms to tell something, which a start in between would not leave it.
const IDLE: &str = "4s";
/// So many that one which is used again has mostly gone to zero meanwhile.
const COLD_BACKENDS: usize = 6;

fn fixture(name: &str, tools: &Tools, idle: &str) -> Backend {
    Backend::fixture(name, tools)
        .policy("isolation", "tenant")
        .policy("idleTimeout", idle)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_check_of_both_revisions_is_the_same_through_a_warm_gateway() {
    let Some(tools) = tools::installed("conformance, warm") else {
        return;
    };
    let _turn = tools::turn(tools::Share::Whole).await;
    let gateway = Gateway::start(&[fixture("fixture", tools, "1m")]).await;
    let out = results().join("warm");
    let url = gateway.url("fixture");
    same_as_direct(tools, &["run", "--url", &url, "--out", text(&out)], &out).await;
    assert_eq!(
        gateway.status("fixture").await.starts,
        1,
        "a warm run is served by one instance"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_check_of_both_revisions_is_the_same_from_zero() {
    let Some(tools) = tools::installed("conformance, from zero") else {
        return;
    };
    let _turn = tools::turn(tools::Share::Whole).await;
    let names: Vec<String> = (0..COLD_BACKENDS).map(|n| format!("cold-{n}")).collect();
    let backends: Vec<Backend> = names
        .iter()
        .map(|name| fixture(name, tools, IDLE))
        .collect();
    let gateway = Gateway::start(&backends).await;
    let out = results().join("cold");
    let wait = tools::root().join("dev/protocol/wait-for-zero");
    let before = format!("{} {}", text(&wait), gateway.admin);
    let mut run = vec![
        "run",
        "--cold",
        "--workers",
        "2",
        "--before",
        &before,
        "--out",
        text(&out),
    ];
    let urls: Vec<String> = names.iter().map(|name| gateway.url(name)).collect();
    run.extend(urls.iter().flat_map(|url| ["--url", url]));
    same_as_direct(tools, &run, &out).await;
    let mut starts = 0;
    for name in &names {
        starts += gateway.status(name).await.starts;
    }
    assert!(
        starts >= 80,
        "only {starts} starts: not every scenario began at zero"
    );
}

/// The fixture in pods.
fn in_pods(name: &str, idle: &str) -> Backend {
    Backend::image(name, "streamable-http", "localhost/mcp-python:dev")
        .spec("command", json!(["python3", "/app/fixture.py"]))
        .policy("isolation", "tenant")
        .policy("idleTimeout", idle)
}

/// How many pods were started by whichever autoscalers there are.
async fn starts(installed: &Installation) -> u64 {
    let label = "app.kubernetes.io/component=autoscaler";
    let mut sum = 0;
    for pod in installed.pods(&installed.system, label).await {
        let ip = pod.status.and_then(|status| status.pod_ip);
        let url = format!("http://{}:9090/metrics", ip.expect("an address"));
        let page = wire::get(&wire::http(), &url, &[]).await;
        let page = String::from_utf8_lossy(&page.body).into_owned();
        let lines = page
            .lines()
            .filter(|line| line.starts_with("mcp_gateway_starts"));
        let counts = lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok());
        sum += counts.sum::<u64>();
    }
    sum
}

/// What of the suite is run from zero in pods each time: what keeps something between two requests or has a stream, of the
/// revision whose client waits as long as a pod may need on a busy machine (that of 2026-07-28 gives up after 10 s, or one).
/// `MCP_GATEWAY_TEST_FULL=1` runs all of it.
const FROM_ZERO: [&str; 7] = [
    "server-sse-multiple-streams",
    "server-sse-polling",
    "resources-subscribe",
    "tools-call-elicitation",
    "tools-call-sampling",
    "tools-call-with-logging",
    "tools-call-with-progress",
];
/// The revision of [`FROM_ZERO`].
const PATIENT: [&str; 2] = ["--requirements", "2025-11-25"];

/// Any activator may get any request: what one knows of a session, the other must know too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_check_is_the_same_from_pods_through_two_activators_and_two_autoscalers() {
    let Some(tools) = tools::installed("conformance, roles") else {
        return;
    };
    let _turn = tools::turn(tools::Share::Whole).await;
    let Some(installed) = Installation::roles("conformance, roles").await else {
        return;
    };
    let names: Vec<String> = (0..COLD_BACKENDS).map(|n| format!("cold-{n}")).collect();
    let mut backends: Vec<Backend> = names.iter().map(|name| in_pods(name, IDLE)).collect();
    backends.push(in_pods("warm", "10m"));
    installed.apply(&backends).await;
    let (spread, address) = installed.spread().await;
    let url = |name: &str| format!("http://{address}/adapters/{name}/mcp");

    warm_in_pods(tools, &url("warm")).await;
    assert_eq!(
        starts(&installed).await,
        1,
        "a warm run is served by one pod"
    );
    let urls: Vec<String> = names.iter().map(|name| url(name)).collect();
    let runs = from_zero_in_pods(tools, &installed, &urls).await;
    let started = starts(&installed).await - 1;
    let counts = spread.counts();
    println!("requests by activator: {counts:?}; pods from zero: {started} for {runs} scenarios");
    assert!(
        started + 3 >= runs,
        "only {started} starts for {runs} scenarios: not each began at zero"
    );
    let fewest = counts.iter().min().copied().unwrap_or_default();
    let all: u64 = counts.iter().sum();
    assert!(fewest * 3 > all, "not spread evenly: {counts:?}");
    installed.uninstall().await;
}

async fn warm_in_pods(tools: &Tools, url: &str) {
    // The suite's patience is for servers that run.
    Peer::connect(url, "warm").await.expect("it starts");
    let out = results().join("roles-warm");
    same_as_direct(tools, &["run", "--url", url, "--out", text(&out)], &out).await;
}

/// How many scenarios were run, each from zero.
async fn from_zero_in_pods(tools: &Tools, installed: &Installation, urls: &[String]) -> u64 {
    let full = std::env::var("MCP_GATEWAY_TEST_FULL").is_ok_and(|value| value == "1");
    let some: Vec<&str> = match full {
        true => Vec::new(),
        false => FROM_ZERO
            .iter()
            .flat_map(|name| ["--scenario", name])
            .chain(PATIENT)
            .collect(),
    };
    let out = results().join("roles-cold");
    let before = installed.before_each();
    let mut run = vec!["run", "--cold", "--workers", "2", "--out", text(&out)];
    run.extend(["--before", &before, "--timeout", "120000"]);
    run.extend(urls.iter().flat_map(|url| ["--url", url]));
    run.extend(&some);
    let direct = direct(tools).await;
    let ran = conformance(tools, &run).await;
    assert!(ran.0, "{}", ran.1);
    let mut compare = vec!["compare", text(&direct), text(&out)];
    compare.extend(&some);
    let compared = conformance(tools, &compare).await;
    assert!(compared.0, "{}", compared.1);
    let counted = ran
        .1
        .lines()
        .find_map(|line| line.split_once(" scenarios in "));
    let counted = counted.and_then(|(count, _)| count.parse().ok());
    counted.expect("the suite says how many scenarios it ran")
}
