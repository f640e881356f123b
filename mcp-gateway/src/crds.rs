//! `mcp-gateway crds`: prints the definitions of McpBackend, ScalingPolicy and Tenant, for `kubectl apply -f -`.

use std::io::{self, Write};

use anyhow::Context;
use mcp_gateway_control::cluster::definitions;

/// Prints them on standard output.
///
/// # Errors
/// Standard output is closed.
pub(crate) fn run() -> anyhow::Result<()> {
    let text = definitions::yaml().context("writing the definitions as YAML")?;
    io::stdout().write_all(text.as_bytes())?;
    Ok(())
}
