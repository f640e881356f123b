//! Children that speak MCP on stdin and stdout, spawned whenever the bridge wants one more.

use std::sync::Arc;

use async_trait::async_trait;
use mcp_gateway_api::{backend::Backend, failure::ExitReport};

use super::{
    child::{self, Surroundings},
    plan::{self, Environment, not_started},
};
use crate::child::{SpawnChild, StdioChild};

/// Spawns children of one backend for one instance. Their variables are read anew each time.
pub(crate) struct ProcessSpawner {
    pub(crate) backend: Arc<Backend>,
    pub(crate) environment: Environment,
    pub(crate) surroundings: Surroundings,
}

#[async_trait]
impl SpawnChild for ProcessSpawner {
    async fn spawn(&self) -> Result<StdioChild, ExitReport> {
        let backend = Arc::clone(&self.backend);
        let environment = Arc::clone(&self.environment);
        let surroundings = self.surroundings.clone();
        let work = move || {
            let plan = plan::plan(&backend.launch, None, &environment)?;
            child::spawn(plan, true, surroundings)
        };
        // If this future is dropped meanwhile, so are the handles, and the child's keeper ends it.
        let (process, pipes) = super::blocking(work).await?;
        let pipes = pipes.ok_or_else(|| not_started("its pipes could not be opened"))?;
        Ok(StdioChild {
            stdin: Box::new(pipes.stdin),
            stdout: Box::new(pipes.stdout),
            control: process,
        })
    }
}
