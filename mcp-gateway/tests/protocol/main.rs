//! The gateway as its callers meet it: the built binary, real MCP servers behind it, real clients and the official
//! conformance suite in front of it.
//!
//! What `dev/protocol/install` installs is needed by some of these tests. Where it is missing they say so and pass,
//! except in CI, where they fail.
#![expect(
    clippy::print_stdout,
    reason = "a test prints what it ran, for whoever has to find out why it failed"
)]

mod bad_input;
mod clients;
mod cold;
mod conformance;
mod documents;
mod gateway;
mod hammer;
mod pods;
mod rmcp_client;
mod roles;
mod split;
mod sse;
mod tools;
mod wire;
