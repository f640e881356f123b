//! Session records: what is learned of a session after its sealed id was minted.
//!
//! A session without news has no record. Written only through [`crate::scaler::Scaler::record`], kept by the leader,
//! sent with the view.

use std::{sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

use crate::ids::{BackendName, InstanceId, SessionKey, TenantName, UpstreamSession};
use crate::principal::PrincipalId;
use crate::view::Stamp;

/// The instance that holds a session and the id it goes by there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionBinding {
    /// Where it lives.
    pub instance: InstanceId,
    /// The id the server issued.
    pub upstream: UpstreamSession,
}

/// Everything learned of one session. `Debug` shows no upstream id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionRecord {
    /// Which session.
    pub key: SessionKey,
    /// Of which server.
    pub backend: BackendName,
    /// Whom it is charged to.
    pub tenant: TenantName,
    /// Unix seconds after which the sealed id is expired by itself and the record is useless.
    pub expires_at: u64,
    /// It ended: 404 from now on. Everything below is then empty.
    pub ended: bool,
    /// `Some(Some(..))`: it was revived there, which overrides the sealed id. `Some(None)`: the instance let go of it
    /// (`sessionIdleTimeout`): revive even though the instance in the id still runs. `None`: the id is right.
    pub binding: Option<Option<SessionBinding>>,
    /// The last `logging/setLevel`, to be replayed at revival.
    pub log_level: Option<String>,
    /// Resource URIs subscribed to, to be replayed at revival; bounded by [`MAX_SUBSCRIPTIONS`].
    pub subscriptions: Vec<String>,
    /// When a leader wrote it: tells a new leader which of two that activators remember is the later. Not kept on disk,
    /// where there is one of each.
    #[serde(skip)]
    pub stamp: Stamp,
}

/// Most subscriptions remembered for a session.
pub const MAX_SUBSCRIPTIONS: usize = 64;
/// Longest URI or log level remembered, in bytes.
pub const MAX_RECORD_TEXT: usize = 2_048;

/// Which session an update is about, with what a first record of it needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionRef {
    /// Which.
    pub key: SessionKey,
    /// Of which server.
    pub backend: BackendName,
    /// Whom it is charged to.
    pub tenant: TenantName,
    /// Unix seconds at which the sealed id expires.
    pub expires_at: u64,
}

/// News of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SessionNews {
    /// The session was opened on this instance (the `initialize` was answered with an id). Makes no record; under
    /// `session` isolation it turns the provisional slot into the session's.
    Opened(InstanceId),
    /// The `initialize` was answered without an id: there is no session. Under `session` isolation the provisional slot
    /// becomes this principal's, where its next exchanges look for it, and so do later handshakes of this backend.
    Sessionless(PrincipalId),
    /// The handshake was replayed: it lives there now. Ends the revival that a claim permitted.
    Revived(SessionBinding),
    /// The replay failed. `retry` lets the next claim try again; otherwise the session ends.
    RevivalFailed {
        /// Whether it may be tried again.
        retry: bool,
    },
    /// The instance let go of it (`sessionIdleTimeout`).
    Asleep,
    /// `logging/setLevel` was accepted.
    LogLevel(String),
    /// `resources/subscribe` was accepted.
    Subscribed(String),
    /// `resources/unsubscribe` was accepted.
    Unsubscribed(String),
    /// DELETE was accepted, or the server ended it.
    Ended,
}

/// An update.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionUpdate {
    /// About which session.
    pub session: SessionRef,
    /// What is new.
    pub news: SessionNews,
}

impl SessionRecord {
    /// An empty record, before any news.
    #[must_use]
    pub fn new(session: &SessionRef) -> Self {
        Self {
            key: session.key,
            backend: session.backend.clone(),
            tenant: session.tenant.clone(),
            expires_at: session.expires_at,
            ended: false,
            binding: None,
            log_level: None,
            subscriptions: Vec::new(),
            stamp: Stamp::default(),
        }
    }

    /// Of two records of one session the one to believe: what has ended stays ended, else the later counts. The order
    /// is total, so that records may be joined in any order and any number of times (§5, §11).
    #[must_use]
    pub fn join(self, other: Self) -> Self {
        if self.rank() < other.rank() {
            other
        } else {
            self
        }
    }

    /// Everything that can differ, the weightiest first. One leader gives a stamp to one text only; the rest decides
    /// between leaders that ought not to have been two.
    fn rank(&self) -> impl Ord + '_ {
        let upstream = |binding: &'_ SessionBinding| binding.upstream.0.to_string();
        let home = self
            .binding
            .as_ref()
            .map(|known| known.as_ref().map(|b| (b.instance, upstream(b))));
        (
            (self.ended, self.stamp),
            (self.key, &self.backend, &self.tenant, self.expires_at),
            (home, &self.log_level, &self.subscriptions),
        )
    }

    /// Where the session lives, given what its sealed id says.
    #[must_use]
    pub fn binding_or(&self, sealed: &SessionBinding) -> Option<SessionBinding> {
        self.binding.clone().unwrap_or_else(|| Some(sealed.clone()))
    }
}

/// Shared reading.
pub type SharedRecord = Arc<SessionRecord>;

/// Longest a permit to revive is honoured before the next claim gets one.
pub const REVIVAL_PERMIT: Duration = Duration::from_secs(60);
