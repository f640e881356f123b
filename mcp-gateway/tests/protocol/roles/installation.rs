//! The gateway as the manifests install it, two activators and two autoscalers or all in one, in two namespaces of one
//! test's own.
//!
//! Invariant: both namespaces go with the test, whatever became of it.

use std::{
    net::SocketAddr,
    path::PathBuf,
    process::{Command, Output, Stdio},
};

use k8s_openapi::api::core::v1::{Pod, Service};
use kube::{Api, Client, api::ListParams};
use mcp_gateway_loadtest::spread::{Options, Spread, Upstream};
use tokio::net::TcpListener;

use crate::{
    documents::{BINARY, Backend},
    pods::cluster::reach,
    tools,
};

/// An installed gateway.
pub(crate) struct Installation {
    pub(crate) client: Client,
    /// Of backends and their pods.
    pub(crate) namespace: String,
    /// Of the gateway.
    pub(crate) system: String,
    /// The API key that the installation printed.
    pub(crate) key: String,
    kubeconfig: PathBuf,
    gone: bool,
}

impl Installation {
    /// Installs both roles; `None`, having said so, if there is no cluster and this is no CI.
    pub(crate) async fn roles(test: &str) -> Option<Self> {
        Self::new(test, "--roles").await
    }

    /// The same of all in one.
    pub(crate) async fn alone(test: &str) -> Option<Self> {
        Self::new(test, "--alone").await
    }

    async fn new(test: &str, form: &str) -> Option<Self> {
        let (kubeconfig, client) = reach(test).await?;
        let namespace = format!("mcp-test-{:08x}", rand::random::<u32>());
        let mut own = Self {
            client,
            system: format!("{namespace}-system"),
            namespace,
            key: String::new(),
            kubeconfig,
            gone: false,
        };
        own.key = own.install(&[form]).await;
        assert!(own.key.starts_with("mgk_"), "a key is printed: {}", own.key);
        Some(own)
    }

    /// What is in the environment of everything that is to mean this installation.
    pub(crate) fn environment(&self) -> [(&'static str, String); 5] {
        let kubeconfig = self.kubeconfig.to_str().expect("a readable path");
        let ours = self.kubeconfig.parent().map(|dir| dir.join("bin/kubectl"));
        let kubectl = match ours {
            Some(ours) if ours.exists() => ours.to_str().expect("a readable path").to_owned(),
            _ => "kubectl".to_owned(),
        };
        [
            ("KUBECONFIG", kubeconfig.to_owned()),
            ("KUBECTL", kubectl),
            ("MCP_GATEWAY_NAMESPACE", self.namespace.clone()),
            ("MCP_GATEWAY_SYSTEM_NAMESPACE", self.system.clone()),
            ("MCP_GATEWAY_BINARY", BINARY.to_owned()),
        ]
    }

    /// The shell command that returns once the backend of `$URL` has no pod.
    pub(crate) fn before_each(&self) -> String {
        let [(_, kubeconfig), (_, kubectl), ..] = self.environment();
        let wait = tools::root().join("dev/protocol/wait-for-zero");
        let wait = wait.to_str().expect("a readable path");
        let namespace = &self.namespace;
        format!("KUBECONFIG='{kubeconfig}' KUBECTL='{kubectl}' '{wait}' --pods {namespace}")
    }

    /// Runs `dev/manifests/install`; what it printed on standard output.
    pub(crate) async fn install(&self, arguments: &[&str]) -> String {
        let Output { stdout, .. } = self.script("install", arguments).await;
        String::from_utf8_lossy(&stdout).trim().to_owned()
    }

    /// Runs `dev/manifests/install`, which must refuse to; what it said.
    pub(crate) async fn refused(&self, arguments: &[&str]) -> String {
        let mut command = Command::new(tools::root().join("dev/manifests/install"));
        command.args(arguments);
        let Output { status, stderr, .. } = self.output(command).await;
        let said = String::from_utf8_lossy(&stderr).into_owned();
        assert!(!status.success(), "{arguments:?}: {said}");
        said
    }

    /// Runs `dev/manifests/uninstall`.
    pub(crate) async fn uninstall(mut self) {
        self.script("uninstall", &[]).await;
        self.gone = true;
    }

    async fn script(&self, name: &str, arguments: &[&str]) -> Output {
        let mut command = Command::new(tools::root().join("dev/manifests").join(name));
        command.args(arguments);
        self.run(command).await
    }

    /// What kubectl says.
    pub(crate) async fn kubectl(&self, arguments: &[&str]) -> String {
        let [_, (_, kubectl), ..] = self.environment();
        let mut command = Command::new(kubectl);
        command.args(arguments);
        let Output { stdout, .. } = self.run(command).await;
        String::from_utf8_lossy(&stdout).into_owned()
    }

    /// Runs it beside the runtime.
    async fn output(&self, mut command: Command) -> Output {
        command.envs(self.environment()).stdin(Stdio::null());
        let done = tokio::task::spawn_blocking(move || command.output());
        done.await.expect("no panic").expect("it can be run")
    }

    /// The same; it must succeed.
    async fn run(&self, command: Command) -> Output {
        let said = format!("{command:?}");
        let done = self.output(command).await;
        assert!(
            done.status.success(),
            "{said}: {}\n{}{}",
            done.status,
            String::from_utf8_lossy(&done.stdout),
            String::from_utf8_lossy(&done.stderr)
        );
        done
    }

    /// Applies a backend's document.
    pub(crate) async fn apply(&self, backends: &[Backend]) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = folder.path().join("backends.yaml");
        let documents: String = backends.iter().map(Backend::document).collect();
        std::fs::write(&file, documents).expect("documents are written");
        let file = file.to_str().expect("a readable path");
        self.kubectl(&["-n", &self.namespace, "apply", "-f", file])
            .await;
        for backend in backends {
            let name = format!("mcpbackend/{}", backend.name);
            let condition = "--for=condition=Available";
            let arguments = ["-n", &self.namespace, "wait", condition, "--timeout=60s"];
            self.kubectl(&[&arguments[..], &[&name]].concat()).await;
        }
    }

    /// The pods of a namespace with some labels that nobody has deleted.
    pub(crate) async fn pods(&self, namespace: &str, labels: &str) -> Vec<Pod> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let pods = pods.list(&ListParams::default().labels(labels)).await;
        let pods = pods.expect("the pods").items.into_iter();
        pods.filter(|pod| pod.metadata.deletion_timestamp.is_none())
            .collect()
    }

    /// Where requests are spread at random over the activators, with the key added, for as long as the runtime lives.
    pub(crate) async fn spread(&self) -> (Spread, SocketAddr) {
        let pods = self
            .pods(&self.system, "app.kubernetes.io/component=activator")
            .await;
        let addresses = pods.into_iter().filter_map(|pod| pod.status?.pod_ip);
        let upstream = |ip: String| -> Upstream {
            let url = match ip.contains(':') {
                true => format!("http://[{ip}]:8080"),
                false => format!("http://{ip}:8080"),
            };
            url.parse().expect("an address")
        };
        let upstreams: Vec<Upstream> = addresses.map(upstream).collect();
        assert_eq!(upstreams.len(), 2, "two activators");
        self.spread_over(upstreams).await
    }

    /// The same through the activators' Service, which follows them as they come and go.
    pub(crate) async fn through_the_service(&self) -> SocketAddr {
        let url = format!("http://{}:80", self.service().await);
        let upstream = url.parse().expect("an address");
        self.spread_over(vec![upstream]).await.1
    }

    /// The address of the activators' Service.
    pub(crate) async fn service(&self) -> String {
        let services: Api<Service> = Api::namespaced(self.client.clone(), &self.system);
        let service = services.get("mcp-gateway").await.expect("the Service");
        let ip = service.spec.and_then(|spec| spec.cluster_ip);
        ip.expect("an address")
    }

    async fn spread_over(&self, upstreams: Vec<Upstream>) -> (Spread, SocketAddr) {
        let spread = Spread::new(Options {
            upstreams,
            key: Some(self.key.clone()),
            seed: None,
            connections: 1024,
        });
        let spread = spread.expect("a proxy");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("its address");
        let serving = spread.clone();
        tokio::spawn(async move { serving.serve(listener).await });
        (spread, address)
    }

    /// Runs a script to its end without a runtime, which may be ending.
    fn blocking(&self, program: PathBuf, arguments: &[&str]) -> String {
        let mut command = Command::new(program);
        let command = command.args(arguments).envs(self.environment());
        match command.stdin(Stdio::null()).output() {
            Ok(done) => {
                String::from_utf8_lossy(&done.stdout).into_owned()
                    + &String::from_utf8_lossy(&done.stderr)
            }
            Err(error) => error.to_string(),
        }
    }
}

impl Drop for Installation {
    fn drop(&mut self) {
        if self.gone {
            return;
        }
        if std::thread::panicking() {
            let [_, (_, kubectl), ..] = self.environment();
            let all = ["-n", &self.system, "logs", "--tail=60", "--prefix"];
            let label = ["-l", "app.kubernetes.io/name=mcp-gateway"];
            let log = self.blocking(kubectl.into(), &[&all[..], &label[..]].concat());
            eprintln!("--- what the gateway logged\n{log}\n---");
            let [_, (_, kubectl), ..] = self.environment();
            let all = ["-n", &self.namespace, "logs", "--tail=20", "--prefix"];
            let label = ["--all-containers", "-l", "mcp-gateway.dev/backend"];
            let log = self.blocking(kubectl.into(), &[&all[..], &label[..]].concat());
            eprintln!("--- what servers and agents logged\n{log}\n---");
        }
        self.blocking(tools::root().join("dev/manifests/uninstall"), &[]);
    }
}
