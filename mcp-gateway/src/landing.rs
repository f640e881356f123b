//! The page at `/`: the URL of each backend, as text for a terminal and a small page for a browser. Wakes nothing.
//! The activator's edge stands in front of it.

use std::{collections::BTreeMap, fmt::Write, sync::Arc};

use axum::{
    extract::{RawQuery, State},
    http::{HeaderMap, header},
    response::{Html, IntoResponse, Response},
};
use mcp_gateway_api::{backend::Transport, catalog::CatalogWatch};

use crate::report::urls;

/// What the page is made from.
#[derive(Clone)]
pub(crate) struct Landing {
    pub(crate) catalog: CatalogWatch,
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
    let urls = urls(&landing.catalog.borrow(), &landing.base);
    let accept = headers.get(header::ACCEPT).and_then(|v| v.to_str().ok());
    let text = query.as_deref() == Some("format=text");
    if accept.is_some_and(|accept| accept.contains("text/html")) && !text {
        Html(html(&landing, &urls)).into_response()
    } else {
        plain(&landing, &urls).into_response()
    }
}

fn plain(landing: &Landing, urls: &BTreeMap<String, String>) -> String {
    let mut out = String::from(
        "mcp-gateway: MCP servers that start when you ask and stop when you don't.\n\n",
    );
    // Writing to a `String` cannot fail, here and below.
    for (name, url) in urls {
        let _ = writeln!(out, "  {name:24} {url}");
    }
    if urls.is_empty() {
        out.push_str("  (no backends are registered)\n");
    }
    let _ = writeln!(out, "\nstatus: {}/status", landing.admin);
    out
}

fn html(landing: &Landing, urls: &BTreeMap<String, String>) -> String {
    let mut rows = String::new();
    let catalog = landing.catalog.borrow();
    for (name, url) in urls {
        let backend = catalog.backends.values().find(|b| b.name.as_str() == name);
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
