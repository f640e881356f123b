//! Two autoscalers and two activators beside a cluster, each activator's road to each
//! autoscaler through a relay that can be cut.
//!
//! The processes are this machine's, the servers are pods. That way a process is
//! killed at a known moment, and is started again as the kubelet would.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::bail;
use http::HeaderMap;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::time::{Instant, sleep};

use super::super::caller::Clock;
use super::super::cluster::{PATIENCE, Space};
use super::super::doors::{Door, Doors, Entrance};
use super::super::ledger::{Kill, Victim};
use super::super::relay::Relay;
use super::super::role::Role;
use super::{Goes, REPLICAS};

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
/// How long a process is away before it is started again.
const RESTART: Duration = Duration::from_secs(1);

/// The processes, and what is between them.
#[derive(Debug)]
pub(super) struct Processes {
    activators: Vec<Role>,
    autoscalers: Vec<Role>,
    /// `links[activator][autoscaler]`.
    links: Vec<Vec<Relay>>,
    stand_ins: Vec<String>,
    homes: Vec<Relay>,
    doors: Doors,
    _files: TempDir,
}

impl Processes {
    /// Starts them; agents call them at `node`.
    pub(super) async fn start(
        gateway: &Path,
        space: &Space,
        node: SocketAddr,
    ) -> anyhow::Result<Self> {
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
        let role = |name: String| {
            let mut role = Role::new(&name, gateway, files.path());
            role.env("KUBECONFIG", space.kubeconfig().display().to_string())
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
            homes.push(Relay::start(node, autoscaler.at(HOME)).await?);
        }
        let door = |role: &Role| -> Door {
            let address = role.at(LISTEN).to_string();
            (address.clone(), address)
        };
        let mut own = Self {
            doors: Doors::new(activators.iter().map(door).collect())?,
            activators,
            autoscalers,
            links: Vec::new(),
            stand_ins: Vec::new(),
            homes,
            _files: files,
        };
        own.autoscalers(space).await?;
        own.activators(space).await?;
        Ok(own)
    }

    async fn autoscalers(&mut self, space: &Space) -> anyhow::Result<()> {
        let homes: Vec<String> = self
            .homes
            .iter()
            .map(|relay| relay.address.to_string())
            .collect();
        for role in &mut self.autoscalers {
            let (scaler, home, nowhere) = (role.at(SCALER), role.at(HOME), role.at(NOWHERE));
            role.arg("autoscaler")
                .env("MCP_GATEWAY_SYSTEM_NAMESPACE", &space.name)
                .env("MCP_GATEWAY_SCALER_LISTEN", scaler.to_string())
                .env("MCP_GATEWAY_SCALER_ADVERTISE", nowhere.to_string())
                .env("MCP_GATEWAY_HOME_LISTEN", home.to_string())
                .env("MCP_GATEWAY_HOME_ADVERTISE", homes.join(","))
                .env("MCP_GATEWAY_AGENT_IMAGE", AGENT);
            role.start().await?;
        }
        Ok(())
    }

    async fn activators(&mut self, space: &Space) -> anyhow::Result<()> {
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
            self.new_pod(space, place).await?;
            self.start_activator(place).await?;
        }
        Ok(())
    }

    /// Gives an activator a pod of its own, instead of the one it had.
    async fn new_pod(&mut self, space: &Space, activator: usize) -> anyhow::Result<()> {
        let name = format!("activator-{activator}-{:06x}", rand::random::<u32>() >> 8);
        let uid = space.stand_in(INSTALLATION, "activator", &name).await?;
        let old = std::mem::replace(&mut self.stand_ins[activator], name);
        if !old.is_empty() {
            space.delete_pod(&old).await?;
        }
        self.activators[activator].env("MCP_GATEWAY_POD_UID", uid);
        Ok(())
    }

    /// Starts an activator and waits until it would be sent requests.
    async fn start_activator(&mut self, place: usize) -> anyhow::Result<()> {
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
    async fn leader(&self, space: &Space) -> anyhow::Result<usize> {
        let give_up = Instant::now() + PATIENCE;
        let lease = format!("mcp-gateway-{INSTALLATION}");
        loop {
            let holder = space.leader(&space.name, &lease).await.unwrap_or_default();
            let leads = |role: &Role| holder.ends_with(&format!("_{}", role.at(NOWHERE)));
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

    pub(super) async fn kill_leader(&mut self, space: &Space) -> anyhow::Result<()> {
        let leader = self.leader(space).await?;
        self.autoscalers[leader].kill().await?;
        sleep(RESTART).await;
        self.autoscalers[leader].start().await
    }

    pub(super) async fn kill_activator(
        &mut self,
        space: &Space,
        goes: Goes,
        clock: Clock,
    ) -> anyhow::Result<Kill> {
        let victim = self.doors.any();
        let from = clock.now();
        self.activators[victim].kill().await?;
        let to = clock.now();
        match goes {
            Goes::Pod => self.new_pod(space, victim).await?,
            Goes::Container => sleep(RESTART).await,
        }
        self.start_activator(victim).await?;
        Ok(Kill {
            victim: Victim::Activator(victim),
            from,
            to,
        })
    }

    pub(super) async fn part(&mut self, space: &Space, long: Duration) -> anyhow::Result<()> {
        let leader = self.leader(space).await?;
        let link = &self.links[self.doors.any()][leader];
        link.cut(true);
        sleep(long).await;
        link.cut(false);
        Ok(())
    }

    pub(super) fn entrance(&self) -> Entrance {
        Entrance {
            doors: self.doors.clone(),
            headers: HeaderMap::new(),
        }
    }

    pub(super) fn logs(&self) -> String {
        let roles = self.autoscalers.iter().chain(&self.activators);
        roles.map(Role::log).collect::<Vec<_>>().join("\n---\n")
    }

    pub(super) async fn stop(mut self) {
        for role in self.activators.iter_mut().chain(&mut self.autoscalers) {
            role.stop().await;
        }
    }
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
