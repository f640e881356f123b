//! Cold starts as stacked bars: one bar per road, one colour per phase, the floor a
//! dashed line through all of them.

use std::fmt::{self, Write as _};

use super::pods::{PodFigures, PodRow};
use super::svg::escape;
use crate::phases::Phase;
use crate::pods::road::Road;

const LABEL: f64 = 190.0;
const BAR: f64 = 540.0;
const ROW: f64 = 26.0;
const HEAD: f64 = 30.0;
const LEGEND_ROW: f64 = 20.0;
const LEGEND_COLUMNS: usize = 6;
const LEGEND_COLUMN: f64 = 138.0;

fn colour(phase: Phase) -> &'static str {
    match phase {
        Phase::Hold => "#1b3a6b",
        Phase::Claim => "#2f6fdb",
        Phase::Create => "#7fb0f5",
        Phase::Schedule => "#b9c0ca",
        Phase::Sandbox => "#8a8f98",
        Phase::Init => "#c9a227",
        Phase::Container => "#5f646d",
        Phase::Hello => "#3a9d5d",
        Phase::Ready => "#8fce9f",
        Phase::Noticed => "#d98324",
        Phase::Route => "#c0392b",
        Phase::Answer => "#7d3fb2",
    }
}

/// The phases that are drawn, in order.
fn drawn(figures: &PodFigures) -> Vec<Phase> {
    let has = |phase: &Phase| {
        let mut parts = figures.rows.iter().flat_map(|row| &row.parts);
        parts.any(|part| part.phase == *phase)
    };
    Phase::ALL.into_iter().filter(has).collect()
}

pub(super) fn height(figures: &PodFigures) -> f64 {
    let legend = drawn(figures).len().div_ceil(LEGEND_COLUMNS) as f64 * LEGEND_ROW;
    HEAD + figures.rows.len() as f64 * ROW + legend + 30.0
}

pub(super) fn draw(figures: &PodFigures, top: f64, text: &mut String) -> fmt::Result {
    writeln!(
        text,
        r#"<text x="16" y="{}" font-weight="bold">{}: phases of a cold start, ms (middle half; whisker: p50 with its 95 % interval)</text>"#,
        top + 14.0,
        escape(&figures.title)
    )?;
    let largest = figures
        .rows
        .iter()
        .flat_map(|row| [sum(row), row.p50.high])
        .filter(|value| value.is_finite())
        .fold(f64::MIN_POSITIVE, f64::max);
    for (place, row) in figures.rows.iter().enumerate() {
        draw_row(row, (top + HEAD + place as f64 * ROW, largest), text)?;
    }
    let bottom = top + HEAD + figures.rows.len() as f64 * ROW;
    if let Some(floor) = figures.rows.iter().find(|row| row.road == Road::Floor) {
        let x = LABEL + length(floor.p50.value, largest);
        writeln!(
            text,
            r##"<path d="M{x:.1} {} V{bottom}" stroke="#20242a" stroke-dasharray="4 3" fill="none"/>"##,
            top + HEAD - 4.0
        )?;
    }
    legend(&drawn(figures), bottom + 10.0, text)
}

fn sum(row: &PodRow) -> f64 {
    row.parts.iter().map(|part| part.millis).sum()
}

fn length(millis: f64, largest: f64) -> f64 {
    if millis.is_finite() {
        (millis / largest * BAR).clamp(0.0, BAR)
    } else {
        0.0
    }
}

fn draw_row(row: &PodRow, (y, largest): (f64, f64), text: &mut String) -> fmt::Result {
    writeln!(
        text,
        r#"<text x="{}" y="{}" text-anchor="end">{}</text>"#,
        LABEL - 8.0,
        y + 15.0,
        escape(row.road.label())
    )?;
    let mut x = LABEL;
    for part in &row.parts {
        let width = length(part.millis, largest);
        writeln!(
            text,
            r#"<rect x="{x:.1}" y="{y}" width="{width:.1}" height="{}" fill="{}"><title>{}: {:.1} ms</title></rect>"#,
            ROW - 6.0,
            colour(part.phase),
            part.phase.label(),
            part.millis
        )?;
        x += width;
    }
    let (low, high) = (
        LABEL + length(row.p50.low, largest),
        LABEL + length(row.p50.high, largest),
    );
    let middle = y + ROW / 2.0 - 3.0;
    writeln!(
        text,
        r##"<path d="M{low:.1} {middle} H{high:.1} M{low:.1} {a} V{b} M{high:.1} {a} V{b}" stroke="#20242a" fill="none"/>"##,
        a = middle - 4.0,
        b = middle + 4.0
    )?;
    let ratio = row
        .to_floor
        .map_or_else(String::new, |ratio| format!(" ({:.2} ×)", ratio.value));
    writeln!(
        text,
        r##"<text x="{:.1}" y="{}" fill="#20242a">{:.0}{ratio}</text>"##,
        LABEL + BAR + 14.0,
        y + 15.0,
        row.p50.value
    )
}

fn legend(phases: &[Phase], top: f64, text: &mut String) -> fmt::Result {
    for (place, phase) in phases.iter().enumerate() {
        let x = 16.0 + (place % LEGEND_COLUMNS) as f64 * LEGEND_COLUMN;
        let y = top + (place / LEGEND_COLUMNS) as f64 * LEGEND_ROW;
        writeln!(
            text,
            r##"<rect x="{x}" y="{y}" width="12" height="12" fill="{}"/><text x="{}" y="{}" font-size="12">{}</text>"##,
            colour(*phase),
            x + 17.0,
            y + 11.0,
            phase.label()
        )?;
    }
    Ok(())
}
