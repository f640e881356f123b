//! Which `Origin` a page may have that uses the gateway (2025-03-26 … 2026-07-28 `basic/transports`: MUST validate,
//! invalid is 403).
//!
//! Invariant: loopback origins are always served, at any port. `null` never is, unless every origin is.

use axum::http::HeaderValue;

use super::hosts::{is_loopback, split};

/// Why a rule was refused. Safe to show.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not an origin: write https://app.example.com, with its port if it has one, or * for any"
)]
pub struct InvalidOrigin(pub String);

/// The origins served beyond loopback.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OriginRules {
    any: bool,
    exact: Vec<Box<str>>,
}

impl OriginRules {
    /// Loopback origins only.
    #[must_use]
    pub fn loopback() -> Self {
        Self::default()
    }

    /// Adds an origin, or `*` for all.
    ///
    /// # Errors
    /// It is no origin.
    pub fn allow(mut self, text: &str) -> Result<Self, InvalidOrigin> {
        if text == "*" {
            self.any = true;
            return Ok(self);
        }
        let text = text.strip_suffix('/').unwrap_or(text);
        match text.split_once("://") {
            Some((scheme, authority)) if !scheme.is_empty() && split(authority).is_some() => {
                self.exact.push(text.to_ascii_lowercase().into());
                Ok(self)
            }
            _ => Err(InvalidOrigin(text.chars().take(80).collect())),
        }
    }

    /// Whether a page of this origin may use the gateway.
    #[must_use]
    pub fn admit(&self, origin: &HeaderValue) -> bool {
        if self.any {
            return true;
        }
        let Ok(origin) = origin.to_str() else {
            return false;
        };
        is_loopback_origin(origin)
            || self
                .exact
                .iter()
                .any(|own| own.eq_ignore_ascii_case(origin))
    }
}

fn is_loopback_origin(origin: &str) -> bool {
    let authority = origin
        .strip_prefix("http://")
        .or_else(|| origin.strip_prefix("https://"));
    authority
        .and_then(split)
        .is_some_and(|(name, _port)| is_loopback(name))
}
