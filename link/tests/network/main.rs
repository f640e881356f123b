//! The port over real TLS on loopback: activators that lose their connection, their leader, or their claim.

mod claims;
mod leaders;
mod strangers;
mod support;
mod tidings;
