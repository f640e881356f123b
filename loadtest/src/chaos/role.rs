//! One process of the gateway, started as a container would be, killed without a
//! word, and started again under the same address.

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};

/// How long a process may take to be ready.
const START: Duration = Duration::from_secs(120);
/// How long it may take to end when it is asked to.
const STOP: Duration = Duration::from_secs(20);

/// A loopback address that nobody else uses: ports on it need not be found, and stay
/// the same when a process is started again.
#[must_use]
pub fn lonely() -> IpAddr {
    let part = || rand::random_range(2..=250);
    IpAddr::V4(Ipv4Addr::new(127, part(), part(), part()))
}

/// A process; it ends when dropped.
#[derive(Debug)]
pub struct Role {
    name: String,
    /// The address that is its own.
    pub own: IpAddr,
    program: PathBuf,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    home: PathBuf,
    child: Option<Child>,
    starts: usize,
}

impl Role {
    /// One that is not started yet; `home` is for what it writes.
    #[must_use]
    pub fn new(name: &str, program: &Path, home: &Path) -> Self {
        Self {
            name: name.to_owned(),
            own: lonely(),
            program: program.to_owned(),
            arguments: Vec::new(),
            environment: Vec::new(),
            home: home.join(name),
            child: None,
            starts: 0,
        }
    }

    /// An argument.
    pub fn arg(&mut self, argument: impl Into<String>) -> &mut Self {
        self.arguments.push(argument.into());
        self
    }

    /// A variable of its environment, instead of one of that name.
    pub fn env(&mut self, name: &str, value: impl Into<String>) -> &mut Self {
        self.environment.retain(|(known, _)| known != name);
        self.environment.push((name.to_owned(), value.into()));
        self
    }

    /// An address of its own.
    #[must_use]
    pub fn at(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.own, port)
    }

    /// Starts it and waits until it says that it is ready.
    ///
    /// # Errors
    /// It ends, or is not ready in time; its log is told.
    pub async fn start(&mut self) -> anyhow::Result<()> {
        std::fs::create_dir_all(&self.home)?;
        self.starts += 1;
        let ready = self.home.join(format!("ready-{}.json", self.starts));
        let log = File::create(self.home.join(format!("log-{}", self.starts)))?;
        let child = Command::new(&self.program)
            .args(&self.arguments)
            .arg("--ready-file")
            .arg(&ready)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            // An interrupt at the terminal is the run's, which ends what it began.
            .process_group(0)
            .spawn()
            .with_context(|| format!("{}: {}", self.name, self.program.display()))?;
        let child = self.child.insert(child);
        let give_up = Instant::now() + START;
        while !ready.exists() {
            let ended = child.try_wait()?;
            if ended.is_some() || Instant::now() > give_up {
                bail!("{} is not ready ({ended:?}):\n{}", self.name, self.log());
            }
            sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// Kills it; it is dead when this returns.
    ///
    /// # Errors
    /// It cannot be killed.
    pub async fn kill(&mut self) -> anyhow::Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill().await.with_context(|| self.name.clone())?;
        }
        Ok(())
    }

    /// Asks it to end, and waits.
    pub async fn stop(&mut self) {
        let Some(mut child) = self.child.take() else {
            return;
        };
        let id = child.id().and_then(|id| i32::try_from(id).ok());
        if let Some(pid) = id.and_then(rustix::process::Pid::from_raw) {
            // It may be gone already: then there is nothing to ask.
            rustix::process::kill_process(pid, rustix::process::Signal::TERM).ok();
        }
        if tokio::time::timeout(STOP, child.wait()).await.is_err() {
            drop(child.kill().await);
        }
    }

    /// Whether it is this process's id.
    #[must_use]
    pub fn is(&self, pid: u32) -> bool {
        self.child.as_ref().and_then(Child::id) == Some(pid)
    }

    /// The end of its newest log.
    #[must_use]
    pub fn log(&self) -> String {
        let path = self.home.join(format!("log-{}", self.starts));
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }
}
