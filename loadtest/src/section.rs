//! What a measurement leaves behind: values in the order they were taken, with no
//! opinion about them. A section is a JSON file; a report reads any number.

use serde::{Deserialize, Serialize};

use crate::process::Memory;

/// One measurement.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase")]
pub enum Section {
    /// Closed loop over kept connections.
    Warm(Warm),
    /// First request to first answer.
    Cold(Cold),
    /// Many live sessions that nobody uses.
    Sessions(Sessions),
    /// Memory at one moment.
    Memory(AtRest),
}

/// Rounds of every target, taken in turn.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Warm {
    /// What was sent to what.
    pub title: String,
    /// Kept connections, each with a session and one exchange at a time.
    pub connections: usize,
    /// One entry per target; the first is what the others are compared with.
    pub targets: Vec<Rounds>,
}

/// All rounds of one target, in the order they ran.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rounds {
    /// The target's name.
    pub name: String,
    /// Entry `i` of every target ran next to entry `i` of the others.
    pub rounds: Vec<Round>,
}

/// One round of one target. Latencies are in microseconds, from just before the
/// request is handed to the connection to the last byte of the answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Round {
    /// Answers that were results.
    pub exchanges: u64,
    /// Anything else.
    pub errors: u64,
    /// How long the round took.
    pub seconds: f64,
    /// Median latency in microseconds.
    pub p50_micros: f64,
    /// 99th percentile in microseconds.
    pub p99_micros: f64,
    /// CPU seconds of the target's processes, where they were named.
    pub cpu_seconds: Option<f64>,
}

/// Pairs of cold starts, taken in turn.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Cold {
    /// What was started.
    pub title: String,
    /// Milliseconds by hand and through the gateway, side by side.
    pub pairs: Vec<ColdPair>,
}

/// Two cold starts that ran one after the other, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ColdPair {
    /// Spawned by the load test itself.
    pub by_hand_millis: f64,
    /// Through the gateway.
    pub gateway_millis: f64,
}

/// Memory of named processes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AtRest {
    /// When it was taken.
    pub title: String,
    /// Name and memory.
    pub rows: Vec<(String, Memory)>,
}

/// Memory before and after sessions were opened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Sessions {
    /// What was opened.
    pub title: String,
    /// How many.
    pub count: usize,
    /// How long opening them took.
    pub seconds: f64,
    /// Before the first.
    pub before: Memory,
    /// After the last.
    pub after: Memory,
}
