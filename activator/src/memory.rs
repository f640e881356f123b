//! What is remembered of each server so that a cold one can still answer a probe: the eras it speaks, its last
//! `server/discover` result, its last rejection of one, and whether it has a GET stream.
//!
//! Kept per backend, generation and owner; bounded, the least recently used going first; written to the state directory
//! whole and atomically, a little after a change.
//! Invariants: what it holds came from the server, under the same owner. Never: invents an answer, or waits for the disk.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use mcp_gateway_api::{claim::BackendVersion, slot::Owner};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::message::RequestId;

/// Most servers (per generation and owner) remembered.
const MOST: usize = 1_024;
/// Largest answer remembered, in bytes.
pub(crate) const MAX_ANSWER: usize = 64 << 10;
/// Most bytes of answers remembered in all.
const MAX_BYTES: usize = 8 << 20;
/// How long changes are gathered before they are written.
const GATHER: Duration = Duration::from_millis(200);

/// Whose memory.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct MemoryKey {
    /// Of which server, in which text.
    pub backend: BackendVersion,
    /// For whom: the owner of the slot that would answer.
    pub owner: Owner,
}

/// A remembered answer to a probe, without the id it had.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// What it says.
    pub body: AnswerBody,
}

/// The body of a remembered answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum AnswerBody {
    /// The JSON text of `result`.
    Result(Box<str>),
    /// The JSON text of `error`; `with_id` is false for one that had no id, or a null one.
    Error {
        /// The text.
        error: Box<str>,
        /// Whether it carried the request's id.
        with_id: bool,
    },
    /// No JSON-RPC: as it was.
    Other {
        /// `Content-Type`, if there was one.
        content_type: Option<Box<str>>,
        /// The text.
        text: Box<str>,
    },
}

/// What is remembered of a server.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remembered {
    /// Whether it speaks the legacy era, once known.
    pub legacy: Option<bool>,
    /// Whether it speaks the modern era, once known.
    pub modern: Option<bool>,
    /// Its last `server/discover` result.
    pub discover: Option<Answer>,
    /// Its last rejection of a `server/discover`.
    pub rejection: Option<Answer>,
    /// Whether its sessions have a GET stream, once known.
    #[serde(default)]
    pub streams: Option<bool>,
}

/// Which of two eras, for [`Memory::speaks`].
pub use mcp_gateway_api::revision::Era;

/// The memory. Cheap to clone.
#[derive(Clone)]
pub struct Memory {
    inner: Arc<Inner>,
}

struct Inner {
    file: Option<PathBuf>,
    entries: Mutex<Entries>,
    changed: Notify,
}

/// Most recently used last.
#[derive(Default)]
struct Entries {
    list: Vec<(MemoryKey, Remembered)>,
    bytes: usize,
}

#[derive(Serialize, Deserialize)]
struct File {
    version: u32,
    entries: Vec<(MemoryKey, Remembered)>,
}

impl Memory {
    /// Reads the file if there is one (a damaged one is as good as none: servers are asked again). `None` keeps nothing
    /// beyond the process.
    #[must_use]
    pub fn open(file: Option<&Path>) -> Self {
        let list = file.and_then(read).unwrap_or_default();
        let mut entries = Entries::default();
        for (key, remembered) in list {
            entries.put(key, remembered);
        }
        Self {
            inner: Arc::new(Inner {
                file: file.map(Path::to_path_buf),
                entries: Mutex::new(entries),
                changed: Notify::new(),
            }),
        }
    }

    /// What is remembered of a server.
    #[must_use]
    pub fn get(&self, key: &MemoryKey) -> Option<Remembered> {
        self.inner.entries.lock().get(key)
    }

    /// A server answered in an era: it speaks it, or refused it.
    pub fn speaks(&self, key: &MemoryKey, era: Era, does: bool) {
        self.change(key, |remembered| match era {
            Era::Legacy => remembered.legacy = Some(does),
            Era::Modern => remembered.modern = Some(does),
        });
    }

    /// A server gave a session its GET stream, or said that it has none (405).
    pub fn streams(&self, key: &MemoryKey, has: bool) {
        self.change(key, |remembered| remembered.streams = Some(has));
    }

    /// A server answered `server/discover` with a result.
    pub fn discovered(&self, key: &MemoryKey, status: u16, body: &[u8]) {
        if let Some(answer) = Answer::of(status, None, body) {
            self.change(key, |remembered| {
                remembered.modern = Some(true);
                remembered.discover = Some(answer);
                remembered.rejection = None;
            });
        }
    }

    /// A server refused a `server/discover` for good (4xx, not an overload).
    pub fn rejected(&self, key: &MemoryKey, status: u16, content_type: Option<&str>, body: &[u8]) {
        if let Some(answer) = Answer::of(status, content_type, body) {
            self.change(key, |remembered| {
                remembered.rejection = Some(answer);
                remembered.discover = None;
            });
        }
    }

    fn change(&self, key: &MemoryKey, change: impl FnOnce(&mut Remembered)) {
        let mut entries = self.inner.entries.lock();
        let old = entries.get(key);
        let mut new = old.clone().unwrap_or_default();
        change(&mut new);
        if old.as_ref() != Some(&new) {
            entries.put(key.clone(), new);
            drop(entries);
            self.inner.changed.notify_one();
        }
    }

    /// Writes changes to the file until cancelled, and once more then.
    pub async fn run(self, cancel: CancellationToken) {
        let Some(file) = self.inner.file.clone() else {
            return;
        };
        loop {
            let over = tokio::select! {
                () = cancel.cancelled() => true,
                () = self.inner.changed.notified() => {
                    // More is likely to follow at once.
                    tokio::time::timeout(GATHER, cancel.cancelled()).await.is_ok()
                }
            };
            self.write(&file).await;
            if over {
                return;
            }
        }
    }

    async fn write(&self, file: &Path) {
        let entries = self.inner.entries.lock().list.clone();
        let path = file.to_path_buf();
        let written = tokio::task::spawn_blocking(move || {
            let text = serde_json::to_vec(&File {
                version: 1,
                entries,
            })?;
            let temporary = path.with_extension("new");
            std::fs::write(&temporary, text)?;
            std::fs::rename(&temporary, &path)
        });
        match written.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(%error, "what is remembered of servers was not written")
            }
            Err(error) => tracing::warn!(%error, "what is remembered of servers was not written"),
        }
    }
}

fn read(file: &Path) -> Option<Vec<(MemoryKey, Remembered)>> {
    let too_large = std::fs::metadata(file).ok()?.len() > 4 * MAX_BYTES as u64;
    let text = (!too_large).then(|| std::fs::read(file).ok()).flatten()?;
    let parsed: Result<File, _> = serde_json::from_slice(&text);
    match parsed {
        Ok(file) if file.version == 1 => Some(file.entries),
        Ok(_) => None,
        Err(error) => {
            tracing::warn!(%error, "the file of what is remembered of servers is damaged; it is begun anew");
            None
        }
    }
}

impl Entries {
    fn get(&mut self, key: &MemoryKey) -> Option<Remembered> {
        let at = self.list.iter().rposition(|(known, _)| known == key)?;
        let entry = self.list.remove(at);
        let remembered = entry.1.clone();
        self.list.push(entry);
        Some(remembered)
    }

    fn put(&mut self, key: MemoryKey, remembered: Remembered) {
        if let Some(at) = self.list.iter().rposition(|(known, _)| *known == key) {
            let (_, old) = self.list.remove(at);
            self.bytes -= old.size();
        }
        self.bytes += remembered.size();
        self.list.push((key, remembered));
        while self.list.len() > MOST || self.bytes > MAX_BYTES {
            let (_, oldest) = self.list.remove(0);
            self.bytes -= oldest.size();
        }
    }
}

impl Remembered {
    fn size(&self) -> usize {
        let size = |answer: &Option<Answer>| answer.as_ref().map_or(0, Answer::size);
        size(&self.discover) + size(&self.rejection)
    }
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    id: Option<&'a serde_json::value::RawValue>,
    #[serde(borrow)]
    result: Option<&'a serde_json::value::RawValue>,
    #[serde(borrow)]
    error: Option<&'a serde_json::value::RawValue>,
}

impl Answer {
    /// Takes an answer apart; `None` if it is too large to keep or not text.
    #[must_use]
    pub fn of(status: u16, content_type: Option<&str>, body: &[u8]) -> Option<Self> {
        if body.len() > MAX_ANSWER {
            return None;
        }
        let text = std::str::from_utf8(body).ok()?;
        let envelope = serde_json::from_str::<Envelope<'_>>(text).ok();
        let body = match envelope.map(|e| (e.result, e.error, e.id)) {
            Some((Some(result), None, _)) => AnswerBody::Result(result.get().into()),
            Some((None, Some(error), id)) => AnswerBody::Error {
                error: error.get().into(),
                with_id: id.is_some(),
            },
            Some((Some(_), Some(_), _) | (None, None, _)) | None => AnswerBody::Other {
                content_type: content_type.map(Into::into),
                text: text.into(),
            },
        };
        Some(Self { status, body })
    }

    /// `Content-Type` and body of the answer to a request with this id.
    #[must_use]
    pub fn render(&self, id: &RequestId) -> (Option<&str>, String) {
        const JSON: Option<&str> = Some("application/json");
        match &self.body {
            AnswerBody::Result(result) => (
                JSON,
                format!(r#"{{"jsonrpc":"2.0","id":{},"result":{result}}}"#, id.raw()),
            ),
            AnswerBody::Error { error, with_id } => {
                let id = if *with_id { id.raw() } else { "null" };
                (
                    JSON,
                    format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{error}}}"#),
                )
            }
            AnswerBody::Other { content_type, text } => (content_type.as_deref(), text.to_string()),
        }
    }

    fn size(&self) -> usize {
        match &self.body {
            AnswerBody::Result(text)
            | AnswerBody::Error { error: text, .. }
            | AnswerBody::Other { text, .. } => text.len(),
        }
    }
}

#[cfg(test)]
mod tests;
