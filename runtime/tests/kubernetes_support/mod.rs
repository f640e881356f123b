//! A namespace of a real cluster for one test, and the runtime opened in it.
//!
//! The cluster is the one of `MCP_GATEWAY_TEST_KUBECONFIG` (`dev/cluster up` makes one, `dev/test` sets the variable and
//! loads the images). Without it these tests pass without having proved anything and say so; in CI they fail.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "each test binary uses its part; a failed unwrap fails the test"
)]

use std::{net::SocketAddr, path::PathBuf, sync::Arc};

use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams, PostParams},
};
use mcp_gateway_api::backend::{AgentForm, EnvValue, EnvVar, LaunchSpec, PodOptions, Transport};
use mcp_gateway_link::{Authority, token::HomeKey};
use mcp_gateway_runtime::{
    EventReceiver, Found,
    kubernetes::{Home, KubernetesConfig, KubernetesRuntime, client},
};
use tokio::net::TcpListener;

/// The image with Python, which `dev/test` loads.
pub const PYTHON: &str = "localhost/mcp-python:dev";
/// The agent's image.
pub const AGENT: &str = "localhost/mcp-gateway-agent:dev";
const INTERPRETER: &str = "/opt/python/bin/python3.11";
const FIXTURE: &str = include_str!("../fixtures/http_server.py");

/// The cluster's kubeconfig; `None` if there is no cluster here.
pub fn kubeconfig() -> Option<PathBuf> {
    let path = std::env::var_os("MCP_GATEWAY_TEST_KUBECONFIG").map(PathBuf::from);
    if path.is_none() {
        assert!(
            std::env::var_os("CI").is_none(),
            "in CI the tests on a cluster are never skipped: set MCP_GATEWAY_TEST_KUBECONFIG"
        );
        eprintln!(
            "SKIPPED: no cluster (MCP_GATEWAY_TEST_KUBECONFIG is not set; see dev/README.md)"
        );
    }
    path
}

/// A namespace that is deleted when this is dropped.
pub struct Space {
    pub client: Client,
    pub name: String,
    kubeconfig: PathBuf,
    pub authority: Arc<Authority>,
    pub key: HomeKey,
}

impl Space {
    /// Makes one; `None` if there is no cluster here.
    pub async fn new() -> Option<Self> {
        let kubeconfig = kubeconfig()?;
        let client = connect(&kubeconfig).await;
        let name = format!("runtime-test-{:08x}", rand::random::<u32>());
        let namespace =
            serde_json::from_value(serde_json::json!({"metadata": {"name": name}})).unwrap();
        Api::<Namespace>::all(client.clone())
            .create(&PostParams::default(), &namespace)
            .await
            .unwrap();
        Some(Self {
            client,
            name,
            kubeconfig,
            authority: Arc::new(Authority::generate().unwrap()),
            key: HomeKey::random(),
        })
    }

    pub fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), &self.name)
    }

    pub async fn pod_names(&self) -> Vec<String> {
        let listed = self.pods().list(&ListParams::default()).await.unwrap();
        listed
            .items
            .into_iter()
            .filter_map(|pod| pod.metadata.name)
            .collect()
    }

    /// How a runtime in this namespace is set up.
    pub async fn config(&self, epoch: u64) -> KubernetesConfig {
        let home = TcpListener::from_std(self.home().await).unwrap();
        self.config_at(epoch, home).await
    }

    /// A listener that pods reach.
    pub async fn home(&self) -> std::net::TcpListener {
        let listener = std::net::TcpListener::bind(reachable(&self.kubeconfig).await).unwrap();
        listener.set_nonblocking(true).unwrap();
        listener
    }

    /// The same, with agents' home at a listener of one's own.
    pub async fn config_at(&self, epoch: u64, listener: TcpListener) -> KubernetesConfig {
        let home = Home {
            advertise: vec![listener.local_addr().unwrap()],
            listener,
            authority: Arc::clone(&self.authority),
            key: self.key.clone(),
        };
        let clients = (
            connect(&self.kubeconfig).await,
            connect(&self.kubeconfig).await,
        );
        KubernetesConfig {
            epoch,
            agent_image: Some(AGENT.into()),
            agent_pull_policy: Some("Never".into()),
            ..KubernetesConfig::new(clients, &self.name, "test", home)
        }
    }

    pub async fn open(&self) -> (Arc<KubernetesRuntime>, EventReceiver, Vec<Found>) {
        KubernetesRuntime::open(self.config(1).await).await.unwrap()
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        let (kubeconfig, name) = (self.kubeconfig.clone(), self.name.clone());
        let delete = async move {
            let namespaces: Api<Namespace> = Api::all(connect(&kubeconfig).await);
            let params = DeleteParams::default();
            if let Err(error) = namespaces.delete(&name, &params).await {
                eprintln!("the namespace {name} is left behind: {error}");
            }
        };
        let thread = std::thread::spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            runtime.unwrap().block_on(delete);
        });
        let _ = thread.join();
    }
}

pub async fn connect(kubeconfig: &std::path::Path) -> Client {
    let config = client::config(Some(kubeconfig)).await.unwrap();
    client::client(&config).unwrap()
}

/// An address of this machine that pods reach: the one it reaches the API server from.
async fn reachable(kubeconfig: &std::path::Path) -> SocketAddr {
    let config = client::config(Some(kubeconfig)).await.unwrap();
    let uri = config.cluster_url;
    let server = format!("{}:{}", uri.host().unwrap(), uri.port_u16().unwrap_or(443));
    let socket = tokio::net::UdpSocket::bind("0.0.0.0:0").await.unwrap();
    socket.connect(server).await.unwrap();
    SocketAddr::new(socket.local_addr().unwrap().ip(), 0)
}

/// A pod of the image with Python, whose server behaves as the fixture is told.
pub fn server(agent: AgentForm, behaviour: &[&str]) -> LaunchSpec {
    // In a pod it must listen where others reach it.
    let script = FIXTURE.replace("127.0.0.1", "0.0.0.0");
    let mut args = vec!["-c".to_owned(), script];
    args.extend(behaviour.iter().map(ToString::to_string));
    LaunchSpec {
        args,
        ..image(agent, PYTHON, &[INTERPRETER])
    }
}

/// A pod of any image.
pub fn image(agent: AgentForm, image: &str, command: &[&str]) -> LaunchSpec {
    LaunchSpec {
        image: Some(image.to_owned()),
        port: None,
        pod: Arc::new(PodOptions {
            agent,
            pull_policy: Some("IfNotPresent".into()),
            ..PodOptions::default()
        }),
        command: command.iter().map(ToString::to_string).collect(),
        args: Vec::new(),
        working_dir: None,
        env: vec![EnvVar {
            name: "PYTHONUNBUFFERED".into(),
            value: EnvValue::Literal("1".into()),
        }],
        transport: Transport::StreamableHttp,
        path: "/mcp".into(),
        host: None,
        health_path: None,
    }
}
