//! Instruments. Names and labels stand here and nowhere else.
//!
//! Labels are closed sets: method, outcome, kind, backend. Never a session, tenant, subject or tool, which strangers can
//! grow. Recording is a no-op until the program installs a meter provider.

use std::{sync::LazyLock, time::Duration};

use mcp_gateway_api::{failure::FailureKind, ids::BackendName};
use opentelemetry::{
    KeyValue, global,
    metrics::{Counter, Histogram, UpDownCounter},
};
use tokio::time::Instant;
use tracing::Span;

use crate::{body::Budget, directory::Directory, error::label};

struct Instruments {
    operation: Histogram<f64>,
    refusals: Counter<u64>,
    pending: UpDownCounter<i64>,
    revivals: Counter<u64>,
    cuts: Counter<u64>,
    abandoned: Counter<u64>,
    bodies_refused: Counter<u64>,
    cold_start: Histogram<f64>,
}

static INSTRUMENTS: LazyLock<Instruments> = LazyLock::new(|| {
    let meter = global::meter("mcp_gateway");
    Instruments {
        operation: meter
            .f64_histogram("mcp.server.operation.duration")
            .with_unit("s")
            .with_description("From a request's arrival to the end of its answer")
            .with_boundaries(vec![
                0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
                60.0, 300.0,
            ])
            .build(),
        refusals: meter
            .u64_counter("mcp_gateway.refusals")
            .with_description("Exchanges that the gateway itself answered with an error")
            .build(),
        pending: meter
            .i64_up_down_counter("mcp_gateway.pending")
            .with_description("Exchanges that wait for an instance")
            .build(),
        revivals: meter
            .u64_counter("mcp_gateway.revivals")
            .with_description("Sessions re-created on a new instance, by outcome")
            .build(),
        cuts: meter
            .u64_counter("mcp_gateway.cuts")
            .with_description("Answers that the gateway ended before the server did, by reason")
            .build(),
        abandoned: meter
            .u64_counter("mcp_gateway.abandoned_dropped")
            .with_description("Exchanges dropped after their client left, because too many went on without theirs")
            .build(),
        bodies_refused: meter
            .u64_counter("mcp_gateway.bodies_refused")
            .with_description("Request bodies refused because too many bytes of others are held")
            .build(),
        // The control loop records the other phases under the same name: the two must be described alike.
        cold_start: meter
            .f64_histogram("mcp_gateway.cold_start.duration")
            .with_unit("s")
            .with_description("What starting an instance took, by phase.")
            .with_boundaries(vec![
                0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
                60.0, 300.0,
            ])
            .build(),
    }
});

/// Shows the leases held now, as counted when somebody looks.
pub(crate) fn observe_leases(directory: Directory) {
    let meter = global::meter("mcp_gateway");
    // The callback lives with the meter; the handle is of no use.
    let _handle = meter
        .u64_observable_gauge("mcp_gateway.leases")
        .with_description("Leases held on instances now")
        .with_callback(move |observer| observer.observe(directory.leases(), &[]))
        .build();
}

/// Shows what request bodies take of memory, as counted when somebody looks.
pub(crate) fn observe_bodies(bodies: Budget) {
    let meter = global::meter("mcp_gateway");
    // As above.
    let _handle = meter
        .u64_observable_gauge("mcp_gateway.bodies")
        .with_unit("By")
        .with_description("Bytes of request bodies in memory now, but for held and small ones")
        .with_callback(move |observer| observer.observe(bodies.taken(), &[]))
        .build();
}

/// An exchange was refused.
pub(crate) fn refused(kind: FailureKind) {
    INSTRUMENTS
        .refusals
        .add(1, &[KeyValue::new("kind", label(kind))]);
}

/// A session was revived, or could not be.
pub(crate) fn revived(backend: &BackendName, outcome: &'static str) {
    INSTRUMENTS.revivals.add(
        1,
        &[
            KeyValue::new("backend", backend.as_str().to_owned()),
            KeyValue::new("outcome", outcome),
        ],
    );
}

/// A session's handshake was replayed on a new instance; it took this long.
pub(crate) fn handshake(backend: &BackendName, took: Duration) {
    let labels = [
        KeyValue::new("backend", backend.as_str().to_owned()),
        KeyValue::new("phase", "handshake"),
    ];
    INSTRUMENTS.cold_start.record(took.as_secs_f64(), &labels);
}

/// An exchange was dropped after its client had left: too many go on without theirs.
pub(crate) fn abandoned() {
    INSTRUMENTS.abandoned.add(1, &[]);
}

/// A request's body was refused: too many bytes of others are held.
pub(crate) fn body_refused() {
    INSTRUMENTS.bodies_refused.add(1, &[]);
}

/// One exchange that waits for an instance, while it lives.
pub(crate) struct Waiting(());

impl Waiting {
    pub(crate) fn begin() -> Self {
        INSTRUMENTS.pending.add(1, &[]);
        Self(())
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        INSTRUMENTS.pending.add(-1, &[]);
    }
}

/// Methods of the specification; whatever else a client sends counts as `other`.
const METHODS: [&str; 24] = [
    "initialize",
    "ping",
    "tools/list",
    "tools/call",
    "prompts/list",
    "prompts/get",
    "resources/list",
    "resources/read",
    "resources/templates/list",
    "resources/subscribe",
    "resources/unsubscribe",
    "completion/complete",
    "logging/setLevel",
    "server/discover",
    "subscriptions/listen",
    "tasks/get",
    "tasks/result",
    "tasks/cancel",
    "tasks/list",
    "tasks/update",
    "notifications/initialized",
    "notifications/cancelled",
    "notifications/progress",
    "notifications/roots/list_changed",
];

fn known(method: Option<&str>) -> &'static str {
    let method = method.unwrap_or("batch or response");
    METHODS
        .into_iter()
        .find(|known| *known == method)
        .unwrap_or("other")
}

/// One exchange with an instance: measured when it ends.
pub(crate) struct Operation {
    method: &'static str,
    arrived: Instant,
    outcome: &'static str,
    over: bool,
    span: Span,
}

impl Operation {
    /// Begins with the exchange's arrival.
    pub(crate) fn begin(method: Option<&str>, arrived: Instant) -> Self {
        Self {
            method: known(method),
            arrived,
            outcome: "ok",
            over: false,
            span: Span::none(),
        }
    }

    /// Tells its outcome to a span, too, which lives as long.
    pub(crate) fn within(mut self, span: &Span) -> Self {
        self.span = span.clone();
        self
    }

    /// The span of it.
    pub(crate) const fn span(&self) -> &Span {
        &self.span
    }

    /// Its response passed.
    pub(crate) fn answered(&mut self, is_error: bool) {
        self.outcome = if is_error { "error" } else { "ok" };
    }

    /// The gateway ended it.
    pub(crate) fn failed(&mut self, kind: FailureKind) {
        self.outcome = label(kind);
        INSTRUMENTS
            .cuts
            .add(1, &[KeyValue::new("reason", label(kind))]);
    }

    /// Its client went away first.
    pub(crate) fn client_left(&mut self) {
        self.outcome = "client_left";
    }

    /// It is over.
    pub(crate) fn finish(&mut self) {
        if !std::mem::replace(&mut self.over, true) {
            if self.outcome != "ok" {
                self.span.record("otel.status_code", "ERROR");
                self.span.record("error.type", self.outcome);
            }
            INSTRUMENTS.operation.record(
                self.arrived.elapsed().as_secs_f64(),
                &[
                    KeyValue::new("mcp.method.name", self.method),
                    KeyValue::new("outcome", self.outcome),
                ],
            );
        }
    }
}

impl Drop for Operation {
    fn drop(&mut self) {
        self.finish();
    }
}
