//! A report as Markdown that is also readable in a terminal.

use std::fmt::{self, Write as _};

use super::{
    BurstFigures, ColdFigures, Comparison, Figures, PodFigures, PodRow, Report, WarmFigures,
    WarmRow, memory_row,
};
use crate::section::{AtRest, Sessions};
use crate::stats::Interval;

/// The whole report.
#[must_use]
pub fn markdown(report: &Report) -> String {
    let mut text = String::from("# Side by side\n\n");
    // Writing to a String cannot fail.
    write(report, &mut text).ok();
    text
}

fn write(report: &Report, text: &mut String) -> fmt::Result {
    for note in &report.notes {
        writeln!(text, "- {note}")?;
    }
    writeln!(
        text,
        "\nMedians over interleaved rounds, with 95 % bootstrap intervals in brackets."
    )?;
    for figures in &report.figures {
        match figures {
            Figures::Warm(warm) => write_warm(warm, text)?,
            Figures::Cold(cold) => write_cold(cold, text)?,
            Figures::Sessions(sessions) => write_sessions(sessions, text)?,
            Figures::Memory(memory) => write_memory(memory, text)?,
            Figures::Pods(pods) => write_pods(pods, text)?,
            Figures::Burst(burst) => write_burst(burst, text)?,
        }
    }
    Ok(())
}

fn write_warm(warm: &WarmFigures, text: &mut String) -> fmt::Result {
    writeln!(
        text,
        "\n## {}, {} connection(s)\n",
        warm.title, warm.connections
    )?;
    writeln!(
        text,
        "| | p50 µs | p99 µs | adds p50 µs | adds p99 µs | requests/s | own CPU µs | errors |"
    )?;
    writeln!(text, "|---|---|---|---|---|---|---|---|")?;
    for row in &warm.rows {
        write_row(row, text)?;
    }
    if !warm.comparisons.is_empty() {
        writeln!(
            text,
            "\n| ratio | added p50 | added p99 | requests/s |\n|---|---|---|---|"
        )?;
    }
    for Comparison {
        subject,
        reference,
        added_p50,
        added_p99,
        rate,
    } in &warm.comparisons
    {
        writeln!(
            text,
            "| {subject} / {reference} | {} | {} | {} |",
            digits(added_p50, 2),
            digits(added_p99, 2),
            digits(rate, 2)
        )?;
    }
    Ok(())
}

fn write_row(row: &WarmRow, text: &mut String) -> fmt::Result {
    let optional = |figure: &Option<Interval>, places| {
        figure
            .as_ref()
            .map_or_else(|| "–".to_owned(), |figure| digits(figure, places))
    };
    writeln!(
        text,
        "| {} | {} | {} | {} | {} | {} | {} | {} |",
        row.name,
        digits(&row.p50, 0),
        digits(&row.p99, 0),
        optional(&row.added_p50, 0),
        optional(&row.added_p99, 0),
        digits(&row.rate, 0),
        optional(&row.cpu, 1),
        row.errors
    )
}

fn write_cold(cold: &ColdFigures, text: &mut String) -> fmt::Result {
    writeln!(text, "\n## {}, {} pairs\n", cold.title, cold.samples)?;
    writeln!(text, "| | p50 ms | p90 ms |\n|---|---|---|")?;
    for (name, p50, p90) in [
        ("by hand", &cold.by_hand_p50, &cold.by_hand_p90),
        ("gateway", &cold.gateway_p50, &cold.gateway_p90),
    ] {
        writeln!(text, "| {name} | {} | {} |", digits(p50, 1), digits(p90, 1))?;
    }
    writeln!(
        text,
        "\nAdded, median of pairs: {} ms; ratio {}.",
        digits(&cold.added_p50, 2),
        digits(&cold.ratio, 2)
    )
}

fn write_memory(memory: &AtRest, text: &mut String) -> fmt::Result {
    writeln!(text, "\n## {}\n", memory.title)?;
    writeln!(text, "| | resident MiB | anonymous MiB |\n|---|---|---|")?;
    for (name, figures) in &memory.rows {
        let (resident, anonymous) = memory_row(*figures);
        writeln!(text, "| {name} | {resident:.1} | {anonymous:.1} |")?;
    }
    Ok(())
}

fn write_sessions(sessions: &Sessions, text: &mut String) -> fmt::Result {
    let (before, _) = memory_row(sessions.before);
    let (after, _) = memory_row(sessions.after);
    let grown = sessions
        .after
        .resident
        .saturating_sub(sessions.before.resident);
    writeln!(text, "\n## {}\n", sessions.title)?;
    writeln!(
        text,
        "{} sessions in {:.1} s: {before:.1} MiB before, {after:.1} MiB after, {:.2} KiB each.",
        sessions.count,
        sessions.seconds,
        grown as f64 / sessions.count.max(1) as f64
    )
}

fn write_pods(pods: &PodFigures, text: &mut String) -> fmt::Result {
    writeln!(text, "\n## {}\n", pods.title)?;
    writeln!(
        text,
        "| road | n | p50 ms | p90 ms | × floor | goal | × Deployment | added ms | after the server accepts, ms |"
    )?;
    writeln!(text, "|---|---|---|---|---|---|---|---|---|")?;
    for row in &pods.rows {
        write_pod_row(row, text)?;
    }
    writeln!(text, "\nWhere it goes, ms, means of the middle half:\n")?;
    for row in &pods.rows {
        let parts: Vec<String> = row
            .parts
            .iter()
            .map(|part| format!("{} {:.1}", part.phase.label(), part.millis))
            .collect();
        writeln!(text, "- {}: {}", row.road.label(), parts.join(", "))?;
    }
    Ok(())
}

fn write_pod_row(row: &PodRow, text: &mut String) -> fmt::Result {
    let optional = |figure: &Option<Interval>, places| {
        figure
            .as_ref()
            .map_or_else(|| "–".to_owned(), |figure| digits(figure, places))
    };
    let goal = row
        .road
        .goal()
        .map_or_else(|| "–".to_owned(), |goal| format!("≤ {goal}"));
    writeln!(
        text,
        "| {} | {} | {} | {} | {} | {goal} | {} | {} | {} |",
        row.road.label(),
        row.samples,
        digits(&row.p50, 0),
        digits(&row.p90, 0),
        optional(&row.to_floor, 2),
        optional(&row.to_deployment, 2),
        optional(&row.added, 0),
        optional(&row.after_accept, 1)
    )
}

fn write_burst(burst: &BurstFigures, text: &mut String) -> fmt::Result {
    writeln!(text, "\n## {}\n", burst.title)?;
    writeln!(
        text,
        "{} at once, {} rounds; until the last, ms: bare pods {}, sessions through the gateway {}; ratio {}.",
        burst.pods,
        burst.rounds,
        digits(&burst.bare, 0),
        digits(&burst.gateway, 0),
        digits(&burst.ratio, 2)
    )
}

/// `value [low, high]` to so many decimal places.
fn digits(figure: &Interval, places: usize) -> String {
    let Interval { value, low, high } = figure;
    format!("{value:.places$} [{low:.places$}, {high:.places$}]")
}
