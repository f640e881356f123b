//! One span for each exchange, `{method} {tool}`, from its arrival to the end of its answer (MCP semantic conventions).
//!
//! Its parent comes from the client's HTTP headers, else from `_meta.traceparent`; both pass on, the headers with this
//! span as the parent if it is recorded. Where nobody records spans, nothing is made and nothing changes.
//! Never in a span: session ids, tenants, subjects, arguments.

use http::{HeaderMap, HeaderName, HeaderValue};
use mcp_gateway_api::ids::BackendName;
use opentelemetry::{
    Context, global,
    propagation::{Extractor, Injector},
    trace::TraceContextExt,
};
use tracing::{Level, Span, field::Empty};
use tracing_opentelemetry::OpenTelemetrySpanExt;

use crate::message::{Message, Params};

const TARGET: &str = "mcp_gateway::exchange";

/// The span of an exchange; a disabled one where nobody records it.
pub(crate) fn span(message: &Message, backend: &BackendName, headers: &HeaderMap) -> Span {
    if !tracing::span_enabled!(target: TARGET, Level::INFO) {
        return Span::none();
    }
    let method = message.method().unwrap_or("batch or response");
    let tool = message
        .params()
        .and_then(|params| params.name.as_deref())
        .filter(|_| method == "tools/call");
    let name = tool.map_or_else(|| method.to_owned(), |tool| format!("{method} {tool}"));
    let span = tracing::info_span!(
        target: TARGET,
        "exchange",
        otel.name = name,
        otel.kind = "server",
        otel.status_code = Empty,
        error.type = Empty,
        mcp.method.name = method,
        gen_ai.tool.name = tool,
        mcp_gateway.backend = backend.as_str(),
        mcp_gateway.cold = Empty,
        mcp_gateway.revived = Empty,
    );
    if let Some(parent) = parent(headers, message.params()) {
        // Fails only for a span that nobody records.
        let _recorded = span.set_parent(parent);
    }
    span
}

fn parent(headers: &HeaderMap, params: Option<&Params>) -> Option<Context> {
    let from = |carrier: &dyn Extractor| {
        let context = global::get_text_map_propagator(|propagator| propagator.extract(carrier));
        context.span().span_context().is_valid().then_some(context)
    };
    from(&Headers(headers)).or_else(|| {
        let traceparent = params?.traceparent.as_deref()?;
        from(&Meta(traceparent))
    })
}

/// Names the span as the parent in the headers that go to the server, if it is recorded.
pub(crate) fn pass_on(span: &Span, headers: &mut HeaderMap) {
    if span.is_disabled() {
        return;
    }
    let context = span.context();
    global::get_text_map_propagator(|propagator| {
        propagator.inject_context(&context, &mut HeadersMut(headers));
    });
}

struct Headers<'a>(&'a HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(HeaderName::as_str).collect()
    }
}

struct Meta<'a>(&'a str);

impl Extractor for Meta<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        (key == "traceparent").then_some(self.0)
    }

    fn keys(&self) -> Vec<&str> {
        vec!["traceparent"]
    }
}

struct HeadersMut<'a>(&'a mut HeaderMap);

impl Injector for HeadersMut<'_> {
    fn set(&mut self, key: &str, value: String) {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(key), HeaderValue::try_from(value)) {
            // An empty trace state says nothing.
            if !value.is_empty() {
                self.0.insert(name, value);
            }
        }
    }
}
