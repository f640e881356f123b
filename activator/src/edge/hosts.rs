//! Which `Host` a request may name: the guard against DNS rebinding.
//!
//! Invariant: loopback names are always served, at any port. Compares names without regard to case; resolves nothing.

use std::net::{IpAddr, Ipv6Addr};

/// Why a rule was refused. Safe to show.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a host name: write mcp.example.com, mcp.example.com:8443 or *.example.com")]
pub struct InvalidHost(pub String);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Rule {
    // With a wildcard, the part from its dot on.
    name: Box<str>,
    wildcard: bool,
    port: Option<u16>,
}

/// The hosts served beyond loopback.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostRules {
    rules: Vec<Rule>,
}

impl HostRules {
    /// Loopback names only.
    #[must_use]
    pub fn loopback() -> Self {
        Self::default()
    }

    /// Adds a host: `name` (any port), `name:port`, or `*.name` for all names below one.
    ///
    /// # Errors
    /// It is no host name.
    pub fn allow(mut self, text: &str) -> Result<Self, InvalidHost> {
        let wrong = || InvalidHost(text.chars().take(80).collect());
        let (name, port) = split(text).ok_or_else(wrong)?;
        let wildcard = name.starts_with("*.");
        let name = if wildcard {
            name.trim_start_matches('*')
        } else {
            name
        };
        let plain = |b: u8| {
            b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'[' | b']' | b':')
        };
        if name.trim_matches('.').is_empty() || !name.bytes().all(plain) {
            return Err(wrong());
        }
        self.rules.push(Rule {
            name: name.to_ascii_lowercase().into(),
            wildcard,
            port,
        });
        Ok(self)
    }

    /// Whether a request may name this host.
    #[must_use]
    pub fn admit(&self, host: &[u8]) -> bool {
        let Some((name, port)) = std::str::from_utf8(host).ok().and_then(split) else {
            return false;
        };
        is_loopback(name) || self.rules.iter().any(|rule| rule.admits(name, port))
    }
}

impl Rule {
    fn admits(&self, name: &str, port: Option<u16>) -> bool {
        if self.port.is_some() && self.port != port {
            return false;
        }
        let (name, own) = (name.as_bytes(), self.name.as_bytes());
        if self.wildcard {
            name.len() > own.len()
                && name
                    .get(name.len() - own.len()..)
                    .is_some_and(|end| end.eq_ignore_ascii_case(own))
        } else {
            name.eq_ignore_ascii_case(own)
        }
    }
}

/// Splits `name[:port]`, `[v6][:port]`.
pub(super) fn split(text: &str) -> Option<(&str, Option<u16>)> {
    let end = if text.starts_with('[') {
        text.find(']')? + 1
    } else {
        text.find(':').unwrap_or(text.len())
    };
    let (name, rest) = text.split_at_checked(end)?;
    if name.is_empty() {
        return None;
    }
    if rest.is_empty() {
        return Some((name, None));
    }
    let digits = rest.strip_prefix(':')?;
    // `u16::parse` would take a sign.
    let digits = digits
        .bytes()
        .all(|b| b.is_ascii_digit())
        .then_some(digits)?;
    Some((name, Some(digits.parse().ok()?)))
}

/// Whether a host name can only mean this machine.
pub(super) fn is_loopback(name: &str) -> bool {
    if name.eq_ignore_ascii_case("localhost") {
        return true;
    }
    if let Some(v6) = name.strip_prefix('[').and_then(|n| n.strip_suffix(']')) {
        return v6.parse::<Ipv6Addr>().is_ok_and(|ip| ip.is_loopback());
    }
    name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}
