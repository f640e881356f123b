//! What a child says, on its way to its clients, and what the bridge itself says to either.

use std::{collections::VecDeque, sync::atomic::Ordering};

use tokio::time::Instant;

use super::{Line, Worker};
use crate::bridge::{
    message::Message,
    outlet::Outlet,
    router::{ExchangeId, Order},
};

impl Worker {
    /// Puts a message of our own on the GET stream, if there is one.
    pub(in crate::bridge) async fn say(&self, text: String) {
        let number = self.inner.lock().passive.as_ref().map(|(n, _)| *n);
        if let Some(number) = number {
            self.carry_out(vec![Order::Passive(number, text)]).await;
        }
    }

    /// Our own lines to the child: few and small (at most one for each open request and each waiting message).
    pub(super) fn write_all(&self, orders: Vec<Order>) {
        for order in orders {
            if let Order::Child(line) = order {
                self.write(line);
            }
        }
    }

    fn write(&self, mut line: String) {
        line.push('\n');
        let full = self.stdin.try_send(Line {
            text: line,
            _room: None,
        });
        if full.is_err() {
            tracing::debug!(
                child = self.number,
                "the child reads nothing; a line was dropped"
            );
        }
    }

    /// Takes a line of the child. `false`: it is no message.
    pub(in crate::bridge) async fn heard(&self, line: &str) -> bool {
        let items = match Message::batch(line) {
            Some(items) => items,
            None => Message::parse(line).map(|m| vec![m]),
        };
        let Ok(items) = items else {
            return false;
        };
        self.spoke.store(true, Ordering::Release);
        for item in items {
            let orders = self.inner.lock().router.route(&item, Instant::now());
            self.carry_out(orders).await;
        }
        true
    }

    pub(super) async fn carry_out(&self, orders: Vec<Order>) {
        let mut work = VecDeque::from(orders);
        while let Some(mut order) = work.pop_front() {
            let (outlet, text, answers) = match &mut order {
                Order::Child(line) => {
                    self.write(std::mem::take(line));
                    continue;
                }
                Order::Post {
                    exchange,
                    text,
                    answers,
                } => {
                    let last = answers.is_some_and(|a| a.last);
                    (self.post_outlet(*exchange, last), text, *answers)
                }
                Order::Passive(number, text) => (self.passive_outlet(*number), text, None),
            };
            let sent = match outlet {
                Some(outlet) => outlet.send(text, answers).await.is_ok(),
                None => false,
            };
            if !sent {
                let mut inner = self.inner.lock();
                if let Order::Post { exchange, .. } = &order {
                    inner.posts.remove(exchange);
                }
                work.extend(inner.router.returned(order, Instant::now()));
            }
        }
    }

    fn post_outlet(&self, exchange: ExchangeId, last: bool) -> Option<Outlet> {
        let mut inner = self.inner.lock();
        if last {
            inner.posts.remove(&exchange)
        } else {
            inner.posts.get(&exchange).cloned()
        }
    }

    fn passive_outlet(&self, number: u64) -> Option<Outlet> {
        let inner = self.inner.lock();
        let (n, outlet) = inner.passive.as_ref()?;
        (*n == number).then(|| outlet.clone())
    }
}
