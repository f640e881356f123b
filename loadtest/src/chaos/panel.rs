//! What pictures of calls have in common: the frame, the colours, and panels in which
//! time goes across and a call is the higher the longer it took. Pure; plain SVG.

use std::fmt::{self, Write as _};

use super::ledger::{Call, Kind, Micros, Outcome};

pub(super) const WIDTH: f64 = 1_200.0;
pub(super) const LEFT: f64 = 60.0;
const RIGHT: f64 = 20.0;

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

/// The beginning of a picture so high.
pub(super) fn open(height: f64, text: &mut String) -> fmt::Result {
    writeln!(
        text,
        r#"<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" font-size="12">"#
    )?;
    writeln!(
        text,
        r##"<rect width="100%" height="100%" fill="#ffffff"/>"##
    )
}

/// What the colours mean, and the end of a picture so high.
pub(super) fn close(height: f64, text: &mut String) -> fmt::Result {
    for (place, (name, colour)) in LOOKS.iter().enumerate() {
        let across = LEFT + place as f64 * 240.0;
        let down = height - 12.0;
        writeln!(
            text,
            r#"<text x="{across}" y="{down}" fill="{colour}">● {name}</text>"#
        )?;
    }
    writeln!(text, "</svg>")
}

/// A name as it may stand in a picture.
pub(super) fn escaped(name: &str) -> String {
    name.replace('&', "&amp;").replace('<', "&lt;")
}

/// A panel, from the left edge to the right.
pub(super) struct Panel {
    pub(super) top: f64,
    pub(super) height: f64,
    /// Latencies that it begins and ends with, in microseconds.
    pub(super) latencies: (f64, f64),
    /// Where its time ends, in microseconds.
    pub(super) end: f64,
}

impl Panel {
    /// Where a moment is.
    pub(super) fn across(&self, at: Micros) -> f64 {
        LEFT + at as f64 / self.end * (WIDTH - LEFT - RIGHT)
    }

    /// How low a call is drawn: by what it took beyond what it was asked to take.
    pub(super) fn down(&self, call: &Call) -> f64 {
        self.height_of(call.ended.saturating_sub(call.begun + call.asked) as f64)
    }

    fn height_of(&self, micros: f64) -> f64 {
        let (least, most) = self.latencies;
        let share = (micros.clamp(least, most) / least).log10() / (most / least).log10();
        self.top + self.height * (1.0 - share)
    }

    /// Lines at these latencies, with their names, and every so many seconds a number, so far below.
    pub(super) fn axes(
        &self,
        latencies: &[(f64, &str)],
        (step, below): (f64, f64),
        text: &mut String,
    ) -> fmt::Result {
        for (micros, name) in latencies {
            let y = self.height_of(*micros);
            writeln!(
                text,
                r##"<path d="M{LEFT} {y:.1} H{}" stroke="#dddddd"/><text x="{}" y="{:.1}" text-anchor="end">{name}</text>"##,
                WIDTH - RIGHT,
                LEFT - 6.0,
                y + 4.0
            )?;
        }
        let all = self.end / 1e6;
        let mut at = 0.0;
        while at <= all {
            writeln!(
                text,
                r#"<text x="{:.1}" y="{}" text-anchor="middle">{at:.0} s</text>"#,
                LEFT + at / all * (WIDTH - LEFT - RIGHT),
                self.top + self.height + below
            )?;
            at += step;
        }
        Ok(())
    }
}
