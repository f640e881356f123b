//! The vocabulary to messages and back.
//!
//! Invariants: there and back is the same value; nothing is guessed: what a message lacks, what is too long and what
//! this side does not know is an error that names the field. What is decoded is bounded: texts by [`MAX_TEXT`], the
//! length of lists by the size of a message.

use std::{sync::Arc, time::Duration};

use mcp_gateway_api::{
    ids::{ActivatorId, BackendName, ClaimId, InstanceId, SessionKey, TenantName},
    principal::PrincipalId,
    view::Stamp,
};

use crate::scaler as wire;

mod claim;
mod record;
#[cfg(test)]
mod tests;
mod usage;
mod view;

pub use usage::{Retelling, restatement_parts};
pub use view::{Assembly, view_messages};

/// Longest text in a message, in bytes.
pub const MAX_TEXT: usize = 64 << 10;

/// Why a message makes no sense. Safe to send back.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Nonsense {
    /// A field that must be there is not, or holds an alternative that this side does not know.
    #[error("{0} is missing, or of a kind that this version does not know")]
    Missing(&'static str),
    /// An enum value from the future.
    #[error("{field} is {value}, which this version does not know")]
    Unknown {
        /// Which field.
        field: &'static str,
        /// What it holds.
        value: i32,
    },
    /// A field that does not hold what it should.
    #[error("{0} is malformed")]
    Malformed(&'static str),
    /// A text over [`MAX_TEXT`].
    #[error("{0} is too long")]
    TooLong(&'static str),
}

/// From the vocabulary to a message; never fails.
pub trait ToWire {
    /// The message.
    type Wire;

    /// Converts.
    fn to_wire(&self) -> Self::Wire;
}

/// From a message to the vocabulary.
pub trait FromWire: Sized {
    /// The message.
    type Wire;

    /// Converts.
    ///
    /// # Errors
    /// Names the field that makes no sense.
    fn from_wire(wire: Self::Wire) -> Result<Self, Nonsense>;
}

/// A message that must be there.
fn need<T: FromWire>(field: &'static str, wire: Option<T::Wire>) -> Result<T, Nonsense> {
    T::from_wire(wire.ok_or(Nonsense::Missing(field))?)
}

/// A message that may be absent.
fn may<T: FromWire>(wire: Option<T::Wire>) -> Result<Option<T>, Nonsense> {
    wire.map(T::from_wire).transpose()
}

fn all<T: FromWire>(wire: Vec<T::Wire>) -> Result<Vec<T>, Nonsense> {
    wire.into_iter().map(T::from_wire).collect()
}

fn text(field: &'static str, wire: String) -> Result<String, Nonsense> {
    if wire.len() > MAX_TEXT {
        return Err(Nonsense::TooLong(field));
    }
    Ok(wire)
}

fn shared(field: &'static str, wire: String) -> Result<Arc<str>, Nonsense> {
    Ok(text(field, wire)?.into())
}

fn bytes<const N: usize>(field: &'static str, wire: &[u8]) -> Result<[u8; N], Nonsense> {
    wire.try_into()
        .map_err(|_length| Nonsense::Malformed(field))
}

fn number(field: &'static str, wire: &[u8]) -> Result<u128, Nonsense> {
    bytes(field, wire).map(u128::from_be_bytes)
}

/// Nanoseconds; more than 584 years count as 584 years.
fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// An instance's id from bytes.
///
/// # Errors
/// There are not 16.
pub fn instance_id(wire: &[u8]) -> Result<InstanceId, Nonsense> {
    number("instance id", wire).map(InstanceId)
}

/// An instance's id as bytes.
#[must_use]
pub fn instance_bytes(id: InstanceId) -> Vec<u8> {
    id.0.to_be_bytes().to_vec()
}

/// An activator's id from bytes.
///
/// # Errors
/// There are not 16.
pub fn activator_id(wire: &[u8]) -> Result<ActivatorId, Nonsense> {
    number("activator id", wire).map(ActivatorId)
}

/// An activator's id as bytes.
#[must_use]
pub fn activator_bytes(id: ActivatorId) -> Vec<u8> {
    id.0.to_be_bytes().to_vec()
}

fn session_key(wire: &[u8]) -> Result<SessionKey, Nonsense> {
    bytes("session key", wire).map(SessionKey)
}

fn principal_id(wire: &[u8]) -> Result<PrincipalId, Nonsense> {
    bytes("principal", wire).map(PrincipalId)
}

/// Whoever does not name its claims asks a new one each time.
fn claim_id(wire: &[u8]) -> Result<ClaimId, Nonsense> {
    match wire {
        [] => Ok(ClaimId::random()),
        named => bytes("claim", named).map(ClaimId),
    }
}

fn backend_name(wire: &str) -> Result<BackendName, Nonsense> {
    BackendName::new(wire).map_err(|_no_label| Nonsense::Malformed("backend name"))
}

fn tenant_name(wire: &str) -> Result<TenantName, Nonsense> {
    TenantName::new(wire).map_err(|_no_label| Nonsense::Malformed("tenant name"))
}

impl ToWire for Stamp {
    type Wire = wire::Stamp;

    fn to_wire(&self) -> wire::Stamp {
        wire::Stamp {
            epoch: self.epoch,
            sequence: self.sequence,
        }
    }
}

impl FromWire for Stamp {
    type Wire = wire::Stamp;

    fn from_wire(wire: wire::Stamp) -> Result<Self, Nonsense> {
        Ok(Self {
            epoch: wire.epoch,
            sequence: wire.sequence,
        })
    }
}
