//! The lock on the state directory: one gateway at a time, so that nobody reaps the children of a living one.
//!
//! An advisory lock of the operating system, which ends with the process however it ends. The file's text (the
//! holder's process id) is for people only.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{self, Read, Seek, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

/// Why the state directory could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Somebody else holds it.
    #[error(
        "another gateway uses {}{}; stop it, or give this one its own --state-dir",
        dir.display(), holder.map(|pid| format!(", pid {pid}")).unwrap_or_default()
    )]
    Held {
        /// The state directory.
        dir: PathBuf,
        /// Who holds it, if the file says.
        holder: Option<u32>,
    },
    /// The file could not be opened, locked or written.
    #[error("the lock {} could not be taken", path.display())]
    Io {
        /// The lock file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// The lock; ends when dropped.
#[derive(Debug)]
pub(crate) struct StateLock {
    file: File,
}

impl StateLock {
    pub(crate) fn take(dir: &Path) -> Result<Self, LockError> {
        let path = dir.join("lock");
        let io_error = |source| LockError::Io {
            path: path.clone(),
            source,
        };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(io_error)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                // For people only: an unreadable file costs them the number.
                let _ = (&file).take(32).read_to_string(&mut text);
                return Err(LockError::Held {
                    dir: dir.to_path_buf(),
                    holder: text.trim().parse().ok(),
                });
            }
            Err(TryLockError::Error(source)) => return Err(io_error(source)),
        }
        file.set_len(0).map_err(io_error)?;
        file.rewind().map_err(io_error)?;
        writeln!(file, "{}", std::process::id()).map_err(io_error)?;
        Ok(Self { file })
    }
}

/// Unlocks, rather than only closing: a child that is being started at this moment holds a copy of the file, and with it
/// the lock, until it runs its own program.
impl Drop for StateLock {
    fn drop(&mut self) {
        // It is closed in any case.
        let _ = self.file.unlock();
    }
}
