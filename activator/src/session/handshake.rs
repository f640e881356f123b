//! The part of a client's `initialize` that a revival replays, small enough to travel inside the session id.
//!
//! Invariants: holds `protocolVersion`, `capabilities` and `clientInfo` and nothing else; inflating is bounded.
//! Never: is read by anything but a revival.

use std::{
    fmt,
    hash::Hasher,
    io::{Read, Write},
};

use flate2::{Compression, read::DeflateDecoder, write::DeflateEncoder};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, value::RawValue};
use sha2::{Digest, Sha256};

/// Largest handshake that is kept at all, in bytes of JSON.
const MAX_JSON: usize = 64 << 10;

/// A handshake, deflated. What the client said of itself is nobody's business: `Debug` hides it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handshake(Box<[u8]>);

impl fmt::Debug for Handshake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Handshake({} bytes)", self.0.len())
    }
}

#[derive(Deserialize)]
struct Body<'a> {
    #[serde(borrow)]
    params: Params<'a>,
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct Params<'a> {
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    protocol_version: Option<&'a RawValue>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    capabilities: Option<&'a RawValue>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    client_info: Option<&'a RawValue>,
}

impl Handshake {
    /// Takes the handshake out of the body of an `initialize`; `None` if it has none or a huge one.
    #[must_use]
    pub fn of(body: &[u8]) -> Option<Self> {
        let body: Body<'_> = serde_json::from_slice(body).ok()?;
        Self::pack(&serde_json::to_string(&body.params).ok()?)
    }

    /// The same without what is only for show: icons, descriptions, titles, web pages of the client.
    #[must_use]
    pub fn slim(&self) -> Option<Self> {
        let mut params: Map<String, Value> = serde_json::from_str(&self.params()?).ok()?;
        if let Some(Value::Object(client)) = params.get_mut("clientInfo") {
            client.retain(|key, _| key == "name" || key == "version");
        }
        Self::pack(&serde_json::to_string(&params).ok()?)
    }

    /// The `params` to replay, as JSON.
    #[must_use]
    pub fn params(&self) -> Option<String> {
        let mut json = String::new();
        DeflateDecoder::new(&*self.0)
            .take(MAX_JSON as u64)
            .read_to_string(&mut json)
            .ok()?;
        Some(json)
    }

    fn pack(json: &str) -> Option<Self> {
        if json.len() > MAX_JSON {
            return None;
        }
        let mut deflate = DeflateEncoder::new(Vec::new(), Compression::best());
        deflate.write_all(json.as_bytes()).ok()?;
        Some(Self(deflate.finish().ok()?.into()))
    }
}

/// A number that tells one set of server capabilities from another, whatever the order of their keys: the client was told
/// of the first set and would be misled by another.
#[must_use]
pub fn fingerprint(capabilities: &Value) -> u64 {
    let mut hash = Feed(Sha256::new());
    feed(capabilities, &mut hash);
    hash.finish()
}

struct Feed(Sha256);

impl Hasher for Feed {
    fn finish(&self) -> u64 {
        self.0
            .clone()
            .finalize()
            .iter()
            .take(8)
            .fold(0, |number, byte| (number << 8) | u64::from(*byte))
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0.update((bytes.len() as u64).to_be_bytes());
        self.0.update(bytes);
    }
}

// Depth is bounded: `serde_json` makes no value nested deeper than 128.
fn feed(value: &Value, hash: &mut Feed) {
    match value {
        Value::Object(members) => {
            let mut keys: Vec<_> = members.iter().collect();
            keys.sort_by_key(|(key, _)| *key);
            hash.write(b"{");
            for (key, value) in keys {
                hash.write(key.as_bytes());
                feed(value, hash);
            }
            hash.write(b"}");
        }
        Value::Array(items) => {
            hash.write(b"[");
            items.iter().for_each(|item| feed(item, hash));
            hash.write(b"]");
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            hash.write(value.to_string().as_bytes());
        }
    }
}

#[cfg(test)]
mod tests;
