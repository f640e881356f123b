//! The roads from a request to an answer by a pod that does not run yet.

use serde::{Deserialize, Serialize};

/// One way to get a first answer.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    clap::ValueEnum,
)]
#[serde(rename_all = "kebab-case")]
pub enum Road {
    /// A bare pod, until its server accepts by the server's own clock: nobody can be
    /// faster. What the others are compared with.
    Floor,
    /// Through the gateway; the agent is the image's entry point.
    Embedded,
    /// Through the gateway; the agent is a second container.
    Sidecar,
    /// Through the gateway; the agent is mounted from its image.
    ImageVolume,
    /// Through the gateway; the agent is copied by a container that starts first.
    Init,
    /// Through the gateway, without an agent.
    None,
    /// A stdio server; the agent is the image's entry point.
    EmbeddedStdio,
    /// A stdio server; the agent is mounted from its image.
    ImageVolumeStdio,
    /// A stdio server; the agent is copied by a container that starts first.
    InitStdio,
    /// A bare pod: its address from its status, then a direct probe.
    Status,
    /// A Deployment scaled from nothing to one, readiness probe and Service.
    Deployment,
    /// The same, where kube-proxy runs with `minSyncPeriod: 0s`.
    DeploymentSync0,
}

/// What the gateway is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Form {
    /// `spec.agent`.
    pub agent: &'static str,
    /// `spec.transport`.
    pub transport: &'static str,
    /// The image that holds the agent.
    pub embedded: bool,
}

impl Road {
    /// All that need no other settings of the cluster.
    pub const USUAL: [Self; 11] = [
        Self::Floor,
        Self::Embedded,
        Self::Sidecar,
        Self::ImageVolume,
        Self::Init,
        Self::None,
        Self::EmbeddedStdio,
        Self::ImageVolumeStdio,
        Self::InitStdio,
        Self::Status,
        Self::Deployment,
    ];

    /// For tables.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Floor => "floor: bare pod's stamp",
            Self::Embedded => "embedded",
            Self::Sidecar => "sidecar",
            Self::ImageVolume => "imageVolume",
            Self::Init => "init",
            Self::None => "none",
            Self::EmbeddedStdio => "embedded, stdio",
            Self::ImageVolumeStdio => "imageVolume, stdio",
            Self::InitStdio => "init, stdio",
            Self::Status => "bare pod, status + probe",
            Self::Deployment => "Deployment 0→1 + Service",
            Self::DeploymentSync0 => "same, minSyncPeriod: 0s",
        }
    }

    /// How the gateway starts it; `None` for the roads without a gateway.
    #[must_use]
    pub fn form(self) -> Option<Form> {
        const HTTP: &str = "streamable-http";
        const STDIO: &str = "stdio";
        let (agent, transport) = match self {
            Self::Embedded => ("embedded", HTTP),
            Self::Sidecar => ("sidecar", HTTP),
            Self::ImageVolume => ("imageVolume", HTTP),
            Self::Init => ("init", HTTP),
            Self::None => ("none", HTTP),
            Self::EmbeddedStdio => ("embedded", STDIO),
            Self::ImageVolumeStdio => ("imageVolume", STDIO),
            Self::InitStdio => ("init", STDIO),
            Self::Floor | Self::Status | Self::Deployment | Self::DeploymentSync0 => return None,
        };
        Some(Form {
            agent,
            transport,
            embedded: agent == "embedded",
        })
    }

    /// The name of its backend.
    #[must_use]
    pub fn backend(self) -> String {
        format!("{self:?}").to_lowercase()
    }

    /// How many floors it may take at most, as the project's goals have it.
    #[must_use]
    pub fn goal(self) -> Option<f64> {
        match self {
            Self::Embedded => Some(1.05),
            Self::Sidecar => Some(1.5),
            Self::ImageVolume => Some(2.0),
            Self::Init => Some(3.6),
            Self::Floor
            | Self::None
            | Self::EmbeddedStdio
            | Self::ImageVolumeStdio
            | Self::InitStdio
            | Self::Status
            | Self::Deployment
            | Self::DeploymentSync0 => None,
        }
    }
}
