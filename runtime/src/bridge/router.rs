//! Which stream gets which message of a child, and under which ids: the bridge's switchboard, pure.
//!
//! One router per child. A client's request is given a *wire id* of the child's own, so that ids of several exchanges
//! (or of one client that repeats itself) never collide there; the answer gets the client's id back, as it was written.
//! Where several clients share a child (modern) progress tokens and subscription ids are exchanged likewise; in a
//! legacy session they belong to one client and stay, since a task may report progress long after its request.
//!
//! Invariants: every admitted request is answered, dropped or lost exactly once; a message of the child goes to at most
//! one stream; the backlog and the number of open requests are bounded. Never performs IO, never reads a clock.

use std::collections::{BTreeMap, HashMap};

use tokio::time::Instant;

use super::{
    backlog::Backlog,
    message::{Key, Kind, Message},
};

#[cfg(test)]
mod tests;

/// Most requests of one child that may be open at once.
pub(super) const MAX_OPEN: usize = 1_024;

/// How the streams of a child's clients are laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// A session of 2025-03-26 to 2025-11-25: a stream per POST, and one GET stream.
    Legacy,
    /// A session of 2024-11-05: everything on the one GET stream.
    OneStream,
    /// Exchanges of 2026-07-28, which know nothing of each other.
    Modern,
}

/// One POST that holds requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct ExchangeId(u64);

/// Which request of an exchange a message answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Answers {
    /// Its position among the exchange's requests.
    pub(super) index: usize,
    /// The error's code, if it is one.
    pub(super) error: Option<i64>,
    /// Whether nothing will follow.
    pub(super) last: bool,
}

/// What is to be done with a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Order {
    /// Send it on the stream of this exchange.
    Post {
        /// Which.
        exchange: ExchangeId,
        /// The message; empty when a request was cancelled and nothing more is to be expected.
        text: String,
        /// `Some` when it ends a request.
        answers: Option<Answers>,
    },
    /// Send it on the GET stream of this number.
    Passive(u64, String),
    /// Write it to the child.
    Child(String),
}

/// What became of a POST.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Admitted {
    /// Present when it holds requests that are answered on a stream of their own.
    pub(super) exchange: Option<ExchangeId>,
    /// To be written to the child, in this order.
    pub(super) lines: Vec<String>,
    /// Waiting messages that go first on the new stream.
    pub(super) first: Vec<String>,
    /// Streams that end because the POST cancels their requests.
    pub(super) orders: Vec<Order>,
}

/// The child has as many open requests as it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Full;

/// The session has a GET stream already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Taken;

#[derive(Debug)]
struct Exchange {
    open: bool,
    left: usize,
    /// Answers `initialize`: nothing else may go there, since clients read the first message as the answer.
    handshake: bool,
    listens: bool,
    wants_logs: bool,
}

#[derive(Debug)]
struct Pending {
    exchange: ExchangeId,
    index: usize,
    client_id: String,
    token: Option<String>,
    handshake: bool,
}

/// The state of one child's traffic.
#[derive(Debug)]
pub(super) struct Router {
    mode: Mode,
    last_wire: i64,
    last_exchange: u64,
    exchanges: BTreeMap<ExchangeId, Exchange>,
    pending: BTreeMap<i64, Pending>,
    /// Legacy: the client's token → wire id.
    tokens: HashMap<Key, i64>,
    passive: Option<u64>,
    last_passive: u64,
    backlog: Backlog,
}

impl Router {
    /// A router without traffic.
    pub(super) fn new(mode: Mode) -> Self {
        Self {
            mode,
            last_wire: 0,
            last_exchange: 0,
            exchanges: BTreeMap::new(),
            pending: BTreeMap::new(),
            tokens: HashMap::new(),
            passive: None,
            last_passive: 0,
            backlog: Backlog::default(),
        }
    }

    /// Decides what the child is used for. Only before its first exchange.
    pub(super) const fn set_mode(&mut self, mode: Mode) {
        self.mode = mode;
    }

    /// How its streams are laid out.
    pub(super) const fn mode(&self) -> Mode {
        self.mode
    }

    /// Requests not yet answered.
    pub(super) fn open_requests(&self) -> usize {
        self.pending.len()
    }

    /// Takes what a client posted.
    ///
    /// # Errors
    /// When too many requests are open already; nothing has changed then.
    pub(super) fn admit(&mut self, items: &[Message<'_>]) -> Result<Admitted, Full> {
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

    /// Ends a request: takes it out and says where its answer goes, if anybody waits for it.
    fn settle(&mut self, wire: i64, text: String, error: Option<i64>) -> Option<Order> {
        let pending = self.pending.remove(&wire)?;
        if self.mode != Mode::Modern
            && let Some(key) = pending.token.as_deref().and_then(Key::of)
            && self.tokens.get(&key) == Some(&wire)
        {
            self.tokens.remove(&key);
        }
        let exchange = self.exchanges.get_mut(&pending.exchange)?;
        exchange.left -= 1;
        let (open, last) = (exchange.open, exchange.left == 0);
        if last {
            self.exchanges.remove(&pending.exchange);
        }
        if self.mode == Mode::OneStream {
            return self
                .passive
                .filter(|_| !text.is_empty())
                .map(|stream| Order::Passive(stream, text));
        }
        open.then_some(Order::Post {
            exchange: pending.exchange,
            text,
            answers: Some(Answers {
                index: pending.index,
                error,
                last,
            }),
        })
    }

    /// Routes a message of the child.
    pub(super) fn route(&mut self, message: &Message<'_>, now: Instant) -> Vec<Order> {
        match message.kind {
            Kind::Response { error } => self.answer(message, error).into_iter().collect(),
            Kind::Request if self.mode == Mode::Modern => vec![Order::Child(refusal(
                message.id().unwrap_or("null"),
                -32601,
                "servers send no requests in 2026-07-28",
            ))],
            Kind::Notification if self.mode == Mode::Modern => {
                self.modern_notification(message).into_iter().collect()
            }
            Kind::Request | Kind::Notification => {
                let to = message
                    .token()
                    .filter(|_| message.method() == "notifications/progress")
                    .and_then(Key::of)
                    .and_then(|key| self.tokens.get(&key))
                    .and_then(|wire| self.pending.get(wire))
                    .map(|p| p.exchange)
                    .filter(|e| self.exchanges.get(e).is_some_and(|e| e.open));
                let asks = (message.kind == Kind::Request).then(|| message.id().unwrap_or("null"));
                self.place(message.line(), asks, to, now)
            }
        }
    }

    fn answer(&mut self, message: &Message<'_>, error: Option<i64>) -> Option<Order> {
        let Some(Key::Int(wire)) = message.id().and_then(Key::of) else {
            return None;
        };
        let client_id = self.pending.get(&wire)?.client_id.clone();
        let mut edit = message.edit().id(&client_id);
        if self.mode == Mode::Modern && names(message.subscription(), wire) {
            edit = edit.subscription(&client_id);
        }
        let text = edit.line();
        self.settle(wire, text, error)
    }

    /// Finds the stream for a message that answers nothing: the given one, else the newest open request's, else GET,
    /// else the backlog.
    fn place(
        &mut self,
        text: String,
        asks: Option<&str>,
        to: Option<ExchangeId>,
        now: Instant,
    ) -> Vec<Order> {
        let newest = || {
            self.exchanges
                .iter()
                .rev()
                .find(|(_, e)| e.open && !e.handshake)
                .map(|(id, _)| *id)
        };
        if self.mode != Mode::OneStream
            && let Some(exchange) = to.or_else(newest)
        {
            return vec![Order::Post {
                exchange,
                text,
                answers: None,
            }];
        }
        if let Some(stream) = self.passive {
            return vec![Order::Passive(stream, text)];
        }
        let evicted = self.backlog.push(text, asks.map(str::to_owned), now);
        evicted.iter().map(|id| undeliverable(id)).collect()
    }

    fn modern_notification(&mut self, message: &Message<'_>) -> Option<Order> {
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

    /// The stream an order was for is gone: where else it can go.
    pub(super) fn returned(&mut self, order: Order, now: Instant) -> Vec<Order> {
        match order {
            Order::Post {
                exchange,
                text,
                answers: None,
            } => {
                let mut out = self.close(exchange);
                if self.mode == Mode::Legacy {
                    out.extend(self.again(text, now));
                }
                out
            }
            Order::Post { .. } | Order::Child(_) => Vec::new(),
            Order::Passive(stream, text) => {
                self.close_passive(stream);
                if self.mode == Mode::Legacy {
                    self.again(text, now)
                } else {
                    Vec::new()
                }
            }
        }
    }

    fn again(&mut self, text: String, now: Instant) -> Vec<Order> {
        let asks = Message::parse(&text)
            .ok()
            .filter(|m| m.kind == Kind::Request)
            .and_then(|m| m.id().map(str::to_owned));
        self.place(text, asks.as_deref(), None, now)
    }

    /// The client of an exchange has gone. Modern: that is a cancel, of which the child is told. Legacy: its answer is
    /// still awaited, and thrown away.
    pub(super) fn close(&mut self, exchange: ExchangeId) -> Vec<Order> {
        if self.mode != Mode::Modern {
            if let Some(exchange) = self.exchanges.get_mut(&exchange) {
                exchange.open = false;
            }
            return Vec::new();
        }
        self.exchanges.remove(&exchange);
        let gone: Vec<i64> = self
            .pending
            .iter()
            .filter(|(_, p)| p.exchange == exchange)
            .map(|(wire, _)| *wire)
            .collect();
        for wire in &gone {
            self.pending.remove(wire);
        }
        gone.iter()
            .map(|wire| Order::Child(cancelled(*wire)))
            .collect()
    }

    /// Opens the GET stream; the number names it to [`Router::close_passive`], the texts go on it first.
    ///
    /// # Errors
    /// There is one already.
    pub(super) fn open_passive(&mut self) -> Result<(u64, Vec<String>), Taken> {
        if self.passive.is_some() {
            return Err(Taken);
        }
        self.last_passive += 1;
        self.passive = Some(self.last_passive);
        Ok((self.last_passive, self.backlog.drain()))
    }

    /// That GET stream has closed.
    pub(super) fn close_passive(&mut self, stream: u64) {
        if self.passive == Some(stream) {
            self.passive = None;
        }
    }

    /// The ids of the open requests whose answers belong on the one stream of a 2024-11-05 session.
    pub(super) fn unanswered(&self) -> Vec<String> {
        if self.mode != Mode::OneStream {
            return Vec::new();
        }
        self.pending.values().map(|p| p.client_id.clone()).collect()
    }

    /// When the next waiting server request may be overdue.
    pub(super) fn oldest_question(&self) -> Option<Instant> {
        self.backlog.oldest_question()
    }

    /// Answers in the client's stead the server requests that have waited since before `cutoff`.
    pub(super) fn give_up(&mut self, cutoff: Instant) -> Vec<Order> {
        let overdue = self.backlog.overdue(cutoff);
        overdue.iter().map(|id| undeliverable(id)).collect()
    }
}

fn wire_of(raw: &str) -> Option<i64> {
    match Key::of(raw)? {
        Key::Int(wire) => Some(wire),
        // Some servers turn ids into strings on the way.
        Key::Text(text) => text.parse().ok(),
        Key::Other(_) => None,
    }
}

fn names(raw: Option<&str>, wire: i64) -> bool {
    raw.and_then(wire_of) == Some(wire)
}

fn undeliverable(id: &str) -> Order {
    Order::Child(refusal(
        id,
        -32603,
        "no client stream could take the request",
    ))
}

fn refusal(id: &str, code: i64, message: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":{code},"message":"{message}"}}}}"#)
}

fn cancelled(wire: i64) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","method":"notifications/cancelled","params":{{"requestId":{wire},"reason":"the client has gone"}}}}"#
    )
}
