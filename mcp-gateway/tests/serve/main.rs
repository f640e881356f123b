//! `mcp-gateway serve` as its operator meets it: the built binary with documents, keys, signals and the admin listener.
//!
//! Needs nothing but the binary itself: its demo server stands behind it.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "in a test a failed unwrap is the failure"
)]

mod admin;
mod children;
mod documents;
mod ends;
mod keys;
mod limits;
mod readme;
mod starts;
mod support;
mod telemetry;
