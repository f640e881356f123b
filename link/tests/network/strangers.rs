//! Who is not served.

use std::{sync::Arc, time::Duration};

use mcp_gateway_api::scaler::Scaler;
use mcp_gateway_link::{
    ACTIVATOR_NAME, AUTOSCALER_NAME, Authority, HOME_NAME, RemoteConfig, RemoteScaler,
    authority::Credentials,
    scaler::{Nothing, Subscription, scaler_client::ScalerClient},
};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::watch,
    time::timeout,
};
use tonic::{Code, transport::Endpoint};

use crate::support::{Fake, Installation, request};

const SHORT: Duration = Duration::from_millis(500);
const LONG: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_stranger_is_refused_in_the_handshake() {
    let installation = Installation::new();
    let (fake, replica) = (Fake::new(1), installation.replica().await);
    replica.lead(&fake);
    let stranger = Authority::generate().unwrap();
    let config = RemoteConfig {
        credentials: Credentials {
            ca_pem: installation.authority.cert_pem().to_owned(),
            identity: stranger.issue(ACTIVATOR_NAME).unwrap(),
        },
        ..installation.config()
    };
    let (_, addresses) = watch::channel(vec![replica.address]);
    let activator = RemoteScaler::connect(config, addresses).unwrap();
    activator.claim(request(SHORT)).await.unwrap_err();
    assert!(fake.claims.lock().is_empty());
}

async fn dial(
    installation: &Installation,
    at: std::net::SocketAddr,
    role: &str,
) -> tonic::transport::Channel {
    let credentials = installation.authority.credentials(role).unwrap();
    let endpoint = Endpoint::from_shared(format!("https://{at}")).unwrap();
    let tls = credentials.client_tls(AUTOSCALER_NAME);
    endpoint.tls_config(tls).unwrap().connect().await.unwrap()
}

#[tokio::test]
async fn another_role_of_the_installation_may_not_ask() {
    let installation = Installation::new();
    let (fake, replica) = (Fake::new(1), installation.replica().await);
    replica.lead(&fake);
    let channel = dial(&installation, replica.address, HOME_NAME).await;
    let refused = ScalerClient::new(channel)
        .lead(Nothing {})
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
}

#[tokio::test]
async fn a_version_that_cannot_be_served_is_refused_with_a_sentence() {
    let installation = Installation::new();
    let (fake, replica) = (Fake::new(1), installation.replica().await);
    replica.lead(&fake);
    let channel = dial(&installation, replica.address, ACTIVATOR_NAME).await;
    let from_the_future = Subscription {
        activator: vec![0; 16],
        protocol: 9,
        oldest_protocol: 8,
        ..Subscription::default()
    };
    let mut client = ScalerClient::new(channel);
    let refused = client.subscribe(from_the_future).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(
        refused.message().contains("bring both to releases"),
        "{refused}"
    );
    let garbled = Subscription {
        activator: vec![0; 3],
        protocol: 1,
        oldest_protocol: 1,
        ..Subscription::default()
    };
    let refused = client.subscribe(garbled).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(refused.message().contains("activator id"), "{refused}");
}

/// An activator's TLS connection without anything that speaks HTTP/2 on it.
async fn raw(
    installation: &Installation,
    at: std::net::SocketAddr,
) -> tokio_rustls::client::TlsStream<TcpStream> {
    let credentials = installation.authority.credentials(ACTIVATOR_NAME).unwrap();
    let mut roots = RootCertStore::empty();
    let ca = CertificateDer::from_pem_slice(credentials.ca_pem.as_bytes()).unwrap();
    roots.add(ca).unwrap();
    let cert = CertificateDer::from_pem_slice(credentials.identity.cert_pem.as_bytes()).unwrap();
    let key = PrivateKeyDer::from_pem_slice(credentials.identity.key_pem.as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(vec![cert], key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let name = ServerName::try_from(AUTOSCALER_NAME).unwrap();
    let stream = TcpStream::connect(at).await.unwrap();
    let tls = tokio_rustls::TlsConnector::from(Arc::new(config));
    tls.connect(name, stream).await.unwrap()
}

/// Without a bound an activator gone wild could hold any number of calls open on its one connection. Too low a one would
/// keep a whole hold from claiming at once.
#[tokio::test]
async fn the_calls_of_one_connection_are_bounded_above_what_an_activator_holds() {
    const SETTINGS: u8 = 4;
    const MAX_CONCURRENT_STREAMS: u16 = 3;
    let installation = Installation::new();
    let replica = installation.replica().await;
    let mut stream = raw(&installation, replica.address).await;
    // RFC 9113 §3.4: both sides begin with their settings.
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    stream.write_all(preface).await.unwrap();
    let mut head = [0; 9];
    let read = timeout(LONG, stream.read_exact(&mut head)).await;
    read.unwrap().unwrap();
    assert_eq!(head[3], SETTINGS);
    let mut settings = vec![0; usize::from(u16::from_be_bytes([head[1], head[2]]))];
    let read = timeout(LONG, stream.read_exact(&mut settings)).await;
    read.unwrap().unwrap();
    let bound = settings.chunks_exact(6).find_map(|setting| {
        let id = u16::from_be_bytes([setting[0], setting[1]]);
        let value = u32::from_be_bytes([setting[2], setting[3], setting[4], setting[5]]);
        (id == MAX_CONCURRENT_STREAMS).then_some(value)
    });
    let bound = bound.expect("a bound is set");
    assert!((4_096..=65_536).contains(&bound), "{bound}");
}
