//! A session that has moved while something of it ran where it was.

use super::*;

/// A backend was edited while a call ran here, and the session was revived through another activator.
#[tokio::test(start_paused = true)]
async fn a_call_that_runs_where_its_session_was_is_neither_called_off_nor_without_its_lease() {
    let bench = Bench::new();
    let leases = || bench.directory.leases();
    let call = classify(CALL.as_bytes()).unwrap();
    let deadline = Instant::now() + Duration::from_secs(900);
    let on_one = bench.directory.lease(ONE).unwrap();
    let strand = bench.session.begin(&binding(ONE), &on_one, &call, deadline);
    drop(on_one);
    let asks = |id| format!("data: {{\"id\":\"{id}\",\"method\":\"elicitation/create\"}}\n\n");
    let hears = |from, text: &str| {
        for event in Scanner::new().push(text.as_bytes()) {
            bench.session.observe(from, &event, None, deadline);
        }
    };
    hears((ONE, strand), &asks("before"));
    hears((ONE, Strand::GET), &asks("aside"));
    assert_eq!(leases(), 3);

    bench.directory.apply_claimed(view(2, Service::Open, 2));
    let (two, next) = (binding(InstanceId(2)), CALL.replace("1,", "2,"));
    let next = classify(next.as_bytes()).unwrap();
    let on_two = bench.directory.lease(two.instance).unwrap();
    let _strand = bench.session.begin(&two, &on_two, &next, deadline);
    drop(on_two);
    assert!(bench.session.awaits(&call), "it is not called off");
    hears((ONE, strand), &asks("after"));
    assert_eq!(leases(), 5, "and keeps its instance, as does what it asks");

    let answer = |id| format!(r#"{{"jsonrpc":"2.0","id":"{id}","result":{{}}}}"#);
    for id in ["before", "after"] {
        let answer = classify(answer(id).as_bytes()).unwrap();
        let (lease, at) = bench.session.runs_behind(&answer, Some(&two)).unwrap();
        assert_eq!((lease.instance(), at), (ONE, binding(ONE)));
        bench.session.told_behind(&answer);
        assert!(bench.session.runs_behind(&answer, Some(&two)).is_none());
    }
    // What passes where the session is now means nothing there.
    hears(
        (two.instance, Strand::GET),
        "data: {\"id\":1,\"result\":{}}\n\n",
    );
    assert!(bench.session.awaits(&call));
    hears((ONE, strand), "data: {\"id\":1,\"result\":{}}\n\n");
    assert!(!bench.session.awaits(&call));
    bench.sessions.sweep(Instant::now());
    assert_eq!(leases(), 1, "of what was asked there nothing is left");
    assert!(bench.session.awaits(&next));
}

#[tokio::test(start_paused = true)]
async fn a_session_that_is_lost_calls_off_what_runs_there_and_nothing_that_runs_elsewhere() {
    let bench = Bench::new();
    bench.post(CALL, 900);
    bench.directory.apply_claimed(view(2, Service::Open, 2));
    let (two, next) = (binding(InstanceId(2)), CALL.replace("1,", "2,"));
    let (call, next) = (CALL.as_bytes(), next.as_bytes());
    let (call, next) = (classify(call).unwrap(), classify(next).unwrap());
    let on_two = bench.directory.lease(two.instance).unwrap();
    let deadline = Instant::now() + Duration::from_secs(900);
    bench.session.begin(&two, &on_two, &next, deadline);
    assert!(bench.session.lost_at(&two));
    assert!(bench.session.awaits(&call) && !bench.session.awaits(&next));
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_was_to_pass_on_another_stream_is_lost_when_its_session_has_moved() {
    let bench = Bench::new();
    let call = classify(CALL.as_bytes()).unwrap();
    let deadline = Instant::now() + Duration::from_secs(900);
    let lease = bench.directory.lease(ONE).unwrap();
    let strand = bench.session.begin(&binding(ONE), &lease, &call, deadline);
    let ticket = bench.session.open_stream(Strand::GET);
    bench.directory.apply_claimed(view(2, Service::Open, 2));
    let two = binding(InstanceId(2));
    let on_two = bench.directory.lease(two.instance).unwrap();
    let note = classify(br#"{"jsonrpc":"2.0","method":"m"}"#).unwrap();
    bench.session.begin(&two, &on_two, &note, deadline);
    bench.session.elsewhere(&call, strand);
    assert_eq!(ticket.unanswered().len(), 1);
    assert!(!bench.session.awaits(&call));
}
