//! Who is not served.

use std::time::Duration;

use mcp_gateway_api::scaler::Scaler;
use mcp_gateway_link::{
    ACTIVATOR_NAME, AUTOSCALER_NAME, Authority, HOME_NAME, RemoteConfig, RemoteScaler,
    authority::Credentials,
    scaler::{Nothing, Subscription, scaler_client::ScalerClient},
};
use tokio::sync::watch;
use tonic::{Code, transport::Endpoint};

use crate::support::{Fake, Installation, request};

const SHORT: Duration = Duration::from_millis(500);

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
