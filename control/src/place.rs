//! Where servers run: decides what a document must say, may say, and means by default.

/// Where the servers of a registry run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Place {
    /// As processes on this machine.
    #[default]
    Process,
    /// As pods.
    Pod,
}
