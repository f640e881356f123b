//! One change as bytes: length, checksum, postcard.
//!
//! Postcard and not JSON: a binding that is known to be absent differs from one that is not known, which JSON's `null`
//! cannot tell apart.

use std::io;

use mcp_gateway_api::{ids::SessionKey, record::SessionRecord};
use serde::{Deserialize, Serialize};

use crate::core::records::Change;

/// Longest payload that is believed, in bytes: far above the largest record.
const MAX_PAYLOAD: usize = 1 << 20;
/// Length and checksum.
const HEADER: usize = 8;

/// A change with everything in it.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Frame {
    /// A record as it is from now on.
    Put(SessionRecord),
    /// A record is gone.
    Remove(SessionKey),
}

impl From<&Change> for Frame {
    fn from(change: &Change) -> Self {
        match change {
            Change::Put(record) => Self::Put(record.as_ref().clone()),
            Change::Remove(key) => Self::Remove(*key),
        }
    }
}

impl Frame {
    /// Appends it.
    pub(super) fn write(&self, to: &mut Vec<u8>) -> io::Result<()> {
        let payload = postcard::to_stdvec(self).map_err(io::Error::other)?;
        let length = u32::try_from(payload.len()).map_err(io::Error::other)?;
        to.extend_from_slice(&length.to_le_bytes());
        to.extend_from_slice(&crc32fast::hash(&payload).to_le_bytes());
        to.extend_from_slice(&payload);
        Ok(())
    }

    /// Reads the first one and says how many bytes it took; `None` at the end, or where it is torn.
    pub(super) fn read(bytes: &[u8]) -> Option<(Self, usize)> {
        let length = u32::from_le_bytes(bytes.get(..4)?.try_into().ok()?);
        let sum = u32::from_le_bytes(bytes.get(4..HEADER)?.try_into().ok()?);
        let length = usize::try_from(length).ok().filter(|n| *n <= MAX_PAYLOAD)?;
        let payload = bytes.get(HEADER..HEADER + length)?;
        if crc32fast::hash(payload) != sum {
            return None;
        }
        let frame = postcard::from_bytes(payload).ok()?;
        Some((frame, HEADER + length))
    }
}
