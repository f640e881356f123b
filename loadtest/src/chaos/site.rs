//! The gateway under test: two autoscalers and two activators beside a cluster,
//! each activator's road to each autoscaler through a relay that can be cut.
//!
//! The processes are this machine's, the servers are pods. That way a process is
//! killed at a known moment, and is started again as the kubelet would.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::time::{Instant, sleep};

use super::cluster::{PATIENCE, Space, WITNESS};
use super::load::Places;
use super::relay::Relay;
use super::role::Role;
use crate::witness::Collector;

/// The agent's image, as `dev/image` names it.
const AGENT: &str = "localhost/mcp-gateway-agent:dev";
/// Tells the run's pods from others'.
const INSTALLATION: &str = "chaos";
/// Ports on addresses that nobody else uses.
const LISTEN: u16 = 8080;
const ADMIN: u16 = 9090;
const HOME: u16 = 7443;
const SCALER: u16 = 7444;
/// A port that nobody listens on: activators shall not find a way around a relay.
const NOWHERE: u16 = 9;
/// How many of each role.
const REPLICAS: usize = 2;

/// Everything that runs.
#[derive(Debug)]
pub struct Site {
    /// The pods' side.
    pub space: Space,
    /// The activators.
    pub activators: Vec<Role>,
    /// The autoscalers.
    pub autoscalers: Vec<Role>,
    /// `links[activator][autoscaler]`.
    pub links: Vec<Vec<Relay>>,
    /// What servers say of their calls.
    pub collector: Collector,
    stand_ins: Vec<String>,
    homes: Vec<Relay>,
    _files: TempDir,
}

impl Site {
    /// Starts everything.
    ///
    /// # Errors
    /// Something does not start.
    pub async fn start(gateway: &Path, kubeconfig: &Path) -> anyhow::Result<Self> {
        let space = Space::make(kubeconfig).await?;
        let files = TempDir::new()?;
        let secrets = files.path().join("secrets");
        let made = Command::new(gateway)
            .args(["secrets", "create"])
            .arg(&secrets)
            .output()
            .await?;
        if !made.status.success() {
            bail!("secrets: {}", String::from_utf8_lossy(&made.stderr));
        }
        let node: IpAddr = space.node.parse().context("the node's address")?;
        let any = SocketAddr::new(node, 0);
        let collector = Collector::listen(any).await?;
        for (name, spec) in backends(collector.address) {
            space.backend(name, &spec).await?;
        }
        let role = |name: String| {
            let mut role = Role::new(&name, gateway, files.path());
            role.env("KUBECONFIG", kubeconfig.display().to_string())
                .env("MCP_GATEWAY_NAMESPACE", &space.name)
                .env("MCP_GATEWAY_INSTALLATION", INSTALLATION)
                .env("MCP_GATEWAY_SECRETS", secrets.display().to_string())
                .env("MCP_GATEWAY_LOG_FORMAT", "pretty");
            let admin = role.at(ADMIN);
            role.env("MCP_GATEWAY_ADMIN_LISTEN", admin.to_string());
            role
        };
        let autoscalers: Vec<Role> = (0..REPLICAS)
            .map(|place| role(format!("autoscaler-{place}")))
            .collect();
        let activators: Vec<Role> = (0..REPLICAS)
            .map(|place| role(format!("activator-{place}")))
            .collect();
        let mut homes = Vec::new();
        for autoscaler in &autoscalers {
            homes.push(Relay::start(any, autoscaler.at(HOME)).await?);
        }
        let mut site = Self {
            space,
            activators,
            autoscalers,
            links: Vec::new(),
            collector,
            stand_ins: Vec::new(),
            homes,
            _files: files,
        };
        site.autoscalers().await?;
        site.activators().await?;
        Ok(site)
    }

    async fn autoscalers(&mut self) -> anyhow::Result<()> {
        let homes: Vec<String> = self
            .homes
            .iter()
            .map(|relay| relay.address.to_string())
            .collect();
        for role in &mut self.autoscalers {
            let (scaler, home, nowhere) = (role.at(SCALER), role.at(HOME), role.at(NOWHERE));
            role.arg("autoscaler")
                .env("MCP_GATEWAY_SYSTEM_NAMESPACE", &self.space.name)
                .env("MCP_GATEWAY_SCALER_LISTEN", scaler.to_string())
                .env("MCP_GATEWAY_SCALER_ADVERTISE", nowhere.to_string())
                .env("MCP_GATEWAY_HOME_LISTEN", home.to_string())
                .env("MCP_GATEWAY_HOME_ADVERTISE", homes.join(","))
                .env("MCP_GATEWAY_AGENT_IMAGE", AGENT);
            role.start().await?;
        }
        Ok(())
    }

    async fn activators(&mut self) -> anyhow::Result<()> {
        for place in 0..self.activators.len() {
            let mut links = Vec::new();
            for autoscaler in &self.autoscalers {
                let at = SocketAddr::new(self.activators[place].own, 0);
                links.push(Relay::start(at, autoscaler.at(SCALER)).await?);
            }
            let scalers: Vec<String> = links.iter().map(|link| link.address.to_string()).collect();
            self.links.push(links);
            self.stand_ins.push(String::new());
            let role = &mut self.activators[place];
            let listen = role.at(LISTEN);
            role.arg("activator")
                .env("MCP_GATEWAY_SCALER", scalers.join(","))
                .env("MCP_GATEWAY_LISTEN", listen.to_string());
            self.new_pod(place).await?;
            self.start_activator(place).await?;
        }
        Ok(())
    }

    /// Gives an activator a pod of its own, instead of the one it had.
    ///
    /// # Errors
    /// The cluster refuses.
    pub async fn new_pod(&mut self, activator: usize) -> anyhow::Result<()> {
        let name = format!("activator-{activator}-{:06x}", rand::random::<u32>() >> 8);
        let uid = self
            .space
            .stand_in(INSTALLATION, "activator", &name)
            .await?;
        let old = std::mem::replace(&mut self.stand_ins[activator], name);
        if !old.is_empty() {
            self.space.delete_pod(&old).await?;
        }
        self.activators[activator].env("MCP_GATEWAY_POD_UID", uid);
        Ok(())
    }

    /// Starts an activator and waits until it would be sent requests.
    ///
    /// # Errors
    /// It does not come up.
    pub async fn start_activator(&mut self, place: usize) -> anyhow::Result<()> {
        self.activators[place].start().await?;
        let admin = self.activators[place].at(ADMIN);
        let give_up = Instant::now() + PATIENCE;
        while !is_ready(admin).await {
            if Instant::now() > give_up {
                bail!("activator {place} is not ready:\n{}", self.logs());
            }
            sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    /// Which autoscaler leads.
    ///
    /// # Errors
    /// None does, for too long.
    pub async fn leader(&self) -> anyhow::Result<usize> {
        let give_up = Instant::now() + PATIENCE;
        let lease = format!("mcp-gateway-{INSTALLATION}");
        loop {
            let holder = self.space.leader(&lease).await.unwrap_or_default();
            let leads = |role: &Role| holder.starts_with(&format!("{}_", role.at(NOWHERE)));
            if let Some(place) = self.autoscalers.iter().position(leads) {
                return Ok(place);
            }
            if Instant::now() > give_up {
                bail!(
                    "nobody leads; the lease's holder is {holder:?}\n{}",
                    self.logs()
                );
            }
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// Where clients reach the activators.
    #[must_use]
    pub fn addresses(&self) -> Vec<String> {
        let addresses = self.activators.iter().map(|role| role.at(LISTEN));
        addresses.map(|address| address.to_string()).collect()
    }

    /// The ends of all logs.
    #[must_use]
    pub fn logs(&self) -> String {
        let roles = self.autoscalers.iter().chain(&self.activators);
        roles.map(Role::log).collect::<Vec<_>>().join("\n---\n")
    }

    /// Ends everything.
    pub async fn stop(mut self) {
        for role in self.activators.iter_mut().chain(&mut self.autoscalers) {
            role.stop().await;
        }
    }
}

/// Sessions that share an instance, sessions that have one each, and such that come
/// and go.
#[must_use]
pub fn places() -> Places {
    let path = |name: &str| format!("/adapters/{name}/mcp");
    Places {
        sessions: vec![(path("shared"), 12), (path("each"), 4)],
        cold: path("cold"),
    }
}

fn backends(collector: SocketAddr) -> [(&'static str, Value); 3] {
    let backend = |isolation: &str, idle: &str| {
        json!({
            "image": WITNESS,
            "transport": "streamable-http",
            "port": 8000,
            "env": [{"name": "WITNESS_TELL", "value": collector.to_string()}],
            "policy": {"isolation": isolation, "idleTimeout": idle},
        })
    };
    [
        ("shared", backend("tenant", "10s")),
        ("each", backend("session", "10s")),
        ("cold", backend("session", "2s")),
    ]
}

/// Whether an admin listener says that its process is ready.
async fn is_ready(admin: SocketAddr) -> bool {
    let ask = async {
        let mut stream = TcpStream::connect(admin).await?;
        let request = format!("GET /readyz HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.take(4_096).read_to_end(&mut answer).await?;
        std::io::Result::Ok(answer.starts_with(b"HTTP/1.1 200"))
    };
    ask.await.unwrap_or(false)
}
