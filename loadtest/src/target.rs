//! What is measured: a name for the table and an MCP endpoint.

use std::str::FromStr;

use anyhow::{Context as _, bail};
use http::Uri;

/// One MCP endpoint under a name, written `NAME=http://HOST:PORT/PATH`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// How it is called in tables.
    pub name: String,
    /// `host:port`, as the `Host` header says it.
    pub authority: String,
    /// Path of the MCP endpoint.
    pub path: String,
}

impl FromStr for Target {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let (name, url) = text
            .split_once('=')
            .with_context(|| format!("{text}: want NAME=http://HOST:PORT/PATH"))?;
        let uri: Uri = url.parse().with_context(|| format!("{url} is no URL"))?;
        if uri.scheme_str() != Some("http") {
            bail!("{url}: only http:// is measured");
        }
        let authority = uri
            .authority()
            .with_context(|| format!("{url} names no host"))?;
        let port = authority.port_u16().unwrap_or(80);
        Ok(Self {
            name: name.to_owned(),
            authority: format!("{}:{port}", authority.host()),
            path: uri.path().to_owned(),
        })
    }
}

/// Process ids under a target's name, written `NAME=PID[,PID...]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pids {
    /// The target, or the row, that they belong to.
    pub name: String,
    /// All processes whose cost counts.
    pub pids: Vec<u32>,
}

impl FromStr for Pids {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let (name, list) = text
            .split_once('=')
            .with_context(|| format!("{text}: want NAME=PID[,PID...]"))?;
        let pids = list
            .split(',')
            .map(|pid| {
                pid.trim()
                    .parse()
                    .with_context(|| format!("{pid} is no process id"))
            })
            .collect::<anyhow::Result<_>>()?;
        Ok(Self {
            name: name.to_owned(),
            pids,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_a_name_and_an_endpoint() {
        let target: Target = "direct=http://127.0.0.1:8000/mcp".parse().unwrap();
        assert_eq!(target.name, "direct");
        assert_eq!(target.authority, "127.0.0.1:8000");
        assert_eq!(target.path, "/mcp");
    }

    #[test]
    fn what_is_no_target_says_why() {
        for (text, why) in [
            ("http//x", "NAME="),
            ("a=https://x/", "only http"),
            ("a=/path", "only http"),
        ] {
            let error = text.parse::<Target>().unwrap_err().to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn processes_are_a_list() {
        let pids: Pids = "nginx=1, 2".parse().unwrap();
        assert_eq!(pids.pids, [1, 2]);
        assert!("nginx=x".parse::<Pids>().is_err());
    }
}
