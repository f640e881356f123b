//! How the data plane opens a connection to a bridge that lives in the same process.

use std::io;

use tokio::io::DuplexStream;

use crate::ids::InstanceId;

/// Opens an in-memory connection on which the instance serves HTTP/1.1.
pub trait LocalDial: Send + Sync {
    /// Dials.
    ///
    /// # Errors
    /// `NotFound` when no such instance runs here.
    fn dial(&self, instance: InstanceId) -> io::Result<DuplexStream>;
}
