//! The session id a client sees: an AEAD-sealed ticket that any activator with the key can open, with no store.
//!
//! Layout, before base64url without padding: version (1 byte), key id (4), nonce (24, the session's key), ciphertext, tag
//! (16). Associated data: version, key id and the principal, so that another's id does not open.
//! Invariants: at most [`MAX_ID`] characters, all of `A–Z a–z 0–9 - _`; a failure to open says nothing about its cause;
//! no address is inside. Never: judges expiry or whether the session lives.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use chacha20poly1305::{
    KeyInit, XChaCha20Poly1305, XNonce,
    aead::{Aead, Payload},
};
use mcp_gateway_api::{
    ids::{BackendName, Generation, InstanceId, SessionKey, TenantName, UpstreamSession},
    principal::PrincipalId,
    record::{SessionBinding, SessionRef},
};
use serde::{Deserialize, Serialize};
use std::{sync::Arc, time::Duration};

use super::{
    handshake::Handshake,
    keyring::{KEY_ID, Keyring},
};

/// Longest id given to a client, in characters.
pub const MAX_ID: usize = 2_048;
const VERSION: u8 = 1;
const NONCE: usize = 24;

/// What a sealed id says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedSession {
    /// The session's key, and the nonce.
    pub key: SessionKey,
    /// Of which server.
    pub backend: BackendName,
    /// Of which text of its document.
    pub generation: Generation,
    /// Whom it is charged to.
    pub tenant: TenantName,
    /// Where it lived when the id was minted.
    pub instance: InstanceId,
    /// The id the server issued.
    pub upstream: UpstreamSession,
    /// Unix seconds.
    pub issued_at: u64,
    /// The revision that was negotiated.
    pub revision: Box<str>,
    /// [`super::handshake::fingerprint`] of what the server promised; a revival must get the same.
    pub capabilities: u64,
    /// What to replay; absent when it did not fit, and the session is not revivable.
    pub handshake: Option<Handshake>,
}

#[derive(Serialize, Deserialize)]
struct Wire {
    backend: BackendName,
    generation: Generation,
    tenant: TenantName,
    instance: InstanceId,
    upstream: UpstreamSession,
    issued_at: u64,
    revision: Box<str>,
    capabilities: u64,
    handshake: Option<Handshake>,
}

impl SealedSession {
    /// Where the id says that the session lives.
    #[must_use]
    pub fn binding(&self) -> SessionBinding {
        SessionBinding {
            instance: self.instance,
            upstream: self.upstream.clone(),
        }
    }

    /// Unix seconds after which it is expired.
    #[must_use]
    pub const fn expires_at(&self, lifetime: Duration) -> u64 {
        self.issued_at.saturating_add(lifetime.as_secs())
    }

    /// What records and claims need.
    #[must_use]
    pub fn about(&self, lifetime: Duration) -> SessionRef {
        SessionRef {
            key: self.key,
            backend: self.backend.clone(),
            tenant: self.tenant.clone(),
            expires_at: self.expires_at(lifetime),
        }
    }
}

/// The id is not one of ours, not this caller's, damaged, or of a key no longer kept. Which, nobody is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a session of this caller")]
pub struct OpenError;

/// Even without a handshake the session does not fit an id: the server's own id is too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the server's session id is too long")]
pub struct TooLong;

/// Seals and opens ids. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Sealer {
    keys: Arc<Keyring>,
}

impl Sealer {
    /// With these keys.
    #[must_use]
    pub fn new(keys: Keyring) -> Self {
        Self {
            keys: Arc::new(keys),
        }
    }

    /// The id for a session. The handshake loses icons and descriptions if it must, and is left out if that is not enough.
    ///
    /// # Errors
    /// The server's own id is too long.
    pub fn seal(&self, session: &SealedSession, principal: PrincipalId) -> Result<String, TooLong> {
        let full = session.handshake.clone();
        let slim = full.as_ref().and_then(Handshake::slim);
        for handshake in [full, slim, None] {
            let id = self.seal_with(session, handshake, principal);
            if id.len() <= MAX_ID {
                return Ok(id);
            }
        }
        Err(TooLong)
    }

    fn seal_with(
        &self,
        session: &SealedSession,
        handshake: Option<Handshake>,
        principal: PrincipalId,
    ) -> String {
        let wire = Wire {
            backend: session.backend.clone(),
            generation: session.generation,
            tenant: session.tenant.clone(),
            instance: session.instance,
            upstream: session.upstream.clone(),
            issued_at: session.issued_at,
            revision: session.revision.clone(),
            capabilities: session.capabilities,
            handshake,
        };
        let plain = postcard::to_stdvec(&wire).expect("a plain struct always serialises");
        let key = self.keys.current();
        let payload = Payload {
            msg: &plain,
            aad: &associated(key.id, principal),
        };
        let sealed = XChaCha20Poly1305::new(key.secret())
            .encrypt(XNonce::from_slice(&session.key.0), payload)
            .expect("a message of a few KiB is within the cipher's limit");
        let mut bytes = Vec::with_capacity(1 + KEY_ID + NONCE + sealed.len());
        bytes.push(VERSION);
        bytes.extend_from_slice(&key.id);
        bytes.extend_from_slice(&session.key.0);
        bytes.extend_from_slice(&sealed);
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Opens an id that this caller presents.
    ///
    /// # Errors
    /// It does not open, for whatever reason.
    pub fn open(&self, id: &str, principal: PrincipalId) -> Result<SealedSession, OpenError> {
        self.try_open(id, principal).ok_or(OpenError)
    }

    fn try_open(&self, id: &str, principal: PrincipalId) -> Option<SealedSession> {
        if id.len() > MAX_ID {
            return None;
        }
        let bytes = URL_SAFE_NO_PAD.decode(id).ok()?;
        let (&[version], rest) = bytes.split_first_chunk::<1>()?;
        let (key_id, rest) = rest.split_first_chunk::<KEY_ID>()?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE>()?;
        if version != VERSION {
            return None;
        }
        let key = self.keys.find(*key_id)?;
        let payload = Payload {
            msg: sealed,
            aad: &associated(key.id, principal),
        };
        let plain = XChaCha20Poly1305::new(key.secret())
            .decrypt(XNonce::from_slice(nonce), payload)
            .ok()?;
        let wire: Wire = postcard::from_bytes(&plain).ok()?;
        Some(SealedSession {
            key: SessionKey(*nonce),
            backend: wire.backend,
            generation: wire.generation,
            tenant: wire.tenant,
            instance: wire.instance,
            upstream: wire.upstream,
            issued_at: wire.issued_at,
            revision: wire.revision,
            capabilities: wire.capabilities,
            handshake: wire.handshake,
        })
    }
}

fn associated(key_id: [u8; KEY_ID], principal: PrincipalId) -> Vec<u8> {
    let mut aad = Vec::with_capacity(1 + KEY_ID + principal.0.len());
    aad.push(VERSION);
    aad.extend_from_slice(&key_id);
    aad.extend_from_slice(&principal.0);
    aad
}

#[cfg(test)]
mod tests;
