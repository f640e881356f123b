//! JSON-RPC ids, compared as JSON values and kept as they were written.

use std::{fmt, hash};

use super::Malformed;

/// Longest id or progress token, in bytes of its JSON text.
pub const MAX_ID: usize = 1_024;

/// A JSON-RPC id: a number or a string, with its text as the peer wrote it.
#[derive(Clone)]
pub struct RequestId {
    raw: Box<str>,
    // The one way to write the same value; absent when `raw` already is.
    canonical: Option<Box<str>>,
}

impl RequestId {
    /// Reads an id from its JSON text.
    ///
    /// # Errors
    /// It is neither a string nor a finite number, or is longer than [`MAX_ID`].
    pub fn parse(raw: &str) -> Result<Self, Malformed> {
        let raw = raw.trim_matches([' ', '\t', '\r', '\n']);
        if raw.len() > MAX_ID {
            return Err(Malformed::Id);
        }
        let canonical = match raw.as_bytes().first() {
            Some(b'"') => canonical_string(raw)?,
            Some(b'-' | b'0'..=b'9') => canonical_number(raw)?,
            _ => return Err(Malformed::Id),
        };
        Ok(Self {
            raw: raw.into(),
            canonical: canonical.filter(|c| **c != *raw),
        })
    }

    /// The id as the peer wrote it, valid JSON: what an answer must carry.
    #[must_use]
    pub fn raw(&self) -> &str {
        &self.raw
    }

    fn key(&self) -> &str {
        self.canonical.as_deref().unwrap_or(&self.raw)
    }
}

fn canonical_string(raw: &str) -> Result<Option<Box<str>>, Malformed> {
    // Without an escape the text is canonical, once it is known to be a string at all.
    let text: String = serde_json::from_str(raw).map_err(|_unspecific| Malformed::Id)?;
    if !raw.contains('\\') {
        return Ok(None);
    }
    let written = serde_json::to_string(&text).map_err(|_unspecific| Malformed::Id)?;
    Ok(Some(written.into()))
}

fn canonical_number(raw: &str) -> Result<Option<Box<str>>, Malformed> {
    /// Beyond this a double no longer tells neighbours apart.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    let value: f64 = serde_json::from_str(raw).map_err(|_unspecific| Malformed::Id)?;
    if raw.bytes().all(|b| b.is_ascii_digit()) {
        return Ok(None);
    }
    if value.fract() == 0.0 && value.abs() <= EXACT {
        // `+ 0.0` turns -0 into 0.
        return Ok(Some(format!("{:.0}", value + 0.0).into()));
    }
    let integer = raw.strip_prefix('-').unwrap_or(raw);
    if integer.bytes().all(|b| b.is_ascii_digit()) {
        return Ok(None);
    }
    Ok(Some(format!("{value:e}").into()))
}

impl PartialEq for RequestId {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for RequestId {}

impl hash::Hash for RequestId {
    fn hash<H: hash::Hasher>(&self, state: &mut H) {
        self.key().hash(state);
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.raw)
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.raw)
    }
}
