//! A cluster whose definitions are missing, then older, then right. Definitions are the whole cluster's, so that no other
//! test may be using them meanwhile; they are put back whatever becomes of the test.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

use mcp_gateway_loadtest::client::Client;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{Instant, sleep},
};

const PATIENCE: Duration = Duration::from_secs(120);
const BINARY: &str = env!("CARGO_BIN_EXE_mcp-gateway");

/// `dev/cluster` and a namespace of one test's own in it.
struct Cluster {
    tool: PathBuf,
    kubeconfig: PathBuf,
    namespace: String,
    /// The three definitions, as `mcp-gateway crds` prints them, as JSON.
    definitions: Vec<Value>,
    folder: tempfile::TempDir,
}

impl Cluster {
    fn new(tool: PathBuf, kubeconfig: PathBuf) -> Self {
        let definitions = mcp_gateway_api::crds::all().into_iter();
        let definitions = definitions.map(|one| serde_json::to_value(one).expect("JSON"));
        let cluster = Self {
            tool,
            kubeconfig,
            namespace: format!("mcp-test-{:08x}", rand::random::<u32>()),
            definitions: definitions.collect(),
            folder: tempfile::tempdir().expect("a temporary folder"),
        };
        cluster.kubectl(&["create", "namespace", &cluster.namespace]);
        cluster
    }

    fn try_kubectl(&self, arguments: &[&str]) -> Output {
        let mut kubectl = Command::new(&self.tool);
        kubectl.arg("kubectl").args(arguments).stdin(Stdio::null());
        kubectl.output().expect("kubectl can be run")
    }

    fn kubectl(&self, arguments: &[&str]) {
        let done = self.try_kubectl(arguments);
        let said = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "{arguments:?}: {said}");
    }

    fn apply(&self, objects: &[Value]) {
        let applied = self.try_apply(objects);
        applied.unwrap_or_else(|why| panic!("not applied: {why}"));
    }

    fn try_apply(&self, objects: &[Value]) -> Result<(), String> {
        let file = self.folder.path().join("objects.yaml");
        let texts: Vec<String> = objects.iter().map(Value::to_string).collect();
        std::fs::write(&file, texts.join("\n---\n")).expect("objects are written");
        let file = file.to_str().expect("a readable path");
        // Others apply them under their own names.
        let how = ["apply", "--server-side", "--force-conflicts", "-f", file];
        let done = self.try_kubectl(&how);
        if done.status.success() {
            return Ok(());
        }
        Err(String::from_utf8_lossy(&done.stderr).into_owned())
    }

    fn names(&self) -> Vec<&str> {
        let names = self.definitions.iter();
        names
            .map(|one| one["metadata"]["name"].as_str().expect("a name"))
            .collect()
    }

    fn undefine(&self) {
        let how = ["delete", "crd", "--ignore-not-found", "--timeout=120s"];
        self.kubectl(&[&how[..], &self.names()].concat());
    }

    /// As an earlier gateway would have defined it, whose backends had no `spec.agent`.
    fn define_older(&self) {
        let mut older = self.definitions.clone();
        for one in &mut older {
            let schema = &mut one["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
            let spec = &mut schema["properties"]["spec"];
            if let Some(properties) = spec["properties"].as_object_mut() {
                properties.remove("agent");
            }
            if let Some(spec) = spec.as_object_mut() {
                // What they say of fields that are not there any more cannot be said.
                spec.remove("x-kubernetes-validations");
            }
        }
        self.apply(&older);
    }

    fn define(&self) {
        self.apply(&self.definitions);
        let how = ["wait", "--for=condition=Established", "--timeout=60s"];
        let names: Vec<String> = self
            .names()
            .iter()
            .map(|name| format!("crd/{name}"))
            .collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        self.kubectl(&[&how[..], &names].concat());
    }

    fn serve(&self) -> Child {
        let path = |name: &str| self.folder.path().join(name);
        let log = std::fs::File::create(path("log")).expect("a log file");
        Command::new(BINARY)
            .args(["serve", "--kubernetes", "--namespace", &self.namespace])
            .args(["--installation", "test"])
            .args(["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"])
            // No agent will call.
            .args(["--home-listen", "127.0.0.1:0"])
            .args(["--home-advertise", "127.0.0.1:1"])
            .arg("--state-dir")
            .arg(path("state"))
            .arg("--ready-file")
            .arg(path("ready.json"))
            .env("KUBECONFIG", &self.kubeconfig)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("a gateway")
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the gateway's log\n{}", self.log());
        }
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../dev/manifests/crds.yaml");
        let how = ["apply", "--server-side", "--force-conflicts", "-f", file];
        drop(self.try_kubectl(&how));
        // Its gateway is gone, which would have let go of it.
        let free = ["patch", "mcpbackend", "demo", "--type=merge"];
        let patch = [
            "-n",
            &self.namespace,
            "-p",
            r#"{"metadata":{"finalizers":null}}"#,
        ];
        drop(self.try_kubectl(&[&free[..], &patch[..]].concat()));
        let how = ["delete", "namespace", &self.namespace, "--wait=false"];
        drop(self.try_kubectl(&how));
    }
}

/// A gateway that ends with this value.
struct Gateway {
    child: Child,
    clients: String,
    admin: String,
}

impl Gateway {
    async fn start(cluster: &Cluster) -> Self {
        let mut child = cluster.serve();
        let file = cluster.folder.path().join("ready.json");
        let give_up = Instant::now() + PATIENCE;
        let ready = loop {
            if let Some(ready) = read(&file) {
                break ready;
            }
            let ended = child.try_wait().expect("its state");
            assert_eq!(ended, None, "it ended: {}", cluster.log());
            assert!(Instant::now() < give_up, "not ready: {}", cluster.log());
            sleep(Duration::from_millis(20)).await;
        };
        let address = |name: &str| ready[name].as_str().expect("an address").to_owned();
        Self {
            child,
            clients: address("listen"),
            admin: address("admin"),
        }
    }

    /// The status, as a terminal shows it.
    async fn status(&self) -> String {
        let mut stream = TcpStream::connect(&self.admin).await.expect("it listens");
        let request = format!(
            "GET /status HTTP/1.1\r\nhost: {}\r\nuser-agent: curl\r\nconnection: close\r\n\r\n",
            self.admin
        );
        let mut answer = String::new();
        let asked = async {
            stream.write_all(request.as_bytes()).await?;
            stream.read_to_string(&mut answer).await
        };
        asked.await.expect("an answer");
        answer
    }

    async fn until_it_says(&self, what: &str) {
        self.until(what, true).await;
    }

    async fn until_it_says_no_more(&self, what: &str) {
        self.until(what, false).await;
    }

    async fn until(&self, what: &str, said: bool) {
        let give_up = Instant::now() + PATIENCE;
        loop {
            let status = self.status().await;
            if status.contains(what) == said {
                return;
            }
            assert!(Instant::now() < give_up, "{what}: not {said} of {status}");
            sleep(Duration::from_millis(50)).await;
        }
    }

    async fn until_it_serves(&self, backend: &str) {
        let give_up = Instant::now() + PATIENCE;
        let target = format!("gateway=http://{}/adapters/{backend}/mcp", self.clients);
        let target = target.parse().expect("a target");
        loop {
            let mut client = Client::connect(&target).await.expect("it listens");
            let Err(why) = client.initialize().await else {
                return;
            };
            assert!(Instant::now() < give_up, "it does not serve: {why:#}");
            sleep(Duration::from_millis(100)).await;
        }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn read(file: &Path) -> Option<Value> {
    serde_json::from_slice(&std::fs::read(file).ok()?).ok()
}

/// The whole story, in order.
pub(crate) async fn are_missing_then_older_then_right(tool: PathBuf, kubeconfig: PathBuf) {
    let cluster = Cluster::new(tool, kubeconfig);
    cluster.undefine();
    let gateway = Gateway::start(&cluster).await;
    let missing = "the cluster has no definition of McpBackend, ScalingPolicy, Tenant";
    gateway.until_it_says(missing).await;
    assert_eq!(cluster.log().matches(missing).count(), 1, "told once");

    cluster.define_older();
    let older = "older than this gateway";
    gateway.until_it_says(older).await;
    gateway.until_it_says_no_more(missing).await;

    cluster.define();
    let command = json!([
        "/usr/local/bin/mcp-gateway",
        "demo-server",
        "--transport",
        "http"
    ]);
    let backend = json!({
        "apiVersion": "mcp-gateway.dev/v1alpha1",
        "kind": "McpBackend",
        "metadata": {"name": "demo", "namespace": cluster.namespace},
        "spec": {
            "image": "localhost/mcp-gateway-demo:dev", "command": command,
            "transport": "streamable-http", "agent": "none",
        },
    });
    // The API server serves what it was given a moment later.
    let give_up = Instant::now() + PATIENCE;
    while let Err(why) = cluster.try_apply(std::slice::from_ref(&backend)) {
        assert!(Instant::now() < give_up, "the backend is not taken: {why}");
        sleep(Duration::from_millis(100)).await;
    }
    gateway.until_it_serves("demo").await;
    gateway.until_it_says_no_more(older).await;
}
