//! Real handshakes on loopback.

use std::{net::SocketAddr, pin::Pin};

use futures_util::Stream;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{
    Request, Response, Status, Streaming,
    transport::{Channel, Endpoint, Server},
};

use super::*;
use crate::agent::{
    FromAgent, ToAgent,
    home_client::HomeClient,
    home_server::{Home, HomeServer},
};

/// Answers every call at once and tells what role the caller proved.
struct Doorman;

#[tonic::async_trait]
impl Home for Doorman {
    type CallStream = Pin<Box<dyn Stream<Item = Result<ToAgent, Status>> + Send>>;

    async fn call(
        &self,
        request: Request<Streaming<FromAgent>>,
    ) -> Result<Response<Self::CallStream>, Status> {
        let certs = request.peer_certs();
        let own = certs.as_ref().and_then(|certs| certs.first());
        let role = match own {
            None => "nobody",
            Some(cert) if is_named(cert, ACTIVATOR_NAME) => "activator",
            Some(_) => "another",
        };
        Err(Status::aborted(role))
    }
}

async fn listen(tls: ServerTlsConfig) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = Server::builder().tls_config(tls).unwrap();
    let incoming = TcpListenerStream::new(listener);
    tokio::spawn(server.serve_with_incoming(HomeServer::new(Doorman), incoming));
    address
}

async fn dial(
    address: SocketAddr,
    tls: ClientTlsConfig,
) -> Result<Channel, tonic::transport::Error> {
    Endpoint::from_shared(format!("https://{address}"))
        .unwrap()
        .tls_config(tls)
        .unwrap()
        .connect()
        .await
}

/// What the server says of the caller; `None` when they did not even shake hands.
async fn role_seen(address: SocketAddr, tls: ClientTlsConfig) -> Option<String> {
    let channel = dial(address, tls).await.ok()?;
    let answer = HomeClient::new(channel).call(tokio_stream::empty()).await;
    let status = answer.unwrap_err();
    // TLS 1.3 lets a client believe in a handshake that the server then refuses: the refusal is seen at the first call.
    (status.code() == tonic::Code::Aborted).then(|| status.message().to_owned())
}

#[tokio::test]
async fn peers_of_one_authority_meet_and_know_each_others_role() {
    let authority = Authority::generate().unwrap();
    let server = authority.credentials(AUTOSCALER_NAME).unwrap();
    let address = listen(server.server_tls()).await;

    let activator = authority.credentials(ACTIVATOR_NAME).unwrap();
    let seen = role_seen(address, activator.client_tls(AUTOSCALER_NAME)).await;
    assert_eq!(seen.as_deref(), Some("activator"));

    let other = authority.credentials(HOME_NAME).unwrap();
    let seen = role_seen(address, other.client_tls(AUTOSCALER_NAME)).await;
    assert_eq!(seen.as_deref(), Some("another"));
}

#[tokio::test]
async fn a_strangers_certificate_and_none_are_refused() {
    let authority = Authority::generate().unwrap();
    let server = authority.credentials(AUTOSCALER_NAME).unwrap();
    let address = listen(server.server_tls()).await;

    let stranger = Authority::generate().unwrap();
    let forged = Credentials {
        ca_pem: authority.cert_pem().to_owned(),
        identity: stranger.issue(ACTIVATOR_NAME).unwrap(),
    };
    assert_eq!(
        role_seen(address, forged.client_tls(AUTOSCALER_NAME)).await,
        None
    );
    assert_eq!(
        role_seen(address, client_tls(authority.cert_pem(), AUTOSCALER_NAME)).await,
        None
    );
}

#[tokio::test]
async fn a_server_of_another_name_or_authority_is_not_talked_to() {
    let authority = Authority::generate().unwrap();
    let home = listen(authority.issue(HOME_NAME).unwrap().server_tls()).await;
    let tls = client_tls(authority.cert_pem(), HOME_NAME);
    assert_eq!(role_seen(home, tls).await.as_deref(), Some("nobody"));
    assert!(
        dial(home, client_tls(authority.cert_pem(), AUTOSCALER_NAME))
            .await
            .is_err()
    );

    let stranger = Authority::generate().unwrap();
    assert!(
        dial(home, client_tls(stranger.cert_pem(), HOME_NAME))
            .await
            .is_err()
    );
}

#[tokio::test]
async fn an_authority_that_was_kept_signs_for_those_who_trust_the_old_one() {
    let authority = Authority::generate().unwrap();
    let kept = Authority::from_pem(authority.cert_pem(), &authority.key_pem()).unwrap();
    let home = listen(kept.issue(HOME_NAME).unwrap().server_tls()).await;
    let seen = role_seen(home, client_tls(authority.cert_pem(), HOME_NAME)).await;
    assert_eq!(seen.as_deref(), Some("nobody"));
}

#[test]
fn a_key_of_another_authority_and_a_certificate_of_none_are_refused_when_read() {
    let (one, other) = (
        Authority::generate().unwrap(),
        Authority::generate().unwrap(),
    );
    let mixed = Authority::from_pem(one.cert_pem(), &other.key_pem()).unwrap_err();
    assert!(matches!(mixed, AuthorityError::Unfit(_)), "{mixed}");

    let leaf = one.issue(ACTIVATOR_NAME).unwrap();
    let no_authority = Authority::from_pem(&leaf.cert_pem, &leaf.key_pem).unwrap_err();
    assert!(
        matches!(no_authority, AuthorityError::Unfit(_)),
        "{no_authority}"
    );

    let no_pem = Authority::from_pem("hello", &one.key_pem()).unwrap_err();
    assert!(matches!(no_pem, AuthorityError::Unreadable(_)), "{no_pem}");
}

#[test]
fn a_name_that_is_none_is_refused() {
    let authority = Authority::generate().unwrap();
    for name in ["", "ü.example", "a b", "*"] {
        assert!(
            matches!(authority.issue(name), Err(AuthorityError::Name(_))),
            "{name:?}"
        );
    }
}

#[test]
fn no_key_is_shown_by_debug() {
    let authority = Authority::generate().unwrap();
    let credentials = authority.credentials(HOME_NAME).unwrap();
    let shown = format!("{authority:?} {credentials:?}");
    assert!(!shown.contains("PRIVATE KEY"), "{shown}");
}
