//! How a backend scales: the resolved form, every field with its value. The document form, where fields may be absent,
//! lives with the registry that reads it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Who shares an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Isolation {
    /// One instance for each legacy session; where there is no session, one for each principal.
    Session,
    /// One instance for each tenant.
    Tenant,
    /// One instance for everybody.
    Shared,
}

/// What becomes of a session whose instance is lost (idle, crash, edit).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnIdle {
    /// The handshake is replayed on a fresh instance; the client notices only latency.
    Revive,
    /// The client gets 404.
    Expire,
}

/// A backend's scaling policy, resolved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScalingPolicy {
    /// Who shares an instance.
    pub isolation: Isolation,
    /// From the end of an instance's last lease to its drain.
    pub idle_timeout: Duration,
    /// From a session's last lease until an instance that others keep busy lets go of it.
    pub session_idle_timeout: Duration,
    /// What becomes of a session whose instance is lost.
    pub on_idle: OnIdle,
    /// From the process's start until it must serve.
    pub start_timeout: Duration,
    /// How long an exchange waits for an instance.
    pub hold_timeout: Duration,
    /// How long an exchange may take.
    pub request_timeout: Duration,
    /// Slots of this backend that may have an instance at once.
    pub max_slots: u32,
    /// Exchanges that may wait for one slot.
    pub max_pending: u32,
    /// Bytes of request bodies that may wait for one slot.
    pub max_pending_bytes: u64,
    /// How long a retiring instance may go on before its open streams are cut (deletion and shutdown only).
    pub drain_timeout: Duration,
    /// The oldest a session may become.
    pub session_lifetime: Duration,
}

impl ScalingPolicy {
    /// The defaults for a process (the table in `docs/configuration.md`); `isolation` depends on the transport.
    #[must_use]
    pub const fn for_processes(isolation: Isolation) -> Self {
        Self {
            isolation,
            idle_timeout: Duration::from_secs(10 * 60),
            session_idle_timeout: Duration::from_secs(30 * 60),
            on_idle: OnIdle::Revive,
            start_timeout: Duration::from_secs(5 * 60),
            hold_timeout: Duration::from_secs(55),
            request_timeout: Duration::from_secs(15 * 60),
            max_slots: 100,
            max_pending: 256,
            max_pending_bytes: 64 << 20,
            drain_timeout: Duration::from_secs(30),
            session_lifetime: Duration::from_secs(30 * 24 * 3600),
        }
    }

    /// The same for a pod, which must serve sooner: its image has been pulled before the time runs.
    #[must_use]
    pub const fn for_pods(isolation: Isolation) -> Self {
        Self {
            start_timeout: Duration::from_secs(60),
            ..Self::for_processes(isolation)
        }
    }
}
