//! Names and identifiers. Each is its own type, so that one cannot stand where another is meant.
//!
//! Invariant: a value of these types is well-formed; the only way to one is a constructor that checks.

use std::{fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize};

/// Why a name was refused. The sentence is safe to show to whoever wrote the name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{what} {given:?} is not a DNS label: use 1 to 63 of a-z, 0-9 and '-', beginning and ending with a letter or digit"
)]
pub struct InvalidName {
    /// What kind of name it was meant to be, such as `backend name`.
    pub what: &'static str,
    /// What was given, cut to 80 characters.
    pub given: String,
}

/// A DNS label (RFC 1123): the one rule for every name that Kubernetes, a URL or a label of a pod must take.
///
/// Names with a meaning of their own have a type of their own; this one is for the others, such as a namespace.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DnsLabel(Arc<str>);

impl DnsLabel {
    /// Checks and takes a name; `what` it is goes into the error's sentence.
    ///
    /// # Errors
    /// When the text is no DNS label.
    pub fn new(what: &'static str, text: &str) -> Result<Self, InvalidName> {
        let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        let edge = |b: Option<&u8>| b.is_some_and(|b| *b != b'-');
        let bytes = text.as_bytes();
        let fine = bytes.len() <= 63
            && edge(bytes.first())
            && edge(bytes.last())
            && bytes.iter().all(|b| inner(*b));
        if fine {
            Ok(Self(text.into()))
        } else {
            Err(InvalidName {
                what,
                given: text.chars().take(80).collect(),
            })
        }
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for DnsLabel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

macro_rules! label {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(DnsLabel);

        impl $name {
            /// Checks and takes a name.
            ///
            /// # Errors
            /// When the text is no DNS label (RFC 1123).
            pub fn new(text: &str) -> Result<Self, InvalidName> {
                DnsLabel::new($what, text).map(Self)
            }

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                self.0.as_str()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = InvalidName;
            fn from_str(text: &str) -> Result<Self, InvalidName> {
                Self::new(text)
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidName;
            fn try_from(text: String) -> Result<Self, InvalidName> {
                Self::new(&text)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.as_str().into()
            }
        }
    };
}

label!(
    /// A registered MCP server: a DNS label, the `{backend}` of `/adapters/{backend}/mcp`.
    BackendName,
    "backend name"
);
label!(
    /// Who the work is for: a DNS label. Without keys or OIDC everybody is [`TenantName::default`].
    TenantName,
    "tenant name"
);
label!(
    /// A `ScalingPolicy` document's name: a DNS label.
    PolicyName,
    "policy name"
);

impl Default for TenantName {
    fn default() -> Self {
        Self(DnsLabel("default".into()))
    }
}

/// One running copy of a backend: a pod's UID, or 128 random bits for a process. Never an address.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct InstanceId(pub u128);

impl InstanceId {
    /// A random identifier for a process.
    #[must_use]
    pub fn random() -> Self {
        Self(rand::random())
    }
}

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0 >> 96)
    }
}

/// The key of a legacy session: 192 random bits, also the AEAD nonce of its sealed id, so each is used once.
///
/// `Debug` shows 4 of its 24 bytes: enough to follow a session through a log, too little to forge anything with.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SessionKey(pub [u8; 24]);

impl SessionKey {
    /// A fresh key.
    #[must_use]
    pub fn random() -> Self {
        Self(rand::random())
    }
}

impl fmt::Debug for SessionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().take(4).try_for_each(|b| write!(f, "{b:02x}"))
    }
}

/// One claim, random for each: asked again because its answer was lost, it is still the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ClaimId(pub [u8; 16]);

impl ClaimId {
    /// A fresh one.
    #[must_use]
    pub fn random() -> Self {
        Self(rand::random())
    }
}

/// Tells one text of a backend's document from another. Only equality means anything: it is a hash of what would start,
/// so that a restart of the gateway with unchanged files leaves it as it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Generation(pub u64);

/// The session id an upstream server issued. Visible ASCII; a secret, so `Debug` hides it.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct UpstreamSession(pub Arc<str>);

impl fmt::Debug for UpstreamSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UpstreamSession(…)")
    }
}

/// One activator process, random for each: which pod it runs in is said when it subscribes
/// ([`crate::scaler::ActivatorPod`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ActivatorId(pub u128);

impl ActivatorId {
    /// A random identifier.
    #[must_use]
    pub fn random() -> Self {
        Self(rand::random())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dns_label_is_what_rfc_1123_says_and_nothing_else() {
        let longest = "a".repeat(63);
        for fine in ["a", "0", "a-b", "0-0", "a--b", longest.as_str()] {
            assert!(DnsLabel::new("name", fine).is_ok(), "{fine:?}");
            assert_eq!(BackendName::new(fine).unwrap().as_str(), fine);
        }
        let too_long = "a".repeat(64);
        let no = [
            "", "-", "-a", "a-", "A", "a.b", "a_b", "a b", "ä", "a\n", &too_long,
        ];
        for no in no {
            assert!(DnsLabel::new("name", no).is_err(), "{no:?}");
            assert!(no.parse::<TenantName>().is_err(), "{no:?}");
        }
    }

    #[test]
    fn a_refused_name_says_what_it_was_meant_to_be_and_not_all_of_itself() {
        let error = DnsLabel::new("--namespace", &"X".repeat(10_000)).unwrap_err();
        let text = error.to_string();
        assert!(text.starts_with("--namespace \"XXX"), "{text}");
        assert!(text.len() < 300, "{} bytes", text.len());
    }
}
