//! The page at `/`: the URL of each backend, as text for a terminal and a small page for a browser. Wakes nothing.
//! The activator's edge stands in front of it. Who may not call anything is shown nothing: a caller sees the backends
//! its tenant may use.

use std::{fmt::Write, sync::Arc};

use axum::{
    extract::{RawQuery, State},
    http::{HeaderMap, header},
    response::{Html, IntoResponse, Response},
};
use mcp_gateway_activator::auth::Authenticate;
use mcp_gateway_api::{
    backend::Transport,
    catalog::{Catalog, CatalogWatch},
};

use crate::report::urls;

/// What the page is made from.
#[derive(Clone)]
pub(crate) struct Landing {
    pub(crate) catalog: CatalogWatch,
    /// Who is asking.
    pub(crate) auth: Arc<dyn Authenticate>,
    /// How clients reach the gateway, without a final slash.
    pub(crate) base: Arc<str>,
    /// How operators reach the status page, without a final slash.
    pub(crate) admin: Arc<str>,
}

/// Answers `GET /`.
pub(crate) async fn page(
    State(landing): State<Landing>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    let shown = landing.shown_to(&headers);
    let accept = headers.get(header::ACCEPT).and_then(|v| v.to_str().ok());
    let text = query.as_deref() == Some("format=text");
    if accept.is_some_and(|accept| accept.contains("text/html")) && !text {
        Html(html(&landing, &shown)).into_response()
    } else {
        plain(&landing, &shown).into_response()
    }
}

impl Landing {
    /// The backends that this caller may use; none for a stranger.
    fn shown_to(&self, headers: &HeaderMap) -> Catalog {
        let mut catalog = Catalog::clone(&self.catalog.borrow());
        match self.auth.authenticate(headers) {
            Ok(caller) => catalog
                .backends
                .retain(|_, backend| backend.admits(&caller.tenant)),
            Err(_stranger) => catalog.backends.clear(),
        }
        catalog
    }
}

fn plain(landing: &Landing, shown: &Catalog) -> String {
    let mut out = String::from(
        "mcp-gateway: MCP servers that start when you ask and stop when you don't.\n\n",
    );
    // Writing to a `String` cannot fail, here and below.
    for (name, url) in &urls(shown, &landing.base) {
        let _ = writeln!(out, "  {name:24} {url}");
    }
    if shown.backends.is_empty() {
        out.push_str("  (no backends are registered that this caller may use)\n");
    }
    let _ = writeln!(out, "\nstatus: {}/status", landing.admin);
    out
}

fn html(landing: &Landing, shown: &Catalog) -> String {
    let mut rows = String::new();
    for (name, url) in &urls(shown, &landing.base) {
        let backend = shown.backends.values().find(|b| b.name.as_str() == name);
        let about = backend
            .and_then(|b| b.description.clone())
            .unwrap_or_default();
        let kind = backend.map_or("", |b| match b.launch.transport {
            Transport::Stdio => "stdio",
            Transport::StreamableHttp => "streamable HTTP",
            Transport::Sse => "HTTP+SSE",
        });
        let _ = write!(
            rows,
            "<tr><td><b>{}</b></td><td><code>{}</code></td><td>{kind}</td><td>{}</td></tr>",
            escape(name),
            escape(url),
            escape(&about)
        );
    }
    let admin = escape(&landing.admin);
    format!(
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content=\"width=device-width\">\
         <title>mcp-gateway</title><style>:root{{color-scheme:light dark}}body{{font:16px system-ui;margin:3rem auto;\
         max-width:60rem;padding:0 1rem}}td{{padding:.4rem 1rem .4rem 0;vertical-align:top}}</style>\
         <h1>mcp-gateway</h1><p>MCP servers that start when you ask and stop when you don't.</p>\
         <table>{rows}</table><p><a href=\"{admin}/status\">Status</a> · <a href=\"{admin}/metrics\">Metrics</a></p>"
    )
}

fn escape(text: &str) -> String {
    text.chars().fold(String::new(), |mut out, c| {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            c => out.push(c),
        }
        out
    })
}
