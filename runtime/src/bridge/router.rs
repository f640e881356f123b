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

mod intake;
mod modern;
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
        let wire = modern::wire_of(message.id()?)?;
        let client_id = self.pending.get(&wire)?.client_id.clone();
        let mut edit = message.edit().id(&client_id);
        if self.mode == Mode::Modern && modern::names(message.subscription(), wire) {
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
