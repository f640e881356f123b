//! A run as a picture: each call a dot, by when it was due and how long it took, and
//! each fault a bar from its beginning until it was mended. Pure; plain SVG.

use std::fmt::{self, Write as _};

use super::ledger::{Call, Kind, Micros, Outcome, Seen};

const WIDTH: f64 = 1_200.0;
const LEFT: f64 = 60.0;
const TOP: f64 = 110.0;
const HEIGHT: f64 = 320.0;
/// Latencies that the axis begins and ends with, in microseconds.
const LEAST: f64 = 100.0;
const MOST: f64 = 100e6;

/// How a call is drawn: name and colour.
pub(super) const LOOKS: [(&str, &str); 4] = [
    ("answered", "#2f6fdb"),
    ("new session", "#3a9d5d"),
    ("told to come again, then answered", "#d98324"),
    ("no result", "#c62828"),
];

/// Which of [`LOOKS`] a call has.
pub(super) fn look(call: &Call) -> usize {
    match (&call.outcome, call.kind) {
        (Outcome::Failed { .. }, _) => 3,
        (Outcome::Answered(_), _) if call.delayed > 0 => 2,
        (Outcome::Answered(_), Kind::Cold) => 1,
        (Outcome::Answered(_), Kind::Warm | Kind::Slow) => 0,
    }
}

/// The picture.
#[must_use]
pub fn svg(seen: &Seen) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    draw(seen, &mut text).ok();
    text
}

fn draw(seen: &Seen, text: &mut String) -> fmt::Result {
    let calls = seen.calls.iter().map(|call| call.ended);
    let end = calls.chain(seen.marks.iter().map(|mark| mark.mended)).max();
    let end = end.unwrap_or(1).max(1) as f64;
    let across = |at: Micros| LEFT + at as f64 / end * (WIDTH - LEFT - 20.0);
    let height = TOP + HEIGHT + 70.0;
    writeln!(
        text,
        r#"<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" font-size="12">"#
    )?;
    writeln!(
        text,
        r##"<rect width="100%" height="100%" fill="#ffffff"/>"##
    )?;
    for mark in &seen.marks {
        let (from, to) = (across(mark.begun), across(mark.mended));
        writeln!(
            text,
            r##"<rect x="{from:.1}" y="{TOP}" width="{:.1}" height="{HEIGHT}" fill="#f6d5d5"/><path d="M{from:.1} {TOP} V{}" stroke="#c62828"/>"##,
            (to - from).max(1.0),
            TOP + HEIGHT
        )?;
        writeln!(
            text,
            r#"<text transform="translate({:.1} {}) rotate(-30)">{}</text>"#,
            from + 3.0,
            TOP - 6.0,
            mark.name.replace('&', "&amp;").replace('<', "&lt;")
        )?;
    }
    axes(end, text)?;
    for (place, (name, colour)) in LOOKS.iter().enumerate() {
        let dots: String = seen
            .calls
            .iter()
            .filter(|call| look(call) == place)
            .map(|call| format!("M{:.1} {:.1}h0", across(call.begun), down(call)))
            .collect();
        writeln!(
            text,
            r#"<path d="{dots}" stroke="{colour}" stroke-width="3.5" stroke-linecap="round" fill="none"/>"#
        )?;
        writeln!(
            text,
            r#"<text x="{}" y="{}" fill="{colour}">● {name}</text>"#,
            LEFT + place as f64 * 240.0,
            height - 12.0
        )?;
    }
    writeln!(text, "</svg>")
}

/// How low a call is drawn: by what it took beyond what it was asked to take.
fn down(call: &Call) -> f64 {
    height_of(call.ended.saturating_sub(call.begun + call.asked) as f64)
}

fn height_of(micros: f64) -> f64 {
    let share = (micros.clamp(LEAST, MOST) / LEAST).log10() / (MOST / LEAST).log10();
    TOP + HEIGHT * (1.0 - share)
}

fn axes(end: f64, text: &mut String) -> fmt::Result {
    for (micros, name) in [
        (1e3, "1 ms"),
        (1e4, "10 ms"),
        (1e5, "100 ms"),
        (1e6, "1 s"),
        (1e7, "10 s"),
        (1e8, "100 s"),
    ] {
        let y = height_of(micros);
        writeln!(
            text,
            r##"<path d="M{LEFT} {y:.1} H{}" stroke="#dddddd"/><text x="{}" y="{:.1}" text-anchor="end">{name}</text>"##,
            WIDTH - 20.0,
            LEFT - 6.0,
            y + 4.0
        )?;
    }
    let all = end / 1e6;
    let step = if all > 120.0 { 30.0 } else { 10.0 };
    let mut at = 0.0;
    while at <= all {
        writeln!(
            text,
            r#"<text x="{:.1}" y="{}" text-anchor="middle">{at:.0} s</text>"#,
            LEFT + at / all * (WIDTH - LEFT - 20.0),
            TOP + HEIGHT + 18.0
        )?;
        at += step;
    }
    Ok(())
}
