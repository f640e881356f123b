//! Clients of the API server whose small requests leave at once.
//!
//! kube's own connector leaves Nagle's algorithm on: the first request on each new connection then waits 40 ms for a
//! delayed acknowledgement, which is eight times what creating a pod takes.

use std::{path::Path, time::Duration};

use hyper_util::{
    client::legacy::{Client as Hyper, connect::HttpConnector},
    rt::TokioExecutor,
};
use kube::{
    Config,
    client::{Body, ClientBuilder, ConfigExt},
    config::{KubeConfigOptions, Kubeconfig},
};
use tower::ServiceBuilder;

/// How long the API server may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(5);
/// How long a connection may be silent before it is asked whether it still is one.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// From one such question to the next, and how many may stay unanswered.
const ASK_AGAIN: Duration = Duration::from_secs(5);
const UNANSWERED: u32 = 3;
/// How long what was sent may stay unacknowledged: an API server that has vanished would else hold a call for the quarter of
/// an hour that the kernel tries.
#[cfg(target_os = "linux")]
const UNACKNOWLEDGED: Duration = Duration::from_secs(30);

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Neither a kubeconfig nor a service account.
    #[error(
        "no way into Kubernetes was found: run in a pod with a service account, or set KUBECONFIG"
    )]
    Infer(#[source] Box<kube::config::InferConfigError>),
    /// The file that was named.
    #[error("the kubeconfig {path} cannot be used")]
    Kubeconfig {
        /// Its path.
        path: String,
        /// Why.
        source: Box<kube::config::KubeconfigError>,
    },
    /// Certificates or keys that cannot be used.
    #[error("the client for the API server cannot be made")]
    Client(#[source] Box<kube::Error>),
}

/// Finds the way to the API server: the kubeconfig given, else `KUBECONFIG`, else the service account.
///
/// # Errors
/// There is none, or the file cannot be used.
pub async fn config(kubeconfig: Option<&Path>) -> Result<Config, ClientError> {
    let Some(path) = kubeconfig else {
        return Config::infer()
            .await
            .map_err(|source| ClientError::Infer(Box::new(source)));
    };
    let failed = |source| ClientError::Kubeconfig {
        path: path.display().to_string(),
        source: Box::new(source),
    };
    let file = Kubeconfig::read_from(path).map_err(failed)?;
    Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
        .await
        .map_err(failed)
}

/// A client with connections of its own. Make one for writes and one for watches.
///
/// # Errors
/// The configuration's certificates or keys cannot be used.
pub fn client(config: &Config) -> Result<kube::Client, ClientError> {
    let failed = |source| ClientError::Client(Box::new(source));
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_keepalive(Some(KEEP_ALIVE));
    tcp.set_keepalive_interval(Some(ASK_AGAIN));
    tcp.set_keepalive_retries(Some(UNANSWERED));
    #[cfg(target_os = "linux")]
    tcp.set_tcp_user_timeout(Some(UNACKNOWLEDGED));
    tcp.set_connect_timeout(Some(CONNECT));
    // Crypto must be chosen before the first handshake; an error says that somebody chose before.
    let _chosen = rustls::crypto::ring::default_provider().install_default();
    let tls = config
        .rustls_https_connector_with_connector(tcp)
        .map_err(failed)?;
    let http = Hyper::builder(TokioExecutor::new()).build::<_, Body>(tls);
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer().map_err(failed)?)
        .layer(config.extra_headers_layer().map_err(failed)?)
        .map_err(tower::BoxError::from)
        .service(http);
    Ok(ClientBuilder::new(service, config.default_namespace.clone()).build())
}
