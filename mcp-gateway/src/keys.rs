//! The `keys` command, and what keeps a running gateway's keys those of the file.
//!
//! A key is written to standard output once, alone, so that it can be captured; everything else goes to standard error.

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::Context;
use mcp_gateway_activator::auth::{KeyFile, KeyFileError, StaticKeys};
use tokio_util::sync::CancellationToken;

use crate::{
    cli::{KeyPlace, KeysCommand},
    config, files,
};

/// How often the key file is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// Runs a `keys` command.
pub(crate) fn run(command: KeysCommand) -> anyhow::Result<()> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.unwrap_or_default().as_secs();
    match command {
        KeysCommand::Add {
            tenant,
            subject,
            place,
        } => {
            let path = place_of(place)?;
            let key = KeyFile::update(&path, |file| file.add(tenant, &subject, now))?;
            let (tenant, id) = (&key.entry.tenant, &key.entry.id);
            say(&format!(
                "Key {id} for {subject} of tenant {tenant} is in {}. Only its digest is kept: this is the only time it is shown.",
                path.display()
            ))?;
            writeln!(io::stdout(), "{}", key.text.as_str()).context("writing the key")
        }
        KeysCommand::List { place } => {
            let path = place_of(place)?;
            let file = match KeyFile::load(&path) {
                Err(KeyFileError::Read { source, .. })
                    if source.kind() == io::ErrorKind::NotFound =>
                {
                    KeyFile::default()
                }
                other => other?,
            };
            list(&file, now)
        }
        KeysCommand::Remove { id, place } => {
            let path = place_of(place)?;
            let entry = KeyFile::update(&path, |file| file.remove(&id))?;
            say(&format!(
                "Key {id} for {} of tenant {} is removed; a running gateway refuses it from now on.",
                entry.subject, entry.tenant
            ))
        }
    }
}

fn place_of(place: KeyPlace) -> anyhow::Result<PathBuf> {
    if let Some(path) = place.keys {
        return Ok(path);
    }
    let dir = config::state_dir(place.state_dir, |name| {
        std::env::var_os(name).map(Into::into)
    })?;
    files::private_dir(&dir)?;
    Ok(dir.join("keys.json"))
}

fn list(file: &KeyFile, now: u64) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{:<10}{:<24}{:<32}AGE", "ID", "TENANT", "SUBJECT")?;
    for key in &file.keys {
        let age = Duration::from_secs(now.saturating_sub(key.created_at));
        writeln!(
            out,
            "{:<10}{:<24}{:<32}{}",
            key.id,
            key.tenant.as_str(),
            key.subject,
            humantime::format_duration(age)
        )?;
    }
    Ok(())
}

fn say(text: &str) -> anyhow::Result<()> {
    writeln!(io::stderr(), "{text}").context("writing to standard error")
}

/// The keys of a file, and what is needed to notice that it changed.
pub(crate) struct Followed {
    path: PathBuf,
    keys: Arc<StaticKeys>,
    read: Option<Stamp>,
}

impl Followed {
    /// Reads the file.
    ///
    /// # Errors
    /// It cannot be used.
    pub(crate) fn open(path: PathBuf) -> Result<Self, KeyFileError> {
        // Taken first: what changes while the file is read is then read again, and not taken for what was read.
        let read = stamp(&path);
        let keys = Arc::new(StaticKeys::new(&KeyFile::load(&path)?));
        Ok(Self { path, keys, read })
    }

    /// The keys, which [`Self::follow`] changes.
    pub(crate) fn keys(&self) -> Arc<StaticKeys> {
        Arc::clone(&self.keys)
    }

    /// Reads the file again whenever it changed. A file that went bad leaves the keys as they were; one that is gone
    /// leaves nobody in.
    pub(crate) async fn follow(mut self, cancel: CancellationToken) {
        while cancel
            .run_until_cancelled(tokio::time::sleep(LOOK))
            .await
            .is_some()
        {
            let now = stamp(&self.path);
            if now != self.read {
                self.read = now;
                self.again();
            }
        }
    }

    fn again(&self) {
        match KeyFile::load(&self.path) {
            Ok(file) => {
                self.keys.replace(&file);
                tracing::info!(keys = self.keys.count(), "the API keys changed");
            }
            Err(KeyFileError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                self.keys.replace(&KeyFile::default());
                tracing::error!(file = %self.path.display(), "the key file is gone: nobody is let in until it is back");
            }
            Err(error) => tracing::error!("{error}; the keys stay as they were"),
        }
    }
}

/// Inode, length, when it was changed, and who may do what with it.
type Stamp = (u64, u64, i64, i64, u32);

/// What tells one state of a file from another: it is replaced whole, so its inode changes with it.
fn stamp(path: &Path) -> Option<Stamp> {
    use std::os::unix::fs::MetadataExt;
    let meta = std::fs::metadata(path).ok()?;
    Some((
        meta.ino(),
        meta.len(),
        meta.mtime(),
        meta.mtime_nsec(),
        meta.mode(),
    ))
}

#[cfg(test)]
mod tests {
    use mcp_gateway_api::ids::TenantName;

    use super::*;

    fn add(path: &Path, subject: &str) {
        KeyFile::update(path, |file| file.add(TenantName::default(), subject, 0)).unwrap();
    }

    async fn until(keys: &StaticKeys, count: usize) {
        for _ in 0..2_000 {
            if keys.count() == count {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{} keys, not {count}", keys.count());
    }

    #[tokio::test]
    async fn a_key_that_is_added_before_the_file_is_first_looked_at_again_is_let_in() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys.json");
        add(&path, "alice");
        let followed = Followed::open(path.clone()).unwrap();
        let keys = followed.keys();
        assert_eq!(keys.count(), 1);
        // The gateway is still starting: nobody follows the file yet.
        add(&path, "bob");
        let cancel = CancellationToken::new();
        let following = tokio::spawn(followed.follow(cancel.clone()));
        until(&keys, 2).await;
        std::fs::remove_file(&path).unwrap();
        // A file that is gone leaves nobody in.
        until(&keys, 0).await;
        cancel.cancel();
        following.await.unwrap();
    }
}
