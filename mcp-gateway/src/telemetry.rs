//! Logs, traces and metrics: set up once before anything else runs, flushed once at the end.
//!
//! Logs go to standard error. Metrics are always kept for `/metrics`. Nothing is sent anywhere unless the standard
//! `OTEL_*` variables name a receiver. Must be started outside the async runtime: the exporters use threads of
//! their own.

use std::time::Duration;

use anyhow::Context;
use opentelemetry::{KeyValue, trace::TracerProvider};
use opentelemetry_sdk::{
    Resource,
    metrics::{PeriodicReader, SdkMeterProvider},
    propagation::TraceContextPropagator,
    trace::SdkTracerProvider,
};
use prometheus::{Registry, TextEncoder};
use tracing::{Metadata, level_filters::LevelFilter};
use tracing_subscriber::{
    EnvFilter, Layer, Registry as Subscriber,
    filter::{FilterExt, filter_fn},
    fmt::format,
    layer::SubscriberExt,
    util::SubscriberInitExt,
};

use crate::{cli::LogFormat, config::Log};

/// What must live as long as the process.
#[derive(Debug)]
pub(crate) struct Telemetry {
    registry: Registry,
    meters: SdkMeterProvider,
    tracers: Option<SdkTracerProvider>,
}

/// The page for Prometheus.
#[derive(Debug, Clone)]
pub(crate) struct MetricsPage(Registry);

/// Which signals the environment asks to send by OTLP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Asked {
    traces: bool,
    metrics: bool,
}

impl Asked {
    fn by(env: impl Fn(&str) -> Option<String>) -> Self {
        let is = |name: &str, value: &str| env(name).is_some_and(|v| v.eq_ignore_ascii_case(value));
        let given = |name: &str| env(name).is_some_and(|value| !value.trim().is_empty());
        let off = is("OTEL_SDK_DISABLED", "true");
        let signal = |endpoint: &str, exporter: &str| {
            let named =
                given("OTEL_EXPORTER_OTLP_ENDPOINT") || given(endpoint) || is(exporter, "otlp");
            named && !off && !is(exporter, "none")
        };
        Self {
            traces: signal("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_TRACES_EXPORTER"),
            metrics: signal(
                "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",
                "OTEL_METRICS_EXPORTER",
            ),
        }
    }
}

impl Telemetry {
    /// Sets everything up; from here on log lines are written.
    ///
    /// # Errors
    /// A filter, or a variable `OTEL_*`, makes no sense.
    pub(crate) fn start(log: &Log) -> anyhow::Result<Self> {
        let asked = Asked::by(|name| std::env::var(name).ok());
        let tracers = if asked.traces { Some(tracers()?) } else { None };
        if tracers.is_some() {
            opentelemetry::global::set_text_map_propagator(TraceContextPropagator::new());
        }
        logs(log, tracers.as_ref())?;
        let registry = Registry::new();
        let meters = meters(&registry, asked.metrics)?;
        opentelemetry::global::set_meter_provider(meters.clone());
        Ok(Self {
            registry,
            meters,
            tracers,
        })
    }

    /// The page for Prometheus.
    pub(crate) fn page(&self) -> MetricsPage {
        MetricsPage(self.registry.clone())
    }

    /// Sends what is left. Blocks for as long as the receivers take, within their own deadlines.
    pub(crate) fn finish(self) {
        // There is nobody left to tell of a failure.
        let _ = self.meters.shutdown();
        if let Some(tracers) = self.tracers {
            let _ = tracers.shutdown();
        }
    }
}

impl MetricsPage {
    /// The text, in Prometheus's exposition format.
    pub(crate) fn render(&self) -> anyhow::Result<String> {
        TextEncoder::new()
            .encode_to_string(&self.0.gather())
            .context("encoding the metrics")
    }
}

fn resource() -> Resource {
    let version = KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
    let builder = Resource::builder().with_attribute(version);
    if std::env::var_os("OTEL_SERVICE_NAME").is_some() {
        builder.build()
    } else {
        builder.with_service_name("mcp-gateway").build()
    }
}

fn tracers() -> anyhow::Result<SdkTracerProvider> {
    let exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_http()
        .build()
        .context("the OTLP trace exporter: check the OTEL_EXPORTER_OTLP_* variables")?;
    opentelemetry::global::set_text_map_propagator(TraceContextPropagator::new());
    Ok(SdkTracerProvider::builder()
        .with_resource(resource())
        .with_batch_exporter(exporter)
        .build())
}

fn meters(registry: &Registry, otlp: bool) -> anyhow::Result<SdkMeterProvider> {
    let page = opentelemetry_prometheus::exporter()
        .with_registry(registry.clone())
        .build()
        .context("the Prometheus exporter")?;
    let mut builder = SdkMeterProvider::builder()
        .with_resource(resource())
        .with_reader(page);
    if otlp {
        let exporter = opentelemetry_otlp::MetricExporter::builder()
            .with_http()
            .build()
            .context("the OTLP metric exporter: check the OTEL_EXPORTER_OTLP_* variables")?;
        let reader = PeriodicReader::builder(exporter);
        builder = builder.with_reader(match std::env::var_os("OTEL_METRIC_EXPORT_INTERVAL") {
            Some(_) => reader.build(),
            None => reader.with_interval(Duration::from_secs(30)).build(),
        });
    }
    Ok(builder.build())
}

fn logs(log: &Log, tracers: Option<&SdkTracerProvider>) -> anyhow::Result<()> {
    // The telemetry library's own good news is nobody's.
    let filter = EnvFilter::try_new(format!("opentelemetry=warn,{}", log.filter));
    let filter = filter.with_context(|| {
        format!(
            "--log-filter {:?} is no filter: write one such as info",
            log.filter
        )
    })?;
    // Lines are events only: where nobody asks for traces, a span is never made at all.
    let events =
        filter_fn(|about: &Metadata<'_>| about.is_event()).with_max_level_hint(LevelFilter::TRACE);
    let lines = lines(log.format).with_filter(filter.and(events));
    let traces = tracers.map(|tracers| {
        let spans = filter_fn(|about| about.is_span() && about.target().starts_with("mcp_gateway"));
        tracing_opentelemetry::layer()
            .with_tracer(tracers.tracer("mcp-gateway"))
            .with_filter(spans.with_max_level_hint(LevelFilter::INFO))
    });
    tracing_subscriber::registry()
        .with(lines)
        .with(traces)
        .try_init()
        .context("another subscriber is set")
}

fn lines(look: LogFormat) -> Box<dyn Layer<Subscriber> + Send + Sync> {
    match look {
        LogFormat::Json => tracing_subscriber::fmt::layer()
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .with_span_list(false)
            .with_writer(std::io::stderr)
            .boxed(),
        LogFormat::Pretty => tracing_subscriber::fmt::layer()
            .with_target(false)
            .fmt_fields(format::debug_fn(|out, field, value| {
                match field.name() {
                    "message" => write!(out, "{value:?}"),
                    // The sentence says these already.
                    "backend" | "from" | "to" | "why" => Ok(()),
                    name => write!(out, " {name}={value:?}"),
                }
            }))
            .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
            .with_writer(std::io::stderr)
            .boxed(),
    }
}

#[cfg(test)]
mod tests {
    use super::Asked;

    fn asked(vars: &[(&str, &str)]) -> (bool, bool) {
        let asked = Asked::by(|name| {
            let found = vars.iter().find(|(n, _)| *n == name);
            found.map(|(_, value)| (*value).to_owned())
        });
        (asked.traces, asked.metrics)
    }

    #[test]
    fn nothing_is_sent_unless_the_standard_variables_ask_for_it() {
        assert_eq!(asked(&[]), (false, false));
        let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318");
        assert_eq!(asked(&[endpoint]), (true, true));
        assert_eq!(
            asked(&[endpoint, ("OTEL_SDK_DISABLED", "true")]),
            (false, false)
        );
        assert_eq!(
            asked(&[endpoint, ("OTEL_METRICS_EXPORTER", "none")]),
            (true, false)
        );
        assert_eq!(
            asked(&[("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://c")]),
            (true, false)
        );
    }
}
