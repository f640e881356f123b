//! Types of single fields: each refuses what makes no sense with a sentence that says what would.

use std::{fmt, time::Duration};

use mcp_gateway_api::backend::EnvValue;
use serde::{
    Deserialize, Deserializer,
    de::{Error, MapAccess, Visitor},
};

/// The longest duration a document may ask for.
const MAX_DURATION: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// A duration as people write it: `10m`, `1h30m`, `250ms`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span(pub Duration);

struct SpanVisitor;

impl Visitor<'_> for SpanVisitor {
    type Value = Span;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a duration with its unit, such as 30s, 10m or 1h30m")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Span, E> {
        let wrong = || {
            let given: String = text.chars().take(40).collect();
            E::custom(format!(
                "{given:?} is no duration; write a number with its unit, such as 30s, 10m or 1h30m"
            ))
        };
        let given = humantime::parse_duration(text).or(Err(()));
        let span = given.map_err(|()| wrong())?;
        if span < Duration::from_millis(1) || span > MAX_DURATION {
            return Err(E::custom(format!(
                "{text:?} is out of range; write a duration from 1ms to 10years"
            )));
        }
        Ok(Span(span))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Span, E> {
        Err(E::custom(format!(
            "{number} has no unit; write {number}s for seconds or {number}m for minutes"
        )))
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        // As a string first: YAML parsers hand an unquoted 10 over as text here, and the sentence for it is the same.
        from.deserialize_str(SpanVisitor)
    }
}

/// A number of bytes: `67108864`, `64Mi`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bytes(pub u64);

struct BytesVisitor;

impl Visitor<'_> for BytesVisitor {
    type Value = Bytes;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number of bytes, such as 67108864 or 64Mi")
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Bytes, E> {
        Ok(Bytes(number))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Bytes, E> {
        let (digits, factor) = [("Ki", 1 << 10), ("Mi", 1 << 20), ("Gi", 1_u64 << 30)]
            .into_iter()
            .find_map(|(unit, factor)| text.strip_suffix(unit).map(|rest| (rest, factor)))
            .unwrap_or((text, 1));
        let number: Option<u64> = digits.trim().parse().ok();
        number
            .and_then(|number| number.checked_mul(factor))
            .map(Bytes)
            .ok_or_else(|| {
                let given: String = text.chars().take(40).collect();
                E::custom(format!(
                    "{given:?} is no number of bytes; write one such as 67108864 or 64Mi"
                ))
            })
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_str(BytesVisitor)
    }
}

/// A URL path: begins with `/`, visible ASCII, without a fragment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UrlPath(pub String);

impl<'de> Deserialize<'de> for UrlPath {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        let visible = text.bytes().all(|b| b.is_ascii_graphic() && b != b'#');
        if text.starts_with('/') && !text.starts_with("//") && visible && text.len() <= 1_024 {
            Ok(Self(text))
        } else {
            let given: String = text.chars().take(80).collect();
            Err(D::Error::custom(format!(
                "{given:?} is no URL path; write one that begins with '/', such as /mcp"
            )))
        }
    }
}

/// A port: 1 to 65535.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortNumber(pub u16);

impl<'de> Deserialize<'de> for PortNumber {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        match u16::deserialize(from)? {
            0 => Err(D::Error::custom(
                "0 is no port; write a number from 1 to 65535",
            )),
            port => Ok(Self(port)),
        }
    }
}

/// A `Host` header: visible ASCII without `/`, `@`, or white space.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostName(pub String);

impl<'de> Deserialize<'de> for HostName {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        let fine = |b: u8| b.is_ascii_alphanumeric() || b"-._:[]".contains(&b);
        if !text.is_empty() && text.len() <= 255 && text.bytes().all(fine) {
            Ok(Self(text))
        } else {
            let given: String = text.chars().take(80).collect();
            Err(D::Error::custom(format!(
                "{given:?} is no host; write a name with or without a port, such as localhost:8000"
            )))
        }
    }
}

/// The name of an environment variable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnvName(pub String);

impl EnvName {
    /// Whether a process can have a variable of this name.
    #[must_use]
    pub fn is_usable(text: &str) -> bool {
        !text.is_empty() && text.len() <= 256 && !text.contains(['=', '\0'])
    }
}

impl<'de> Deserialize<'de> for EnvName {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        if Self::is_usable(&text) {
            Ok(Self(text))
        } else {
            Err(D::Error::custom(
                "not a name for an environment variable; write one of 1 to 256 bytes without '='",
            ))
        }
    }
}

/// The literal value of an environment variable. A wrong one is refused without being quoted: it may be a secret.
#[derive(Clone, PartialEq, Eq)]
pub struct EnvText(pub String);

impl fmt::Debug for EnvText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EnvText(…)")
    }
}

struct EnvTextVisitor;

const QUOTE_IT: &str = "not a text; write it in quotes";

impl<'de> Visitor<'de> for EnvTextVisitor {
    type Value = EnvText;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<EnvText, E> {
        if text.contains('\0') {
            return Err(E::custom("holds a NUL byte; remove it"));
        }
        Ok(EnvText(text.to_owned()))
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<EnvText, E> {
        Err(E::custom(QUOTE_IT))
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<EnvText, E> {
        Err(E::custom(QUOTE_IT))
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<EnvText, E> {
        Err(E::custom(QUOTE_IT))
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<EnvText, E> {
        Err(E::custom(QUOTE_IT))
    }

    fn visit_map<A: MapAccess<'de>>(self, _: A) -> Result<EnvText, A::Error> {
        Err(A::Error::custom(QUOTE_IT))
    }
}

impl<'de> Deserialize<'de> for EnvText {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_str(EnvTextVisitor)
    }
}

/// Accepts a field only with the value it has by default, because nothing acts on another one yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Only<const N: u64>;

impl<'de, const N: u64> Deserialize<'de> for Only<N> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let given = u64::deserialize(from)?;
        if given == N {
            Ok(Self)
        } else {
            Err(D::Error::custom(format!(
                "{given} is not supported yet; remove the field, or write its default {N}"
            )))
        }
    }
}

/// Accepts a list only when it is empty, because nothing acts on a filled one yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OnlyEmpty;

impl<'de> Deserialize<'de> for OnlyEmpty {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let given = Vec::<serde::de::IgnoredAny>::deserialize(from)?;
        if given.is_empty() {
            Ok(Self)
        } else {
            Err(D::Error::custom(
                "not supported yet; remove the field, and say in spec.tenants who may use the backend",
            ))
        }
    }
}

impl From<EnvText> for EnvValue {
    fn from(text: EnvText) -> Self {
        Self::Literal(text.0)
    }
}
