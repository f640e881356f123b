//! The port over real TLS on loopback: activators that lose their connection, their leader, or their claim.
#![expect(clippy::unwrap_used, reason = "a test")]

mod claims;
mod core;
mod handover;
mod leaders;
mod strangers;
mod support;
mod tidings;
