//! What clients post: requests get wire ids, cancellations their request's, everything else passes.

use super::{Admitted, Exchange, ExchangeId, Full, MAX_OPEN, Mode, Pending, Router};
use crate::bridge::message::{Key, Kind, Message};

impl Router {
    /// Takes what a client posted.
    ///
    /// # Errors
    /// When too many requests are open already; nothing has changed then.
    pub(in crate::bridge) fn admit(&mut self, items: &[Message<'_>]) -> Result<Admitted, Full> {
        let requests = items.iter().filter(|m| m.kind == Kind::Request).count();
        if self.pending.len() + requests > MAX_OPEN {
            return Err(Full);
        }
        let mut out = Admitted::default();
        let exchange = ExchangeId(self.last_exchange + 1);
        if requests > 0 {
            self.last_exchange += 1;
            let any = |m: &str| items.iter().any(|i| i.method() == m);
            let handshake = any("initialize");
            self.exchanges.insert(
                exchange,
                Exchange {
                    open: true,
                    left: requests,
                    handshake,
                    listens: any("subscriptions/listen"),
                    wants_logs: items.iter().any(Message::wants_logs),
                },
            );
            if self.mode != Mode::OneStream {
                out.exchange = Some(exchange);
                if self.mode == Mode::Legacy && !handshake {
                    out.first = self.backlog.drain();
                }
            }
        }
        let mut index = 0;
        for item in items {
            match item.kind {
                Kind::Request => {
                    out.lines.push(self.register(item, exchange, index));
                    index += 1;
                }
                Kind::Notification if item.method() == "notifications/cancelled" => {
                    self.cancel(item, &mut out);
                }
                Kind::Notification | Kind::Response { .. } => out.lines.push(item.line()),
            }
        }
        Ok(out)
    }

    fn register(&mut self, item: &Message<'_>, exchange: ExchangeId, index: usize) -> String {
        self.last_wire += 1;
        let wire = self.last_wire;
        let wire_text = wire.to_string();
        let mut edit = item.edit().id(&wire_text);
        match self.mode {
            Mode::Modern => edit = edit.token(&wire_text),
            Mode::Legacy | Mode::OneStream => {
                if let Some(key) = item.token().and_then(Key::of) {
                    self.tokens.insert(key, wire);
                }
            }
        }
        self.pending.insert(
            wire,
            Pending {
                exchange,
                index,
                client_id: item.id().unwrap_or("null").to_owned(),
                token: item.token().map(str::to_owned),
                handshake: item.method() == "initialize",
            },
        );
        edit.line()
    }

    /// A client's `notifications/cancelled`: the id becomes the child's, and the request's stream ends.
    fn cancel(&mut self, item: &Message<'_>, out: &mut Admitted) {
        let Some(key) = item.cancelled().and_then(Key::of) else {
            // 2025-11-25 allows it without an id; the child may make of it what it likes.
            out.lines.push(item.line());
            return;
        };
        // The newest, should a client have used an id twice.
        let found = self
            .pending
            .iter()
            .rev()
            .find(|(_, p)| Key::of(&p.client_id).as_ref() == Some(&key))
            .map(|(wire, p)| (*wire, p.handshake));
        // `initialize` must not be cancelled (2025-11-25 lifecycle); an unknown id is an answered one.
        if let Some((wire, false)) = found {
            out.lines
                .push(item.edit().cancelled(&wire.to_string()).line());
            out.orders.extend(self.settle(wire, String::new(), None));
        }
    }
}
