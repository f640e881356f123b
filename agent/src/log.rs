//! The agent's own lines, each marked as such ([`AGENT_SAYS`]): the server writes to the same place.
//!
//! Invariant: a line and its mark are written at once, so that nothing comes between them.

use std::io::{self, Write};

use mcp_gateway_link::protocol::AGENT_SAYS;

/// Logs to standard error from now on.
pub(crate) fn begin() {
    tracing_subscriber::fmt()
        .with_writer(|| Marked)
        .with_ansi(false)
        .with_target(false)
        .init();
}

/// Writes each line with its mark; a whole one comes at a time.
struct Marked;

impl Write for Marked {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let marked = [AGENT_SAYS.as_bytes(), line].concat();
        io::stderr().write_all(&marked)?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}
