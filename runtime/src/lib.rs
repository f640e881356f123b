//! Where instances live.
//!
//! [`Runtime`] is the seam: processes on a laptop today, pods next. A runtime acts on orders and tells what happens; it
//! decides nothing (when to start, when to stop, whether to try again is the autoscaler's).
//!
//! The contract every runtime keeps, checked by one contract test suite:
//! - every event carries its [`InstanceId`]; the first event of an instance never precedes the answer of its `launch`
//!   by more than the channel's order allows, so a receiver that meets an unknown id terminates it;
//! - `Exited` is said exactly once for each launched instance, is its last event, and nothing of the instance is left
//!   when it is said (a process's whole group is dead);
//! - `terminate` is idempotent, also for ids never launched.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use mcp_gateway_api::{
    backend::Backend,
    failure::ExitReport,
    ids::{BackendName, Generation, InstanceId, TenantName},
    slot::SlotKey,
    view::Endpoint,
};
use tokio::sync::mpsc;

pub mod bridge;
pub mod child;
#[cfg(feature = "kubernetes")]
pub mod kubernetes;
pub mod process;
#[cfg(any(test, feature = "test-util"))]
pub mod scripted;

/// What to start.
#[derive(Debug, Clone)]
pub struct LaunchOrder {
    /// The backend, as it is now.
    pub backend: Arc<Backend>,
    /// For which slot; names logs and labels.
    pub slot: SlotKey,
    /// Charged for it.
    pub tenant: TenantName,
}

/// What was started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Launched {
    /// Its identity from now on.
    pub instance: InstanceId,
    /// Process id, for processes.
    pub pid: Option<u32>,
    /// Where all of its stderr is kept.
    pub log: Option<String>,
}

/// What happens to an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RuntimeEvent {
    /// The process runs (the container started); `startTimeout` counts from here.
    Running(InstanceId),
    /// It accepts requests.
    Ready(InstanceId, Endpoint),
    /// Something an operator should know, such as a listener off loopback.
    Warning(InstanceId, String),
    /// What its start waits for outside of it, such as room on a node, as clients may read it; `None` once that is over. The
    /// latest holds.
    Waits(InstanceId, Option<String>),
    /// It is gone for good, whether told to or not.
    Exited(InstanceId, ExitReport),
}

/// An instance that was there before the runtime was opened: another process launched it. Its events follow as those of
/// any other; `Running` and `Ready` are said again even if they were said to the one before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// What it is.
    pub launched: Launched,
    /// Of which server.
    pub backend: BackendName,
    /// Of which text of the document.
    pub generation: Generation,
    /// Whose.
    pub slot: SlotKey,
    /// Charged for it.
    pub tenant: TenantName,
    /// How far it has come.
    pub stage: FoundStage,
}

/// How far an instance that was found has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FoundStage {
    /// It exists.
    Starting,
    /// Its process runs (its container has started).
    Running,
    /// It accepts requests, there.
    Ready(Endpoint),
    /// Somebody has told it to end; `Exited` follows by itself.
    Ending,
}

/// How an instance is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Farewell {
    /// From the polite signal (closed stdin, SIGTERM) to the kill.
    pub grace: Duration,
}

/// Where instances live. Events go to the [`EventReceiver`] that was made together with the runtime.
#[async_trait]
pub trait Runtime: Send + Sync {
    /// Starts an instance and returns as soon as it exists.
    ///
    /// # Errors
    /// The report says why nothing was started; no event follows.
    async fn launch(&self, order: LaunchOrder) -> Result<Launched, ExitReport>;

    /// Ends an instance; returns at once, `Exited` follows.
    async fn terminate(&self, instance: InstanceId, farewell: Farewell);

    /// Takes an instance that was found under this leader's own epoch: when it returns, what an older leader may still
    /// order for it fails. `false`: too late, it is gone or being ended. Tries until it knows.
    async fn adopt(&self, instance: InstanceId) -> bool;

    /// The last lines of an instance's stderr, oldest first; empty when there are none or it is unknown.
    async fn stderr_tail(&self, instance: InstanceId) -> Vec<String>;
}

/// The receiving end of a runtime's events.
pub type EventReceiver = mpsc::Receiver<RuntimeEvent>;
