//! What `GET /status` says: the whole state in words and numbers, for people and scripts. No secret is in it.

use serde::{Deserialize, Serialize};

use crate::failure::ExitReport;

/// The autoscaler's state.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// Per backend, by name.
    pub backends: Vec<BackendStatus>,
    /// Instances alive, of all backends.
    pub instances: u32,
    /// Most instances there may be at once.
    pub max_instances: u32,
    /// Session records kept.
    pub session_records: u64,
    /// Whether the gateway is shutting down.
    pub draining: bool,
}

/// One backend.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BackendStatus {
    /// Its name.
    pub name: String,
    /// The most telling phase of its slots: `cold`, `starting`, `ready`, `draining`, `backoff`.
    pub state: String,
    /// Exchanges that wait for an instance.
    pub waiting: u32,
    /// Its slots that are not cold.
    pub slots: Vec<SlotStatus>,
    /// Starts so far.
    pub starts: u64,
    /// Starts that failed, and crashes.
    pub failures: u64,
    /// The last failure, whole.
    pub last_failure: Option<FailureStatus>,
}

/// One slot.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SlotStatus {
    /// `session 1a2b3c4d`, `tenant engineering`, `principal 1a2b3c4d` or `shared`.
    pub owner: String,
    /// Its phase.
    pub phase: String,
    /// Exchanges that wait.
    pub waiting: u32,
    /// Its instance, if any.
    pub instance: Option<InstanceStatus>,
    /// Milliseconds until the next start is tried, in `backoff`.
    pub next_try_ms: Option<u64>,
    /// Milliseconds until it is drained if nothing happens.
    pub idle_drain_ms: Option<u64>,
}

/// One instance.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InstanceStatus {
    /// Its id.
    pub id: String,
    /// `starting`, `ready`, `draining`, `stopping`.
    pub phase: String,
    /// Where it is: `127.0.0.1:4711` or `in-process`.
    pub endpoint: Option<String>,
    /// Process id, for processes.
    pub pid: Option<u32>,
    /// Leases held by all activators, as last reported.
    pub leases: u32,
    /// Milliseconds since the launch.
    pub age_ms: u64,
    /// Milliseconds its start took, once it is ready.
    pub cold_start_ms: Option<u64>,
    /// Where all of its stderr is kept.
    pub log: Option<String>,
    /// What an operator should know: listens off loopback, ...
    pub warnings: Vec<String>,
    /// Its last lines of stderr.
    pub stderr_tail: Vec<String>,
}

/// A failure as kept for people.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FailureStatus {
    /// Milliseconds ago.
    pub ago_ms: u64,
    /// How it ended.
    pub exit: ExitReport,
    /// Where all of its stderr is kept.
    pub log: Option<String>,
    /// Failures in a row.
    pub in_a_row: u32,
}
