//! A run as a picture: each call a dot, by when it was due and how long it took, and
//! each fault a bar from its beginning until it was mended. Pure; plain SVG.

use std::fmt::{self, Write as _};

use super::ledger::Seen;
use super::panel::{self, LOOKS, Panel, look};

const TOP: f64 = 110.0;
const HEIGHT: f64 = 320.0;
const LATENCIES: [(f64, &str); 6] = [
    (1e3, "1 ms"),
    (1e4, "10 ms"),
    (1e5, "100 ms"),
    (1e6, "1 s"),
    (1e7, "10 s"),
    (1e8, "100 s"),
];

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
    let panel = Panel {
        top: TOP,
        height: HEIGHT,
        latencies: (100.0, 100e6),
        end: end.unwrap_or(1).max(1) as f64,
    };
    let height = TOP + HEIGHT + 70.0;
    panel::open(height, text)?;
    for mark in &seen.marks {
        let (from, to) = (panel.across(mark.begun), panel.across(mark.mended));
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
            panel::escaped(&mark.name)
        )?;
    }
    let step = if panel.end > 120e6 { 30.0 } else { 10.0 };
    panel.axes(&LATENCIES, (step, 18.0), text)?;
    for (place, (_, colour)) in LOOKS.iter().enumerate() {
        let dots: String = seen
            .calls
            .iter()
            .filter(|call| look(call) == place)
            .map(|call| format!("M{:.1} {:.1}h0", panel.across(call.begun), panel.down(call)))
            .collect();
        writeln!(
            text,
            r#"<path d="{dots}" stroke="{colour}" stroke-width="3.5" stroke-linecap="round" fill="none"/>"#
        )?;
    }
    panel::close(height, text)
}
