use std::{cell::Cell, rc::Rc, time::Duration};

use proptest::prelude::*;

use super::*;
use crate::message::classify;

/// Counts the guards that live.
struct Counted(Rc<Cell<i32>>);

impl Counted {
    fn new(count: &Rc<Cell<i32>>) -> Self {
        count.set(count.get() + 1);
        Self(Rc::clone(count))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

struct Bench {
    pending: Pending<Counted>,
    count: Rc<Cell<i32>>,
    now: Instant,
}

impl Bench {
    fn new() -> Self {
        Self {
            pending: Pending::default(),
            count: Rc::default(),
            now: Instant::now(),
        }
    }

    fn client(&mut self, body: &str) {
        let message = classify(body.as_bytes()).unwrap();
        let deadline = self.now + Duration::from_secs(10);
        let count = Rc::clone(&self.count);
        self.pending
            .client_sent(&message, deadline, || Counted::new(&count));
    }

    fn server(&mut self, seen: &Seen) {
        let deadline = self.now + Duration::from_secs(10);
        let count = Rc::clone(&self.count);
        self.pending
            .server_sent(seen, deadline, |_guard| true, || Some(Counted::new(&count)));
    }

    fn leases(&self) -> i32 {
        assert_eq!(
            usize::try_from(self.count.get()).unwrap(),
            self.pending.len()
        );
        self.count.get()
    }
}

fn id(raw: &str) -> RequestId {
    RequestId::parse(raw).unwrap()
}

fn response(raw: &str) -> Seen {
    Seen::Response {
        id: Some(id(raw)),
        is_error: false,
    }
}

fn request(raw: &str) -> Seen {
    Seen::Request {
        id: id(raw),
        method: "ping".into(),
    }
}

#[test]
fn a_clients_request_is_pending_until_its_response_passes() {
    let mut bench = Bench::new();
    bench.client(r#"{"jsonrpc":"2.0","id":1,"method":"tools/call"}"#);
    assert_eq!(bench.leases(), 1);
    bench.server(&response("2"));
    assert_eq!(bench.leases(), 1);
    bench.server(&response("1.0"));
    assert_eq!(bench.leases(), 0);
}

#[test]
fn a_clients_cancellation_ends_its_own_request_only() {
    let mut bench = Bench::new();
    bench.client(r#"{"jsonrpc":"2.0","id":"a","method":"tools/call"}"#);
    bench.server(&request("\"a\""));
    assert_eq!(bench.leases(), 2);
    bench.client(
        r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":"a"}}"#,
    );
    assert_eq!(bench.leases(), 1);
    bench.client(r#"{"jsonrpc":"2.0","id":"a","result":{}}"#);
    assert_eq!(bench.leases(), 0);
}

#[test]
fn a_servers_request_is_pending_until_it_is_answered_or_withdrawn() {
    let mut bench = Bench::new();
    bench.server(&request("1"));
    bench.server(&request("2"));
    bench.server(&Seen::Notification {
        method: "notifications/cancelled".into(),
        request_id: Some(id("2")),
    });
    assert_eq!(bench.leases(), 1);
    bench.client(r#"{"jsonrpc":"2.0","id":1,"error":{"code":-1,"message":"no"}}"#);
    assert_eq!(bench.leases(), 0);
}

#[test]
fn a_batch_counts_each_request_in_it() {
    let mut bench = Bench::new();
    let body = r#"[{"jsonrpc":"2.0","id":1,"method":"a"},{"jsonrpc":"2.0","id":2,"method":"b"},{"jsonrpc":"2.0","method":"c"}]"#;
    bench.client(body);
    assert_eq!(bench.leases(), 2);
    bench.pending.answered(&classify(body.as_bytes()).unwrap());
    assert_eq!(bench.leases(), 0);
}

#[test]
fn what_is_overdue_or_not_to_be_kept_is_forgotten() {
    let mut bench = Bench::new();
    bench.client(r#"{"jsonrpc":"2.0","id":1,"method":"a"}"#);
    bench.now += Duration::from_secs(5);
    bench.client(r#"{"jsonrpc":"2.0","id":2,"method":"a"}"#);
    let now = bench.now + Duration::from_secs(5);
    bench.pending.sweep(now, |_| true);
    assert_eq!(bench.leases(), 1);
    bench.pending.sweep(now, |_| false);
    assert_eq!(bench.leases(), 0);
}

#[test]
fn the_number_accounted_for_is_bounded() {
    let mut bench = Bench::new();
    for n in 0..2 * MAX_PENDING {
        bench.server(&request(&n.to_string()));
    }
    assert_eq!(bench.pending.len(), MAX_PENDING);
    assert_eq!(usize::try_from(bench.leases()).unwrap(), MAX_PENDING);
}

proptest! {
    #[test]
    fn the_leases_are_what_a_plain_model_says(steps in proptest::collection::vec((0..6_u8, 0..4_u8), 0..100)) {
        let mut bench = Bench::new();
        let mut model = std::collections::HashSet::new();
        for (step, n) in steps {
            match step {
                0 => {
                    bench.client(&format!(r#"{{"jsonrpc":"2.0","id":{n},"method":"a"}}"#));
                    model.insert((0, n));
                }
                1 => {
                    bench.server(&response(&n.to_string()));
                    model.remove(&(0, n));
                }
                2 => {
                    bench.server(&request(&n.to_string()));
                    model.insert((1, n));
                }
                3 => {
                    bench.client(&format!(r#"{{"jsonrpc":"2.0","id":{n},"result":{{}}}}"#));
                    model.remove(&(1, n));
                }
                4 => {
                    bench.client(&format!(r#"{{"jsonrpc":"2.0","method":"notifications/cancelled","params":{{"requestId":{n}}}}}"#));
                    model.remove(&(0, n));
                }
                _ => {
                    bench.pending.clear();
                    model.clear();
                }
            }
            prop_assert_eq!(usize::try_from(bench.leases()).unwrap(), model.len());
        }
    }
}
