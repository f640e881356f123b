//! Where the notifications of a child go that serves modern exchanges: each belongs to one of them.

use super::{Order, Router};
use crate::bridge::message::{Key, Message};

impl Router {
    /// Finds the exchange a notification is about; one that is about none of the open ones is dropped.
    pub(super) fn modern_notification(&mut self, message: &Message<'_>) -> Option<Order> {
        let (wire, edit) = if let Some(raw) = message.subscription() {
            let wire = wire_of(raw)?;
            let id = &self.pending.get(&wire)?.client_id;
            (wire, message.edit().subscription(id))
        } else if message.method() == "notifications/progress" {
            let wire = wire_of(message.token()?)?;
            let token = self.pending.get(&wire)?.token.as_deref()?;
            (wire, message.edit().token(token))
        } else if message.method() == "notifications/cancelled" {
            // A server that ends a subscription (or gives a request up) says so by the request's id.
            let wire = wire_of(message.cancelled()?)?;
            let id = self.pending.get(&wire)?.client_id.clone();
            let text = message.edit().cancelled(&id).line();
            return self.settle(wire, text, None);
        } else {
            return self.unaddressed(message);
        };
        let exchange = self.pending.get(&wire)?.exchange;
        Some(Order::Post {
            exchange,
            text: edit.line(),
            answers: None,
        })
    }

    /// stdio does not say which request a modern log message is about: the newest that asked for logs, else the newest.
    /// A listening stream never carries them (2026-07-28 subscriptions).
    fn unaddressed(&self, message: &Message<'_>) -> Option<Order> {
        let logs = message.method() == "notifications/message";
        let candidates = || self.exchanges.iter().rev().filter(|(_, e)| !e.listens);
        let (exchange, _) = candidates()
            .find(|(_, e)| logs && e.wants_logs)
            .or_else(|| candidates().next())?;
        Some(Order::Post {
            exchange: *exchange,
            text: message.line(),
            answers: None,
        })
    }
}

/// The wire id that a raw id names.
pub(super) fn wire_of(raw: &str) -> Option<i64> {
    match Key::of(raw)? {
        Key::Int(wire) => Some(wire),
        // Some servers turn ids into strings on the way.
        Key::Text(text) => text.parse().ok(),
        Key::Other(_) => None,
    }
}

/// Whether a raw id is this wire id.
pub(super) fn names(raw: Option<&str>, wire: i64) -> bool {
    raw.and_then(wire_of) == Some(wire)
}
