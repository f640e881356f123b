//! A sealed session id, opened and found good.
//!
//! Ended, expired, foreign and forged ids are one and the same to their caller: 404, from the gateway itself, waking
//! nothing.

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use axum::http::{HeaderMap, HeaderValue};
use mcp_gateway_api::{
    failure::{Failure, FailureKind},
    record::{SessionBinding, SessionNews, SessionRef, SessionUpdate},
};

use super::news;
use crate::{
    caller::Caller,
    edge::headers::SESSION_ID,
    gateway::Gateway,
    session::{Session, sealed::SealedSession},
};

/// A session that its caller may use.
pub(crate) struct Opened {
    /// What the id says.
    pub sealed: SealedSession,
    /// What claims and records need.
    pub about: SessionRef,
    /// The id as the client knows it.
    pub shown: HeaderValue,
    /// Its entry here.
    pub session: Arc<Session>,
}

/// Unix seconds now. A stamp; nothing here measures time with it.
pub(crate) fn unix_now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

/// The session is none of the caller's any more.
pub(crate) fn gone() -> Failure {
    Failure::new(
        FailureKind::SessionGone,
        "The session has ended. Begin a new one with initialize, without a session id.",
    )
}

/// Opens the id in a request's headers.
///
/// # Errors
/// `SessionGone`.
pub(crate) fn open(
    gateway: &Gateway,
    caller: &Caller,
    headers: &HeaderMap,
) -> Result<Opened, Failure> {
    let shown = headers.get(SESSION_ID).ok_or_else(gone)?;
    let text = shown.to_str().map_err(|_not_ascii| gone())?;
    let opened = gateway.deps.sealer.open(text, caller.principal.id);
    let sealed = opened.map_err(|_told_nobody| gone())?;
    let about = sealed.about(caller.backend.policy.session_lifetime);
    let foreign = sealed.backend != caller.backend.name || sealed.tenant != caller.principal.tenant;
    let record = || gateway.deps.directory.record(&about.key);
    let ended = || record().is_some_and(|record| record.ended);
    if foreign || ended() || about.expires_at <= unix_now() {
        return Err(gone());
    }
    // It may end between that look and this.
    let session = gateway.sessions.enter_unless(&about, ended);
    let session = session.ok_or_else(gone)?;
    Ok(Opened {
        sealed,
        about,
        shown: shown.clone(),
        session,
    })
}

impl Opened {
    /// Where the session lives, as far as is known here; `None` when it sleeps.
    pub(crate) fn binding(&self, gateway: &Gateway) -> Option<SessionBinding> {
        let own = self.sealed.binding();
        let known = match gateway.deps.directory.record(&self.about.key) {
            Some(record) => record.binding_or(&own),
            None => Some(own),
        };
        // The record of its release may be a moment behind.
        known.filter(|binding| !self.session.is_released_from(binding))
    }

    /// Whether it was opened there: as long as it lives there it has had no other upstream session.
    pub(crate) fn began_on(&self, binding: &SessionBinding) -> bool {
        *binding == self.sealed.binding()
    }

    /// Writes news of it.
    pub(crate) fn record(&self, gateway: &Gateway, news: SessionNews) {
        news::record(
            gateway,
            SessionUpdate {
                session: self.about.clone(),
                news,
            },
        );
    }

    /// It has ended: its streams close, its id answers 404 from now on.
    pub(crate) fn end(&self, gateway: &Gateway) {
        self.record(gateway, SessionNews::Ended);
        gateway.sessions.end(&self.about.key);
    }
}
