//! Many rounds as one picture: a strip for each fault, its rounds on top of each other
//! from the moment it was made. Pure; plain SVG.
//!
//! A strip has no more dots than it has places for them, however many calls there were.

use std::collections::BTreeSet;
use std::fmt::{self, Write as _};

use super::ledger::{Call, Micros, Seen};
use super::panel::{self, LEFT, LOOKS, Panel, look};

const TOP: f64 = 30.0;
/// A strip, and the room below it.
const HEIGHT: f64 = 96.0;
const ROOM: f64 = 38.0;
const LATENCIES: [(f64, &str); 5] = [
    (1e3, "1 ms"),
    (1e4, ""),
    (1e5, "100 ms"),
    (1e6, ""),
    (1e7, "10 s"),
];

/// One round of a fault.
struct Round<'a> {
    begun: Micros,
    mended: Micros,
    calls: Vec<&'a Call>,
}

/// All rounds of a fault.
struct Strip<'a> {
    name: &'a str,
    rounds: Vec<Round<'a>>,
}

/// Whether some fault was made more than once.
#[must_use]
pub fn is_for<'a>(runs: impl IntoIterator<Item = &'a Seen>) -> bool {
    strips(runs).iter().any(|strip| strip.rounds.len() > 1)
}

/// The picture.
#[must_use]
pub fn svg<'a>(runs: impl IntoIterator<Item = &'a Seen>) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    draw(&strips(runs), &mut text).ok();
    text
}

/// Calls belong to the fault before which they did not end, as in the accounts.
fn strips<'a>(runs: impl IntoIterator<Item = &'a Seen>) -> Vec<Strip<'a>> {
    let mut strips: Vec<Strip<'a>> = Vec::new();
    for seen in runs {
        let mut rounds: Vec<Round<'a>> = seen
            .marks
            .iter()
            .map(|mark| Round {
                begun: mark.begun,
                mended: mark.mended,
                calls: Vec::new(),
            })
            .collect();
        for call in &seen.calls {
            let after = rounds.partition_point(|round| round.begun <= call.ended);
            if let Some(round) = after.checked_sub(1).and_then(|place| rounds.get_mut(place)) {
                round.calls.push(call);
            }
        }
        for (round, mark) in rounds.into_iter().zip(&seen.marks) {
            match strips.iter_mut().find(|strip| strip.name == mark.name) {
                Some(strip) => strip.rounds.push(round),
                None => strips.push(Strip {
                    name: &mark.name,
                    rounds: vec![round],
                }),
            }
        }
    }
    strips
}

fn draw(strips: &[Strip<'_>], text: &mut String) -> fmt::Result {
    let height = TOP + strips.len() as f64 * (HEIGHT + ROOM) + 30.0;
    panel::open(height, text)?;
    for (place, strip) in strips.iter().enumerate() {
        draw_strip(strip, TOP + place as f64 * (HEIGHT + ROOM), text)?;
    }
    panel::close(height, text)
}

fn draw_strip(strip: &Strip<'_>, top: f64, text: &mut String) -> fmt::Result {
    let since = |round: &Round<'_>, at: Micros| at.saturating_sub(round.begun);
    let ends = strip.rounds.iter().flat_map(|round| {
        let due = round.calls.iter().map(|call| call.begun);
        due.chain([round.mended]).map(|at| since(round, at))
    });
    let panel = Panel {
        top,
        height: HEIGHT,
        latencies: (1e3, 100e6),
        end: ends.max().unwrap_or(1).max(1) as f64,
    };
    let times = strip.rounds.len();
    let name = panel::escaped(strip.name);
    let title = top - 6.0;
    writeln!(
        text,
        r#"<text x="{LEFT}" y="{title}" font-weight="bold">{name}, {times} times</text>"#
    )?;
    for round in &strip.rounds {
        // As many shades on top of each other as rounds that were not mended yet.
        let width = (panel.across(since(round, round.mended)) - LEFT).max(1.0);
        let opacity = 0.5 / times as f64;
        writeln!(
            text,
            r##"<rect x="{LEFT}" y="{top}" width="{width:.1}" height="{HEIGHT}" fill="#c62828" fill-opacity="{opacity:.3}"/>"##
        )?;
    }
    let step = if panel.end > 60e6 { 10.0 } else { 2.0 };
    panel.axes(&LATENCIES, (step, 14.0), text)?;
    for (kind, (_, colour)) in LOOKS.iter().enumerate() {
        let calls = strip.rounds.iter().flat_map(|round| {
            let calls = round.calls.iter().filter(|call| look(call) == kind);
            calls.map(|call| (panel.across(since(round, call.begun)), panel.down(call)))
        });
        let dots = dots(calls);
        writeln!(
            text,
            r#"<path d="{dots}" stroke="{colour}" stroke-width="2.5" stroke-linecap="round" fill="none"/>"#
        )?;
    }
    Ok(())
}

/// One dot for each pixel, however many calls there are; neighbours in a row are one stroke.
fn dots(places: impl Iterator<Item = (f64, f64)>) -> String {
    let places: BTreeSet<(u32, u32)> = places.map(|(x, y)| (y as u32, x as u32)).collect();
    let mut strokes: Vec<(u32, u32, u32)> = Vec::new();
    for (y, x) in places {
        match strokes.last_mut() {
            Some((row, from, long)) if *row == y && *from + *long + 1 == x => *long += 1,
            Some(_) | None => strokes.push((y, x, 0)),
        }
    }
    let strokes = strokes
        .iter()
        .map(|(y, x, long)| format!("M{x} {y}h{long}"));
    strokes.collect()
}

#[cfg(test)]
mod tests {
    use super::dots;

    #[test]
    fn calls_at_one_place_are_one_dot_and_neighbours_one_stroke() {
        let calls = [(5.2, 7.0), (5.9, 7.4), (6.1, 7.0), (9.0, 7.0), (6.0, 8.0)];
        assert_eq!(dots(calls.into_iter()), "M5 7h1M9 7h0M6 8h0");
    }
}
