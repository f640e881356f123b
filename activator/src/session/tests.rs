use std::{net::SocketAddr, sync::Arc};

use mcp_gateway_api::{
    ids::{ActivatorId, BackendName, Generation, SessionKey, TenantName, UpstreamSession},
    slot::{Owner, SlotKey},
    view::{Endpoint, InstanceView, Reach, Service, Stamp, ViewEvent},
};

use super::{strand::EVENTS_REMEMBERED, table::MAKE_ROOM, *};
use crate::{directory::Directory, message::classify, sse::Scanner};

mod moved;

const ONE: InstanceId = InstanceId(1);

fn about(key: u8) -> SessionRef {
    SessionRef {
        key: SessionKey([key; 24]),
        backend: BackendName::new("b").unwrap(),
        tenant: TenantName::default(),
        expires_at: 0,
    }
}

fn view(id: u128, service: Service, sequence: u64) -> InstanceView {
    InstanceView {
        id: InstanceId(id),
        slot: SlotKey {
            backend: BackendName::new("b").unwrap(),
            owner: Owner::Nobody,
        },
        tenant: TenantName::default(),
        generation: Generation(1),
        endpoint: Endpoint {
            secret: None,
            reach: Reach::Tcp(SocketAddr::from(([127, 0, 0, 1], 1))),
            host: "localhost:1".into(),
            path: "/mcp".into(),
        },
        service,
        stamp: Stamp { epoch: 1, sequence },
    }
}

fn binding(instance: InstanceId) -> SessionBinding {
    SessionBinding {
        instance,
        upstream: UpstreamSession("u".into()),
    }
}

struct Bench {
    directory: Directory,
    sessions: Sessions,
    session: Arc<Session>,
}

impl Bench {
    fn new() -> Self {
        let directory = Directory::new(ActivatorId(1));
        directory.apply_claimed(view(1, Service::Open, 1));
        let sessions = Sessions::new(100);
        sessions.follow(&directory);
        let session = sessions.enter(&about(1));
        Self {
            directory,
            sessions,
            session,
        }
    }

    /// A POST whose HTTP exchange is over, with its own lease given back.
    fn post(&self, body: &str, seconds: u64) {
        let lease = self.directory.lease(ONE).unwrap();
        let deadline = Instant::now() + Duration::from_secs(seconds);
        let message = classify(body.as_bytes()).unwrap();
        self.session
            .begin(&binding(ONE), &lease, &message, deadline);
    }

    fn passes(&self, event: &str) {
        let deadline = Instant::now() + Duration::from_secs(900);
        for event in Scanner::new().push(event.as_bytes()) {
            let from = (ONE, Strand::GET);
            self.session.observe(from, &event, None, deadline);
        }
    }

    fn leases(&self) -> bool {
        // While anything is leased, a drain finds it so.
        self.session.quiet_for(Instant::now()).is_none()
    }
}

const CALL: &str = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call"}"#;

#[tokio::test(start_paused = true)]
async fn a_request_keeps_its_lease_after_its_stream_closed_until_the_answer_passes_elsewhere() {
    let bench = Bench::new();
    bench.post(CALL, 10);
    assert!(bench.leases());
    bench.passes("id: e1\ndata: {\"id\":1,\"result\":{}}\n\n");
    assert!(!bench.leases());
    assert!(bench.session.strand_of("e1").is_some());
    assert!(bench.session.strand_of("e2").is_none());
}

#[tokio::test(start_paused = true)]
async fn a_servers_request_holds_the_instance_while_the_user_thinks() {
    let bench = Bench::new();
    bench.post(CALL, 10);
    bench.passes("data: {\"id\":\"s\",\"method\":\"elicitation/create\"}\n\ndata: {\"id\":1,\"result\":{}}\n\n");
    assert!(bench.leases());
    bench.post(r#"{"jsonrpc":"2.0","id":"s","result":{}}"#, 10);
    assert!(!bench.leases());
}

#[tokio::test(start_paused = true)]
async fn a_servers_request_whose_client_has_left_without_a_word_holds_the_instance_no_longer() {
    let asks = "data: {\"id\":\"s\",\"method\":\"roots/list\"}\n\n";
    let bench = Bench::new();
    let sweep = |seconds| {
        let at = Instant::now() + Duration::from_secs(seconds);
        bench.sessions.sweep(at);
    };
    bench.post(CALL, 900);
    bench.passes(asks);
    sweep(31);
    assert!(bench.leases(), "its own request is pending: it is there");
    bench.passes("data: {\"id\":1,\"result\":{}}\n\n");
    let stream = bench.session.open_stream(Strand::GET);
    sweep(62);
    assert!(bench.leases(), "a stream is open: it is there");
    drop(stream);
    sweep(63);
    assert!(bench.leases(), "it may come back");
    sweep(93);
    assert!(!bench.leases());
}

#[tokio::test(start_paused = true)]
async fn overdue_requests_and_lost_instances_let_go() {
    let bench = Bench::new();
    bench.post(CALL, 5);
    bench
        .sessions
        .sweep(Instant::now() + Duration::from_secs(4));
    assert!(bench.leases());
    bench
        .sessions
        .sweep(Instant::now() + Duration::from_secs(5));
    assert!(!bench.leases());
    bench.post(CALL, 5);
    bench.directory.apply(ViewEvent::Gone {
        instance: ONE,
        why: "test".into(),
        stamp: Stamp {
            epoch: 1,
            sequence: 9,
        },
    });
    bench.sessions.sweep(Instant::now());
    assert!(!bench.leases());
}

#[tokio::test(start_paused = true)]
async fn event_ids_belong_to_one_upstream_session() {
    let bench = Bench::new();
    bench.post(CALL, 10);
    bench.passes("id: e1\n\n");
    bench.session.asleep();
    assert_eq!(bench.session.binding(), None);
    assert!(bench.session.strand_of("e1").is_none());
    for n in 0..2 * EVENTS_REMEMBERED {
        bench.post(CALL, 10);
        bench.passes(&format!("id: {n}\n\n"));
    }
    assert!(bench.session.strand_of("0").is_none());
    let strands = &bench.session.state.lock().strands;
    assert_eq!(strands.remembered(), EVENTS_REMEMBERED);
}

#[tokio::test(start_paused = true)]
async fn a_wake_and_an_end_are_heard_by_whoever_waits() {
    let bench = Bench::new();
    let changed = bench.session.changed();
    tokio::pin!(changed);
    bench.post(CALL, 10);
    changed.await;
    assert_eq!(bench.session.binding(), Some(binding(ONE)));
    bench.sessions.end(&about(1).key);
    assert!(bench.session.ended().is_cancelled());
    assert!(!bench.leases());
    assert!(bench.sessions.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_newer_stream_takes_the_place_of_the_one_before() {
    let bench = Bench::new();
    let first = bench.session.open_stream(Strand::GET);
    assert!(!first.is_replaced());
    let second = bench.session.open_stream(Strand::GET);
    assert!(first.is_replaced() && !second.is_replaced());
}

#[tokio::test(start_paused = true)]
async fn only_sessions_with_nothing_to_do_are_forgotten() {
    let bench = Bench::new();
    let busy = bench.sessions.enter(&about(2));
    let lease = bench.directory.lease(ONE).unwrap();
    let call = classify(CALL.as_bytes()).unwrap();
    busy.begin(
        &binding(ONE),
        &lease,
        &call,
        Instant::now() + Duration::from_secs(10),
    );
    drop(busy);
    let _quiet = bench.sessions.enter(&about(3));
    let ticket = bench.sessions.enter(&about(4)).open_stream(Strand::GET);
    drop(bench.sessions.enter(&about(5)));
    bench.sessions.forget_quiet(Duration::ZERO);
    let known = |key| bench.sessions.get(&about(key).key).is_some();
    assert_eq!([2, 3, 4, 5].map(known), [true, true, true, false]);
    drop(ticket);
}

#[tokio::test(start_paused = true)]
async fn what_was_to_be_answered_elsewhere_and_is_lost_is_told_once() {
    let bench = Bench::new();
    let call = classify(CALL.as_bytes()).unwrap();
    bench.post(CALL, 10);
    let ticket = bench.session.open_stream(Strand::GET);
    bench.session.elsewhere(&call, Strand::GET);
    assert!(ticket.unanswered().is_empty());
    bench.directory.apply(ViewEvent::Gone {
        instance: ONE,
        why: "test".into(),
        stamp: Stamp {
            epoch: 1,
            sequence: 9,
        },
    });
    bench.sessions.sweep(Instant::now());
    assert!(!bench.leases());
    bench.session.asleep();
    assert_eq!(ticket.unanswered().len(), 1);
    assert!(ticket.unanswered().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_table_full_of_busy_sessions_grows_no_further() {
    let sessions = Sessions::new(2);
    let held: Vec<_> = (0..5).map(|key| sessions.enter(&about(key))).collect();
    assert_eq!(sessions.len(), 2);
    drop(held);
    tokio::time::advance(MAKE_ROOM).await;
    let _new = sessions.enter(&about(9));
    assert_eq!(sessions.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_session_that_found_no_room_is_found_again_and_can_be_ended() {
    let sessions = Sessions::new(1);
    let _busy = sessions.enter(&about(1));
    let late = sessions.enter(&about(2));
    assert_eq!(sessions.len(), 1);
    assert!(Arc::ptr_eq(&late, &sessions.enter(&about(2))));
    sessions.end(&about(2).key);
    assert!(late.ended().is_cancelled());
    for key in 3..200 {
        drop(sessions.enter(&about(key)));
    }
    assert!(sessions.get(&about(150).key).is_none(), "nobody has it");
}

#[tokio::test(start_paused = true)]
async fn a_session_that_ends_while_it_is_entered_leaves_no_entry() {
    let sessions = Sessions::new(100);
    let entered = sessions.enter_unless(&about(1), || {
        // Another thread's end comes just before the look, and after the entry was made.
        sessions.end(&about(1).key);
        let _made_again = sessions.enter(&about(1));
        true
    });
    assert!(entered.is_none() && sessions.is_empty());
    assert!(sessions.enter_unless(&about(1), || false).is_some());
}

#[test]
fn a_session_is_let_go_of_only_while_nothing_uses_it_and_a_late_message_looks_again() {
    let bench = Bench::new();
    let quiet = Duration::ZERO;
    bench.post(r#"{"jsonrpc":"2.0","id":1,"method":"tools/call"}"#, 60);
    assert_eq!(bench.session.release(quiet), None, "something is pending");
    bench.passes("data: {\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{}}\n\n");
    let long = Duration::from_secs(60);
    assert_eq!(bench.session.release(long), None, "used just now");
    assert_eq!(bench.session.release(quiet), Some(binding(ONE)));

    // Whoever had found it there just before must not go there any more.
    let lease = bench.directory.lease(ONE).unwrap();
    let message = classify(br#"{"jsonrpc":"2.0","id":2,"method":"tools/call"}"#).unwrap();
    let deadline = Instant::now() + long;
    let begin = |to: &SessionBinding| {
        bench
            .session
            .begin_unless_released(to, &lease, &message, deadline)
    };
    assert!(begin(&binding(ONE)).is_none());
    assert!(bench.session.is_released_from(&binding(ONE)));
    // Revived on the same instance it goes by another name.
    let again = SessionBinding {
        upstream: UpstreamSession("v".into()),
        ..binding(ONE)
    };
    assert!(begin(&again).is_some());
}

#[tokio::test]
async fn a_resumption_may_be_the_first_that_is_heard_of_a_session() {
    let bench = Bench::new();
    let strand = bench.session.strand_from_elsewhere(&binding(ONE));
    let ticket = bench.session.open_stream(strand);
    // As when it is attached upstream.
    bench.session.lives_on(&binding(ONE));
    assert!(!ticket.is_void(), "what it resumes goes on");
}
