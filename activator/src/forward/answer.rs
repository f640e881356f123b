//! What an exchange holds while it is with an instance: its lease, its place among its session's pending messages, its
//! measurement. Dropped, everything is given back.

use std::sync::Arc;

use tokio::time::Instant;

use crate::{
    exchange::{
        goodbye::Unclaimed,
        news::{self, Awaited},
    },
    gateway::Gateway,
    lease::Lease,
    message::Message,
    metrics::Operation,
    session::{Session, Strand},
};

/// A message of a session that went upstream; settled when this is dropped, unless its answer is to pass elsewhere.
pub(crate) struct Begun {
    /// The session.
    pub session: Arc<Session>,
    /// What its answer is of the session.
    pub strand: Strand,
    message: Arc<Message>,
    // Its requests are pending there; more than a session may have pending are not.
    counted: bool,
    /// Set when the stream has closed without all responses: they pass on another.
    pub elsewhere: bool,
}

impl Begun {
    /// The message goes upstream now.
    pub(crate) fn new(session: Arc<Session>, strand: Strand, message: Arc<Message>) -> Self {
        Self {
            counted: session.awaits(&message),
            session,
            strand,
            message,
            elsewhere: false,
        }
    }
}

impl Answer {
    /// Resolves when nobody waits for a response any more: the client has cancelled all it asked for here, or its
    /// session has ended. A server that answers nothing then may keep its stream open for ever.
    pub(crate) fn called_off(&self) -> impl Future<Output = ()> + Send + 'static {
        let counted = self.begun.as_ref().filter(|begun| begun.counted);
        let whose = counted.map(|begun| (Arc::clone(&begun.session), Arc::clone(&begun.message)));
        async move {
            match whose {
                Some((session, message)) => session.called_off(&message).await,
                None => std::future::pending().await,
            }
        }
    }
}

impl Answer {
    /// Resolves when the client has resumed this answer on a stream of its own.
    pub(crate) fn taken_over(&self) -> impl Future<Output = ()> + Send + 'static {
        let whose = self.begun.as_ref();
        let whose = whose.map(|begun| (Arc::clone(&begun.session), begun.strand));
        async move {
            match whose {
                Some((session, strand)) => session.taken_over(strand).await,
                None => std::future::pending().await,
            }
        }
    }
}

impl Begun {
    /// The bridge has lost the session's child, and every stream of the session with it. Nothing is said if the session has
    /// found another home since.
    pub(crate) fn session_lost(&self, gateway: &Gateway) {
        if self.session.lost_with(self.strand) {
            news::let_go(gateway, self.session.about());
        }
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        if self.elsewhere {
            self.session.elsewhere(&self.message, self.strand);
        } else {
            self.session.answered(&self.message);
        }
    }
}

/// What belongs to an exchange while it is with an instance; dropped, it gives everything back.
pub(crate) struct Answer {
    /// The right to use the instance.
    pub lease: Lease,
    /// What was asked.
    pub message: Arc<Message>,
    /// The session it is part of.
    pub begun: Option<Begun>,
    /// The session that an `initialize` may bring.
    pub unclaimed: Option<Unclaimed>,
    /// When it has taken too long.
    pub deadline: Instant,
    /// Whether it is read to its end without its client (legacy).
    pub outlives: bool,
    /// What its results tell the gateway.
    pub news: Vec<Awaited>,
    /// What is measured of it.
    pub operation: Operation,
}
