//! The gateway under test, and what its servers tell. It has two forms: processes of
//! this machine beside a cluster, and the pods that the manifests install. Servers are
//! pods in both.
//!
//! Never: anything that is left behind. What a form has made goes with it, and the
//! namespace of the servers after it.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Options;
use super::caller::Clock;
use super::cluster::{Space, WITNESS};
use super::doors::Entrance;
use super::ledger::Kill;
use super::load::Places;
use crate::witness::Collector;
use pods::Pods;
use processes::Processes;

mod pods;
mod processes;

/// How many of each role.
const REPLICAS: usize = 2;

/// What the gateway runs as.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "camelCase")]
pub enum Form {
    /// Processes of this machine, beside the cluster.
    #[default]
    Processes,
    /// What dev/manifests/install --roles installs, with the image localhost/mcp-gateway:dev.
    Pods,
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Processes => "processes beside the cluster",
            Self::Pods => "pods of the manifests",
        })
    }
}

/// How much of one of the gateway's goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goes {
    /// Its process; its pod stays, and it is started again there.
    Container,
    /// Its process and its pod; another takes its place.
    Pod,
}

/// Everything that runs.
#[derive(Debug)]
pub struct Site {
    // Goes first: what it installed needs the namespace to go in order.
    gateway: Gateway,
    /// The servers' side.
    pub space: Space,
    /// What servers say of their calls.
    pub collector: Collector,
}

#[derive(Debug)]
enum Gateway {
    Processes(Box<Processes>),
    Pods(Box<Pods>),
}

impl Site {
    /// Starts everything.
    ///
    /// # Errors
    /// Something does not start.
    pub async fn start(options: &Options) -> anyhow::Result<Self> {
        let space = Space::make(&options.kubeconfig).await?;
        let node: IpAddr = space.node.parse().context("the node's address")?;
        let node = SocketAddr::new(node, 0);
        let collector = Collector::listen(node).await?;
        for (name, spec) in backends(collector.address) {
            space.backend(name, &spec).await?;
        }
        let gateway = match options.form {
            Form::Processes => {
                let processes = Processes::start(&options.gateway, &space, node).await?;
                Gateway::Processes(Box::new(processes))
            }
            Form::Pods => Gateway::Pods(Box::new(Pods::start(options, &space).await?)),
        };
        Ok(Self {
            gateway,
            space,
            collector,
        })
    }

    /// Where clients get in.
    #[must_use]
    pub fn entrance(&self) -> Entrance {
        match &self.gateway {
            Gateway::Processes(own) => own.entrance(),
            Gateway::Pods(own) => own.entrance(),
        }
    }

    /// Kills the autoscaler that leads, and waits until it is there again.
    ///
    /// # Errors
    /// It cannot be killed, or does not come back.
    pub async fn kill_leader(&mut self, goes: Goes, clock: Clock) -> anyhow::Result<()> {
        match &mut self.gateway {
            Gateway::Processes(own) => own.kill_leader(&self.space).await,
            Gateway::Pods(own) => own.kill_leader(&self.space, goes, clock).await,
        }
    }

    /// Kills an activator, and waits until it would be sent requests again.
    ///
    /// # Errors
    /// It cannot be killed, or does not come back.
    pub async fn kill_activator(&mut self, goes: Goes, clock: Clock) -> anyhow::Result<Kill> {
        match &mut self.gateway {
            Gateway::Processes(own) => own.kill_activator(&self.space, goes, clock).await,
            Gateway::Pods(own) => own.kill_activator(goes, clock).await,
        }
    }

    /// Lets nothing pass between an activator and the leader for a while.
    ///
    /// # Errors
    /// They cannot be parted, or not be brought together again.
    pub async fn part(&mut self, long: Duration) -> anyhow::Result<()> {
        match &mut self.gateway {
            Gateway::Processes(own) => own.part(&self.space, long).await,
            Gateway::Pods(own) => own.part(&self.space, long).await,
        }
    }

    /// The ends of all logs.
    pub async fn logs(&self) -> String {
        match &self.gateway {
            Gateway::Processes(own) => own.logs(),
            Gateway::Pods(own) => own.logs().await,
        }
    }

    /// Ends everything.
    ///
    /// # Errors
    /// Something cannot be taken away.
    pub async fn stop(self) -> anyhow::Result<()> {
        match self.gateway {
            Gateway::Processes(own) => own.stop().await,
            Gateway::Pods(own) => own.stop().await?,
        }
        Ok(())
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
