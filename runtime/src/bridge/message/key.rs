//! JSON-RPC ids and progress tokens, compared as values and not as text.

/// An id or token, so that `1`, `1.0` and `1e0`, or `"a"` and `"\u0061"`, are the same.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(in super::super) enum Key {
    /// A whole number.
    Int(i64),
    /// A string.
    Text(String),
    /// Any other number, as written.
    Other(String),
}

impl Key {
    /// Reads a raw JSON value; `None` when it is neither string nor number.
    pub(in super::super) fn of(raw: &str) -> Option<Self> {
        match raw.as_bytes().first()? {
            b'"' => serde_json::from_str(raw).ok().map(Self::Text),
            b'-' | b'0'..=b'9' => Some(Self::number(raw)),
            _ => None,
        }
    }

    fn number(raw: &str) -> Self {
        // Doubles hold whole numbers exactly up to 2^53; beyond that the text decides.
        const EXACT: f64 = 9_007_199_254_740_992.0;
        if let Ok(int) = raw.parse::<i64>() {
            return Self::Int(int);
        }
        match raw.parse::<f64>() {
            #[expect(
                clippy::cast_possible_truncation,
                reason = "whole and within 2^53, so the conversion is exact"
            )]
            Ok(float) if float.fract() == 0.0 && float.abs() <= EXACT => Self::Int(float as i64),
            Ok(_) | Err(_) => Self::Other(raw.to_owned()),
        }
    }
}
