//! Session records on disk: one append-only file, rewritten when most of it is stale.
//!
//! Invariants: a change is answered after it has been handed to the operating system, so records survive the gateway's
//! own death (SIGKILL), not the machine's. Every frame carries its length and checksum: what a crash tore off at the end
//! is dropped at the next start, all before it is kept. A rewrite goes to a new file that replaces the old one by
//! rename. The files hold upstream session ids, so only the owner may read them. All IO happens on one thread of its own.

use std::{
    collections::HashMap,
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    path::{Path, PathBuf},
    thread,
};

use mcp_gateway_api::{ids::SessionKey, record::SessionRecord};
use tokio::sync::{mpsc, oneshot};

use crate::core::records::Change;

mod frame;
#[cfg(test)]
mod tests;

use frame::Frame;

/// The file in the records' folder.
const FILE: &str = "sessions.log";
/// The file that a rewrite goes to first.
const NEW_FILE: &str = "sessions.log.new";
/// First bytes of the file: what it is and its version.
const MAGIC: &[u8; 8] = b"MGWREC01";
/// A file smaller than this is not worth rewriting, in bytes.
const WORTH_REWRITING: u64 = 4 << 20;
/// Changes that may wait for the disk.
const QUEUE: usize = 4_096;

/// Why records cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file system refuses.
    #[error("session records in {path} cannot be {what}")]
    Io {
        /// `opened`, `read`, `written`.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is something else, or of another version.
    #[error(
        "{path} is not a file of session records that this version knows; move it away to start without records"
    )]
    Foreign {
        /// Which.
        path: PathBuf,
    },
}

/// Changes to write, and whom to tell.
#[derive(Debug)]
pub struct Job {
    /// In order.
    pub changes: Vec<Change>,
    /// Told when they are written, or why not.
    pub done: Option<oneshot::Sender<Result<(), String>>>,
}

/// The writing end. Dropping it lets the thread finish what is queued and end.
#[derive(Debug)]
pub struct Store {
    jobs: mpsc::Sender<Job>,
}

impl Store {
    /// Opens the records in a folder, which is made if need be, and reads them.
    ///
    /// # Errors
    /// The folder or file cannot be used, or is of another version.
    pub fn open(folder: &Path) -> Result<(Self, Vec<SessionRecord>), StoreError> {
        let (file, records) = LogFile::open(folder)?;
        let (jobs, queue) = mpsc::channel(QUEUE);
        thread::Builder::new()
            .name("session-records".into())
            .spawn(move || write_all(file, queue))
            .map_err(|source| StoreError::Io {
                what: "written",
                path: folder.to_owned(),
                source,
            })?;
        Ok((Self { jobs }, records))
    }

    /// Queues changes; waits only while the disk is far behind.
    pub async fn write(&self, job: Job) {
        if let Err(lost) = self.jobs.send(job).await
            && let Some(done) = lost.0.done
        {
            let _ = done.send(Err(
                "the thread that writes session records has ended".into()
            ));
        }
    }
}

fn write_all(mut file: LogFile, mut queue: mpsc::Receiver<Job>) {
    while let Some(job) = queue.blocking_recv() {
        let result = file.append(&job.changes).map_err(|e| e.to_string());
        if let Err(error) = &result {
            tracing::error!(error, path = %file.path.display(), "session records cannot be written");
        }
        if let Some(done) = job.done {
            // Whoever asked may have left; the record is written all the same.
            let _ = done.send(result);
        }
        if file.is_mostly_stale()
            && let Err(error) = file.rewrite()
        {
            tracing::warn!(%error, path = %file.path.display(), "session records cannot be rewritten");
        }
    }
}

/// The file.
#[derive(Debug)]
struct LogFile {
    folder: PathBuf,
    path: PathBuf,
    file: File,
    /// Bytes of whole frames in it.
    length: u64,
    /// Bytes it had after the last rewrite.
    compact: u64,
}

impl LogFile {
    fn open(folder: &Path) -> Result<(Self, Vec<SessionRecord>), StoreError> {
        let path = folder.join(FILE);
        let io = |what| {
            let path = path.clone();
            move |source| StoreError::Io { what, path, source }
        };
        make_private_folder(folder).map_err(io("opened"))?;
        let mut file = open_private(&path).map_err(io("opened"))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(io("read"))?;
        if bytes.len() < MAGIC.len() {
            file.set_len(0).map_err(io("written"))?;
            file.write_all(MAGIC).map_err(io("written"))?;
            bytes = MAGIC.to_vec();
        }
        if !bytes.starts_with(MAGIC) {
            return Err(StoreError::Foreign { path });
        }
        let (records, used) = replay(bytes.get(MAGIC.len()..).unwrap_or_default());
        let length = (MAGIC.len() + used) as u64;
        if (length as usize) < bytes.len() {
            tracing::warn!(path = %path.display(), bytes = bytes.len() as u64 - length, "the end of the session records was torn and is dropped");
            file.set_len(length).map_err(io("written"))?;
        }
        let mut log = Self {
            folder: folder.to_owned(),
            path: path.clone(),
            file,
            length,
            compact: 0,
        };
        log.rewrite().map_err(io("written"))?;
        Ok((log, records.into_values().collect()))
    }

    fn append(&mut self, changes: &[Change]) -> io::Result<()> {
        let mut bytes = Vec::new();
        for change in changes {
            Frame::from(change).write(&mut bytes)?;
        }
        if let Err(error) = self.file.write_all(&bytes) {
            // A torn frame in the middle would hide all that follows.
            self.file.set_len(self.length)?;
            return Err(error);
        }
        self.length += bytes.len() as u64;
        Ok(())
    }

    fn is_mostly_stale(&self) -> bool {
        self.length > WORTH_REWRITING.max(self.compact.saturating_mul(2))
    }

    /// Writes what is current to a new file and puts it in the old one's place.
    fn rewrite(&mut self) -> io::Result<()> {
        let bytes = fs::read(&self.path)?;
        let used = usize::try_from(self.length).unwrap_or(bytes.len());
        let (records, _) = replay(bytes.get(MAGIC.len()..used).unwrap_or_default());
        let new_path = self.folder.join(NEW_FILE);
        if new_path.exists() {
            fs::remove_file(&new_path)?;
        }
        let mut new = open_private(&new_path)?;
        let mut text = MAGIC.to_vec();
        for record in records.into_values() {
            Frame::Put(record).write(&mut text)?;
        }
        new.write_all(&text)?;
        new.sync_all()?;
        fs::rename(&new_path, &self.path)?;
        self.file = new;
        self.length = text.len() as u64;
        self.compact = self.length;
        Ok(())
    }
}

/// What whole frames amount to, and how many bytes they are.
fn replay(bytes: &[u8]) -> (HashMap<SessionKey, SessionRecord>, usize) {
    let mut records = HashMap::new();
    let mut used = 0;
    while let Some((frame, size)) = bytes.get(used..).and_then(Frame::read) {
        used += size;
        match frame {
            Frame::Put(record) => {
                records.insert(record.key, record);
            }
            Frame::Remove(key) => {
                records.remove(&key);
            }
        }
    }
    (records, used)
}

fn make_private_folder(path: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

fn open_private(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).append(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}
