//! Flags, variables and the config file → settings. Pure but for reading the config file; nothing is guessed later.
//!
//! Each section validates itself, and a mistake is a sentence that names the setting and the remedy.

use std::{
    fs, io,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use mcp_gateway_activator::edge::{
    hosts::{HostRules, InvalidHost},
    origins::{InvalidOrigin, OriginRules},
};

use mcp_gateway_api::scaler::InvalidPodUid;

use crate::cli::{Address, Layer, LogFormat, ServeArgs};

pub(crate) mod pods;
pub(crate) mod roles;

pub(crate) use pods::Pods;

/// All settings of `serve`.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) edge: Edge,
    pub(crate) access: Access,
    pub(crate) state_dir: PathBuf,
    pub(crate) backends: Vec<PathBuf>,
    pub(crate) demo: bool,
    /// Servers run as pods.
    pub(crate) pods: Option<Pods>,
    pub(crate) ready_file: Option<PathBuf>,
    pub(crate) max_instances: u32,
    pub(crate) shutdown_timeout: Duration,
    pub(crate) log: Log,
}

/// Where and for whom the listeners are.
#[derive(Debug, Clone)]
pub(crate) struct Edge {
    pub(crate) listen: SocketAddr,
    pub(crate) admin_listen: SocketAddr,
    /// Whoever reaches `admin_listen` may see the status; else other machines see health and metrics only.
    pub(crate) admin_open: bool,
    pub(crate) hosts: HostRules,
    pub(crate) origins: OriginRules,
    /// Without a final slash.
    pub(crate) public_url: Option<String>,
    /// In bytes.
    pub(crate) max_body: usize,
}

/// How callers are known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Access {
    /// Everybody is the one anonymous principal.
    Anonymous,
    /// By the keys of this file.
    Keys(PathBuf),
}

/// How log lines look, and which are written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Log {
    pub(crate) format: LogFormat,
    pub(crate) filter: String,
}

/// A setting that cannot be.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    #[error(
        "config file {path:?} cannot be read ({source}): give the gateway's user access to it, or another with --config"
    )]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("config file {path:?}, line {line}: {message}")]
    Malformed {
        path: PathBuf,
        line: u64,
        message: String,
    },
    #[error("--allowed-host: {0}")]
    Host(#[from] InvalidHost),
    #[error("--allowed-origin: {0}")]
    Origin(#[from] InvalidOrigin),
    #[error("--public-url {0:?} is not a URL of the form https://mcp.example.com")]
    PublicUrl(String),
    #[error(
        "there is nothing to serve: give documents or an mcpServers file with --backends PATH, or try --demo"
    )]
    NothingToServe,
    #[error("--demo runs as a process: leave it out with --kubernetes, or leave out --kubernetes")]
    DemoInPods,
    #[error(transparent)]
    Pods(#[from] pods::PodsError),
    #[error("--{flag} {given:?}: {source}")]
    PodUid {
        flag: &'static str,
        given: String,
        source: InvalidPodUid,
    },
    #[error(
        "--scaler-listen {0} listens on all addresses: say under which one activators reach it with --scaler-advertise \
         IP:PORT"
    )]
    ScalerAdvertise(SocketAddr),
    #[error(
        "--scaler-advertise {0} is nothing that an activator can call: name an address of this replica"
    )]
    ScalerUncallable(SocketAddr),
    #[error(
        "there is no folder for the gateway's state: set HOME, or give one with --state-dir DIR"
    )]
    NoStateDir,
    #[error(
        "--listen {listen} can be reached from other machines, and nobody would be asked who they are. Either make a \
         key with 'mcp-gateway keys add --tenant NAME --subject NAME' and start again, or listen on 127.0.0.1, or say \
         --allow-anonymous if everybody who can reach it may use it"
    )]
    OpenToAll { listen: SocketAddr },
    #[error("--allow-anonymous and --keys exclude each other: remove one of them")]
    BothWays,
}

impl Settings {
    /// Joins flags, variables and the config file. `env` reads a variable of the environment.
    pub(crate) fn load(
        args: ServeArgs,
        env: impl Fn(&str) -> Option<PathBuf>,
        terminal: bool,
    ) -> Result<Self, ConfigError> {
        let layer = match &args.config {
            Some(path) => args.layer.over(read_file(path)?),
            None => args.layer,
        };
        let demo = layer.demo.unwrap_or(false);
        let in_cluster = env("KUBERNETES_SERVICE_HOST").is_some();
        let log = Log::of(&layer, terminal);
        let state_dir = state_dir(layer.state_dir.clone(), env)?;
        let pods = Pods::of(&layer.pods, &state_dir, in_cluster)?;
        match &pods {
            Some(_) if demo => return Err(ConfigError::DemoInPods),
            None if layer.backends.is_empty() && !demo => return Err(ConfigError::NothingToServe),
            Some(_) | None => {}
        }
        let edge = Edge::of(&layer)?;
        let shutdown_timeout = shutdown_timeout(&layer);
        let usual_keys = state_dir.join("keys.json");
        let access = Access::of(&layer, Some(&usual_keys), &edge)?;
        Ok(Self {
            edge,
            access,
            state_dir,
            backends: layer.backends,
            demo,
            pods,
            ready_file: layer.ready_file,
            max_instances: layer.max_instances.unwrap_or(100),
            shutdown_timeout,
            log,
        })
    }
}

impl Edge {
    fn of(layer: &Layer) -> Result<Self, ConfigError> {
        let address = |given: Option<Address>, port| {
            given.map_or_else(|| SocketAddr::from(([127, 0, 0, 1], port)), |a| a.0)
        };
        let public_url = layer.public_url.as_deref().map(public_url).transpose()?;
        let listen = address(layer.listen, 8080);
        let admin_listen = address(layer.admin_listen, 9090);
        let mut hosts = HostRules::loopback();
        // An address of our own is no name that a web page could have pointed at us.
        for own in [listen, admin_listen] {
            if !own.ip().is_unspecified() && !own.ip().is_loopback() {
                hosts = hosts.allow(&host_of(own.ip()))?;
            }
        }
        for host in &layer.allowed_host {
            hosts = hosts.allow(host)?;
        }
        if let Some((_, host)) = &public_url {
            hosts = hosts.allow(host)?;
        }
        let mut origins = OriginRules::loopback();
        for origin in &layer.allowed_origin {
            origins = origins.allow(origin)?;
        }
        Ok(Self {
            listen,
            admin_listen,
            admin_open: layer.admin_allow_anonymous.unwrap_or(false),
            hosts,
            origins,
            public_url: public_url.map(|(url, _)| url),
            max_body: layer.max_body.unwrap_or(4 << 20) as usize,
        })
    }
}

impl Access {
    /// `usual`: the key file that is taken without being named, if it is there.
    fn of(layer: &Layer, usual: Option<&Path>, edge: &Edge) -> Result<Self, ConfigError> {
        let anonymous = layer.allow_anonymous.unwrap_or(false);
        let usual = usual.filter(|path| path.exists());
        match (&layer.keys, usual) {
            (Some(_), _) if anonymous => Err(ConfigError::BothWays),
            (Some(path), _) => Ok(Self::Keys(path.clone())),
            (None, _) if anonymous => Ok(Self::Anonymous),
            (None, Some(path)) => Ok(Self::Keys(path.to_owned())),
            (None, None) if edge.listen.ip().is_loopback() => Ok(Self::Anonymous),
            (None, None) => Err(ConfigError::OpenToAll {
                listen: edge.listen,
            }),
        }
    }
}

impl Log {
    fn of(layer: &Layer, terminal: bool) -> Self {
        let usual = if terminal {
            LogFormat::Pretty
        } else {
            LogFormat::Json
        };
        Self {
            format: layer.log_format.unwrap_or(usual),
            filter: layer
                .log_filter
                .clone()
                .unwrap_or_else(|| "info".to_owned()),
        }
    }
}

impl Layer {
    /// This layer where it says something, `below` where it does not.
    fn over(self, below: Self) -> Self {
        let list = |own: Vec<_>, below| if own.is_empty() { below } else { own };
        let texts = |own: Vec<String>, below| if own.is_empty() { below } else { own };
        Self {
            backends: list(self.backends, below.backends),
            demo: self.demo.or(below.demo),
            pods: self.pods.over(below.pods),
            listen: self.listen.or(below.listen),
            admin_listen: self.admin_listen.or(below.admin_listen),
            admin_allow_anonymous: self.admin_allow_anonymous.or(below.admin_allow_anonymous),
            state_dir: self.state_dir.or(below.state_dir),
            ready_file: self.ready_file.or(below.ready_file),
            keys: self.keys.or(below.keys),
            allow_anonymous: self.allow_anonymous.or(below.allow_anonymous),
            allowed_host: texts(self.allowed_host, below.allowed_host),
            allowed_origin: texts(self.allowed_origin, below.allowed_origin),
            public_url: self.public_url.or(below.public_url),
            max_instances: self.max_instances.or(below.max_instances),
            max_body: self.max_body.or(below.max_body),
            shutdown_timeout: self.shutdown_timeout.or(below.shutdown_timeout),
            log_format: self.log_format.or(below.log_format),
            log_filter: self.log_filter.or(below.log_filter),
        }
    }

    /// Makes the paths of a config file relative to its folder.
    fn beside(mut self, folder: &Path) -> Self {
        let beside = |path: &mut PathBuf| *path = folder.join(&*path);
        self.backends.iter_mut().for_each(beside);
        let single = [
            &mut self.state_dir,
            &mut self.ready_file,
            &mut self.keys,
            &mut self.pods.secrets,
        ];
        single.into_iter().flatten().for_each(beside);
        self
    }
}

fn shutdown_timeout(layer: &Layer) -> Duration {
    layer
        .shutdown_timeout
        .map_or(Duration::from_secs(30), |period| period.0)
}

/// The state folder: as given, or the XDG one.
pub(crate) fn state_dir(
    given: Option<PathBuf>,
    env: impl Fn(&str) -> Option<PathBuf>,
) -> Result<PathBuf, ConfigError> {
    let xdg = || env("XDG_STATE_HOME").filter(|path| path.is_absolute());
    let home = || env("HOME").filter(|path| path.is_absolute());
    given
        .or_else(|| xdg().map(|state| state.join("mcp-gateway")))
        .or_else(|| home().map(|home| home.join(".local/state/mcp-gateway")))
        .ok_or(ConfigError::NoStateDir)
}

/// An address as it stands in a `Host` header.
fn host_of(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    }
}

/// The URL without its final slash, and its authority.
fn public_url(text: &str) -> Result<(String, String), ConfigError> {
    let wrong = || ConfigError::PublicUrl(text.chars().take(200).collect());
    let url: http::Uri = text.parse().map_err(|_invalid| wrong())?;
    let web = matches!(url.scheme_str(), Some("http" | "https"));
    let host = url.authority().filter(|_| web && url.query().is_none());
    let host = host
        .filter(|a| !a.as_str().contains('@'))
        .ok_or_else(wrong)?;
    Ok((
        text.trim_end_matches('/').to_owned(),
        host.host().to_owned(),
    ))
}

fn read_file(path: &Path) -> Result<Layer, ConfigError> {
    let unreadable = |source| ConfigError::Unreadable {
        path: path.to_owned(),
        source,
    };
    let text = fs::read_to_string(path).map_err(unreadable)?;
    let layer: Option<Layer> = serde_saphyr::from_str(&text).map_err(|error| {
        let error = error.without_snippet();
        let message = error.to_string();
        let end = message.find(" at line ").unwrap_or(message.len());
        ConfigError::Malformed {
            path: path.to_owned(),
            line: error.location().map_or(1, |at| at.line()),
            message: message.get(..end).unwrap_or_default().to_owned(),
        }
    })?;
    let folder = path.parent().unwrap_or(Path::new("."));
    Ok(layer.unwrap_or_default().beside(folder))
}

#[cfg(test)]
mod tests;
