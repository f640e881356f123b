//! What an agent proves its pod's identity with: a launch token for its first call, a reconnect secret for the others.
//!
//! All are HMAC-SHA256 under the installation's key, so whoever holds the key verifies them without having kept any:
//! a new leader knows the pods of the one before. Invariants: comparisons take the same time whatever differs; the
//! three uses cannot be mistaken for each other (a launch token's input ends with 16 random bytes after a name without
//! zero bytes, the others' begin with a word and a zero byte); nothing here shows a key or a proof in `Debug`.

use std::fmt;

use hmac::{Hmac, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;

/// Bytes of a nonce.
pub const NONCE: usize = 16;
/// Bytes of an HMAC-SHA256.
const TAG: usize = 32;
/// Fewest bytes of a key.
pub const MIN_KEY: usize = 32;

/// Proves that a pod is the one that was created: nonce, then HMAC(key, pod name ‖ nonce).
#[derive(Clone, PartialEq, Eq)]
pub struct LaunchToken([u8; NONCE + TAG]);

impl fmt::Debug for LaunchToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LaunchToken(…)")
    }
}

impl LaunchToken {
    /// Reads a token as it was sent; `None` if it cannot be one.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// As it is sent.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether it is the same as another, in constant time.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

/// The key that agents' proofs are made with. A secret of the installation, at least [`MIN_KEY`] random bytes, the same
/// for every replica.
#[derive(Clone)]
pub struct HomeKey(Hmac<Sha256>);

impl fmt::Debug for HomeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HomeKey(…)")
    }
}

/// The key is shorter than [`MIN_KEY`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the key that agents call home with has {0} bytes: at least {MIN_KEY} random ones are needed"
)]
pub struct ShortKey(pub usize);

impl HomeKey {
    /// Takes a key.
    ///
    /// # Errors
    /// It is too short.
    pub fn new(bytes: &[u8]) -> Result<Self, ShortKey> {
        if bytes.len() < MIN_KEY {
            return Err(ShortKey(bytes.len()));
        }
        Hmac::new_from_slice(bytes)
            .map(Self)
            .map_err(|_length| ShortKey(bytes.len()))
    }

    /// A key for an installation that lives no longer than this process.
    #[must_use]
    pub fn random() -> Self {
        let bytes: [u8; MIN_KEY] = rand::random();
        Self(Hmac::new_from_slice(&bytes).expect("HMAC takes keys of every length"))
    }

    fn tag(&self, parts: &[&[u8]]) -> [u8; TAG] {
        let mut mac = self.0.clone();
        for part in parts {
            mac.update(part);
        }
        mac.finalize().into_bytes().into()
    }

    /// The token of a pod that is about to be created.
    #[must_use]
    pub fn launch_token(&self, pod_name: &str) -> LaunchToken {
        self.token_with(pod_name, rand::random())
    }

    fn token_with(&self, pod_name: &str, nonce: [u8; NONCE]) -> LaunchToken {
        let mut token = [0; NONCE + TAG];
        let (head, tail) = token.split_at_mut(NONCE);
        head.copy_from_slice(&nonce);
        tail.copy_from_slice(&self.tag(&[pod_name.as_bytes(), &nonce]));
        LaunchToken(token)
    }

    /// Whether this key made the token, for that pod.
    #[must_use]
    pub fn made_token(&self, pod_name: &str, token: &LaunchToken) -> bool {
        let (nonce, _) = token.0.split_at(NONCE);
        let Ok(nonce) = nonce.try_into() else {
            return false;
        };
        self.token_with(pod_name, nonce).is(token)
    }

    /// What an agent that was welcomed proves its pod with from then on.
    #[must_use]
    pub fn reconnect_secret(&self, pod_name: &str, pod_uid: &str) -> [u8; TAG] {
        self.tag(&[
            b"reconnect\0",
            pod_name.as_bytes(),
            b"\0",
            pod_uid.as_bytes(),
        ])
    }

    /// Whether this is the reconnect secret of that pod, in constant time.
    #[must_use]
    pub fn is_reconnect_secret(&self, pod_name: &str, pod_uid: &str, shown: &[u8]) -> bool {
        self.reconnect_secret(pod_name, pod_uid).ct_eq(shown).into()
    }

    /// What requests to the bridge in a pod must bear; every leader derives the same.
    #[must_use]
    pub fn instance_secret(&self, pod_name: &str, pod_uid: &str) -> [u8; TAG] {
        self.tag(&[
            b"instance\0",
            pod_name.as_bytes(),
            b"\0",
            pod_uid.as_bytes(),
        ])
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(seed: u8) -> HomeKey {
        HomeKey::new(&[seed; 32]).unwrap()
    }

    proptest! {
        #[test]
        fn a_token_is_good_for_its_pod_and_key_alone(a in "[a-z0-9-]{1,63}", b in "[a-z0-9-]{1,63}") {
            let token = key(1).launch_token(&a);
            prop_assert!(key(1).made_token(&a, &token));
            prop_assert!(!key(2).made_token(&a, &token));
            prop_assert_eq!(key(1).made_token(&b, &token), a == b);
        }

        #[test]
        fn any_changed_bit_spoils_a_token(bit in 0..(NONCE + TAG) * 8) {
            let mut bytes = key(1).launch_token("pod").0;
            bytes[bit / 8] ^= 1 << (bit % 8);
            let token = LaunchToken::from_bytes(&bytes).unwrap();
            prop_assert!(!key(1).made_token("pod", &token));
        }

        #[test]
        fn a_reconnect_secret_is_of_one_pod(name in "[a-z]{1,20}", uid in "[0-9a-f-]{1,36}", other in "[0-9a-f-]{1,36}") {
            let secret = key(1).reconnect_secret(&name, &uid);
            prop_assert!(key(1).is_reconnect_secret(&name, &uid, &secret));
            prop_assert_eq!(key(1).is_reconnect_secret(&name, &other, &secret), uid == other);
            prop_assert!(!key(1).is_reconnect_secret(&name, &uid, &key(1).instance_secret(&name, &uid)));
            prop_assert!(!key(1).is_reconnect_secret(&name, &uid, &secret[..31]));
        }
    }

    #[test]
    fn two_tokens_of_one_pod_differ() {
        assert!(!key(1).launch_token("pod").is(&key(1).launch_token("pod")));
    }

    #[test]
    fn a_short_key_is_refused() {
        assert_eq!(HomeKey::new(&[0; 31]).unwrap_err(), ShortKey(31));
    }

    #[test]
    fn nothing_secret_is_shown() {
        let shown = format!("{:?} {:?}", key(1), key(1).launch_token("pod"));
        assert_eq!(shown, "HomeKey(…) LaunchToken(…)");
    }
}
