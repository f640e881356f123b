use proptest::prelude::*;

use super::*;

fn testimony(id: u64, owner: &str, instance: &str, session: &str) -> Testimony {
    Testimony {
        id,
        owner: owner.to_owned(),
        instance: instance.to_owned(),
        session: session.to_owned(),
    }
}

fn answered(id: u64, (begun, ended): (Micros, Micros), state: &str) -> Call {
    Call {
        id,
        client: "a".to_owned(),
        kind: Kind::Warm,
        begun,
        ended,
        asked: 0,
        delayed: 0,
        turned: 0,
        activator: 0,
        sent: begun,
        instance: Some("pod-1".to_owned()),
        outcome: Outcome::Answered(testimony(id, "a", &format!("pod-{state}"), state)),
    }
}

fn failed(id: u64, span: (Micros, Micros), failure: Failure) -> Call {
    Call {
        outcome: Outcome::Failed {
            failure,
            said: String::new(),
        },
        ..answered(id, span, "1")
    }
}

fn mark(begun: Micros, victim: Option<Victim>) -> Mark {
    Mark {
        name: "a fault".to_owned(),
        begun,
        mended: begun + 10,
        kills: victim
            .into_iter()
            .map(|victim| Kill {
                victim,
                from: begun,
                to: begun + 10,
            })
            .collect(),
        orphaned: 0,
    }
}

fn seen(calls: Vec<Call>, marks: Vec<Mark>) -> Seen {
    let heard = calls.iter().filter_map(|call| match &call.outcome {
        Outcome::Answered(testimony) => Some(testimony.clone()),
        Outcome::Failed { .. } => None,
    });
    Seen {
        heard: heard.collect(),
        calls,
        troubles: Vec::new(),
        marks,
    }
}

#[test]
fn only_what_was_in_flight_inside_the_killed_process_is_excused() {
    let activator = Some(Victim::Activator(0));
    let instance = Some(Victim::Instance("pod-1".to_owned()));
    let other = Some(Victim::Activator(1));
    // Who was killed, when the call was under way, how it failed; whether it is lost.
    let cases = [
        (activator.clone(), (90, 120), Failure::Broken, 0),
        (activator.clone(), (111, 120), Failure::Broken, 1),
        (activator.clone(), (90, 99), Failure::Broken, 1),
        (activator.clone(), (90, 120), Failure::InstanceLost, 1),
        (activator, (90, 120), Failure::Silent, 1),
        (other, (90, 120), Failure::Broken, 1),
        (instance.clone(), (90, 120), Failure::InstanceLost, 0),
        (instance.clone(), (111, 120), Failure::InstanceLost, 1),
        (instance.clone(), (90, 120), Failure::Broken, 1),
        (instance, (90, 120), Failure::Refused, 1),
        (None, (90, 120), Failure::Broken, 1),
    ];
    for (victim, span, failure, lost) in cases {
        let case = format!("{victim:?} {span:?} {failure:?}");
        let seen = seen(vec![failed(1, span, failure)], vec![mark(100, victim)]);
        let accounts = accounts(&seen);
        let sum = |of: fn(&Account) -> usize| accounts.iter().map(of).sum::<usize>();
        assert_eq!(sum(|one| one.lost), lost, "{case}");
        assert_eq!(sum(|one| one.in_flight), 1 - lost, "{case}");
    }
}

#[test]
fn a_call_that_waited_for_a_revival_is_excused_where_it_ran() {
    let victim = Some(Victim::Instance("pod-2".to_owned()));
    let calls = vec![failed(1, (90, 120), Failure::InstanceLost)];
    let mut seen = seen(calls, vec![mark(100, victim)]);
    assert_eq!(accounts(&seen)[1].lost, 1, "as far as its client knew");
    seen.heard.push(testimony(1, "a", "pod-2", "2"));
    let account = &accounts(&seen)[1];
    assert_eq!((account.lost, account.in_flight), (0, 1));
}

#[test]
fn a_session_that_is_gone_is_never_excused() {
    let victim = Some(Victim::Instance("pod-1".to_owned()));
    let calls = vec![failed(1, (90, 120), Failure::SessionGone)];
    assert_eq!(accounts(&seen(calls, vec![mark(100, victim)]))[1].ended, 1);
}

#[test]
fn an_answer_of_an_older_state_is_misrouted_only_if_it_was_asked_for_after_a_newer_one_had_answered()
 {
    let killed = vec![mark(15, Some(Victim::Instance("pod-1".to_owned())))];
    let late = vec![
        answered(1, (0, 10), "1"),
        answered(2, (12, 40), "1"),
        answered(3, (20, 30), "2"),
    ];
    assert_eq!(accounts(&seen(late, killed.clone()))[1].wrongs(), 0);
    let back = vec![
        answered(1, (0, 10), "1"),
        answered(2, (20, 30), "2"),
        answered(3, (31, 40), "1"),
    ];
    assert_eq!(accounts(&seen(back, killed))[1].misrouted, 1);
}

#[test]
fn a_session_may_move_only_from_an_instance_that_was_killed() {
    let calls = vec![answered(1, (0, 10), "1"), answered(2, (20, 30), "2")];
    let other = Some(Victim::Instance("pod-9".to_owned()));
    let own = Some(Victim::Instance("pod-1".to_owned()));
    for (victim, moved) in [(None, 1), (other, 1), (own, 0)] {
        let seen = seen(calls.clone(), vec![mark(15, victim)]);
        let account = &accounts(&seen)[1];
        let found = (account.moved, account.revived);
        assert_eq!(found, (moved, 1 - moved), "{:?}", seen.marks);
    }
}

#[test]
fn somebody_elses_answer_and_a_second_run_are_seen() {
    let mut strange = answered(1, (0, 10), "1");
    strange.outcome = Outcome::Answered(testimony(1, "b", "pod-1", "1"));
    let mut twice = seen(vec![strange, answered(2, (0, 10), "1")], vec![]);
    twice.heard.push(testimony(2, "a", "pod-2", "2"));
    let account = &accounts(&twice)[0];
    assert_eq!((account.misrouted, account.duplicated), (1, 1));
}

#[test]
fn a_stream_may_end_only_with_its_activator() {
    let trouble = |at, activator, strange| Trouble {
        client: "a".to_owned(),
        activator,
        at,
        strange,
    };
    let cases = [
        (trouble(105, 0, false), 0),
        (trouble(105, 0, true), 1),
        (trouble(105, 1, false), 1),
        (trouble(110 + NOTICED + 1, 0, false), 1),
    ];
    for (trouble, streams) in cases {
        let mut seen = seen(vec![], vec![mark(100, Some(Victim::Activator(0)))]);
        seen.troubles.push(trouble.clone());
        assert_eq!(accounts(&seen)[1].streams, streams, "{trouble:?}");
    }
}

#[test]
fn recovered_is_when_the_last_call_that_was_not_prompt_had_its_answer() {
    let slow = 100 + 5 * PROMPT;
    let cold = Call {
        kind: Kind::Cold,
        client: "cold".to_owned(),
        ..answered(3, (100, 9 * PROMPT), "3")
    };
    let calls = vec![
        answered(1, (100, slow), "1"),
        answered(2, (slow + 1, slow + 2), "1"),
        cold,
    ];
    let account = &accounts(&seen(calls, vec![mark(100, None)]))[1];
    assert_eq!(account.recovered, 5 * PROMPT);
    assert_eq!(account.slowest_cold, 9 * PROMPT - 100);
}

#[test]
fn an_answer_that_nobody_told_of_makes_a_run_doubtful() {
    let mut seen = seen(vec![answered(1, (0, 1), "1")], vec![]);
    assert_eq!(unheard(&seen), 0);
    seen.heard.clear();
    assert_eq!(unheard(&seen), 1);
}

proptest! {
    /// Whatever happened, each call is in exactly one account, and those that have no
    /// result are lost, ended or excused.
    #[test]
    fn every_call_is_accounted_for_once(
        calls in prop::collection::vec((0..1_000u64, 0..100u64, 0..7usize, 0..3usize), 0..60),
        faults in prop::collection::vec((0..1_000u64, 0..3usize), 0..4),
    ) {
        let failures = [Failure::Broken, Failure::InstanceLost, Failure::SessionGone, Failure::Refused, Failure::Silent];
        let calls: Vec<Call> = calls.into_iter().enumerate().map(|(id, (begun, took, how, activator))| {
            let (id, span) = (id as u64, (begun, begun + took));
            let call = failures.get(how).map_or_else(
                || answered(id, span, &how.to_string()),
                |failure| failed(id, span, *failure),
            );
            Call { activator, ..call }
        }).collect();
        let mut marks: Vec<Mark> = faults.into_iter().map(|(at, victim)| mark(at, match victim {
            0 => None,
            1 => Some(Victim::Activator(1)),
            _ => Some(Victim::Instance("pod-1".to_owned())),
        })).collect();
        marks.sort_by_key(|mark| mark.begun);
        let seen = seen(calls, marks);
        let accounts = accounts(&seen);
        prop_assert_eq!(accounts.len(), seen.marks.len() + 1);
        let sum = |of: fn(&Account) -> usize| accounts.iter().map(of).sum::<usize>();
        prop_assert_eq!(sum(|one| one.calls), seen.calls.len());
        let failed = seen.calls.iter().filter(|call| matches!(call.outcome, Outcome::Failed { .. })).count();
        prop_assert_eq!(sum(|one| one.lost + one.ended + one.in_flight), failed);
        prop_assert_eq!(sum(|one| one.duplicated), 0);
    }
}
