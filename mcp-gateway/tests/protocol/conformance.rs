//! The official conformance suite scores the same through the gateway as directly, check by check.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::OnceLock,
    time::Duration,
};

use tokio::time::{Instant, sleep};

use crate::{
    documents::Backend,
    gateway::{Gateway, PATIENCE},
    tools::{self, Tools},
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
