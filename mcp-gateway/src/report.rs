//! What `/status` says: as JSON for scripts, as text for a terminal. Pure.

use std::{fmt::Write, time::Duration};

use mcp_gateway_api::{
    backend::Transport,
    catalog::Catalog,
    status::{BackendStatus, FailureStatus, InstanceStatus, SlotStatus, Status},
};
use mcp_gateway_control::Problem;
use serde::Serialize;

/// The whole report.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Report {
    /// The gateway's version.
    pub(crate) version: &'static str,
    /// Milliseconds since it started.
    pub(crate) uptime_ms: u64,
    /// The URL of each backend, by name.
    pub(crate) urls: std::collections::BTreeMap<String, String>,
    /// The autoscaler's state.
    #[serde(flatten)]
    pub(crate) status: Status,
    /// What is wrong with documents.
    pub(crate) problems: Vec<Problem>,
}

/// The URL of each backend under `base`, by name.
pub(crate) fn urls(catalog: &Catalog, base: &str) -> std::collections::BTreeMap<String, String> {
    let url = |(name, backend): (&_, &std::sync::Arc<mcp_gateway_api::backend::Backend>)| {
        let end = match backend.launch.transport {
            Transport::Stdio | Transport::StreamableHttp => "mcp",
            Transport::Sse => "sse",
        };
        let name: &mcp_gateway_api::ids::BackendName = name;
        (name.to_string(), format!("{base}/adapters/{name}/{end}"))
    };
    catalog.backends.iter().map(url).collect()
}

impl Report {
    /// The report for a terminal.
    pub(crate) fn text(&self) -> String {
        let mut out = String::new();
        // Writing to a `String` cannot fail, so the results below are dropped.
        let _ = writeln!(
            out,
            "mcp-gateway {}, up {}, {} of {} instances{}\n",
            self.version,
            span(self.uptime_ms),
            self.status.instances,
            self.status.max_instances,
            if self.status.draining {
                ", shutting down"
            } else {
                ""
            },
        );
        let width = self.status.backends.iter().map(|b| b.name.len()).max();
        let width = width.unwrap_or(0).max("BACKEND".len());
        let _ = writeln!(
            out,
            "{:width$}  {:9} {:>7} {:>6} {:>8}  URL",
            "BACKEND", "STATE", "WAITING", "STARTS", "FAILURES"
        );
        for backend in &self.status.backends {
            self.backend(&mut out, backend, width);
        }
        if !self.problems.is_empty() {
            let _ = writeln!(out, "\nDOCUMENTS");
            for problem in &self.problems {
                let _ = writeln!(out, "  {problem}");
            }
        }
        out
    }

    fn backend(&self, out: &mut String, backend: &BackendStatus, width: usize) {
        let _ = writeln!(
            out,
            "{:width$}  {:9} {:>7} {:>6} {:>8}  {}",
            backend.name,
            backend.state,
            backend.waiting,
            backend.starts,
            backend.failures,
            self.urls.get(&backend.name).map_or("-", String::as_str),
        );
        for slot in &backend.slots {
            let _ = writeln!(out, "  {}", slot_line(slot));
            for instance in slot.instance.iter() {
                instance_details(out, instance);
            }
        }
        if let Some(failure) = &backend.last_failure {
            failure_details(out, failure);
        }
    }
}

fn slot_line(slot: &SlotStatus) -> String {
    let mut parts = vec![format!("{}: {}", slot.owner, slot.phase)];
    if slot.waiting > 0 {
        parts.push(format!("{} waiting", slot.waiting));
    }
    if let Some(instance) = &slot.instance {
        parts.extend(instance.pid.map(|pid| format!("pid {pid}")));
        parts.extend(instance.endpoint.clone());
        parts.push(format!("leases {}", instance.leases));
        parts.push(format!("age {}", span(instance.age_ms)));
        parts.extend(
            instance
                .cold_start_ms
                .map(|ms| format!("started in {}", span(ms))),
        );
    }
    parts.extend(
        slot.idle_drain_ms
            .map(|ms| format!("to zero in {}", span(ms))),
    );
    parts.extend(slot.next_try_ms.map(|ms| match ms {
        0 => "the next request tries again".to_owned(),
        ms => format!("next try in {}", span(ms)),
    }));
    parts.join(", ")
}

fn instance_details(out: &mut String, instance: &InstanceStatus) {
    for warning in &instance.warnings {
        let _ = writeln!(out, "    warning: {warning}");
    }
    if let Some(log) = &instance.log {
        let _ = writeln!(out, "    log: {log}");
    }
    for line in instance.stderr_tail.iter().rev().take(3).rev() {
        let _ = writeln!(out, "    | {line}");
    }
}

fn failure_details(out: &mut String, failure: &FailureStatus) {
    let _ = writeln!(
        out,
        "  last failure {} ago ({} in a row): {}",
        span(failure.ago_ms),
        failure.in_a_row,
        failure.exit.summary
    );
    for line in failure.exit.stderr_tail.iter().rev().take(5).rev() {
        let _ = writeln!(out, "    | {line}");
    }
    if let Some(log) = &failure.log {
        let _ = writeln!(out, "    log: {log}");
    }
}

/// Milliseconds for people: `132ms`, `12s`, `3m 12s`.
fn span(ms: u64) -> String {
    let duration = if ms < 1_000 {
        Duration::from_millis(ms)
    } else {
        Duration::from_secs(ms / 1_000)
    };
    humantime::format_duration(duration).to_string()
}

#[cfg(test)]
mod tests {
    use mcp_gateway_api::status::{BackendStatus, InstanceStatus, SlotStatus, Status};

    use super::Report;

    #[test]
    fn the_text_says_what_a_person_wants_to_know() {
        let instance = InstanceStatus {
            pid: Some(42),
            endpoint: Some("127.0.0.1:4711".to_owned()),
            warnings: vec!["listens on 0.0.0.0".to_owned()],
            ..InstanceStatus::default()
        };
        let slot = SlotStatus {
            owner: "tenant engineering".to_owned(),
            phase: "ready".to_owned(),
            instance: Some(instance),
            idle_drain_ms: Some(12_345),
            ..SlotStatus::default()
        };
        let backend = BackendStatus {
            name: "everything".to_owned(),
            state: "ready".to_owned(),
            slots: vec![slot],
            ..BackendStatus::default()
        };
        let report = Report {
            version: "0.0.0",
            uptime_ms: 61_000,
            urls: [("everything".to_owned(), "http://u".to_owned())].into(),
            status: Status {
                backends: vec![backend],
                instances: 1,
                max_instances: 100,
                ..Status::default()
            },
            problems: Vec::new(),
        };
        let text = report.text();
        for part in [
            "up 1m 1s",
            "1 of 100 instances",
            "tenant engineering: ready, pid 42, 127.0.0.1:4711",
            "to zero in 12s",
            "warning: listens on 0.0.0.0",
            "http://u",
        ] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
    }
}
