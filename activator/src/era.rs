//! Which era a request belongs to: the order that TypeScript's `isLegacyRequest`, Python's manager and the
//! specification (2026-07-28 `basic/versioning.mdx`) agree on.
//!
//! Never: decides by the backend, remembers anything, or judges a revision: an unknown one is passed to the server,
//! whose error names what it supports.

use http::{HeaderMap, Method, header::HeaderName};
use mcp_gateway_api::revision::{Era, Revision};

use crate::message::Message;

/// `MCP-Protocol-Version`.
pub const VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");
/// `Mcp-Session-Id`.
pub const SESSION: HeaderName = HeaderName::from_static("mcp-session-id");

/// What a request speaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Spoken {
    /// With a handshake.
    Legacy {
        /// The revision its header names, if it has one; a session knows its own.
        stated: Option<Revision>,
    },
    /// With `_meta` on each request.
    Modern {
        /// The revision as the header, else `_meta`, gives it; perhaps one nobody knows.
        version: Box<str>,
    },
}

impl Spoken {
    /// The era.
    #[must_use]
    pub const fn era(&self) -> Era {
        match self {
            Self::Legacy { .. } => Era::Legacy,
            Self::Modern { .. } => Era::Modern,
        }
    }

    /// The revision to assume for a legacy request outside of any session: 2025-03-26 unless stated.
    #[must_use]
    pub fn legacy_revision(&self) -> Option<Revision> {
        match self {
            Self::Legacy { stated } => Some(stated.unwrap_or(Revision::V2025_03_26)),
            Self::Modern { .. } => None,
        }
    }
}

/// Classifies a request. `message` is absent where there is no body (GET, DELETE).
#[must_use]
pub fn classify(method: &Method, headers: &HeaderMap, message: Option<&Message>) -> Spoken {
    let header = headers
        .get(VERSION)
        .and_then(|v| v.to_str().ok())
        .map(str::trim);
    let known = header
        .and_then(|text| text.parse::<Revision>().ok())
        .filter(|r| r.era() == Era::Legacy);
    let legacy = Spoken::Legacy { stated: known };
    if method == Method::GET || method == Method::DELETE || known.is_some() {
        return legacy;
    }
    if let Some(text) = header.filter(|text| !text.is_empty()) {
        return Spoken::Modern {
            version: text.into(),
        };
    }
    if headers.contains_key(SESSION) {
        return legacy;
    }
    match message {
        Some(Message::Request(r)) if &*r.method == "initialize" => legacy,
        Some(m @ (Message::Request(_) | Message::Notification(_))) => {
            match m.params().and_then(|p| p.meta_version.clone()) {
                // The server will refuse it for the missing header; that answer keeps the client modern.
                Some(version) => Spoken::Modern { version },
                None => legacy,
            }
        }
        Some(Message::Response(_) | Message::Batch(_)) | None => legacy,
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn spoken(headers: &[(&HeaderName, &'static str)], body: &str) -> Spoken {
        let headers = headers
            .iter()
            .map(|(k, v)| ((*k).clone(), HeaderValue::from_static(v)))
            .collect();
        let message = crate::message::classify(body.as_bytes()).unwrap();
        classify(&Method::POST, &headers, Some(&message))
    }

    const LIST: &str = r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#;
    const INIT: &str = r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}}"#;
    const META: &str = r#"{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}}"#;
    const LEGACY: Spoken = Spoken::Legacy { stated: None };

    fn modern(version: &str) -> Spoken {
        Spoken::Modern {
            version: version.into(),
        }
    }

    #[test]
    fn the_header_decides_when_it_is_there() {
        for revision in Revision::ALL {
            let expected = match revision.era() {
                Era::Legacy => Spoken::Legacy {
                    stated: Some(revision),
                },
                Era::Modern => modern(revision.as_str()),
            };
            for body in [LIST, META, INIT] {
                assert_eq!(spoken(&[(&VERSION, revision.as_str())], body), expected);
            }
        }
        assert_eq!(
            spoken(&[(&VERSION, "2099-01-01")], LIST),
            modern("2099-01-01")
        );
    }

    #[test]
    fn without_a_header_the_body_decides() {
        assert_eq!(spoken(&[], LIST), LEGACY);
        assert_eq!(spoken(&[], INIT), LEGACY);
        assert_eq!(spoken(&[], META), modern("2026-07-28"));
        assert_eq!(spoken(&[(&SESSION, "x")], META), LEGACY);
        assert_eq!(spoken(&[], &format!("[{META}]")), LEGACY);
        assert_eq!(
            spoken(&[], r#"{"jsonrpc":"2.0","id":1,"result":{}}"#),
            LEGACY
        );
        assert_eq!(
            spoken(&[], LIST).legacy_revision(),
            Some(Revision::V2025_03_26)
        );
    }

    #[test]
    fn get_and_delete_are_legacy_whatever_they_claim() {
        for method in [Method::GET, Method::DELETE] {
            let mut headers = HeaderMap::new();
            headers.insert(VERSION, HeaderValue::from_static("2026-07-28"));
            assert_eq!(classify(&method, &headers, None), LEGACY);
        }
    }
}
