//! The revisions of MCP and the two eras they fall into.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// A released revision of the specification that the gateway serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Revision {
    /// HTTP+SSE, two endpoints.
    #[serde(rename = "2024-11-05")]
    V2024_11_05,
    /// Streamable HTTP, with JSON-RPC batches.
    #[serde(rename = "2025-03-26")]
    V2025_03_26,
    /// No batches; `MCP-Protocol-Version` on every request after `initialize`.
    #[serde(rename = "2025-06-18")]
    V2025_06_18,
    /// Resumable polling of streams.
    #[serde(rename = "2025-11-25")]
    V2025_11_25,
    /// Modern: no handshake, no session.
    #[serde(rename = "2026-07-28")]
    V2026_07_28,
}

/// Legacy revisions open with a handshake; modern ones carry `_meta` on each request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Era {
    /// Up to 2025-11-25.
    Legacy,
    /// From 2026-07-28 on.
    Modern,
}

impl Revision {
    /// All of them, oldest first.
    pub const ALL: [Self; 5] = [
        Self::V2024_11_05,
        Self::V2025_03_26,
        Self::V2025_06_18,
        Self::V2025_11_25,
        Self::V2026_07_28,
    ];

    /// As it stands on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::V2024_11_05 => "2024-11-05",
            Self::V2025_03_26 => "2025-03-26",
            Self::V2025_06_18 => "2025-06-18",
            Self::V2025_11_25 => "2025-11-25",
            Self::V2026_07_28 => "2026-07-28",
        }
    }

    /// The era it belongs to.
    #[must_use]
    pub const fn era(self) -> Era {
        match self {
            Self::V2024_11_05 | Self::V2025_03_26 | Self::V2025_06_18 | Self::V2025_11_25 => {
                Era::Legacy
            }
            Self::V2026_07_28 => Era::Modern,
        }
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A revision this build does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a revision of MCP that this gateway knows")]
pub struct UnknownRevision;

impl FromStr for Revision {
    type Err = UnknownRevision;
    fn from_str(text: &str) -> Result<Self, UnknownRevision> {
        Self::ALL
            .into_iter()
            .find(|r| r.as_str() == text)
            .ok_or(UnknownRevision)
    }
}
