//! What running servers as pods needs, checked.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use mcp_gateway_api::ids::{DnsLabel, InvalidName};

use crate::cli::{Address, PodsLayer};

/// How servers run as pods.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pods {
    pub(crate) namespace: String,
    pub(crate) installation: String,
    /// Where the installation's secrets are.
    pub(crate) secrets: PathBuf,
    /// Whether missing secrets may be made: one gateway outside a cluster shares them with nobody.
    pub(crate) may_make_secrets: bool,
    /// What agents call.
    pub(crate) home_listen: SocketAddr,
    /// Under which addresses pods reach it; never empty.
    pub(crate) home_advertise: Vec<SocketAddr>,
    pub(crate) agent_image: Option<String>,
}

/// A setting of pods that cannot be.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PodsError {
    #[error("--{flag} means something only with --kubernetes: add that, or leave this out")]
    Without { flag: &'static str },
    #[error(transparent)]
    Name(#[from] InvalidName),
    #[error(
        "--home-listen {0} listens on all addresses: say under which ones pods reach it with --home-advertise IP:PORT"
    )]
    Advertise(SocketAddr),
    #[error(
        "--home-advertise {0} is nothing that a pod can call: name an address and port of this gateway"
    )]
    Uncallable(SocketAddr),
    #[error(
        "in a cluster the secrets of the installation must outlive this pod: make them once with 'mcp-gateway secrets \
         create DIR', put them into a Secret, mount that and name the folder with --secrets"
    )]
    NoSecrets,
}

impl Pods {
    /// Checks it; `None` when servers run as processes.
    pub(super) fn of(
        layer: &PodsLayer,
        state_dir: &Path,
        in_cluster: bool,
    ) -> Result<Option<Self>, PodsError> {
        if !layer.kubernetes.unwrap_or(false) {
            return match layer.first_given() {
                Some(flag) => Err(PodsError::Without { flag }),
                None => Ok(None),
            };
        }
        let secrets = match &layer.secrets {
            Some(dir) => dir.clone(),
            None if in_cluster => return Err(PodsError::NoSecrets),
            None => state_dir.to_owned(),
        };
        Self::with(layer, secrets, !in_cluster).map(Some)
    }

    /// Of a role: its secrets are shared with others, so they are never made.
    pub(super) fn of_role(layer: &PodsLayer, secrets: &Path) -> Result<Self, PodsError> {
        Self::with(layer, secrets.to_owned(), false)
    }

    fn with(
        layer: &PodsLayer,
        secrets: PathBuf,
        may_make_secrets: bool,
    ) -> Result<Self, PodsError> {
        let home_listen = layer
            .home_listen
            .map_or_else(|| SocketAddr::from(([0, 0, 0, 0], 7443)), |a| a.0);
        Ok(Self {
            namespace: label("--namespace", layer.namespace.as_deref(), "mcp")?,
            installation: label(
                "--installation",
                layer.installation.as_deref(),
                "mcp-gateway",
            )?,
            secrets,
            may_make_secrets,
            home_advertise: advertise(&layer.home_advertise, home_listen)?,
            home_listen,
            agent_image: layer.agent_image.clone(),
        })
    }
}

impl PodsLayer {
    /// This layer where it says something, `below` where it does not.
    pub(super) fn over(self, below: Self) -> Self {
        let own = self.home_advertise;
        Self {
            kubernetes: self.kubernetes.or(below.kubernetes),
            namespace: self.namespace.or(below.namespace),
            installation: self.installation.or(below.installation),
            secrets: self.secrets.or(below.secrets),
            home_listen: self.home_listen.or(below.home_listen),
            home_advertise: if own.is_empty() {
                below.home_advertise
            } else {
                own
            },
            agent_image: self.agent_image.or(below.agent_image),
        }
    }

    fn first_given(&self) -> Option<&'static str> {
        let given = [
            ("namespace", self.namespace.is_some()),
            ("installation", self.installation.is_some()),
            ("secrets", self.secrets.is_some()),
            ("home-listen", self.home_listen.is_some()),
            ("home-advertise", !self.home_advertise.is_empty()),
            ("agent-image", self.agent_image.is_some()),
        ];
        given
            .into_iter()
            .find(|(_, given)| *given)
            .map(|(flag, _)| flag)
    }
}

/// A name as the flag gives it, or the usual one.
pub(super) fn label(
    flag: &'static str,
    given: Option<&str>,
    usual: &str,
) -> Result<String, PodsError> {
    let label = DnsLabel::new(flag, given.unwrap_or(usual))?;
    Ok(label.as_str().to_owned())
}

/// A port of 0 is filled in once the listener is bound.
fn advertise(given: &[Address], listen: SocketAddr) -> Result<Vec<SocketAddr>, PodsError> {
    if given.is_empty() {
        return if listen.ip().is_unspecified() {
            Err(PodsError::Advertise(listen))
        } else {
            Ok(vec![listen])
        };
    }
    let addresses: Vec<SocketAddr> = given.iter().map(|address| address.0).collect();
    match addresses
        .iter()
        .find(|address| address.ip().is_unspecified())
    {
        Some(address) => Err(PodsError::Uncallable(*address)),
        None => Ok(addresses),
    }
}
