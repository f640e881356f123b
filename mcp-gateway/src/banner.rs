//! Tells people and scripts where the gateway is: the banner on standard error, and the ready file.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    io::{self, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::Path,
};

use anyhow::Context;
use serde::Serialize;

use crate::{cli::LogFormat, config::Access, files};

/// Where everything is; also the text of the ready file.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Whereabouts {
    /// The bound address for clients.
    pub(crate) listen: SocketAddr,
    /// The bound address for operators.
    pub(crate) admin: SocketAddr,
    /// The gateway's process id.
    pub(crate) pid: u32,
    /// The URL of each backend, by name.
    pub(crate) backends: BTreeMap<String, String>,
}

/// Writes the ready file: scripts read there where the process listens.
///
/// # Errors
/// It cannot be written.
pub(crate) fn write_ready(path: &Path, told: &impl Serialize) -> anyhow::Result<()> {
    let text = serde_json::to_string(told).context("the ready file's text")?;
    files::replace(path, (text + "\n").as_bytes())
        .with_context(|| format!("--ready-file {} cannot be written", path.display()))
}

/// `http://` and an address that this machine can reach.
pub(crate) fn base_url(address: SocketAddr) -> String {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::from(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::from(Ipv6Addr::LOCALHOST),
        ip @ (IpAddr::V4(_) | IpAddr::V6(_)) => ip,
    };
    format!("http://{}", SocketAddr::new(ip, address.port()))
}

/// Whom to tell, and what else.
pub(crate) struct Notice<'a> {
    pub(crate) format: LogFormat,
    pub(crate) access: &'a Access,
    /// Of a gateway that keeps something.
    pub(crate) state_dir: Option<&'a Path>,
    pub(crate) ready_file: Option<&'a Path>,
}

impl Whereabouts {
    /// Tells everybody.
    ///
    /// # Errors
    /// The ready file cannot be written.
    pub(crate) fn announce(&self, notice: &Notice<'_>) -> anyhow::Result<()> {
        match notice.format {
            LogFormat::Pretty => {
                // A closed standard error is no reason not to serve.
                let _ = io::stderr().write_all(self.banner(notice).as_bytes());
            }
            LogFormat::Json => {
                tracing::info!(listen = %self.listen, admin = %self.admin, "mcp-gateway is ready");
                for (backend, url) in &self.backends {
                    tracing::info!(backend, url, "{backend} is served");
                }
            }
        }
        notice
            .ready_file
            .map_or(Ok(()), |path| write_ready(path, self))
    }

    fn banner(&self, notice: &Notice<'_>) -> String {
        let mut out = String::new();
        let base = base_url(self.listen);
        let callers = match notice.access {
            Access::Keys(path) => format!("by API key ({})", path.display()),
            Access::Anonymous if self.listen.ip().is_loopback() => {
                "anybody on this machine".to_owned()
            }
            Access::Anonymous => "anybody who can reach it".to_owned(),
        };
        // Writing to a `String` cannot fail.
        let _ = writeln!(out, "\n  mcp-gateway {}\n", env!("CARGO_PKG_VERSION"));
        let state = notice.state_dir.map(|path| path.display().to_string());
        for (what, value) in [
            ("clients", Some(base)),
            ("callers", Some(callers)),
            ("status", Some(format!("{}/status", base_url(self.admin)))),
            ("state", state),
        ] {
            let _ = value.map(|value| writeln!(out, "  {what:9}{value}"));
        }
        let width = self.backends.keys().map(String::len).max().unwrap_or(0);
        for (name, url) in &self.backends {
            let _ = writeln!(out, "  {name:width$}  {url}", width = width.max(7));
        }
        if self.backends.is_empty() {
            let _ = writeln!(
                out,
                "  no backend yet: documents are read again as they change"
            );
        }
        out.push('\n');
        out
    }
}
