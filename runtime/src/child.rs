//! A stdio child as the bridge sees it: two pipes and a handle. Who spawns it is the runtime's affair.

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use mcp_gateway_api::failure::ExitReport;
use tokio::io::{AsyncRead, AsyncWrite};

/// A running child.
pub struct StdioChild {
    /// What it reads. Dropping it is the polite way to ask it to leave.
    pub stdin: Box<dyn AsyncWrite + Send + Unpin>,
    /// What it writes.
    pub stdout: Box<dyn AsyncRead + Send + Unpin>,
    /// Its handle.
    pub control: Arc<dyn ChildControl>,
}

impl fmt::Debug for StdioChild {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StdioChild")
            .field("pid", &self.control.pid())
            .finish_non_exhaustive()
    }
}

/// Watching and ending a child. Its stderr is captured elsewhere.
#[async_trait]
pub trait ChildControl: Send + Sync {
    /// Its process id.
    fn pid(&self) -> Option<u32>;

    /// Waits until it has ended, by itself or not; may be called many times and by many.
    async fn exited(&self) -> ExitReport;

    /// Asks its process group to end (SIGTERM), kills it after `grace`, waits until all of it is dead.
    async fn kill(&self, grace: Duration) -> ExitReport;
}

/// Starts one more child of the same server.
#[async_trait]
pub trait SpawnChild: Send + Sync {
    /// Spawns.
    ///
    /// # Errors
    /// Why it could not be started (no such command, no permission, missing environment variable).
    async fn spawn(&self) -> Result<StdioChild, ExitReport>;
}
