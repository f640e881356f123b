//! Which eras the children of a bridge speak, learned from what they answered. Pure.
//!
//! On stdio the opening message decides: `initialize` opens a legacy connection, a request with the `_meta` version key
//! a modern one. So a child that shall serve modern exchanges is first asked `server/discover`, and what it makes of
//! that tells the era: see [`verdict`].

use http::StatusCode;
use mcp_gateway_api::revision::{Era, Revision};
use serde::Deserialize;
use serde_json::{json, value::RawValue};

use super::refusal::{Refusal, code};

#[cfg(test)]
mod tests;

/// The request that finds out.
pub(super) const PROBE: &str = concat!(
    r#"{"jsonrpc":"2.0","id":0,"method":"server/discover","params":{"_meta":{"#,
    r#""io.modelcontextprotocol/protocolVersion":"2026-07-28","#,
    r#""io.modelcontextprotocol/clientInfo":{"name":"mcp-gateway","version":""#,
    env!("CARGO_PKG_VERSION"),
    r#""},"io.modelcontextprotocol/clientCapabilities":{}}}}"#
);

/// What a probe tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It serves modern exchanges.
    Modern,
    /// It does not.
    Legacy,
}

#[derive(Deserialize)]
struct Supported {
    #[serde(alias = "supportedVersions", default)]
    supported: Option<Vec<String>>,
}

fn supported(raw: &str) -> Option<Vec<String>> {
    serde_json::from_str::<Supported>(raw).ok()?.supported
}

#[derive(Deserialize)]
struct WithData<'a> {
    code: i64,
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
}

fn is_legacy(version: &str) -> bool {
    version
        .parse::<Revision>()
        .is_ok_and(|r| r.era() == Era::Legacy)
}

/// Judges the answer to `server/discover` (`Ok`: the result, `Err`: the error object, both as written).
///
/// The same denylist that `PyPI` mcp 2.3 (`client/_probe.py`), npm client 2.4 (`classifyProbeOutcome`) and rmcp 3
/// (`discover_startup`) use: a result that names a modern version, or an error that only a modern server sends, is
/// modern; whatever else it says, it is legacy.
pub(super) fn verdict(answer: Result<&str, &str>) -> Verdict {
    let modern = match answer {
        Ok(result) => supported(result).is_some_and(|s| s.iter().any(|v| !is_legacy(v))),
        Err(error) => match serde_json::from_str::<WithData<'_>>(error) {
            Ok(WithData { code: -32022, data }) => data
                .and_then(|d| supported(d.get()))
                .is_some_and(|s| s.iter().any(|v| !is_legacy(v))),
            Ok(error) => matches!(error.code, -32020 | -32021),
            Err(_) => false,
        },
    };
    if modern {
        Verdict::Modern
    } else {
        Verdict::Legacy
    }
}

/// Says in the message what `data` names: legacy clients show their users nothing but the message.
fn with_names(error: &str, versions: &[String]) -> String {
    let Ok(mut error) = serde_json::from_str::<serde_json::Value>(error) else {
        return error.to_owned();
    };
    let message = error["message"].as_str().unwrap_or_default();
    if !versions.iter().all(|v| message.contains(v.as_str())) {
        let named = format!("{message} (this server supports {})", versions.join(", "));
        error["message"] = named.into();
    }
    error.to_string()
}

/// What is known so far. Learned once, kept for the bridge's life.
#[derive(Debug, Default)]
pub(super) struct Eras {
    modern: Option<bool>,
    negotiated: Option<Revision>,
    initialize_refused: Option<String>,
}

impl Eras {
    /// Whether modern exchanges are served, if that is known.
    pub(super) const fn modern(&self) -> Option<bool> {
        self.modern
    }

    /// Takes a verdict.
    pub(super) fn learn(&mut self, verdict: Verdict) {
        self.modern = Some(verdict == Verdict::Modern);
    }

    /// Takes the result of an `initialize`.
    pub(super) fn initialized(&mut self, result: &str) {
        #[derive(Deserialize)]
        struct Negotiated {
            #[serde(rename = "protocolVersion")]
            version: String,
        }
        let version = serde_json::from_str::<Negotiated>(result)
            .ok()
            .and_then(|n| n.version.parse().ok());
        self.negotiated = self.negotiated.max(version);
    }

    /// Takes the error of an `initialize` and gives the one to pass on. One that names only modern versions is the
    /// server's last word.
    pub(super) fn initialize_failed(&mut self, error: &str) -> String {
        let Some(versions) = serde_json::from_str::<WithData<'_>>(error)
            .ok()
            .filter(|e| e.code == -32022)
            .and_then(|e| supported(e.data?.get()))
            .filter(|versions| !versions.is_empty())
        else {
            return error.replace(['\n', '\r'], " ");
        };
        let named = with_names(error, &versions);
        if !versions.iter().any(|v| is_legacy(v)) {
            self.modern = Some(true);
            self.initialize_refused = Some(named.clone());
        }
        named
    }

    /// The error to every `initialize`, if the server is known to serve only modern exchanges.
    pub(super) fn initialize_refused(&self) -> Option<&str> {
        self.initialize_refused.as_deref()
    }

    /// The answer to a modern request that a legacy server cannot serve.
    ///
    /// Status 400 with an error that is *not* one of the modern codes: then `PyPI` mcp 2.3, npm client 2.4 and rmcp 3.11
    /// in their `auto` modes all go on with `initialize`. −32022 would be the obvious code, but rmcp's
    /// `discover_startup` takes it for the word of a modern server and gives up. `data` has the shape of −32022's, so
    /// that people and single-era clients read what is served.
    pub(super) fn legacy_only(&self, requested: Option<&str>) -> Refusal {
        let served: Vec<&str> = Revision::ALL
            .into_iter()
            .rev()
            .filter(|r| r.era() == Era::Legacy && self.negotiated.is_none_or(|top| *r <= top))
            .map(Revision::as_str)
            .collect();
        let asked: Option<String> = requested.and_then(|r| serde_json::from_str(r).ok());
        let message = format!(
            "this server does not speak this protocol version; it opens with initialize and supports {}",
            served.join(", ")
        );
        Refusal::new(StatusCode::BAD_REQUEST, code::INVALID_REQUEST, message)
            .with(json!({"supported": served, "requested": asked}))
    }
}
