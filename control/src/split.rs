//! Cuts a YAML stream into its documents, so that each stands or falls alone.
//!
//! A line that begins with `---` in the first column and goes on with white space or nothing always ends a document
//! (YAML 1.2 §9.1.2), also inside a block scalar, so no parser is needed to find it.

/// One document's text with the numbers, from 1, of its first line and of the first that says anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Part<'a> {
    pub(crate) text: &'a str,
    pub(crate) first_line: u64,
    pub(crate) begins: u64,
}

/// The documents that hold anything but comments, white space and markers.
pub(crate) fn documents(text: &str) -> Vec<Part<'_>> {
    let mut parts = Vec::new();
    let (mut begin, mut first_line, mut at, mut line) = (0, 1, 0, 1);
    for piece in text.split_inclusive('\n') {
        if is_marker(piece) && at > begin {
            parts.push((begin, at, first_line));
            (begin, first_line) = (at, line);
        }
        at += piece.len();
        line += 1;
    }
    parts.push((begin, at, first_line));
    parts
        .into_iter()
        .filter_map(|(from, to, first_line)| {
            let text = text.get(from..to)?;
            let silent = text.lines().take_while(|line| is_silent(line)).count();
            (silent < text.lines().count()).then_some(Part {
                text,
                first_line,
                begins: first_line + silent as u64,
            })
        })
        .collect()
}

fn is_marker(line: &str) -> bool {
    line.strip_prefix("---")
        .is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']))
}

fn is_silent(line: &str) -> bool {
    let rest = match line.strip_prefix("---") {
        Some(rest) if is_marker(line) => rest,
        Some(_) | None => line,
    };
    let rest = rest.trim_start_matches('\u{feff}').trim();
    rest.is_empty() || rest.starts_with('#') || rest == "..."
}
