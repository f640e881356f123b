//! How the process runtime is set up.

use std::{path::PathBuf, sync::Arc, time::Duration};

use super::plan::Environment;

/// How the runtime is set up.
#[derive(Clone)]
pub struct ProcessConfig {
    /// Where the lock, child records and logs are; created if missing.
    pub state_dir: PathBuf,
    /// The gateway's own environment, read at each launch.
    pub environment: Environment,
    /// Longest request body a bridge takes, in bytes.
    pub max_body: usize,
    /// From asking an orphan of a killed gateway to end until it is killed.
    pub orphan_grace: Duration,
}

impl std::fmt::Debug for ProcessConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ProcessConfig")
            .field("state_dir", &self.state_dir)
            .finish_non_exhaustive()
    }
}

impl ProcessConfig {
    /// The defaults: this process's environment, bodies of 4 MiB, 2 s for orphans.
    #[must_use]
    pub fn new(state_dir: PathBuf) -> Self {
        Self {
            state_dir,
            environment: Arc::new(|name| std::env::var_os(name)),
            max_body: 4 << 20,
            orphan_grace: Duration::from_secs(2),
        }
    }
}
