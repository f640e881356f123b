//! The gateway as `dev/manifests/install --roles` installs it, in a namespace of the
//! run's own.
//!
//! Invariant: it is taken away again, whatever became of the run, and if only a part of
//! it was there. Never shows the key.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, bail};
use http::header::{AUTHORIZATION, HOST};
use http::{HeaderMap, HeaderValue};
use tokio::process::Command;

use super::super::super::Options;

/// What was installed; uninstalled when dropped.
#[derive(Debug)]
pub(super) struct Installed {
    /// The gateway's namespace.
    pub(super) system: String,
    scripts: PathBuf,
    environment: Vec<(&'static str, OsString)>,
    gone: bool,
}

impl Installed {
    /// Installs both roles for servers in that namespace; what clients' requests carry.
    ///
    /// # Errors
    /// Something does not come up.
    pub(super) async fn new(
        options: &Options,
        namespace: &str,
    ) -> anyhow::Result<(Self, HeaderMap)> {
        let system = format!("{namespace}-system");
        let own = Self {
            environment: vec![
                ("KUBECONFIG", options.kubeconfig.clone().into()),
                ("KUBECTL", kubectl(&options.kubeconfig)),
                ("MCP_GATEWAY_NAMESPACE", namespace.into()),
                ("MCP_GATEWAY_SYSTEM_NAMESPACE", system.clone().into()),
                ("MCP_GATEWAY_BINARY", options.gateway.clone().into()),
            ],
            scripts: options.manifests.clone(),
            system,
            gone: false,
        };
        let key = own.run("install", &["--roles"]).await?;
        let mut key = HeaderValue::from_str(&format!("Bearer {}", key.trim()))
            .map_err(|_the_error_may_show_it| anyhow::anyhow!("install printed no key"))?;
        key.set_sensitive(true);
        let host = format!("mcp-gateway.{}", own.system);
        let headers = [(AUTHORIZATION, key), (HOST, HeaderValue::from_str(&host)?)];
        Ok((own, HeaderMap::from_iter(headers)))
    }

    /// Takes it away and waits until it is gone.
    ///
    /// # Errors
    /// It does not go.
    pub(super) async fn uninstall(mut self) -> anyhow::Result<()> {
        self.run("uninstall", &[]).await?;
        self.gone = true;
        Ok(())
    }

    /// What a script printed.
    async fn run(&self, script: &str, arguments: &[&str]) -> anyhow::Result<String> {
        let path = self.scripts.join(script);
        let done = Command::new(&path)
            .args(arguments)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            // An interrupt at the terminal is the run's.
            .process_group(0)
            .output()
            .await
            .with_context(|| path.display().to_string())?;
        if !done.status.success() {
            let said = String::from_utf8_lossy(&done.stderr);
            bail!("{}: {}\n{said}", path.display(), done.status);
        }
        Ok(String::from_utf8_lossy(&done.stdout).into_owned())
    }
}

impl Drop for Installed {
    fn drop(&mut self) {
        if !self.gone {
            // The runtime may be ending: nothing is left to wait with but this thread.
            let done = std::process::Command::new(self.scripts.join("uninstall"))
                .envs(self.environment.iter().map(|(name, value)| (name, value)))
                .stdin(Stdio::null())
                .output();
            drop(done);
        }
    }
}

/// The caller's kubectl, or the one that the cluster brings, or any.
fn kubectl(kubeconfig: &Path) -> OsString {
    let own = kubeconfig.parent().map(|folder| folder.join("bin/kubectl"));
    let own = own.filter(|own| own.exists()).map(PathBuf::into_os_string);
    std::env::var_os("KUBECTL")
        .or(own)
        .unwrap_or_else(|| "kubectl".into())
}
