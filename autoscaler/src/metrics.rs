//! What the control loop measures. Labels are backends, phases and outcomes: never a session, tenant or subject.

use opentelemetry::{
    KeyValue, global,
    metrics::{Counter, Histogram, UpDownCounter},
};

use crate::core::{event::Note, instance::Phase};

/// The instruments.
#[derive(Debug)]
pub struct Metrics {
    cold_start: Histogram<f64>,
    instances: UpDownCounter<i64>,
    pending: UpDownCounter<i64>,
    starts: Counter<u64>,
    failures: Counter<u64>,
    drains: Counter<u64>,
    cuts: Counter<u64>,
    cut_leases: Counter<u64>,
    revivals: Counter<u64>,
}

impl Default for Metrics {
    fn default() -> Self {
        let meter = global::meter("mcp_gateway");
        let counter = |name, text| meter.u64_counter(name).with_description(text).build();
        Self {
            cold_start: meter
                .f64_histogram("mcp_gateway.cold_start.duration")
                .with_unit("s")
                .with_description("What starting an instance took, by phase.")
                .with_boundaries(vec![
                    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
                    30.0, 60.0, 300.0,
                ])
                .build(),
            instances: meter
                .i64_up_down_counter("mcp_gateway.instances")
                .with_description("Instances by phase.")
                .build(),
            pending: meter
                .i64_up_down_counter("mcp_gateway.claims.pending")
                .with_description("Claims that wait for an instance.")
                .build(),
            starts: counter("mcp_gateway.starts", "Instances that were launched."),
            failures: counter("mcp_gateway.failures", "Starts that failed, and crashes."),
            drains: counter("mcp_gateway.drains", "Drains begun, by kind."),
            cuts: counter(
                "mcp_gateway.instance_cuts",
                "Retiring instances that were cut.",
            ),
            cut_leases: counter("mcp_gateway.cut_leases", "Exchanges open on what was cut."),
            revivals: counter(
                "mcp_gateway.revival_permits",
                "Permits to revive a session.",
            ),
        }
    }
}

impl Metrics {
    /// Counts what a note tells.
    pub fn note(&self, note: &Note) {
        match note {
            Note::Transition(_) => {}
            Note::Phase { backend, from, to } => self.phase(backend.as_str(), *from, *to),
            Note::ColdStart { backend, cost } => {
                let phases = [
                    ("create", cost.create),
                    ("start", cost.start),
                    ("serve", cost.serve),
                    ("total", cost.create + cost.start + cost.serve),
                ];
                for (phase, time) in phases {
                    let labels = [label(backend.as_str()), KeyValue::new("phase", phase)];
                    self.cold_start.record(time.as_secs_f64(), &labels);
                }
            }
            Note::Failed(backend) => self.failures.add(1, &[label(backend.as_str())]),
            Note::Cut(backend, leases) => {
                self.cuts.add(1, &[label(backend.as_str())]);
                let leases = u64::from(*leases);
                self.cut_leases.add(leases, &[label(backend.as_str())]);
            }
            Note::Reviving(backend) => self.revivals.add(1, &[label(backend.as_str())]),
            Note::Waiting(backend, by) => self.pending.add(*by, &[label(backend.as_str())]),
        }
    }

    fn phase(&self, backend: &str, from: Option<Phase>, to: Option<Phase>) {
        let labels = |phase: Phase| [label(backend), KeyValue::new("phase", phase.label())];
        if let Some(from) = from {
            self.instances.add(-1, &labels(from));
        }
        if let Some(to) = to {
            self.instances.add(1, &labels(to));
        }
        let kind = match to {
            Some(Phase::Launching) => {
                self.starts.add(1, &[label(backend)]);
                return;
            }
            Some(Phase::IdleDraining) => "idle",
            Some(Phase::Retiring) => "retire",
            Some(
                Phase::Abandoned
                | Phase::Starting
                | Phase::Adopted
                | Phase::Doomed
                | Phase::Ready
                | Phase::Cut
                | Phase::Stopping,
            )
            | None => return,
        };
        let labels = [label(backend), KeyValue::new("kind", kind)];
        self.drains.add(1, &labels);
    }
}

fn label(backend: &str) -> KeyValue {
    KeyValue::new("backend", backend.to_owned())
}
