//! The key file: which digests of keys belong to whom.
//!
//! Invariants: a key is 256 random bits, shown once and stored only as SHA-256 (which for random keys needs no salt
//! and no stretching); the file is replaced whole, never edited in place, and is 0600; a file that others may write to
//! is refused, for they could add themselves.

use std::{
    fmt, fs,
    io::{self, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use mcp_gateway_api::ids::TenantName;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

/// What every key begins with, so that scanners and people recognise one.
const PREFIX: &str = "mgk_";
/// Random bytes in a key.
const KEY_BYTES: usize = 32;
/// The largest key file that is read, in bytes.
const MAX_FILE: u64 = 16 << 20;
/// The longest subject, in bytes.
const MAX_SUBJECT: usize = 256;

/// One key's owner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KeyEntry {
    /// Names the key in `keys list` and `keys remove`: the first 8 hex digits of its digest.
    pub id: String,
    /// Whom its holder works for.
    pub tenant: TenantName,
    /// Who holds it; several keys of one subject are the same principal.
    pub subject: String,
    /// SHA-256 of the whole key, prefix included.
    #[serde(with = "hex")]
    pub sha256: [u8; 32],
    /// When it was made, in seconds since 1970.
    pub created_at: u64,
}

/// All keys.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KeyFile {
    /// In the order they were added.
    pub keys: Vec<KeyEntry>,
}

/// A key that was just made: the only time its text is seen.
pub struct NewKey {
    /// What the caller is to send. Wiped when dropped.
    pub text: Zeroizing<String>,
    /// What is kept of it.
    pub entry: KeyEntry,
}

impl fmt::Debug for NewKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewKey")
            .field("entry", &self.entry)
            .finish_non_exhaustive()
    }
}

/// Why a key file could not be used. Each sentence names the file and the remedy; none quotes a digest.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// The file could not be read.
    #[error(
        "key file {path:?} cannot be read: give the gateway's user access to it, or name another with --keys"
    )]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file could not be written.
    #[error("key file {path:?} cannot be written: check the folder's owner and free space")]
    Write {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Others may write to it.
    #[error("key file {path:?} may be written by others (mode {mode:03o}): run 'chmod 600' on it")]
    Open {
        /// Which file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It is larger than any sensible key file.
    #[error(
        "key file {path:?} is larger than 16 MiB: it is not one that 'mcp-gateway keys add' wrote"
    )]
    TooLarge {
        /// Which file.
        path: PathBuf,
    },
    /// It is not what `keys add` writes.
    #[error(
        "key file {path:?}, line {line}, column {column}: {message}; write it with 'mcp-gateway keys add'"
    )]
    Malformed {
        /// Which file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// From 1.
        column: usize,
        /// What is wrong there.
        message: String,
    },
    /// The subject is not usable.
    #[error("the subject must be 1 to 256 bytes of printable text: give one with --subject")]
    Subject,
    /// No key has that id.
    #[error("no key has the id {id:?}: 'mcp-gateway keys list' shows the ids")]
    NoSuchKey {
        /// What was asked for.
        id: String,
    },
}

impl KeyFile {
    /// Reads a key file.
    ///
    /// # Errors
    /// It is missing, unreadable, writable by others, or malformed.
    pub fn load(path: &Path) -> Result<Self, KeyFileError> {
        let read = |source| KeyFileError::Read {
            path: path.to_owned(),
            source,
        };
        let meta = fs::metadata(path).map_err(read)?;
        let mode = meta.mode() & 0o777;
        if mode & 0o022 != 0 {
            return Err(KeyFileError::Open {
                path: path.to_owned(),
                mode,
            });
        }
        if meta.len() > MAX_FILE {
            return Err(KeyFileError::TooLarge {
                path: path.to_owned(),
            });
        }
        Self::parse(path, &fs::read(path).map_err(read)?)
    }

    /// Reads the bytes of a key file; `path` is only named in errors.
    ///
    /// # Errors
    /// They are malformed.
    pub fn parse(path: &Path, bytes: &[u8]) -> Result<Self, KeyFileError> {
        serde_json::from_slice(bytes).map_err(|error| KeyFileError::Malformed {
            path: path.to_owned(),
            line: error.line(),
            column: error.column(),
            message: without_position(&error),
        })
    }

    /// Changes the file at `path` under a lock, so that two commands at once lose nothing; makes it where it is missing.
    ///
    /// # Errors
    /// Those of [`KeyFile::load`] and of `change`, and whatever the disk says.
    pub fn update<T>(
        path: &Path,
        change: impl FnOnce(&mut Self) -> Result<T, KeyFileError>,
    ) -> Result<T, KeyFileError> {
        let write = |source| KeyFileError::Write {
            path: path.to_owned(),
            source,
        };
        let lock = open_private(&beside(path, "lock"), false).map_err(write)?;
        lock.lock().map_err(write)?;
        let mut file = match Self::load(path) {
            Err(KeyFileError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                Self::default()
            }
            other => other?,
        };
        let answer = change(&mut file)?;
        file.store(path).map_err(write)?;
        Ok(answer)
    }

    /// Makes a key and keeps its digest. `created_at` is in seconds since 1970.
    ///
    /// # Errors
    /// The subject is empty, longer than 256 bytes or holds control characters.
    pub fn add(
        &mut self,
        tenant: TenantName,
        subject: &str,
        created_at: u64,
    ) -> Result<NewKey, KeyFileError> {
        let printable = !subject.chars().any(char::is_control);
        if subject.is_empty() || subject.len() > MAX_SUBJECT || !printable {
            return Err(KeyFileError::Subject);
        }
        let random = Zeroizing::new(rand::random::<[u8; KEY_BYTES]>());
        let secret = Zeroizing::new(URL_SAFE_NO_PAD.encode(random.as_slice()));
        let text = Zeroizing::new(format!("{PREFIX}{}", secret.as_str()));
        let sha256: [u8; 32] = Sha256::digest(text.as_bytes()).into();
        let entry = KeyEntry {
            id: hex::encode(&sha256).chars().take(8).collect(),
            tenant,
            subject: subject.to_owned(),
            sha256,
            created_at,
        };
        self.keys.push(entry.clone());
        Ok(NewKey { text, entry })
    }

    /// Forgets the key of that id.
    ///
    /// # Errors
    /// There is none.
    pub fn remove(&mut self, id: &str) -> Result<KeyEntry, KeyFileError> {
        let at = self.keys.iter().position(|entry| entry.id == id);
        at.map(|at| self.keys.remove(at))
            .ok_or_else(|| KeyFileError::NoSuchKey {
                id: id.chars().take(80).collect(),
            })
    }

    fn store(&self, path: &Path) -> io::Result<()> {
        let fresh = beside(path, "new");
        let mut out = open_private(&fresh, true)?;
        serde_json::to_writer_pretty(&mut out, self)?;
        out.write_all(b"\n")?;
        out.sync_all()?;
        fs::rename(&fresh, path)
    }
}

fn beside(path: &Path, extension: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(extension);
    PathBuf::from(name)
}

fn open_private(path: &Path, truncate: bool) -> io::Result<fs::File> {
    fs::OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(truncate)
        .mode(0o600)
        .open(path)
}

/// The message of a JSON error without the position, which is told apart.
fn without_position(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.rfind(" at line ") {
        Some(end) => text.get(..end).unwrap_or(&text).to_owned(),
        None => text,
    }
}

/// A digest as 64 hex digits.
mod hex {
    use std::fmt::Write;

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn encode(bytes: &[u8]) -> String {
        bytes.iter().fold(String::new(), |mut text, byte| {
            // Writing to a `String` cannot fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
    }

    pub(super) fn serialize<S: Serializer>(bytes: &[u8; 32], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<[u8; 32], D::Error> {
        let text = String::deserialize(from)?;
        decode(&text).ok_or_else(|| D::Error::custom("sha256 must be 64 hex digits"))
    }

    fn decode(text: &str) -> Option<[u8; 32]> {
        let digits: Vec<u32> = text
            .chars()
            .map(|c| c.to_digit(16))
            .collect::<Option<_>>()?;
        let bytes: Vec<u8> = digits
            .chunks(2)
            .map(|pair| match pair {
                [high, low] => u8::try_from(high << 4 | low).ok(),
                _ => None,
            })
            .collect::<Option<_>>()?;
        bytes.try_into().ok()
    }
}
