//! A parser's error → what is wrong and what to do, in the words of the document's author. Quotes no value that may be a
//! secret.

use serde_path_to_error::Segment;
use serde_saphyr::Error;

use crate::later;

/// What is wrong, and the remedy.
pub(super) fn sentence(error: &Error, path: &str) -> (String, String) {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the enum is another crate's and may grow; every other error speaks for itself"
    )]
    match error {
        Error::SerdeUnknownField {
            field, expected, ..
        } => unknown_field(&short(field), expected, path),
        Error::SerdeUnknownVariant {
            variant, expected, ..
        } => (
            format!("{:?} is not one of the choices", short(variant)),
            format!("write {}", expected.join(" or ")),
        ),
        Error::SerdeMissingField { field, .. } => (
            format!("the field {field} is missing"),
            format!("add '{field}: …'"),
        ),
        Error::DuplicateMappingKey { key, .. } => (
            format!(
                "the field {} is there twice",
                short(key.as_deref().unwrap_or("name"))
            ),
            "remove one of them".to_owned(),
        ),
        Error::Message { msg, .. } => split_remedy(msg),
        Error::Unexpected { expected, .. } => unexpected(expected),
        // Not quoting what was found, which may be a secret.
        Error::SerdeInvalidType { expected, .. } | Error::SerdeInvalidValue { expected, .. } => {
            unexpected(expected)
        }
        other => {
            let text = other.to_string();
            let first = text.lines().next().unwrap_or_default();
            // The place is told apart, and as the file counts it.
            let first = first.split(" at line ").next().unwrap_or_default();
            (
                first.chars().take(300).collect(),
                "correct the YAML here".to_owned(),
            )
        }
    }
}

fn unexpected(expected: &str) -> (String, String) {
    match expected {
        "sequence start" => (
            "a list is expected here".to_owned(),
            "write it as [first, second], or as lines that begin with '- '".to_owned(),
        ),
        "mapping start" => (
            "fields are expected here".to_owned(),
            "write them as {name: value}, or as indented lines 'name: value'".to_owned(),
        ),
        other => (
            format!("expected {other}"),
            "correct the value here".to_owned(),
        ),
    }
}

fn unknown_field(field: &str, expected: &[&'static str], path: &str) -> (String, String) {
    let message = format!("there is no field {field:?} here");
    let remedy = later::remedy(&without_positions(path)).map_or_else(
        || match nearest(field, expected) {
            Some(near) => format!("did you mean {near:?}?"),
            None => format!("the fields are {}", expected.join(", ")),
        },
        str::to_owned,
    );
    (message, remedy)
}

/// `spec.env[2].value` → `spec.env.value`.
fn without_positions(path: &str) -> String {
    path.split('[')
        .map(|piece| piece.split_once(']').map_or(piece, |(_, rest)| rest))
        .collect()
}

/// Fields that are read together with their place, which puts a step of its own into the path.
const PLACED: [&str; 13] = [
    "spec",
    "image",
    "agent",
    "resources",
    "pod",
    "command",
    "workingDir",
    "port",
    "path",
    "host",
    "healthCheck",
    "policyRef",
    "policy",
];

/// The path as the author of the document knows it.
pub(super) fn field_path(path: &serde_path_to_error::Path) -> String {
    let mut text = String::new();
    let mut placed = false;
    for segment in path {
        match segment {
            Segment::Seq { index } => {
                text.push_str(&format!("[{index}]"));
                placed = true;
            }
            Segment::Map { key } if placed && key == "value" => placed = false,
            Segment::Map { key } => {
                if !text.is_empty() {
                    text.push('.');
                }
                text.push_str(&short(key));
                placed = PLACED.contains(&key.as_str());
            }
            Segment::Enum { .. } | Segment::Unknown => placed = false,
        }
    }
    text
}

/// The expected field that was most likely meant.
fn nearest(given: &str, expected: &[&'static str]) -> Option<&'static str> {
    let likeness = |other: &&'static str| {
        strsim::normalized_damerau_levenshtein(&given.to_lowercase(), &other.to_lowercase())
    };
    expected
        .iter()
        .copied()
        .map(|other| (likeness(&other), other))
        .filter(|(likeness, _)| *likeness >= 0.6)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, other)| other)
}

/// Our own field types say `what is wrong; what to do`, names `what is wrong: use …`.
pub(crate) fn split_remedy(text: &str) -> (String, String) {
    let named = text.find(": use ").map(|at| text.split_at(at));
    let (message, remedy) = text
        .split_once("; ")
        .or_else(|| named.map(|(message, rest)| (message, rest.get(2..).unwrap_or_default())))
        .unwrap_or((text, ""));
    let cut = |text: &str| text.chars().take(300).collect();
    (cut(message), cut(remedy))
}

pub(super) fn short(text: &str) -> String {
    text.chars().take(80).collect()
}
