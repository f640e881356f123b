//! What a measurement leaves behind: values in the order they were taken, with no
//! opinion about them. A section is a JSON file; a report reads any number.

use serde::{Deserialize, Serialize};

use crate::phases::Part;
use crate::pods::road::Road;
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
    /// Cold starts of pods, on several roads.
    Pods(PodStarts),
    /// Many pods at once.
    Burst(Burst),
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

/// Cold starts of pods, in rounds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodStarts {
    /// What was started where.
    pub title: String,
    /// What ran next to each other is in one round.
    pub rounds: Vec<PodRound>,
}

/// One start on each road, in the order they ran.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodRound {
    /// At most one for each road.
    pub starts: Vec<PodStart>,
}

/// One cold start of a pod, in milliseconds from the request or the create call.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodStart {
    /// How.
    pub road: Road,
    /// Until the complete first answer; of the floor until the server accepted.
    pub total_millis: f64,
    /// Until the server accepted, as it stamped itself inside the pod.
    pub accepts_millis: Option<f64>,
    /// Where the total went, in order.
    pub parts: Vec<Part>,
}

/// Many cold starts at once, through the gateway and as bare pods.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Burst {
    /// What was started where.
    pub title: String,
    /// How many at once.
    pub pods: usize,
    /// Both ways, next to each other.
    pub rounds: Vec<BurstRound>,
}

/// A burst each way, in milliseconds until the last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BurstRound {
    /// Until the last bare pod's server accepted.
    pub bare_millis: f64,
    /// Until the last session was answered through the gateway.
    pub gateway_millis: f64,
}
