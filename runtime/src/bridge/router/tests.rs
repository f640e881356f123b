use std::{collections::BTreeMap, time::Duration};

use proptest::prelude::*;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{ExchangeId, MAX_OPEN, Mode, Order, Router};
use crate::bridge::{backlog, message::Message};

fn admit(router: &mut Router, body: &Value) -> super::Admitted {
    let text = body.to_string();
    let items = match Message::batch(&text) {
        Some(items) => items.unwrap(),
        None => vec![Message::parse(&text).unwrap()],
    };
    router.admit(&items).unwrap()
}

fn route(router: &mut Router, body: &Value) -> Vec<Order> {
    route_at(router, body, Instant::now())
}

fn route_at(router: &mut Router, body: &Value, now: Instant) -> Vec<Order> {
    let text = body.to_string();
    router.route(&Message::parse(&text).unwrap(), now)
}

fn request(id: &Value) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": {"_meta": {"progressToken": id}}})
}

fn wire(line: &str) -> i64 {
    serde_json::from_str::<Value>(line).unwrap()["id"]
        .as_i64()
        .unwrap()
}

fn note(method: &str, params: &Value) -> Value {
    json!({"jsonrpc": "2.0", "method": method, "params": params})
}

#[test]
fn a_server_message_goes_to_the_newest_open_request_then_get_then_waits() {
    let mut router = Router::new(Mode::Legacy);
    let message = note("notifications/message", &json!({}));
    assert_eq!(route(&mut router, &message), []);
    let old = admit(&mut router, &request(&json!(1)));
    assert_eq!(old.first.len(), 1, "what waited goes first");
    let new = admit(&mut router, &request(&json!(2))).exchange.unwrap();
    let to = |orders: Vec<Order>| match orders.as_slice() {
        [
            Order::Post {
                exchange,
                answers: None,
                ..
            },
        ] => Some(*exchange),
        [Order::Passive(..)] => None,
        other => panic!("{other:?}"),
    };
    assert_eq!(to(route(&mut router, &message)), Some(new));
    router.close(new);
    assert_eq!(to(route(&mut router, &message)), old.exchange);
    router.close(old.exchange.unwrap());
    router.open_passive().unwrap();
    assert_eq!(to(route(&mut router, &message)), None);
}

#[test]
fn progress_goes_to_the_request_of_its_token_even_after_newer_ones() {
    let mut router = Router::new(Mode::Legacy);
    let old = admit(&mut router, &request(&json!("old")))
        .exchange
        .unwrap();
    admit(&mut router, &request(&json!("new")));
    let progress = note("notifications/progress", &json!({"progressToken": "old"}));
    let orders = route(&mut router, &progress);
    assert!(matches!(orders.as_slice(), [Order::Post { exchange, .. }] if *exchange == old));
}

#[test]
fn nothing_but_the_answer_goes_on_the_stream_of_initialize() {
    let mut router = Router::new(Mode::Legacy);
    let body = json!({"id": 1, "method": "initialize", "params": {}});
    let wire = wire(&admit(&mut router, &body).lines[0]);
    assert_eq!(
        route(&mut router, &note("notifications/message", &json!({}))),
        []
    );
    let cancel = note("notifications/cancelled", &json!({"requestId": 1}));
    assert_eq!(admit(&mut router, &cancel).lines, Vec::<String>::new());
    let orders = route(&mut router, &json!({"id": wire, "result": {}}));
    assert!(matches!(
        orders.as_slice(),
        [Order::Post {
            answers: Some(_),
            ..
        }]
    ));
    assert_eq!(router.open_passive().unwrap().1.len(), 1);
}

#[test]
fn a_stream_that_turned_out_to_be_gone_returns_its_message_to_the_next() {
    let mut router = Router::new(Mode::Legacy);
    let exchange = admit(&mut router, &request(&json!(1))).exchange.unwrap();
    let (stream, _) = router.open_passive().unwrap();
    let mut orders = route(&mut router, &note("notifications/x", &json!({})));
    let order = orders.pop().unwrap();
    assert!(matches!(&order, Order::Post { exchange: e, .. } if *e == exchange));
    let mut orders = router.returned(order, Instant::now());
    let order = orders.pop().unwrap();
    assert!(matches!(&order, Order::Passive(s, _) if *s == stream));
    assert_eq!(router.returned(order, Instant::now()), []);
    assert_eq!(router.open_passive().unwrap().1.len(), 1, "it waits");
}

#[test]
fn a_question_that_is_pushed_out_of_the_backlog_is_answered() {
    let mut router = Router::new(Mode::Legacy);
    let ask = json!({"jsonrpc": "2.0", "id": "q", "method": "roots/list"});
    assert_eq!(route(&mut router, &ask), []);
    let mut answered = Vec::new();
    for _ in 0..backlog::MAX_COUNT {
        answered.extend(route(&mut router, &note("notifications/x", &json!({}))));
    }
    let [Order::Child(line)] = answered.as_slice() else {
        panic!("{answered:?}");
    };
    let line: Value = serde_json::from_str(line).unwrap();
    assert_eq!(
        (&line["id"], &line["error"]["code"]),
        (&json!("q"), &json!(-32603))
    );
}

#[test]
fn only_overdue_questions_are_given_up() {
    let mut router = Router::new(Mode::Legacy);
    let start = Instant::now();
    let ask = |n: i64| json!({"jsonrpc": "2.0", "id": n, "method": "ping"});
    route_at(&mut router, &ask(1), start);
    route_at(&mut router, &ask(2), start + Duration::from_secs(10));
    assert_eq!(router.oldest_question(), Some(start));
    assert_eq!(router.give_up(start + Duration::from_secs(5)).len(), 1);
    assert_eq!(
        router.oldest_question(),
        Some(start + Duration::from_secs(10))
    );
}

#[test]
fn a_child_holds_only_so_many_open_requests() {
    let mut router = Router::new(Mode::Legacy);
    for n in 0..MAX_OPEN {
        admit(&mut router, &request(&json!(n)));
    }
    let text = request(&json!("more")).to_string();
    let more = Message::parse(&text).unwrap();
    assert!(router.admit(std::slice::from_ref(&more)).is_err());
    route(&mut router, &json!({"id": 1, "result": {}}));
    assert!(router.admit(&[more]).is_ok());
}

#[test]
fn modern_log_messages_go_to_who_asked_for_logs_and_never_to_a_listener() {
    let mut router = Router::new(Mode::Modern);
    let mut with_logs = request(&json!(1));
    with_logs["params"]["_meta"]["io.modelcontextprotocol/logLevel"] = json!("info");
    let logs = admit(&mut router, &with_logs).exchange.unwrap();
    let plain = admit(&mut router, &request(&json!(2))).exchange.unwrap();
    let mut listen = request(&json!(3));
    listen["method"] = json!("subscriptions/listen");
    admit(&mut router, &listen);
    let message = note("notifications/message", &json!({}));
    let target = |orders: Vec<Order>| match orders.as_slice() {
        [Order::Post { exchange, .. }] => Some(*exchange),
        [] => None,
        other => panic!("{other:?}"),
    };
    assert_eq!(target(route(&mut router, &message)), Some(logs));
    router.close(logs);
    assert_eq!(target(route(&mut router, &message)), Some(plain));
    router.close(plain);
    assert_eq!(target(route(&mut router, &message)), None);
}

#[test]
fn a_modern_server_that_asks_is_told_that_it_may_not() {
    let mut router = Router::new(Mode::Modern);
    let orders = route(&mut router, &json!({"id": "a", "method": "roots/list"}));
    assert!(matches!(orders.as_slice(), [Order::Child(line)] if line.contains(r#""id":"a""#)));
}

#[derive(Debug, Clone)]
enum Step {
    Post(Vec<u8>),
    Answer(usize),
    AnswerUnknown,
    Progress(usize),
    Ask,
    Note,
    Cancel(u8),
    Leave(usize),
    Listen,
    Unlisten,
    GiveUp,
    Bounce(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => prop::collection::vec(0_u8..4, 1..4).prop_map(Step::Post),
        4 => any::<usize>().prop_map(Step::Answer),
        1 => Just(Step::AnswerUnknown),
        2 => any::<usize>().prop_map(Step::Progress),
        1 => Just(Step::Ask),
        1 => Just(Step::Note),
        1 => (0_u8..4).prop_map(Step::Cancel),
        2 => any::<usize>().prop_map(Step::Leave),
        1 => Just(Step::Listen),
        1 => Just(Step::Unlisten),
        1 => Just(Step::GiveUp),
        1 => any::<usize>().prop_map(Step::Bounce),
    ]
}

/// What the world outside the router knows.
struct World {
    router: Router,
    mode: Mode,
    now: Instant,
    /// Wire id → exchange, position, client id.
    open: BTreeMap<i64, (ExchangeId, usize, Value)>,
    /// Exchanges whose client is there, with the requests they still wait for.
    streams: BTreeMap<ExchangeId, usize>,
    passive: Option<u64>,
}

impl World {
    fn new(mode: Mode) -> Self {
        Self {
            router: Router::new(mode),
            mode,
            now: Instant::now(),
            open: BTreeMap::new(),
            streams: BTreeMap::new(),
            passive: None,
        }
    }

    fn nth<K: Copy + Ord, V>(map: &BTreeMap<K, V>, n: usize) -> Option<K> {
        map.keys().nth(n.checked_rem(map.len())?).copied()
    }

    fn route(&mut self, body: &Value) -> Vec<Order> {
        self.now += Duration::from_secs(1);
        route_at(&mut self.router, body, self.now)
    }

    /// A message that answers nothing may only go where somebody is.
    fn check_free(&self, orders: &[Order]) {
        match orders {
            [
                Order::Post {
                    exchange, answers, ..
                },
            ] => {
                assert!(self.streams.contains_key(exchange));
                assert_eq!(*answers, None);
            }
            [Order::Passive(stream, _)] => assert_eq!(Some(*stream), self.passive),
            [] => {}
            other => assert!(other.iter().all(|o| matches!(o, Order::Child(_)))),
        }
    }

    fn post(&mut self, ids: &[u8]) {
        let ids: Vec<Value> = ids.iter().map(|id| json!(format!("id-{id}"))).collect();
        let body = if ids.len() == 1 || self.mode == Mode::Modern {
            request(&ids[0])
        } else {
            Value::Array(ids.iter().map(request).collect())
        };
        let admitted = admit(&mut self.router, &body);
        let exchange = admitted.exchange.unwrap();
        for (index, line) in admitted.lines.iter().enumerate() {
            let sent: Value = serde_json::from_str(line).unwrap();
            let wire = sent["id"].as_i64().unwrap();
            let token = &sent["params"]["_meta"]["progressToken"];
            if self.mode == Mode::Modern {
                assert_eq!(*token, json!(wire));
            } else {
                assert_eq!(*token, ids[index]);
            }
            let fresh = self
                .open
                .insert(wire, (exchange, index, ids[index].clone()));
            assert!(fresh.is_none(), "wire ids are never used twice");
        }
        self.streams.insert(exchange, admitted.lines.len());
    }

    fn settled(&mut self, wire: i64, orders: &[Order], text_expected: bool) {
        let (exchange, index, id) = self.open.remove(&wire).unwrap();
        let Some(left) = self.streams.get_mut(&exchange) else {
            assert_eq!(orders, [], "nobody waits for it");
            return;
        };
        *left -= 1;
        let last = *left == 0;
        let [
            Order::Post {
                exchange: to,
                text,
                answers: Some(answers),
            },
        ] = orders
        else {
            panic!("{orders:?}");
        };
        assert_eq!((*to, answers.index, answers.last), (exchange, index, last));
        if text_expected {
            assert_eq!(serde_json::from_str::<Value>(text).unwrap()["id"], id);
        } else {
            assert_eq!(text, "");
        }
        if last {
            self.streams.remove(&exchange);
        }
    }

    fn leave(&mut self, exchange: ExchangeId) {
        self.streams.remove(&exchange);
        let orders = self.router.close(exchange);
        self.left(exchange, &orders);
    }

    fn left(&mut self, exchange: ExchangeId, orders: &[Order]) {
        if self.mode != Mode::Modern {
            return;
        }
        let before = self.open.len();
        self.open.retain(|_, (e, _, _)| *e != exchange);
        let cancels = orders.iter().filter(
            |o| matches!(o, Order::Child(line) if line.contains("notifications/cancelled")),
        );
        assert_eq!(cancels.count(), before - self.open.len());
    }

    fn progress(&mut self, n: usize) {
        let Some(wire) = Self::nth(&self.open, n) else {
            return;
        };
        let (exchange, _, id) = self.open[&wire].clone();
        let token = if self.mode == Mode::Modern {
            json!(wire)
        } else {
            id.clone()
        };
        let body = note("notifications/progress", &json!({"progressToken": token}));
        let orders = self.route(&body);
        if self.mode == Mode::Modern {
            let [
                Order::Post {
                    exchange: to,
                    text,
                    answers: None,
                },
            ] = orders.as_slice()
            else {
                panic!("{orders:?}");
            };
            assert_eq!(*to, exchange);
            let text: Value = serde_json::from_str(text).unwrap();
            assert_eq!(text["params"]["progressToken"], id);
        } else {
            self.check_free(&orders);
        }
    }

    fn cancel(&mut self, id: u8) {
        let id = json!(format!("id-{id}"));
        let known = self.open.iter().rev().find(|(_, (_, _, i))| *i == id);
        let known = known.map(|(wire, _)| *wire);
        let admitted = admit(
            &mut self.router,
            &note("notifications/cancelled", &json!({"requestId": id})),
        );
        assert_eq!(admitted.exchange, None);
        match known {
            None => assert_eq!(admitted.lines, Vec::<String>::new()),
            Some(wire) => {
                let line: Value = serde_json::from_str(&admitted.lines[0]).unwrap();
                assert_eq!(line["params"]["requestId"], json!(wire));
                self.settled(wire, &admitted.orders, false);
            }
        }
    }

    fn bounce(&mut self, n: usize) {
        // A message meets a stream whose client has just gone.
        if self.mode == Mode::Modern || self.streams.is_empty() {
            return;
        }
        let orders = self.route(&note("notifications/x", &json!({"n": n})));
        let [order @ Order::Post { exchange, .. }] = orders.as_slice() else {
            panic!("{orders:?}");
        };
        self.streams.remove(exchange);
        let orders = self.router.returned(order.clone(), self.now);
        self.check_free(&orders);
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Post(ids) => self.post(&ids),
            Step::Answer(n) => {
                if let Some(wire) = Self::nth(&self.open, n) {
                    let orders = self.route(&json!({"id": wire, "result": {}}));
                    self.settled(wire, &orders, true);
                }
            }
            Step::AnswerUnknown => {
                let orders = self.route(&json!({"id": 1_000_000, "result": {}}));
                assert_eq!(orders, []);
            }
            Step::Progress(n) => self.progress(n),
            Step::Ask if self.mode == Mode::Modern => {}
            Step::Ask => {
                let orders = self.route(&json!({"id": "q", "method": "roots/list"}));
                self.check_free(&orders);
            }
            Step::Note => {
                let orders = self.route(&note("notifications/x", &json!({})));
                self.check_free(&orders);
            }
            Step::Cancel(id) => {
                if self.mode == Mode::Legacy {
                    self.cancel(id);
                }
            }
            Step::Leave(n) => {
                if let Some(exchange) = Self::nth(&self.streams, n) {
                    self.leave(exchange);
                }
            }
            Step::Listen => match (self.router.open_passive(), self.passive) {
                (Ok((stream, _)), None) => self.passive = Some(stream),
                (Err(_), Some(_)) => {}
                other => panic!("{other:?}"),
            },
            Step::Unlisten => {
                if let Some(stream) = self.passive.take() {
                    self.router.close_passive(stream);
                }
            }
            Step::GiveUp => {
                for order in self.router.give_up(self.now) {
                    assert!(matches!(order, Order::Child(_)));
                }
                assert_eq!(self.router.oldest_question(), None);
            }
            Step::Bounce(n) => self.bounce(n),
        }
        assert_eq!(self.router.open_requests(), self.open.len());
    }
}

proptest! {
    #[test]
    fn every_request_is_settled_once_under_its_own_id_and_no_message_meets_two_streams(
        modern in any::<bool>(),
        steps in prop::collection::vec(step(), 1..120),
    ) {
        let mut world = World::new(if modern { Mode::Modern } else { Mode::Legacy });
        for step in steps {
            world.take(step);
        }
        // Whatever is still open can still be settled.
        while let Some(wire) = world.open.keys().next().copied() {
            let orders = world.route(&json!({"id": wire, "error": {"code": 1, "message": ""}}));
            world.settled(wire, &orders, true);
        }
        prop_assert!(world.streams.is_empty());
    }
}
