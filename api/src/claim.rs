//! Asking for an instance. Idempotent and single-flight over all activators: however many ask for a slot, one instance
//! is started for it.

use std::time::Duration;

use crate::{
    ids::{BackendName, ClaimId, Generation, InstanceId, SessionKey, TenantName},
    principal::PrincipalId,
    record::{SessionBinding, SessionRef},
    view::InstanceView,
};

/// Why an instance is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Purpose {
    /// For an `initialize`. Under `session` isolation the autoscaler picks the slot: a provisional one of the same
    /// principal that nobody waits for (its earlier try, or a start made for its probe), else a new one.
    Initialize,
    /// For an exchange of a session that lives, or lived, on `bound` (`None`: asleep, or nowhere).
    Session {
        /// The session, with what a first record needs.
        session: SessionRef,
        /// Where the asker believes it lives.
        bound: Option<InstanceId>,
    },
    /// For an exchange without session: modern, or of a server that issues no id.
    Exchange,
    /// As `Exchange`, but only a probe (`server/discover`, ...): the start serves the same owner's next `initialize`.
    Probe,
}

/// The request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimRequest {
    /// Which: what an answer gave that never arrived is given again to the claim that it was for, and to no other.
    pub id: ClaimId,
    /// Of which server.
    pub backend: BackendName,
    /// For which tenant; charged for what is started.
    pub tenant: TenantName,
    /// For whom.
    pub principal: PrincipalId,
    /// Why.
    pub purpose: Purpose,
    /// How long the asker will wait. The answer is `HoldTimeout` when it has passed; the start goes on.
    pub budget: Duration,
}

/// How a session stands on the instance that a claim got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// No session yet, none at all, or the session lives there just as its sealed id says: use the instance as it is.
    Fresh,
    /// The session lives there by what its record says, which overrides the sealed id (somebody has revived it).
    Bound(SessionBinding),
    /// The asker holds the one permit to replay the handshake there: it must answer with
    /// [`crate::record::SessionNews::Revived`] or `RevivalFailed` within [`crate::record::REVIVAL_PERMIT`].
    Revive,
}

/// What a start cost, for `Server-Timing`, metrics and spans: milliseconds may be computed from each.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ColdStart {
    /// From claim to the launch call.
    pub claim: Duration,
    /// The launch call itself (spawn, pod create).
    pub create: Duration,
    /// From created to running.
    pub start: Duration,
    /// From running to accepting requests.
    pub serve: Duration,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claimed {
    /// The session key to mint the sealed id with (`Initialize` only). Under `session` isolation it names the slot.
    pub session: Option<SessionKey>,
    /// The instance, as the view will say too; apply it if its stamp is newer than what is known.
    pub instance: InstanceView,
    /// How the session stands there.
    pub standing: Standing,
    /// What it cost, if this claim waited for a start.
    pub cold: Option<ColdStart>,
}

/// A pair that tells one text of a backend from another, for sealed ids and memories.
pub type BackendVersion = (BackendName, Generation);
