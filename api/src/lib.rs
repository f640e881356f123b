//! The vocabulary of mcp-gateway as types, in reading order.
//!
//! Everything here is a value or a port (a trait that two crates meet in). Nothing here performs IO, reads a clock,
//! logs, or decides anything; every other crate of the workspace depends on this one and this one on none of them.

pub mod activity;
pub mod backend;
pub mod catalog;
pub mod claim;
#[cfg(feature = "crds")]
pub mod crds;
pub mod endpoint;
pub mod failure;
pub mod ids;
pub mod policy;
pub mod principal;
pub mod record;
pub mod reference;
pub mod revision;
pub mod scaler;
pub mod slot;
pub mod status;
pub mod view;
