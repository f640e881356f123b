//! Files and folders of the gateway's own: private, and replaced whole.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use anyhow::Context;

/// Makes a folder that only its owner can enter, with the folders above it; one that was open is closed.
pub(crate) fn private_dir(dir: &Path) -> anyhow::Result<()> {
    let made = fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir);
    made.with_context(|| {
        format!(
            "the folder {} cannot be made: give another with --state-dir",
            dir.display()
        )
    })?;
    let meta = fs::metadata(dir)
        .with_context(|| format!("the folder {} cannot be read", dir.display()))?;
    if meta.permissions().mode() & 0o077 != 0 {
        fs::set_permissions(dir, fs::Permissions::from_mode(0o700)).with_context(|| {
            format!(
                "the folder {} is open to others: run 'chmod 700' on it",
                dir.display()
            )
        })?;
    }
    Ok(())
}

/// Replaces a file whole, so that a reader sees the old or the new one and nothing between.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut fresh = path.as_os_str().to_owned();
    fresh.push(".new");
    let fresh = PathBuf::from(fresh);
    let mut file = fs::OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(true)
        .mode(0o600)
        .open(&fresh)?;
    io::Write::write_all(&mut file, bytes)?;
    drop(file);
    fs::rename(&fresh, path)
}
