//! What children write that is not protocol: the last lines in memory, all of it in a capped file or on our own stderr.
//!
//! Invariants: memory per stream is bounded whatever a child writes (a line longer than [`MAX_LINE`] is cut into
//! several); a file and its predecessor (`.1`) together hold at most [`MAX_FILE`] bytes; files are private (0600).
//! Writing happens off the async threads, in batches; a disk that cannot keep up slows the child, never the gateway.

use std::{
    cmp::Reverse,
    collections::VecDeque,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    time::{Instant, sleep_until},
};

/// Lines kept in memory for status and exit reports.
const TAIL_LINES: usize = 40;
/// Characters kept of each of them.
const TAIL_WIDTH: usize = 500;
/// Bytes of a line before it is cut in two.
const MAX_LINE: usize = 16 * 1024;
/// Bytes of an instance's log, both files together.
const MAX_FILE: u64 = 8 << 20;
/// Bytes of all logs of a backend, and how many instances' logs.
const MAX_BACKEND_BYTES: u64 = 64 << 20;
const MAX_BACKEND_LOGS: usize = 100;
/// What is written to disk at once, and how long it may wait for more.
const BATCH: usize = 64 * 1024;
const LINGER: Duration = Duration::from_millis(100);

/// The last lines of something.
#[derive(Debug, Default)]
pub(crate) struct Tail(Mutex<VecDeque<String>>);

impl Tail {
    fn push(&self, line: &[u8]) {
        let text = printable(line);
        let mut lines = self.0.lock();
        if lines.len() == TAIL_LINES {
            lines.pop_front();
        }
        lines.push_back(text);
    }

    /// Oldest first.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.0.lock().iter().cloned().collect()
    }
}

/// A line as it may be shown on a terminal or in JSON: no escape sequences, no control characters, bounded.
fn printable(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    let mut shown = String::new();
    let mut chars = text.chars();
    let mut width = 0;
    while let Some(c) = chars.next() {
        if width == TAIL_WIDTH {
            shown.push('…');
            break;
        }
        if c == '\u{1b}' {
            // ECMA-48 control sequence: ESC [ parameters, up to a final byte in @…~.
            if chars.clone().next() == Some('[') {
                chars.next();
                chars.by_ref().find(|c| ('@'..='~').contains(c));
            }
        } else if c == '\t' || !c.is_control() {
            shown.push(c);
            width += 1;
        }
    }
    shown
}

/// The log file of one instance.
#[derive(Debug)]
pub(crate) struct LogFile {
    path: PathBuf,
    /// `None` once it could not be written: said once, then silent.
    open: Mutex<Option<(File, u64)>>,
}

impl LogFile {
    /// Creates it.
    pub(crate) fn create(path: PathBuf) -> io::Result<Self> {
        let file = open_log(&path)?;
        Ok(Self {
            path,
            open: Mutex::new(Some((file, 0))),
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Removes the file of an instance that never came to be, so that failing launches do not pile files up.
    pub(crate) fn discard(&self) {
        // If it cannot be removed now, a later pruning removes it.
        let _ = fs::remove_file(&self.path);
    }

    fn write(&self, bytes: &[u8]) {
        let mut open = self.open.lock();
        if let Err(error) = Self::append(&mut open, &self.path, bytes) {
            tracing::warn!(path = %self.path.display(), %error, "a log file cannot be written any more");
            *open = None;
        }
    }

    fn append(open: &mut Option<(File, u64)>, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let Some((file, size)) = open else {
            return Ok(());
        };
        if *size + bytes.len() as u64 > MAX_FILE / 2 {
            fs::rename(path, path.with_extension("log.1"))?;
            *file = open_log(path)?;
            *size = 0;
        }
        file.write_all(bytes)?;
        *size += bytes.len() as u64;
        Ok(())
    }
}

fn open_log(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)
}

/// Where the lines of a stream are kept.
#[derive(Debug, Clone)]
pub(crate) enum Log {
    /// In a capped file.
    File(Arc<LogFile>),
    /// On our own stderr: in a pod that is the container's, which the kubelet keeps and caps.
    Stderr,
}

impl Log {
    fn write(&self, bytes: &[u8]) {
        match self {
            Self::File(file) => file.write(bytes),
            Self::Stderr => {
                // A container whose stderr nobody takes any more is being torn down.
                let _ = io::stderr().write_all(bytes);
            }
        }
    }
}

/// Where the lines of a stream go.
#[derive(Debug, Clone)]
pub(crate) struct Sink {
    pub(crate) tails: Vec<Arc<Tail>>,
    pub(crate) log: Log,
}

/// Cuts a stream into lines.
#[derive(Debug, Default)]
struct Lines {
    rest: Vec<u8>,
}

impl Lines {
    /// Takes bytes; gives each whole line (or piece of an overlong one), without its end.
    fn feed(&mut self, mut bytes: &[u8], mut line: impl FnMut(&[u8])) {
        while !bytes.is_empty() {
            let room = MAX_LINE - self.rest.len();
            let end = bytes.iter().take(room).position(|b| *b == b'\n');
            let taken = end.unwrap_or(room.min(bytes.len()));
            let (head, tail) = bytes.split_at(taken);
            self.rest.extend_from_slice(head);
            bytes = tail.get(usize::from(end.is_some())..).unwrap_or_default();
            if end.is_some() || self.rest.len() == MAX_LINE {
                self.flush(&mut line);
            }
        }
    }

    fn flush(&mut self, line: &mut impl FnMut(&[u8])) {
        line(self.rest.strip_suffix(b"\r").unwrap_or(&self.rest));
        self.rest.clear();
    }

    /// The stream has ended.
    fn end(&mut self, mut line: impl FnMut(&[u8])) {
        if !self.rest.is_empty() {
            self.flush(&mut line);
        }
    }
}

/// Reads a stream to its end into the sink.
pub(crate) async fn capture(mut stream: impl AsyncRead + Unpin, sink: Sink) {
    let mut lines = Lines::default();
    let mut batch: Vec<u8> = Vec::new();
    let mut chunk = vec![0; 8 * 1024];
    let mut due: Option<Instant> = None;
    loop {
        let read = tokio::select! {
            read = stream.read(&mut chunk) => read,
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                due = None;
                batch = written(&sink.log, batch).await;
                continue;
            }
        };
        let mut take = |line: &[u8]| {
            sink.tails.iter().for_each(|tail| tail.push(line));
            batch.extend_from_slice(line);
            batch.push(b'\n');
        };
        match read {
            Ok(0) | Err(_) => {
                lines.end(take);
                written(&sink.log, batch).await;
                return;
            }
            Ok(n) => lines.feed(chunk.get(..n).unwrap_or_default(), &mut take),
        }
        if batch.len() >= BATCH {
            batch = written(&sink.log, batch).await;
            due = None;
        } else if due.is_none() && !batch.is_empty() {
            due = Some(Instant::now() + LINGER);
        }
    }
}

/// Writes a batch where blocking is allowed; gives the emptied buffer back.
async fn written(log: &Log, mut batch: Vec<u8>) -> Vec<u8> {
    if batch.is_empty() {
        return batch;
    }
    let log = log.clone();
    let write = move || {
        log.write(&batch);
        batch.clear();
        batch
    };
    tokio::task::spawn_blocking(write).await.unwrap_or_default()
}

/// Removes a backend's oldest logs until the rest fits its caps. `alive` says which files are in use.
pub(crate) fn prune(folder: &Path, alive: impl Fn(&Path) -> bool) -> io::Result<()> {
    let mut files: Vec<(SystemTime, PathBuf, u64)> = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let meta = entry.metadata()?;
        if meta.is_file() {
            files.push((meta.modified()?, entry.path(), meta.len()));
        }
    }
    files.sort_by_key(|file| Reverse(file.0));
    let (mut bytes, mut logs) = (0, 0);
    for (_, path, size) in files {
        bytes += size;
        logs += 1;
        let over = bytes > MAX_BACKEND_BYTES || logs > MAX_BACKEND_LOGS;
        if over && !alive(&path) {
            fs::remove_file(&path)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
