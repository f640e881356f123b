//! The gateway under test: a child of ours, all in one, whose servers are pods of
//! the measurement's namespace.

use std::fs::File;
use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context as _, bail};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::time::{Duration, Instant, sleep};

use super::road::{Form, Road};
use super::{Options, place::Place};
use crate::target::Target;

/// How long it may take to be ready.
const PATIENCE: Duration = Duration::from_secs(60);
/// A session that was ended takes its pod with it after this. Whoever needs the pod
/// for longer must use it.
const IDLE: &str = "500ms";
/// Where the demo images hold the demo server.
pub const PROGRAM: &str = "/usr/local/bin/mcp-gateway";

/// A running gateway; dropping it kills it.
#[derive(Debug)]
pub struct Gateway {
    child: Child,
    home: TempDir,
    listen: String,
}

impl Gateway {
    /// Starts one that serves the roads through it.
    ///
    /// # Errors
    /// It does not become ready; says what it logged last.
    pub async fn start(options: &Options, place: &Place) -> anyhow::Result<Self> {
        let home = TempDir::new()?;
        let documents: String = options
            .roads
            .iter()
            .filter_map(|road| Some(document(options, *road, road.form()?)))
            .collect();
        let file = home.path().join("backends.yaml");
        std::fs::write(&file, documents)?;
        let advertise = options.home_advertise.clone();
        let mut command = Command::new(&options.gateway);
        command
            .args(["serve", "--kubernetes", "--installation", "load"])
            .args(["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"])
            .args(["--namespace", &place.namespace])
            .args(["--home-listen", "0.0.0.0:0"])
            .arg("--home-advertise")
            .arg(advertise.unwrap_or_else(|| format!("{}:0", place.node)))
            .args(["--agent-image", &options.agent_image])
            .arg("--backends")
            .arg(&file)
            .arg("--state-dir")
            .arg(home.path().join("state"))
            .arg("--ready-file")
            .arg(home.path().join("ready.json"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(home.path().join("log"))?)
            .kill_on_drop(true);
        if let Some(path) = &options.kubeconfig {
            command.env("KUBECONFIG", path);
        }
        let child = command
            .spawn()
            .with_context(|| format!("{} cannot be started", options.gateway.display()))?;
        let mut gateway = Self {
            child,
            home,
            listen: String::new(),
        };
        gateway.listen = gateway.ready().await?;
        Ok(gateway)
    }

    async fn ready(&mut self) -> anyhow::Result<String> {
        let file: PathBuf = self.home.path().join("ready.json");
        let give_up = Instant::now() + PATIENCE;
        loop {
            let said: Option<Value> = std::fs::read(&file)
                .ok()
                .and_then(|text| serde_json::from_slice(&text).ok());
            if let Some(listen) = said.as_ref().and_then(|said| said["listen"].as_str()) {
                let place = listen.trim_start_matches("http://").trim_end_matches('/');
                return Ok(place.to_owned());
            }
            if let Some(ended) = self.child.try_wait()? {
                bail!("the gateway ended at its start, {ended}:\n{}", self.log());
            }
            if Instant::now() > give_up {
                bail!("the gateway is not ready:\n{}", self.log());
            }
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// The endpoint of a road's backend.
    ///
    /// # Errors
    /// None that the gateway's own address would give.
    pub fn target(&self, road: Road) -> anyhow::Result<Target> {
        let (name, listen) = (road.backend(), &self.listen);
        format!("{name}=http://{listen}/adapters/{name}/mcp").parse()
    }

    /// The end of its log.
    #[must_use]
    pub fn log(&self) -> String {
        let text = std::fs::read_to_string(self.home.path().join("log")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }
}

/// A road's backend: JSON is YAML.
fn document(options: &Options, road: Road, form: Form) -> String {
    let over = if form.transport == "stdio" {
        "stdio"
    } else {
        "http"
    };
    let image = if form.embedded {
        &options.embedded_image
    } else {
        &options.image
    };
    let document = json!({
        "apiVersion": "mcp-gateway.dev/v1alpha1",
        "kind": "McpBackend",
        "metadata": {"name": road.backend()},
        "spec": {
            "image": image,
            "command": [PROGRAM, "demo-server", "--transport", over],
            "transport": form.transport,
            "agent": form.agent,
            "policy": {"isolation": "session", "idleTimeout": IDLE},
        },
    });
    format!("---\n{document}\n")
}
