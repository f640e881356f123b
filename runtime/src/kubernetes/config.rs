//! How the Kubernetes runtime is set up, and why it could not be opened.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use mcp_gateway_api::ids::{BackendName, InvalidName};
use mcp_gateway_link::{Authority, token::HomeKey};
use tokio::net::TcpListener;

/// Where agents call home, and how they know it.
#[derive(Debug)]
pub struct Home {
    /// Already bound.
    pub listener: TcpListener,
    /// Under which addresses pods reach it (all replicas'); numeric, because agents resolve no names.
    pub advertise: Vec<SocketAddr>,
    /// Signs the certificate that it shows; pods are given the authority's.
    pub authority: Arc<Authority>,
    /// Makes launch tokens, reconnect and instance secrets; the same for all replicas and for good.
    pub key: HomeKey,
}

/// How the runtime is set up; [`KubernetesConfig::new`] gives the defaults.
pub struct KubernetesConfig {
    /// For everything but watches: one kept connection ([`super::client::client`]).
    pub writes: kube::Client,
    /// For the watch alone.
    pub watches: kube::Client,
    /// Where the pods are.
    pub namespace: String,
    /// Tells this installation's pods from any other's: a DNS label.
    pub installation: String,
    /// Where agents call home.
    pub home: Home,
    /// The agent's image; without one only backends with `agent: none` or `embedded` can be started.
    pub agent_image: Option<String>,
    /// `imagePullPolicy` of the agent's image; Kubernetes' own default if absent.
    pub agent_pull_policy: Option<String>,
    /// The leadership term; marks what is ended.
    pub epoch: u64,
    /// Longest request body a bridge takes, in bytes.
    pub max_body: usize,
    /// Longest from creating a pod until its container runs: scheduling and pulling. After it the pod is given up.
    pub launch_deadline: Duration,
    /// User and group of the containers; absent: the image's, which must not be root.
    pub run_as: Option<i64>,
    /// Whether image volumes work here; absent: as the API server's version says (1.35 or later).
    pub image_volumes: Option<bool>,
    /// UIDs of the `McpBackend`s, by name, to own their pods; pods of others are owned by nobody.
    pub owners: Owners,
}

impl std::fmt::Debug for KubernetesConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KubernetesConfig")
            .field("namespace", &self.namespace)
            .field("installation", &self.installation)
            .field("home", &self.home)
            .field("agent_image", &self.agent_image)
            .field("epoch", &self.epoch)
            .finish_non_exhaustive()
    }
}

/// UIDs of `McpBackend`s by name; shared with whoever reads the documents.
pub type Owners = Arc<parking_lot::RwLock<BTreeMap<BackendName, String>>>;

impl KubernetesConfig {
    /// The defaults: bodies of 4 MiB, 10 minutes to schedule and pull, user 65532, epoch 1, no agent image.
    #[must_use]
    pub fn new(
        (writes, watches): (kube::Client, kube::Client),
        namespace: impl Into<String>,
        installation: impl Into<String>,
        home: Home,
    ) -> Self {
        Self {
            writes,
            watches,
            namespace: namespace.into(),
            installation: installation.into(),
            home,
            agent_image: None,
            agent_pull_policy: None,
            epoch: 1,
            max_body: 4 << 20,
            launch_deadline: Duration::from_secs(600),
            run_as: Some(65_532),
            image_volumes: None,
            owners: Owners::default(),
        }
    }
}

/// Why the runtime could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The installation's name cannot be a label's value.
    #[error(transparent)]
    Installation(#[from] InvalidName),
    /// The pods could not be listed.
    #[error("{sentence}")]
    Pods {
        /// What a person can do about it.
        sentence: String,
        /// What Kubernetes said.
        source: kube::Error,
    },
    /// The certificate that agents are shown could not be made.
    #[error("the certificate for agents cannot be made")]
    Certificate(#[from] mcp_gateway_link::authority::AuthorityError),
    /// The place that agents call could not be opened.
    #[error("the listener for agents cannot be used: {0}")]
    Listener(Box<dyn std::error::Error + Send + Sync>),
}
