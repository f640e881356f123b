//! The secrets of an installation: the authority that its certificates come from, the key that agents' proofs are made
//! with, the keys that seal session ids, an activator's certificate. One file each, so that a folder of them is a Kubernetes Secret and back.
//!
//! Invariant: what is there is never replaced; private files. Never: a secret in a log line or an error.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, bail};
use mcp_gateway_activator::session::keyring::Keyring;
use mcp_gateway_link::{
    ACTIVATOR_NAME, Authority,
    authority::{Credentials, Identity},
    token::HomeKey,
};
use rand::{TryRngCore, rngs::OsRng};

use crate::{cli::SecretsCommand, files};

/// The authority's certificate and key.
const CA: [&str; 2] = ["ca.crt", "ca.key"];
/// Random bytes.
const HOME: &str = "home.key";
/// What an activator is to the autoscaler: a certificate of the authority, and its key.
const ACTIVATOR: [&str; 2] = ["activator.crt", "activator.key"];
/// See [`Keyring`].
const SEALING: &str = "sealing-keys";
/// Largest file that is read.
const MAX_FILE: u64 = 64 << 10;

/// What roles need beyond their settings.
pub(crate) struct Secrets {
    pub(crate) authority: Arc<Authority>,
    pub(crate) home: HomeKey,
    /// The file of sealing keys.
    pub(crate) sealing: PathBuf,
}

/// An activator's share: it can neither sign certificates nor make agents' proofs.
pub(crate) struct ActivatorSecrets {
    pub(crate) credentials: Credentials,
    /// The file of sealing keys.
    pub(crate) sealing: PathBuf,
}

/// An autoscaler's share: it opens no session ids.
pub(crate) struct AutoscalerSecrets {
    pub(crate) authority: Arc<Authority>,
    pub(crate) home: HomeKey,
}

/// Does what the subcommand says.
///
/// # Errors
/// A file cannot be written, or one that is there is no secret.
pub(crate) fn run(command: SecretsCommand) -> anyhow::Result<()> {
    match command {
        SecretsCommand::Create { dir } => {
            files::private_dir(&dir)?;
            make(&dir)?;
            load(&dir)?;
            make_activator(&dir)?;
            load_activator(&dir)?;
            Ok(())
        }
    }
}

/// Writes what is not there yet.
///
/// # Errors
/// A file cannot be written.
pub(crate) fn make(dir: &Path) -> anyhow::Result<()> {
    if !CA.iter().any(|name| dir.join(name).exists()) {
        let authority = Authority::generate().context("making the authority")?;
        // The key first: a certificate without one would look like a loss.
        write(dir, CA[1], authority.key_pem().as_bytes())?;
        write(dir, CA[0], authority.cert_pem().as_bytes())?;
    }
    if !dir.join(HOME).exists() {
        let mut key = [0; 32];
        OsRng.try_fill_bytes(&mut key).context("random bytes")?;
        write(dir, HOME, &key)?;
    }
    Keyring::load_or_create(&dir.join(SEALING))
        .with_context(|| format!("the sealing keys in {}", dir.join(SEALING).display()))?;
    Ok(())
}

/// Writes an activator's certificate and key, if they are not there yet.
fn make_activator(dir: &Path) -> anyhow::Result<()> {
    if ACTIVATOR.iter().any(|name| dir.join(name).exists()) {
        return Ok(());
    }
    let issued = authority(dir)?.issue(ACTIVATOR_NAME)?;
    write(dir, ACTIVATOR[1], issued.key_pem.as_bytes())?;
    write(dir, ACTIVATOR[0], issued.cert_pem.as_bytes())
}

/// Reads them all.
///
/// # Errors
/// One is missing or is none.
pub(crate) fn load(dir: &Path) -> anyhow::Result<Secrets> {
    let AutoscalerSecrets { authority, home } = load_autoscaler(dir)?;
    Ok(Secrets {
        authority,
        home,
        sealing: sealing(dir)?,
    })
}

/// Reads an autoscaler's share.
///
/// # Errors
/// One is missing or is none.
pub(crate) fn load_autoscaler(dir: &Path) -> anyhow::Result<AutoscalerSecrets> {
    let home = HomeKey::new(&read(dir, HOME)?)
        .with_context(|| format!("the key in {}", dir.join(HOME).display()))?;
    Ok(AutoscalerSecrets {
        authority: Arc::new(authority(dir)?),
        home,
    })
}

/// Reads an activator's share. Whether certificate and key belong together is known when they are used.
///
/// # Errors
/// One is missing.
pub(crate) fn load_activator(dir: &Path) -> anyhow::Result<ActivatorSecrets> {
    Ok(ActivatorSecrets {
        credentials: Credentials {
            ca_pem: text(dir, CA[0])?,
            identity: Identity {
                cert_pem: text(dir, ACTIVATOR[0])?,
                key_pem: text(dir, ACTIVATOR[1])?,
            },
        },
        sealing: sealing(dir)?,
    })
}

fn authority(dir: &Path) -> anyhow::Result<Authority> {
    Authority::from_pem(&text(dir, CA[0])?, &text(dir, CA[1])?)
        .with_context(|| format!("the authority in {}", dir.display()))
}

fn sealing(dir: &Path) -> anyhow::Result<PathBuf> {
    let sealing = dir.join(SEALING);
    if !sealing.exists() {
        bail!(missing(&sealing));
    }
    Ok(sealing)
}

fn text(dir: &Path, name: &str) -> anyhow::Result<String> {
    String::from_utf8(read(dir, name)?)
        .map_err(|_not_utf8| anyhow::anyhow!("{} is no PEM file", dir.join(name).display()))
}

fn read(dir: &Path, name: &str) -> anyhow::Result<Vec<u8>> {
    let path = dir.join(name);
    let size = match fs::metadata(&path) {
        Ok(meta) => meta.len(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => bail!(missing(&path)),
        Err(error) => return Err(error).with_context(|| format!("reading {}", path.display())),
    };
    if size > MAX_FILE {
        bail!(
            "{} is too long to be a secret of the gateway",
            path.display()
        );
    }
    fs::read(&path).with_context(|| format!("reading {}", path.display()))
}

fn write(dir: &Path, name: &str, bytes: &[u8]) -> anyhow::Result<()> {
    let path = dir.join(name);
    files::replace(&path, bytes).with_context(|| format!("writing {}", path.display()))
}

fn missing(path: &Path) -> String {
    format!(
        "{} is not there: make the secrets of the installation once with 'mcp-gateway secrets create DIR'",
        path.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_is_kept_and_what_is_missing_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let error = format!("{:#}", load(dir.path()).err().unwrap());
        assert!(error.contains("secrets create"), "{error}");
        make(dir.path()).unwrap();
        let before = load(dir.path()).unwrap();
        fs::remove_file(dir.path().join(HOME)).unwrap();
        make(dir.path()).unwrap();
        let after = load(dir.path()).unwrap();
        assert_eq!(before.authority.cert_pem(), after.authority.cert_pem());
        let token = before.home.launch_token("pod");
        assert!(!after.home.made_token("pod", &token), "a new key");
        fs::remove_file(dir.path().join(CA[1])).unwrap();
        make(dir.path()).unwrap();
        let error = format!("{:#}", load(dir.path()).err().unwrap());
        assert!(
            error.contains("ca.key"),
            "half an authority is not replaced: {error}"
        );
    }
}
