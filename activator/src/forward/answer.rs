//! What an exchange holds while it is with an instance: its lease, its place among its session's pending messages, its
//! measurement. Dropped, everything is given back.

use std::sync::Arc;

use tokio::time::Instant;

use crate::{
    exchange::news::News, lease::Lease, message::Message, metrics::Operation, session::Session,
};

/// A message of a session that went upstream; settled when this is dropped, unless its answer is to pass elsewhere.
pub(crate) struct Begun {
    /// The session.
    pub session: Arc<Session>,
    message: Arc<Message>,
    /// Set when the stream has closed without all responses: they pass on another.
    pub elsewhere: bool,
}

impl Begun {
    /// The message goes upstream now.
    pub(crate) const fn new(session: Arc<Session>, message: Arc<Message>) -> Self {
        Self {
            session,
            message,
            elsewhere: false,
        }
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        if self.elsewhere {
            self.session.elsewhere(&self.message);
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
    /// When it has taken too long.
    pub deadline: Instant,
    /// Whether it is read to its end without its client (legacy).
    pub outlives: bool,
    /// What its result tells the gateway.
    pub news: Option<News>,
    /// What is measured of it.
    pub operation: Operation,
}
