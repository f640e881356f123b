//! Accounts as Markdown that is also readable in a terminal. Pure.

use std::fmt::{self, Write as _};

use super::Chaos;
use super::ledger::{Account, Call, Micros, Outcome};

/// Most failures that are told one by one.
const MOST_TOLD: usize = 40;

/// All of it.
#[must_use]
pub fn markdown(chaos: &Chaos, notes: &[String]) -> String {
    let mut text = String::from("# Kills under open-loop load\n\n");
    // Writing to a String cannot fail.
    write(chaos, notes, &mut text).ok();
    text
}

fn write(chaos: &Chaos, notes: &[String], text: &mut String) -> fmt::Result {
    for note in notes {
        writeln!(text, "- {note}")?;
    }
    writeln!(text, "- the gateway: {}", chaos.form)?;
    for fault in &chaos.impossible {
        writeln!(text, "- SKIPPED: {fault}")?;
    }
    if chaos.unheard > 0 {
        let unheard = chaos.unheard;
        writeln!(
            text,
            "- {unheard} answered calls were not told of by a server: do not trust this run"
        )?;
    }
    writeln!(
        text,
        "\n| killed | calls | cold | lost | ended | misrouted | duplicated | orphaned | moved | streams | in flight | revived | delayed | turned | recovered | slowest | slowest cold |"
    )?;
    writeln!(
        text,
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|"
    )?;
    for account in &chaos.accounts {
        row(account, text)?;
    }
    writeln!(
        text,
        "\nGoal: zero from *lost* to *streams*. Times in seconds."
    )?;
    failures(chaos, text)
}

fn row(account: &Account, text: &mut String) -> fmt::Result {
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
        recovered,
        slowest,
        slowest_cold,
    } = account;
    writeln!(
        text,
        "| {name} | {calls} | {cold} | {lost} | {ended} | {misrouted} | {duplicated} | {orphaned} | {moved} | {streams} | {in_flight} | {revived} | {delayed} | {turned} | {:.2} | {:.2} | {:.2} |",
        seconds(*recovered),
        seconds(*slowest),
        seconds(*slowest_cold)
    )
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
