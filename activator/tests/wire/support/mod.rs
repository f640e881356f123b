//! A gateway on a real port, its autoscaler scripted, its instance a real HTTP server.

pub mod client;
pub mod scaler;
pub mod talker;
pub mod upstream;

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use axum::Router;
use mcp_gateway_activator::{
    Activator, ActivatorConfig, Deps,
    auth::{Anonymous, Authenticate},
    directory::Directory,
    memory::Memory,
    session::{keyring::Keyring, sealed::Sealer},
};
use mcp_gateway_api::{
    backend::{Backend, LaunchSpec, Transport},
    catalog::Catalog,
    endpoint::LocalDial,
    failure::{Failure, FailureKind},
    ids::{ActivatorId, BackendName, Generation, InstanceId, TenantName},
    policy::{Isolation, ScalingPolicy},
    principal::Principal,
};
use tokio::{io::DuplexStream, sync::watch};

pub use self::{
    client::{Answer, Client},
    scaler::FakeScaler,
    upstream::Upstream,
};

/// Longest any condition is waited for.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub struct NoDial;

impl LocalDial for NoDial {
    fn dial(&self, _instance: InstanceId) -> std::io::Result<DuplexStream> {
        Err(std::io::ErrorKind::NotFound.into())
    }
}

/// `Authorization: Bearer NAME` is that subject; anything else nobody.
pub struct Names;

impl Authenticate for Names {
    fn authenticate(&self, headers: &http::HeaderMap) -> Result<Principal, Failure> {
        let given = headers.get("authorization").and_then(|v| v.to_str().ok());
        given
            .and_then(|text| text.strip_prefix("Bearer "))
            .map(|name| Principal::new("keys", TenantName::default(), name))
            .ok_or_else(|| Failure::new(FailureKind::Unauthenticated, "Send a key."))
    }
}

/// Settings of a test.
pub struct Setup {
    pub config: ActivatorConfig,
    pub policy: ScalingPolicy,
    pub transport: Transport,
    pub tenants: Vec<TenantName>,
    pub auth: Arc<dyn Authenticate>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            config: ActivatorConfig::default(),
            policy: ScalingPolicy::for_processes(Isolation::Tenant),
            transport: Transport::StreamableHttp,
            tenants: Vec::new(),
            auth: Arc::new(Anonymous::default()),
        }
    }
}

/// Everything at once.
pub struct World {
    pub scaler: Arc<FakeScaler>,
    pub upstream: Upstream,
    pub activator: Activator,
    pub client: Client,
    pub address: SocketAddr,
    pub catalog: watch::Sender<Arc<Catalog>>,
    sealer: Sealer,
    config: ActivatorConfig,
}

impl World {
    /// A gateway whose one backend `demo` is ready to start.
    pub async fn new() -> Self {
        Self::with(Setup::default()).await
    }

    pub async fn with(setup: Setup) -> Self {
        let upstream = Upstream::start().await;
        let scaler = Arc::new(FakeScaler::new(upstream.address));
        let backend = backend(&setup);
        let backends = BTreeMap::from([(backend.name.clone(), Arc::new(backend))]);
        let (catalog, reader) = watch::channel(Arc::new(Catalog { backends }));
        let sealer = Sealer::new(Keyring::random().unwrap());
        let deps = Deps {
            scaler: Arc::clone(&scaler) as Arc<dyn mcp_gateway_api::scaler::Scaler>,
            catalog: reader,
            dial: Arc::new(NoDial),
            auth: setup.auth,
            sealer: sealer.clone(),
            memory: Memory::open(None),
            directory: Directory::new(setup.config.id),
        };
        let activator = Activator::new(setup.config.clone(), deps);
        let address = serve(&activator).await;
        Self {
            client: Client::new(address),
            scaler,
            upstream,
            activator,
            address,
            catalog,
            sealer,
            config: setup.config,
        }
    }

    /// A client of a second activator of the same installation, for whoever comes without a key.
    pub async fn second(&self) -> Client {
        let config = ActivatorConfig {
            id: ActivatorId::random(),
            ..self.config.clone()
        };
        let deps = Deps {
            scaler: Arc::clone(&self.scaler) as Arc<dyn mcp_gateway_api::scaler::Scaler>,
            catalog: self.catalog.subscribe(),
            dial: Arc::new(NoDial),
            auth: Arc::new(Anonymous::default()),
            sealer: self.sealer.clone(),
            memory: Memory::open(None),
            directory: Directory::new(config.id),
        };
        Client::new(serve(&Activator::new(config, deps)).await)
    }

    /// `initialize` and `notifications/initialized`; the session's id.
    pub async fn open(&self) -> String {
        let answer = self.client.post(INITIALIZE, &[]).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let id = answer
            .header("mcp-session-id")
            .expect("a session id")
            .to_owned();
        let noted = self
            .client
            .post(INITIALIZED, &[("mcp-session-id", &id)])
            .await;
        assert_eq!(noted.status, 202);
        id
    }

    /// Only another tenant may use the backend from now on.
    pub fn withdraw(&self) {
        let mut catalog = Catalog::clone(&self.catalog.borrow());
        for backend in catalog.backends.values_mut() {
            let other = TenantName::new("others").unwrap();
            Arc::make_mut(backend).tenants = vec![other];
        }
        self.catalog.send_replace(Arc::new(catalog));
    }

    /// Changes the backend's policy from now on.
    pub fn policy(&self, change: impl Fn(&mut ScalingPolicy)) {
        let mut catalog = Catalog::clone(&self.catalog.borrow());
        for backend in catalog.backends.values_mut() {
            change(Arc::make_mut(&mut Arc::make_mut(backend).policy));
        }
        self.catalog.send_replace(Arc::new(catalog));
    }

    /// Lets the gateway see what has happened on its connections: it answers a few requests that come later.
    pub async fn catch_up(&self) {
        for _ in 0..5 {
            assert_eq!(self.client.post("{", &[]).await.status, 400);
        }
    }

    /// Waits until something holds.
    pub async fn until(&self, what: &str, mut holds: impl FnMut() -> bool) {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while !holds() {
            assert!(
                tokio::time::Instant::now() < deadline,
                "never happened: {what}"
            );
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

async fn serve(activator: &Activator) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = activator.router(Router::new());
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    address
}

fn backend(setup: &Setup) -> Backend {
    Backend {
        name: BackendName::new("demo").unwrap(),
        generation: Generation(1),
        description: None,
        launch: LaunchSpec {
            image: None,
            port: None,
            pod: Arc::default(),
            command: vec!["demo".into()],
            args: Vec::new(),
            working_dir: None,
            env: Vec::new(),
            transport: setup.transport,
            path: "/mcp".into(),
            host: None,
            health_path: None,
        },
        policy: Arc::new(setup.policy.clone()),
        tenants: setup.tenants.clone(),
    }
}

pub const INITIALIZE: &str = r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{"roots":{}},"clientInfo":{"name":"test","version":"1"}}}"#;
pub const INITIALIZED: &str = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;

/// A `tools/call`.
pub fn call(id: u32, tool: &str) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"name":"{tool}","arguments":{{"n":{id}}}}}}}"#
    )
}
