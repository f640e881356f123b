//! What can go wrong for an exchange: a closed set. The kind is a metric label and decides status, code and log level
//! (mapped in one place, `activator/src/error.rs`; the table for people is `docs/errors.md`).

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Who or what is to blame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// The request is malformed: 400.
    BadRequest,
    /// A body over the limit: 413.
    TooLarge,
    /// `Content-Type` is not JSON: 415.
    MediaType,
    /// The method is not one of the path's: 405.
    Method,
    /// No key, or a wrong one: 401.
    Unauthenticated,
    /// Host, Origin, or a backend this tenant may not use: 403.
    Forbidden,
    /// No such backend or path: 404.
    UnknownBackend,
    /// The session has ended, expired, is somebody else's, or was never ours: 404.
    SessionGone,
    /// Too many exchanges or bytes wait: 503.
    Overloaded,
    /// No room for another instance or slot: 503.
    Capacity,
    /// The hold's time ran out while the start goes on: 503.
    HoldTimeout,
    /// The server could not be started: 503 while backing off, with the time of the next try.
    StartFailed,
    /// The instance was lost, or answered no HTTP, before any byte of its answer was sent: 502.
    InstanceLost,
    /// The exchange took longer than `requestTimeout`: 504.
    RequestTimeout,
    /// The gateway is shutting down: 503.
    ShuttingDown,
    /// Our own fault: 500.
    Internal,
}

/// A failure with its two voices: `public` is what a client may read, `private` what the operator's log line says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{public}")]
pub struct Failure {
    /// What kind.
    pub kind: FailureKind,
    /// A whole sentence, without secrets, paths, addresses or anything a server wrote.
    pub public: String,
    /// The cause for the log; may quote stderr.
    pub private: Option<String>,
    /// When to come back, for the kinds answered 503.
    pub retry_after: Option<Duration>,
}

impl Failure {
    /// A failure with its public sentence.
    #[must_use]
    pub fn new(kind: FailureKind, public: impl Into<String>) -> Self {
        Self {
            kind,
            public: public.into(),
            private: None,
            retry_after: None,
        }
    }

    /// Adds what only the operator may read.
    #[must_use]
    pub fn because(mut self, private: impl Into<String>) -> Self {
        self.private = Some(private.into());
        self
    }

    /// Adds when to come back.
    #[must_use]
    pub fn retry_after(mut self, after: Duration) -> Self {
        self.retry_after = Some(after);
        self
    }
}

/// How an instance ended, or why it never began; for status pages and logs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitReport {
    /// The exit code, if it exited.
    pub code: Option<i32>,
    /// The signal, if one killed it.
    pub signal: Option<i32>,
    /// The last lines of its stderr, oldest first, bounded.
    pub stderr_tail: Vec<String>,
    /// A short sentence: `it exited with code 3 before it served`. Clients may read it unless it is `private`.
    pub summary: String,
    /// The summary names commands, folders or variables: operators alone may read it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub private: bool,
}
