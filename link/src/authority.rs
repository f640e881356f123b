//! Who is who inside an installation: one certificate authority, and a certificate for each role.
//!
//! Invariants: a peer is known by the *role* in its certificate, never by its address; what the authority did not sign
//! is refused in the handshake, and a certificate of another role ([`is_named`]) afterwards. The authority's key never
//! leaves the process that holds it: pods get the certificate alone, activators a certificate of their own. No key is
//! ever in `Debug`, a log line or an error.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::{
    RootCertStore,
    client::{WebPkiServerVerifier, danger::ServerCertVerifier, verify_server_name},
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject},
    server::ParsedCertificate,
};
use tonic::transport::{Certificate, ClientTlsConfig, ServerTlsConfig};

#[cfg(test)]
mod tests;

/// What agents call home to, whatever address they dial.
pub const HOME_NAME: &str = "home.mcp-gateway.internal";
/// What activators reach the autoscaler as.
pub const AUTOSCALER_NAME: &str = "autoscaler.mcp-gateway.internal";
/// What an activator is to the autoscaler.
pub const ACTIVATOR_NAME: &str = "activator.mcp-gateway.internal";

/// How long a certificate is good for. Long, because nothing renews one: an installation changes its certificates by
/// replacing them and restarting, and a certificate that ends by surprise is an outage with no request to blame.
const VALIDITY: Duration = Duration::from_secs(3_650 * 86_400);
/// How far the clocks of two machines may be apart without a fresh certificate being refused.
const SKEW: Duration = Duration::from_secs(86_400);

/// Why a certificate or a key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// The text is no certificate or no key.
    #[error(
        "the installation's CA cannot be read: expected one certificate and its private key, both as PEM"
    )]
    Unreadable(#[source] rcgen::Error),
    /// They do not belong together, or the certificate is none of an authority.
    #[error("the installation's CA cannot sign: {0}")]
    Unfit(String),
    /// A name that no certificate may bear.
    #[error("{0:?} cannot be put into a certificate")]
    Name(String),
    /// Random numbers or signing failed.
    #[error("a certificate could not be made")]
    Making(#[source] rcgen::Error),
}

/// The installation's certificate authority.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    cert_pem: String,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").finish_non_exhaustive()
    }
}

/// A certificate and its key.
#[derive(Clone)]
pub struct Identity {
    /// The certificate, and any between it and the authority, as PEM.
    pub cert_pem: String,
    /// Its private key as PEM: a secret.
    pub key_pem: String,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Identity(…)")
    }
}

/// What a role needs to meet its peers: whom it trusts, and who it is.
#[derive(Debug, Clone)]
pub struct Credentials {
    /// The authority's certificate as PEM.
    pub ca_pem: String,
    /// The own certificate and key.
    pub identity: Identity,
}

impl Authority {
    /// Makes a new authority.
    ///
    /// # Errors
    /// The machine has no random numbers.
    pub fn generate() -> Result<Self, AuthorityError> {
        let key = KeyPair::generate().map_err(AuthorityError::Making)?;
        let params = authority_params();
        let cert = params.self_signed(&key).map_err(AuthorityError::Making)?;
        Ok(Self {
            cert_pem: cert.pem(),
            issuer: Issuer::new(params, key),
        })
    }

    /// Takes an authority that was kept.
    ///
    /// # Errors
    /// The texts are no PEM, do not belong together, or the certificate may not sign.
    pub fn from_pem(cert_pem: &str, key_pem: &str) -> Result<Self, AuthorityError> {
        let key = KeyPair::from_pem(key_pem).map_err(AuthorityError::Unreadable)?;
        let issuer = Issuer::from_ca_cert_pem(cert_pem, key).map_err(AuthorityError::Unreadable)?;
        let authority = Self {
            issuer,
            cert_pem: cert_pem.to_owned(),
        };
        authority.check()?;
        Ok(authority)
    }

    /// The authority's certificate: what every peer and every pod trusts. Not secret.
    #[must_use]
    pub fn cert_pem(&self) -> &str {
        &self.cert_pem
    }

    /// The authority's key: a secret, for keeping.
    #[must_use]
    pub fn key_pem(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    /// Makes a certificate for a role, for use as client and as server.
    ///
    /// # Errors
    /// The name is no DNS name, or signing failed.
    pub fn issue(&self, name: &str) -> Result<Identity, AuthorityError> {
        let key = KeyPair::generate().map_err(AuthorityError::Making)?;
        let refused = || AuthorityError::Name(name.chars().take(80).collect());
        ServerName::try_from(name).map_err(|_no_name| refused())?;
        let mut params =
            CertificateParams::new(vec![name.to_owned()]).map_err(|_no_name| refused())?;
        params.distinguished_name = common_name(name);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        params.use_authority_key_identifier_extension = true;
        valid_from_now(&mut params);
        let cert = params
            .signed_by(&key, &self.issuer)
            .map_err(AuthorityError::Making)?;
        Ok(Identity {
            cert_pem: cert.pem(),
            key_pem: key.serialize_pem(),
        })
    }

    /// Everything a role needs.
    ///
    /// # Errors
    /// As [`Self::issue`].
    pub fn credentials(&self, name: &str) -> Result<Credentials, AuthorityError> {
        Ok(Credentials {
            ca_pem: self.cert_pem.clone(),
            identity: self.issue(name)?,
        })
    }

    /// Signs something and verifies it as a peer would: finds a key of another certificate and a certificate that is no
    /// authority's at the start, where somebody reads the sentence, instead of in every handshake.
    fn check(&self) -> Result<(), AuthorityError> {
        // A peer trusts a root whatever it is for, but an authority that its maker did not mean to sign is a mistake.
        if !self
            .issuer
            .key_usages()
            .contains(&KeyUsagePurpose::KeyCertSign)
        {
            let why = "its certificate is not one that may sign others (key usage keyCertSign)";
            return Err(AuthorityError::Unfit(why.to_owned()));
        }
        let unfit = |why: rustls::Error| AuthorityError::Unfit(why.to_string());
        let leaf = certificate(&self.issue(HOME_NAME)?.cert_pem)?;
        let mut roots = RootCertStore::empty();
        roots.add(certificate(&self.cert_pem)?).map_err(unfit)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .map_err(|why| AuthorityError::Unfit(why.to_string()))?;
        let name = ServerName::try_from(HOME_NAME)
            .map_err(|_no_name| AuthorityError::Name(HOME_NAME.into()))?;
        verifier
            .verify_server_cert(&leaf, &[], &name, &[], UnixTime::now())
            .map_err(unfit)?;
        Ok(())
    }
}

impl Identity {
    /// A server that anybody may dial: agents' home, where a token tells who is calling.
    #[must_use]
    pub fn server_tls(&self) -> ServerTlsConfig {
        choose_crypto();
        ServerTlsConfig::new()
            .identity(self.as_tonic())
            .timeout(HANDSHAKE)
    }

    fn as_tonic(&self) -> tonic::transport::Identity {
        tonic::transport::Identity::from_pem(&self.cert_pem, &self.key_pem)
    }
}

/// How long a stranger may take over a handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);

impl Credentials {
    /// A server that only peers with a certificate of the same authority may dial. Which role the peer has is checked
    /// for each call ([`is_named`]).
    #[must_use]
    pub fn server_tls(&self) -> ServerTlsConfig {
        self.identity
            .server_tls()
            .client_ca_root(Certificate::from_pem(&self.ca_pem))
    }

    /// A client of the role `name`, whatever address is dialled.
    #[must_use]
    pub fn client_tls(&self, name: &str) -> ClientTlsConfig {
        client_tls(&self.ca_pem, name).identity(self.identity.as_tonic())
    }
}

/// A client without a certificate (an agent) of the role `name`, whatever address is dialled.
#[must_use]
pub fn client_tls(ca_pem: &str, name: &str) -> ClientTlsConfig {
    choose_crypto();
    ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(ca_pem))
        .domain_name(name)
        .timeout(HANDSHAKE)
}

/// Whether a certificate is for that role. The handshake has already proved that the authority signed it and that the
/// peer has its key.
#[must_use]
pub fn is_named(certificate: &CertificateDer<'_>, name: &str) -> bool {
    let Ok(name) = ServerName::try_from(name) else {
        return false;
    };
    ParsedCertificate::try_from(certificate)
        .is_ok_and(|parsed| verify_server_name(&parsed, &name).is_ok())
}

/// rustls asks the process which cryptography to use, and panics if two are compiled in and nobody has said.
fn choose_crypto() {
    // An error says that somebody chose before, which is as good.
    let _chosen = rustls::crypto::ring::default_provider().install_default();
}

fn certificate(pem: &str) -> Result<CertificateDer<'static>, AuthorityError> {
    CertificateDer::from_pem_slice(pem.as_bytes())
        .map_err(|_no_pem| AuthorityError::Unreadable(rcgen::Error::CouldNotParseCertificate))
}

fn authority_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = common_name("mcp-gateway installation CA");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::CrlSign,
        KeyUsagePurpose::DigitalSignature,
    ];
    valid_from_now(&mut params);
    params
}

fn valid_from_now(params: &mut CertificateParams) {
    let now = SystemTime::now();
    params.not_before = (now - SKEW).into();
    params.not_after = (now + VALIDITY).into();
}

fn common_name(name: &str) -> DistinguishedName {
    let mut names = DistinguishedName::new();
    names.push(DnType::CommonName, name);
    names
}
