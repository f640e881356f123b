//! The agent's binary against a home on loopback, with real servers.

#![allow(
    unreachable_pub,
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    clippy::panic,
    reason = "a failed unwrap or panic fails the test"
)]

mod bridged;
mod ends;
mod forms;
mod line;
mod orphans;
mod support;
