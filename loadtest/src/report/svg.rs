//! A report as one SVG: a panel per figure, a bar per row, a whisker for its
//! interval. Plain rectangles and text, so that it renders everywhere.

use std::fmt::{self, Write as _};

use super::{Figures, Report, memory_row, stacked};
use crate::stats::Interval;

const WIDTH: f64 = 860.0;
const LABEL: f64 = 170.0;
const BAR: f64 = 480.0;
const ROW: f64 = 24.0;

/// The same name has the same colour in every panel.
fn colour(name: &str) -> &'static str {
    match name {
        "direct" | "by hand" | "bare pods" => "#8a8f98",
        "gateway" => "#2f6fdb",
        "nginx" => "#d98324",
        _ => "#3a9d5d",
    }
}

/// Bars that share a scale.
struct Panel {
    title: String,
    unit: &'static str,
    rows: Vec<(String, Interval)>,
}

/// The whole report.
#[must_use]
pub fn svg(report: &Report) -> String {
    let height: f64 = 20.0 + report.figures.iter().map(height_of).sum::<f64>();
    let mut text = String::new();
    // Writing to a String cannot fail.
    draw(report, height, &mut text).ok();
    text
}

fn height_of(figures: &Figures) -> f64 {
    let stacked = match figures {
        Figures::Pods(pods) => stacked::height(pods),
        Figures::Warm(_)
        | Figures::Cold(_)
        | Figures::Sessions(_)
        | Figures::Memory(_)
        | Figures::Burst(_) => 0.0,
    };
    stacked + panels(figures).iter().map(height).sum::<f64>()
}

fn panels(figures: &Figures) -> Vec<Panel> {
    match figures {
        Figures::Warm(warm) => {
            let title =
                |what: &str| format!("{}, {} connection(s): {what}", warm.title, warm.connections);
            let panel = |what: &str, unit, figure: fn(&super::WarmRow) -> Option<Interval>| Panel {
                title: title(what),
                unit,
                rows: warm
                    .rows
                    .iter()
                    .filter_map(|row| Some((row.name.clone(), figure(row)?)))
                    .collect(),
            };
            vec![
                panel("p50", "µs", |row| Some(row.p50)),
                panel("p99", "µs", |row| Some(row.p99)),
                panel("requests per second", "/s", |row| Some(row.rate)),
                panel("own CPU per exchange", "µs", |row| row.cpu),
            ]
        }
        Figures::Cold(cold) => vec![Panel {
            title: format!("{}: p50 of {} pairs", cold.title, cold.samples),
            unit: "ms",
            rows: vec![
                ("by hand".to_owned(), cold.by_hand_p50),
                ("gateway".to_owned(), cold.gateway_p50),
            ],
        }],
        // The stacked bars are drawn by themselves.
        Figures::Sessions(_) | Figures::Pods(_) => Vec::new(),
        Figures::Burst(burst) => vec![Panel {
            title: format!("{}: until the last of {}", burst.title, burst.pods),
            unit: "ms",
            rows: vec![
                ("bare pods".to_owned(), burst.bare),
                ("gateway".to_owned(), burst.gateway),
            ],
        }],
        Figures::Memory(memory) => vec![Panel {
            title: format!("{}: resident memory", memory.title),
            unit: "MiB",
            rows: memory
                .rows
                .iter()
                .map(|(name, figures)| {
                    let (value, _) = memory_row(*figures);
                    (
                        name.clone(),
                        Interval {
                            value,
                            low: value,
                            high: value,
                        },
                    )
                })
                .collect(),
        }],
    }
    .into_iter()
    .filter(|panel| !panel.rows.is_empty())
    .collect()
}

fn height(panel: &Panel) -> f64 {
    panel.rows.len() as f64 * ROW + 52.0
}

fn draw(report: &Report, height: f64, text: &mut String) -> fmt::Result {
    writeln!(
        text,
        r#"<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" font-size="13">"#
    )?;
    writeln!(
        text,
        r##"<rect width="100%" height="100%" fill="#ffffff"/>"##
    )?;
    let mut top = 20.0;
    for figures in &report.figures {
        if let Figures::Pods(pods) = figures {
            stacked::draw(pods, top, text)?;
            top += stacked::height(pods);
        }
        for panel in panels(figures) {
            draw_panel(&panel, top, text)?;
            top += self::height(&panel);
        }
    }
    writeln!(text, "</svg>")
}

fn draw_panel(panel: &Panel, top: f64, text: &mut String) -> fmt::Result {
    writeln!(
        text,
        r#"<text x="16" y="{}" font-weight="bold">{}</text>"#,
        top + 14.0,
        escape(&panel.title)
    )?;
    let largest = panel
        .rows
        .iter()
        .map(|(_, figure)| figure.high.max(figure.value))
        .filter(|value| value.is_finite())
        .fold(f64::MIN_POSITIVE, f64::max);
    for (place, (name, figure)) in panel.rows.iter().enumerate() {
        let row = top + 26.0 + place as f64 * ROW;
        draw_bar(name, figure, panel.unit, (row, largest), text)?;
    }
    Ok(())
}

fn draw_bar(
    name: &str,
    figure: &Interval,
    unit: &str,
    (row, largest): (f64, f64),
    text: &mut String,
) -> fmt::Result {
    let length = |value: f64| {
        if value.is_finite() {
            (value / largest * BAR).clamp(0.0, BAR)
        } else {
            0.0
        }
    };
    let (low, high, middle) = (
        LABEL + length(figure.low),
        LABEL + length(figure.high),
        row + ROW / 2.0 - 3.0,
    );
    writeln!(
        text,
        r#"<text x="{}" y="{}" text-anchor="end">{}</text>"#,
        LABEL - 8.0,
        row + 14.0,
        escape(name)
    )?;
    writeln!(
        text,
        r#"<rect x="{LABEL}" y="{row}" width="{:.1}" height="{}" fill="{}"/>"#,
        length(figure.value),
        ROW - 6.0,
        colour(name)
    )?;
    writeln!(
        text,
        r##"<path d="M{low:.1} {middle} H{high:.1} M{low:.1} {a} V{b} M{high:.1} {a} V{b}" stroke="#20242a" fill="none"/>"##,
        a = middle - 4.0,
        b = middle + 4.0
    )?;
    writeln!(
        text,
        r##"<text x="{}" y="{}" fill="#20242a">{:.*} {unit}</text>"##,
        LABEL + BAR + 14.0,
        row + 14.0,
        if figure.value < 100.0 { 1 } else { 0 },
        figure.value
    )
}

pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}
