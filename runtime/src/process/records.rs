//! Child records: what a gateway that was killed leaves behind, so that the next one can end its orphans.
//!
//! One small file per child in `STATE_DIR/children`, written right after the spawn and removed once the whole group is
//! dead. It holds process ids and names only: no argument, no environment, no secret. A gateway killed between the
//! spawn and the write (some 100 µs) leaves an unrecorded child; that window is known and accepted.

use std::{
    fs,
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

/// The file must be small; more is not ours.
const MAX_RECORD: u64 = 16 * 1024;

/// A child as it was when it was spawned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ChildRecord {
    /// Of which backend; for the log line of the reaper.
    pub(crate) backend: String,
    /// Of which instance.
    pub(crate) instance: String,
    /// The child, which leads a process group of the same number.
    pub(crate) pid: i32,
    /// Its start time ([`super::table::Entry::start`]).
    pub(crate) start: String,
    /// Its POSIX session ([`super::table::Entry::session`]).
    pub(crate) session: i32,
    /// The boot of the machine it ran in.
    pub(crate) boot: String,
}

/// The file of a record; removed by [`RecordFile::remove`], and left behind on purpose when it is merely dropped.
#[derive(Debug)]
pub(crate) struct RecordFile(PathBuf);

impl RecordFile {
    pub(crate) fn remove(self) {
        if let Err(error) = fs::remove_file(&self.0) {
            tracing::debug!(path = %self.0.display(), %error, "a child record could not be removed");
        }
    }
}

/// Creates a folder for this user alone, and its parents.
pub(crate) fn private_dir(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
}

/// Writes a record.
pub(crate) fn write(folder: &Path, record: &ChildRecord) -> io::Result<RecordFile> {
    let short = record.instance.get(..8).unwrap_or(&record.instance);
    let path = folder.join(format!("{short}-{}.json", record.pid));
    let text = serde_json::to_vec(record).map_err(io::Error::other)?;
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&path)?;
    file.write_all(&text)?;
    Ok(RecordFile(path))
}

/// Reads all records. A file that cannot be read as one says nothing about any process, so it is removed.
pub(crate) fn load(folder: &Path) -> io::Result<Vec<(RecordFile, ChildRecord)>> {
    let mut records = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_none_or(|ext| ext != "json") {
            continue;
        }
        match read(&path) {
            Ok(record) => records.push((RecordFile(path), record)),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "a child record is unreadable and was dropped");
                RecordFile(path).remove();
            }
        }
    }
    Ok(records)
}

fn read(path: &Path) -> io::Result<ChildRecord> {
    if fs::metadata(path)?.len() > MAX_RECORD {
        return Err(io::Error::other("too long for a child record"));
    }
    serde_json::from_slice(&fs::read(path)?).map_err(io::Error::other)
}
