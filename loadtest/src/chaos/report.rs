//! Accounts as Markdown that is also readable in a terminal. Pure.

use std::fmt::{self, Write as _};

use super::ledger::{Account, Call, Micros, Outcome};
use super::rounds::{Rounds, together};
use super::{Chaos, overlay, timeline};
use crate::stats;

/// Most failures that are told one by one.
const MOST_TOLD: usize = 40;

/// All of it, of one run or of several.
#[must_use]
pub fn markdown(runs: &[Chaos], notes: &[String]) -> String {
    let mut text = String::from("# Kills under open-loop load\n\n");
    // Writing to a String cannot fail.
    write(runs, notes, &mut text).ok();
    text
}

/// Calls by time; of many rounds, those of each fault on top of each other.
#[must_use]
pub fn picture(runs: &[Chaos]) -> String {
    let seen = || runs.iter().map(|run| &run.seen);
    match runs {
        [run] if !overlay::is_for(seen()) => timeline::svg(&run.seen),
        _ => overlay::svg(seen()),
    }
}

fn write(runs: &[Chaos], notes: &[String], text: &mut String) -> fmt::Result {
    for note in notes {
        writeln!(text, "- {note}")?;
    }
    for run in runs {
        told(run, text)?;
    }
    writeln!(
        text,
        "\n| killed | times | calls | cold | lost | ended | misrouted | duplicated | orphaned | moved | streams | in flight | revived | delayed | turned | recovered | slowest | slowest cold |"
    )?;
    writeln!(
        text,
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|"
    )?;
    for rounds in together(runs.iter().flat_map(|run| &run.accounts)) {
        row(&rounds, text)?;
    }
    writeln!(
        text,
        "\nGoal: zero from *lost* to *streams*. Times in seconds; of several rounds the median and the worst."
    )?;
    runs.iter().try_for_each(|run| failures(run, text))
}

/// Under which circumstances, and why a run proves less than it seems to.
fn told(run: &Chaos, text: &mut String) -> fmt::Result {
    let form = run.form;
    writeln!(text, "- the gateway: {form}")?;
    for fault in &run.impossible {
        writeln!(text, "- SKIPPED: {fault}")?;
    }
    if let Some(why) = &run.cut_short {
        writeln!(text, "- CUT SHORT: {why}")?;
    }
    if run.unheard > 0 {
        let unheard = run.unheard;
        writeln!(
            text,
            "- {unheard} answered calls were not told of by a server: do not trust this run"
        )?;
    }
    Ok(())
}

fn row(rounds: &Rounds, text: &mut String) -> fmt::Result {
    let Account {
        name,
        calls,
        cold,
        in_flight,
        delayed,
        turned,
        revived,
        lost,
        ended,
        misrouted,
        duplicated,
        orphaned,
        moved,
        streams,
        recovered: _,
        slowest: _,
        slowest_cold: _,
    } = &rounds.sum;
    let times = rounds.times;
    writeln!(
        text,
        "| {name} | {times} | {calls} | {cold} | {lost} | {ended} | {misrouted} | {duplicated} | {orphaned} | {moved} | {streams} | {in_flight} | {revived} | {delayed} | {turned} | {} | {} | {} |",
        median_and_worst(&rounds.recovered),
        median_and_worst(&rounds.slowest),
        median_and_worst(&rounds.slowest_cold)
    )
}

/// Of one round, its time.
fn median_and_worst(times: &[Micros]) -> String {
    let times: Vec<f64> = times.iter().copied().map(seconds).collect();
    let worst = times.iter().copied().fold(0.0, f64::max);
    match &times[..] {
        [] | [_] => format!("{worst:.2}"),
        several => format!("{:.2}, {worst:.2}", stats::median(several)),
    }
}

/// Calls without a result, with what was said, so that somebody can find out why.
fn failures(chaos: &Chaos, text: &mut String) -> fmt::Result {
    let failed = chaos
        .seen
        .calls
        .iter()
        .filter_map(|call| match &call.outcome {
            Outcome::Failed { failure, said } => Some((call, failure, said)),
            Outcome::Answered(_) => None,
        });
    let mut failed: Vec<_> = failed.collect();
    failed.sort_by_key(|(call, ..)| call.ended);
    if !failed.is_empty() {
        writeln!(text, "\n## Calls without a result\n")?;
    }
    for (call, failure, said) in failed.iter().take(MOST_TOLD) {
        let Call {
            id,
            client,
            kind,
            begun,
            sent,
            ended,
            activator,
            ..
        } = call;
        // What a stream carried before its end says nothing.
        let said: String = said
            .split_whitespace()
            .filter(|word| !matches!(*word, ":" | "working"))
            .collect::<Vec<_>>()
            .join(" ")
            .chars()
            .take(300)
            .collect();
        writeln!(
            text,
            "- {id} {kind:?} of {client} at activator {activator}, {:.3} to {:.3} s (sent {:.3}): {failure:?}: {said}",
            seconds(*begun),
            seconds(*ended),
            seconds(*sent)
        )?;
    }
    if failed.len() > MOST_TOLD {
        writeln!(text, "- and {} more", failed.len() - MOST_TOLD)?;
    }
    Ok(())
}

fn seconds(micros: Micros) -> f64 {
    micros as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::super::ledger::{Failure, Kind, Mark, Seen};
    use super::super::{ledger, site::Form};
    use super::*;
    use crate::witness::Testimony;

    fn mark(name: &str, begun: Micros) -> Mark {
        Mark {
            name: name.to_owned(),
            begun,
            mended: begun + 500_000,
            kills: Vec::new(),
            orphaned: 0,
        }
    }

    /// Two rounds of two faults, a call each 10 ms of 4 seconds, one of them without a result.
    fn run() -> Chaos {
        let call = |id: u64| Call {
            id,
            client: "a".to_owned(),
            kind: Kind::Warm,
            begun: id * 10_000,
            ended: id * 10_000 + 3_000,
            asked: 0,
            delayed: 0,
            turned: 0,
            activator: 0,
            sent: id * 10_000,
            instance: None,
            outcome: match id {
                7 => Outcome::Failed {
                    failure: Failure::Silent,
                    said: "nothing".to_owned(),
                },
                _ => Outcome::Answered(Testimony {
                    id,
                    owner: "a".to_owned(),
                    instance: "pod-1".to_owned(),
                    session: "1".to_owned(),
                }),
            },
        };
        let names = ["leader", "pod", "leader", "pod"];
        let seen = Seen {
            calls: (0..400).map(call).collect(),
            marks: (0..)
                .zip(names)
                .map(|(second, name)| mark(name, second * 1_000_000))
                .collect(),
            ..Seen::default()
        };
        Chaos {
            form: Form::Processes,
            accounts: ledger::accounts(&seen),
            unheard: 0,
            seen,
            impossible: Vec::new(),
            cut_short: Some("fault 5 of 6, leader: it does not answer".to_owned()),
            logs: String::new(),
        }
    }

    #[test]
    fn a_run_of_many_rounds_has_a_row_and_a_strip_for_each_fault() {
        let runs = [run()];
        let text = markdown(&runs, &[]);
        assert!(text.contains("\n| leader | 2 | 200 |"), "{text}");
        assert!(text.contains("\n| pod | 2 | 200 |"), "{text}");
        assert!(text.contains("- CUT SHORT: fault 5 of 6, leader"), "{text}");
        let columns = |line: &str| line.matches('|').count();
        let table: Vec<usize> = text
            .lines()
            .filter(|line| line.starts_with('|'))
            .map(columns)
            .collect();
        assert!(table.windows(2).all(|two| two[0] == two[1]), "{text}");
        let picture = picture(&runs);
        assert_eq!(picture.matches(", 2 times</text>").count(), 2, "{picture}");
    }

    #[test]
    fn runs_are_reported_again_together_as_they_were_written() {
        let text = serde_json::to_string(&run()).expect("JSON");
        let again: Chaos = serde_json::from_str(&text).expect("a run");
        assert_eq!(
            markdown(std::slice::from_ref(&again), &[]),
            markdown(&[run()], &[])
        );
        let both = markdown(&[run(), again], &[]);
        assert!(both.contains("\n| leader | 4 | 400 |"), "{both}");
    }

    #[test]
    fn a_run_in_which_everything_was_killed_once_is_drawn_by_time() {
        let mut once = run();
        once.seen.marks.truncate(2);
        let picture = picture(&[once]);
        assert!(!picture.contains(" times</text>"), "{picture}");
        assert!(picture.contains("rotate(-30)"), "{picture}");
    }
}
