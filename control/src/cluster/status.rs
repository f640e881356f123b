//! What the status of each object should say. Pure; when a condition last changed is the writer's to know.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use mcp_gateway_api::{
    ids::BackendName,
    status::{BackendStatus, Status},
};

use super::objects::{Kind, Object};
use crate::problem::Problem;

/// The longest sentence in a status, in characters.
const LONGEST: usize = 2_000;

/// One backend, as the autoscaler sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackendReport {
    /// `cold`, `starting`, `ready`, `draining`, `backoff`.
    pub state: String,
    /// Instances that are there in any phase, ending ones included.
    pub instances: u32,
    /// Sessions that have an instance, where that is known.
    pub sessions: Option<u64>,
    /// When the last instance was started.
    pub last_start: Option<SystemTime>,
    /// Why starts fail, if they do.
    pub why: Option<String>,
    /// What a start under way waits for, if it is more than its own time.
    pub waits: Option<String>,
}

impl BackendReport {
    /// The reports of all backends in a status of the autoscaler; `now` is the moment it was taken at.
    #[must_use]
    pub fn all(status: &Status, now: SystemTime) -> BTreeMap<BackendName, Self> {
        let one = |backend: &BackendStatus| {
            let name = BackendName::new(&backend.name).ok()?;
            Some((name, Self::of(backend, now)))
        };
        status.backends.iter().filter_map(one).collect()
    }

    fn of(backend: &BackendStatus, now: SystemTime) -> Self {
        let instances = || {
            backend
                .slots
                .iter()
                .filter_map(|slot| slot.instance.as_ref())
        };
        let youngest = instances().map(|instance| instance.age_ms).min();
        let sessions = backend
            .slots
            .iter()
            .filter(|slot| slot.instance.is_some() && slot.owner.starts_with("session "))
            .count() as u64;
        let by_session = backend
            .slots
            .iter()
            .all(|slot| slot.owner.starts_with("session ") || slot.owner.starts_with("principal "));
        let failure = backend.last_failure.as_ref();
        let starting = instances().filter(|instance| instance.phase == "starting");
        let newest = starting.min_by_key(|instance| instance.age_ms);
        Self {
            state: backend.state.clone(),
            instances: u32::try_from(instances().count()).unwrap_or(u32::MAX),
            sessions: by_session.then_some(sessions),
            last_start: youngest.and_then(|age| now.checked_sub(Duration::from_millis(age))),
            why: failure
                .filter(|failure| failure.in_a_row > 0)
                .map(|failure| failure.exit.summary.to_string()),
            waits: newest.and_then(|instance| instance.warnings.last().cloned()),
        }
    }
}

/// Whether objects that a backend names are usable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum References {
    /// All are.
    Usable,
    /// One is not: a word for machines and a sentence for people.
    Unusable(&'static str, String),
    /// It cannot be told.
    Unknown(String),
}

/// One condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// `Accepted`, `ReferencesUsable`, `Available`.
    pub kind: &'static str,
    /// `True`, `False`, `Unknown`.
    pub status: &'static str,
    /// A word for machines.
    pub reason: &'static str,
    /// A sentence for people.
    pub message: String,
}

/// What an object's status should say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    /// The edit it speaks of.
    pub generation: i64,
    /// In the order in which they are shown.
    pub conditions: Vec<Condition>,
    /// Backends only.
    pub state: Option<String>,
    /// Backends only.
    pub instances: Option<u32>,
    /// Backends only.
    pub sessions: Option<u64>,
    /// Backends only.
    pub last_start: Option<SystemTime>,
    /// What is wrong, if anything.
    pub why: Option<String>,
}

/// All that is known of one object.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// Itself.
    pub object: &'a Object,
    /// Its kind.
    pub kind: Kind,
    /// What is wrong with it.
    pub problem: Option<&'a Problem>,
    /// Whether it is in the catalog.
    pub in_force: bool,
    /// What it refers to; none if it refers to nothing or nobody has looked yet.
    pub references: Option<&'a References>,
    /// How it is doing; none if nobody has said.
    pub report: Option<&'a BackendReport>,
}

/// A problem as one sentence, without the place that the object itself is.
#[must_use]
pub fn sentence(problem: &Problem) -> String {
    let mut text = String::new();
    if let Some(field) = &problem.field {
        text.push_str(field);
        text.push_str(": ");
    }
    text.push_str(&problem.message);
    if !problem.remedy.is_empty() {
        text.push_str("; ");
        text.push_str(&problem.remedy);
    }
    if problem.last_good_kept {
        text.push_str(" (its last good form stays in force)");
    }
    text.chars().take(LONGEST).collect()
}

/// The status for these facts.
#[must_use]
pub fn wanted(facts: Facts<'_>) -> Wanted {
    let accepted = accepted(facts.problem);
    let mut wanted = Wanted {
        generation: facts.object.generation,
        why: (accepted.status == "False").then(|| accepted.message.clone()),
        conditions: vec![accepted],
        ..Wanted::default()
    };
    if facts.kind == Kind::McpBackend {
        running(facts, &mut wanted);
    }
    wanted
}

fn accepted(problem: Option<&Problem>) -> Condition {
    let (status, reason, message) = match problem {
        None => ("True", "Valid", "the document is in force".to_owned()),
        Some(problem) if problem.field.as_deref() == Some("spec.policyRef.name") => {
            ("False", "PolicyNotFound", sentence(problem))
        }
        Some(problem) => ("False", "Invalid", sentence(problem)),
    };
    Condition {
        kind: "Accepted",
        status,
        reason,
        message,
    }
}

fn running(facts: Facts<'_>, wanted: &mut Wanted) {
    let instances = facts.report.map_or(0, |report| report.instances);
    wanted.instances = Some(instances);
    wanted.sessions = facts.report.map_or(Some(0), |report| report.sessions);
    wanted.last_start = facts.report.and_then(|report| report.last_start);
    let mut failing = facts.report.and_then(|report| report.why.clone());
    if let Some(references) = facts.references {
        let condition = refers(references);
        if condition.status == "False" {
            // No start can succeed: nobody has to try one first.
            failing.get_or_insert_with(|| condition.message.clone());
            wanted.why.get_or_insert_with(|| condition.message.clone());
        }
        wanted.conditions.push(condition);
    }
    let waits = facts.report.and_then(|report| report.waits.clone());
    wanted.conditions.push(available(
        facts.in_force,
        failing.as_deref(),
        waits.as_deref(),
    ));
    let state = facts.report.map_or("cold", |report| report.state.as_str());
    wanted.state = Some(if facts.object.deleting {
        wanted.why = Some(format!(
            "it is being deleted; it goes when its instances have ended ({instances} left)"
        ));
        "draining".to_owned()
    } else if facts.in_force {
        if wanted.why.is_none() {
            wanted.why = waits.or(failing);
        }
        state.to_owned()
    } else {
        "refused".to_owned()
    });
}

fn refers(references: &References) -> Condition {
    let (status, reason, message) = match references {
        References::Usable => (
            "True",
            "Labelled",
            "all Secrets and ConfigMaps it names are there and labelled for it".to_owned(),
        ),
        References::Unusable(reason, sentence) => ("False", *reason, sentence.clone()),
        References::Unknown(sentence) => ("Unknown", "NotLookedUp", sentence.clone()),
    };
    Condition {
        kind: "ReferencesUsable",
        status,
        reason,
        message,
    }
}

/// What a start that is under way waits for is newer than what made an earlier one fail.
fn available(in_force: bool, failing: Option<&str>, waits: Option<&str>) -> Condition {
    let cut = |why: &str| why.chars().take(LONGEST).collect::<String>();
    let (status, reason, message) = match (in_force, failing, waits) {
        (false, _, _) => (
            "False",
            "NotInForce",
            "the document is not in force".to_owned(),
        ),
        (true, _, Some(why)) => ("False", "StartWaits", cut(why)),
        (true, Some(why), None) => ("False", "StartsFail", cut(why)),
        (true, None, None) => (
            "True",
            "StartsOnRequest",
            "it is started when somebody asks for it".to_owned(),
        ),
    };
    Condition {
        kind: "Available",
        status,
        reason,
        message,
    }
}

/// When the last instance was started, from what was known and what is reported: reports tell ages, which come out a
/// little different each time, and an instance that is gone was started all the same.
#[must_use]
pub fn last_start(known: Option<SystemTime>, reported: Option<SystemTime>) -> Option<SystemTime> {
    match (known, reported) {
        (Some(known), Some(reported)) => {
            let later = reported.duration_since(known).unwrap_or_default();
            Some(if later > Duration::from_secs(2) {
                reported
            } else {
                known
            })
        }
        (known, reported) => known.or(reported),
    }
}
