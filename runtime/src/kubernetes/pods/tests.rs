use mcp_gateway_api::view::Reach;
use proptest::prelude::*;

use super::*;
use crate::kubernetes::seen::{Ended, Said};

const ID: InstanceId = InstanceId(7);

pub(in crate::kubernetes) fn seen() -> Seen {
    Seen {
        id: ID,
        name: "time-1".into(),
        uid: "00000000-0000-0000-0000-000000000007".into(),
        version: "1".into(),
        ip: None,
        deleting: false,
        marked_by: None,
        spent: false,
        over: false,
        said: Said::default(),
        unschedulable: None,
        server: Container::Absent,
        agent: Container::Absent,
        lender: Container::Absent,
    }
}

fn here(change: impl FnOnce(&mut Seen)) -> Input {
    let mut seen = seen();
    change(&mut seen);
    Input::Seen(Box::new(seen))
}

fn waiting(reason: &str) -> Container {
    Container::Waiting(Said {
        reason: reason.into(),
        message: String::new(),
    })
}

fn ended(code: i32) -> Container {
    Container::Ended(Ended {
        code,
        signal: None,
        said: Said::default(),
        ran: true,
    })
}

fn endpoint() -> Endpoint {
    Endpoint {
        reach: Reach::Tcp(([10, 0, 0, 1], 8000).into()),
        host: "localhost".into(),
        path: "/mcp".into(),
        secret: None,
    }
}

fn running(seen: &mut Seen) {
    seen.server = Container::Running;
    seen.ip = Some([10, 0, 0, 1].into());
}

fn said(effects: &[Effect]) -> String {
    let letters = effects.iter().map(|effect| match effect {
        Effect::Say(RuntimeEvent::Running(_)) => 'R',
        Effect::Say(RuntimeEvent::Ready(..)) => 'S',
        Effect::Say(RuntimeEvent::Warning(..)) => 'W',
        Effect::Say(RuntimeEvent::Waits(..)) => 'w',
        Effect::Say(RuntimeEvent::Exited(..)) => 'E',
        Effect::Probe(_) => 'p',
        Effect::Drain(_) => 'd',
        Effect::Delete(_) => 'x',
        Effect::Bury { logs: true } => 'l',
        Effect::Bury { logs: false } => 'b',
    });
    letters.collect()
}

/// Plays inputs; gives what was said and done, one word for each.
fn play(form: Form, inputs: Vec<Input>) -> Vec<String> {
    let mut pod = Pod::new(ID, form, false);
    inputs
        .into_iter()
        .map(|input| said(&pod.step(input)))
        .collect()
}

const GRACE: Duration = Duration::from_secs(5);

#[test]
fn without_an_agent_the_status_starts_the_probe_once() {
    let words = play(
        Form::None,
        vec![
            here(|seen| seen.server = waiting("ContainerCreating")),
            here(running),
            here(running),
            Input::Serves(endpoint()),
            Input::Terminate(GRACE),
            Input::Terminate(GRACE),
            Input::Gone(None),
            Input::Gone(None),
        ],
    );
    assert_eq!(words, ["", "Rp", "", "S", "dx", "", "E", ""]);
}

#[test]
fn with_an_agent_nothing_waits_for_the_status() {
    let words = play(
        Form::Embedded,
        vec![
            Input::Hello,
            Input::AgentRuns,
            Input::Serves(endpoint()),
            Input::Hello,
            here(running),
            Input::AgentExited(ExitReport::default()),
            Input::Gone(None),
        ],
    );
    assert_eq!(words, ["R", "", "S", "", "", "b", "E"]);
}

#[test]
fn a_server_that_ends_is_buried_with_its_last_words() {
    let words = play(
        Form::Sidecar,
        vec![here(|seen| seen.server = ended(3)), Input::Gone(None)],
    );
    assert_eq!(words, ["Rl", "E"]);
}

#[test]
fn an_agent_beside_a_server_whose_image_is_missing_does_not_hide_that() {
    let words = play(
        Form::Sidecar,
        vec![
            Input::Hello,
            here(|seen| {
                seen.agent = Container::Running;
                seen.server = waiting("ImagePullBackOff");
            }),
            Input::Gone(None),
        ],
    );
    assert_eq!(words, ["", "x", "E"]);
}

fn without_agent(seen: &mut Seen) {
    running(seen);
    seen.agent = ended(1);
}

#[test]
fn a_start_whose_agent_ends_before_the_server_serves_is_given_up_and_says_so() {
    for hello in [vec![], vec![Input::Hello]] {
        let mut pod = Pod::new(ID, Form::Sidecar, false);
        let inputs = [here(running), here(without_agent), Input::Gone(None)];
        let effects: Vec<Effect> = hello
            .into_iter()
            .chain(inputs)
            .flat_map(|input| pod.step(input))
            .collect();
        assert_eq!(said(&effects), "RxE");
        let Some(Effect::Say(RuntimeEvent::Exited(_, report))) = effects.last() else {
            panic!("{effects:?}");
        };
        assert!(report.summary.contains("its agent ended"), "{report:?}");
    }
    // The server has not even begun, and has a better reason.
    let missing = here(|seen| {
        seen.server = waiting("ErrImageNeverPull");
        seen.agent = ended(1);
    });
    let mut pod = Pod::new(ID, Form::Sidecar, false);
    assert_eq!(said(&pod.step(missing)), "x");
    let last = pod.step(Input::Gone(None));
    assert!(matches!(
        last.as_slice(),
        [Effect::Say(RuntimeEvent::Exited(_, report))] if report.summary.contains("image")
    ));
}

#[test]
fn an_agent_that_ends_when_its_server_serves_ends_nothing() {
    let words = play(
        Form::Sidecar,
        vec![
            here(running),
            Input::Serves(endpoint()),
            here(without_agent),
        ],
    );
    assert_eq!(words, ["R", "S", ""]);
    // It may serve since long ago, and activators know of that.
    let mut found = Pod::new(ID, Form::Sidecar, true);
    assert_eq!(said(&found.step(here(without_agent))), "R");
}

#[test]
fn what_can_never_run_is_given_up_and_what_may_is_waited_for() {
    let fatal = play(
        Form::None,
        vec![here(|seen| seen.server = waiting("ErrImageNeverPull"))],
    );
    assert_eq!(fatal, ["x"]);
    let patient = vec![
        here(|seen| seen.unschedulable = Some("0/1 nodes are available".into())),
        here(|seen| seen.unschedulable = Some("0/1 nodes are available".into())),
        // Another pod has made room, and is back.
        here(|_| ()),
        here(|seen| seen.unschedulable = Some("0/1 nodes are available".into())),
        Input::LaunchDeadline,
        Input::Gone(None),
    ];
    let mut pod = Pod::new(ID, Form::None, false);
    let effects: Vec<Effect> = patient
        .into_iter()
        .flat_map(|input| pod.step(input))
        .collect();
    assert_eq!(said(&effects), "wWwwxE", "operators are warned once");
    let waits = |text: Option<&str>| Effect::Say(RuntimeEvent::Waits(ID, text.map(str::to_owned)));
    let room = "no node of the cluster has room for its pod";
    for (at, what) in [(0, Some(room)), (2, None), (3, Some(room))] {
        assert_eq!(effects[at], waits(what));
    }
    let Some(Effect::Say(RuntimeEvent::Exited(_, report))) = effects.last() else {
        panic!("{effects:?}");
    };
    assert!(report.summary.contains("no node"), "{report:?}");
    assert!(
        !report.summary.contains("0/1"),
        "quotes Kubernetes: {report:?}"
    );
    assert!(
        report.stderr_tail.concat().contains("0/1 nodes"),
        "{report:?}"
    );
}

#[test]
fn a_short_life_that_was_seen_only_at_its_end_has_run() {
    let mut last = seen();
    last.server = ended(0);
    let words = play(Form::None, vec![Input::Gone(Some(Box::new(last)))]);
    assert_eq!(words, ["RE"]);
}

#[test]
fn a_pod_that_somebody_else_deletes_is_waited_for() {
    let words = play(
        Form::None,
        vec![
            here(running),
            here(|seen| seen.deleting = true),
            Input::Overdue,
            Input::Overdue,
            Input::Gone(None),
        ],
    );
    assert_eq!(words, ["Rp", "", "Wb", "", "E"]);
}

#[test]
fn a_node_is_blamed_only_for_what_it_was_asked() {
    for (asked, words) in [
        (Some(Input::Deleting), "node does not confirm"),
        (
            Some(here(|seen| seen.deleting = true)),
            "node does not confirm",
        ),
        (None, "could not be ended in time"),
    ] {
        let mut pod = Pod::new(ID, Form::None, false);
        let told = [here(running), Input::Terminate(GRACE)];
        told.into_iter().chain(asked).for_each(|input| {
            pod.step(input);
        });
        match pod.step(Input::Overdue).first() {
            Some(Effect::Say(RuntimeEvent::Warning(_, text))) => {
                assert!(text.contains(words), "{text}");
            }
            other => panic!("{other:?}"),
        }
    }
}

fn input() -> impl Strategy<Value = Input> {
    prop_oneof![
        Just(here(|_| {})),
        Just(here(running)),
        Just(here(|seen| seen.server = waiting("ImagePullBackOff"))),
        Just(here(|seen| seen.server = ended(1))),
        Just(here(|seen| seen.over = true)),
        Just(here(without_agent)),
        Just(here(|seen| seen.deleting = true)),
        Just(Input::Deleting),
        Just(Input::Gone(None)),
        Just(Input::Hello),
        Just(Input::AgentRuns),
        Just(Input::Serves(endpoint())),
        Just(Input::AgentExited(ExitReport::default())),
        Just(Input::Warns("w".into())),
        Just(Input::NotYet("n".into())),
        Just(Input::Terminate(GRACE)),
        Just(Input::LaunchDeadline),
        Just(Input::Overdue),
    ]
}

fn form() -> impl Strategy<Value = Form> {
    proptest::sample::select(vec![
        Form::Embedded,
        Form::Sidecar,
        Form::ImageVolume,
        Form::Init,
        Form::None,
    ])
}

proptest! {
    #[test]
    fn whatever_happens_the_order_holds_and_the_end_is_told_once(
        form in form(), mut inputs in proptest::collection::vec(input(), 0..40),
    ) {
        inputs.push(Input::Gone(None));
        let told = play(form, inputs).concat();
        let events: String = told.chars().filter(|c| "RSE".contains(*c)).collect();
        prop_assert!(["E", "RE", "RSE"].contains(&events.as_str()), "{}", told);
        prop_assert!(told.ends_with('E'), "{}", told);
    }

    #[test]
    fn whatever_happens_a_pod_that_was_told_to_end_is_deleted(
        form in form(), inputs in proptest::collection::vec(input(), 0..40),
    ) {
        let ends = |inputs: &[Input]| inputs.iter().any(|input| matches!(input, Input::Terminate(_)));
        prop_assume!(ends(&inputs));
        let deleted_elsewhere = inputs.iter().any(|input| {
            matches!(input, Input::Gone(_)) || matches!(input, Input::Seen(seen) if seen.deleting)
        });
        let told = play(form, inputs).concat();
        prop_assert!(deleted_elsewhere || told.contains(['x', 'b', 'l']), "{}", told);
    }
}
