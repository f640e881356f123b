//! The keys that seal session ids: the first seals, all open.
//!
//! The file holds one key a line, base64, newest first; lines that begin with `#` are comments. To rotate, put a new line
//! first and drop the last when its sessions have expired.
//! Invariants: the file is private to its owner (0600) and replaced whole; keys are wiped from memory when dropped and
//! never printed. Never: makes up a key where a file should have one.

use std::{
    fmt, fs,
    io::{self, Write},
    path::Path,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use chacha20poly1305::Key;
use rand::{TryRngCore, rngs::OsRng};
use sha2::{Digest, Sha256};
use zeroize::{Zeroize, Zeroizing};

/// Bytes of a key's id.
pub(crate) const KEY_ID: usize = 4;
const KEY: usize = 32;
/// Most keys in a ring.
const MOST: usize = 16;
/// Largest file that is read.
const MAX_FILE: u64 = 64 << 10;

/// Why there is no key ring.
#[derive(Debug, thiserror::Error)]
pub enum KeyringError {
    /// The file cannot be read or written.
    #[error("cannot read or write the file of sealing keys")]
    Io(#[from] io::Error),
    /// A line is no key.
    #[error("line {line} of the file of sealing keys is not 32 bytes in base64")]
    Line {
        /// Counted from 1.
        line: usize,
    },
    /// No keys, or more than 16.
    #[error("the file of sealing keys must hold 1 to 16 keys")]
    Count,
}

pub(crate) struct SealingKey {
    pub(crate) id: [u8; KEY_ID],
    secret: Key,
}

impl SealingKey {
    fn new(bytes: &[u8; KEY]) -> Self {
        let mut hash = Sha256::new();
        hash.update(b"mcp-gateway sealing key id");
        hash.update(bytes);
        let mut id = [0; KEY_ID];
        id.iter_mut()
            .zip(hash.finalize())
            .for_each(|(to, from)| *to = from);
        Self {
            id,
            secret: *Key::from_slice(bytes),
        }
    }

    pub(crate) const fn secret(&self) -> &Key {
        &self.secret
    }
}

impl Drop for SealingKey {
    fn drop(&mut self) {
        self.secret.as_mut_slice().zeroize();
    }
}

/// The keys.
pub struct Keyring {
    keys: Vec<SealingKey>,
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keyring({} keys)", self.keys.len())
    }
}

impl Keyring {
    /// From keys at hand, the newest first.
    ///
    /// # Errors
    /// None, or more than 16.
    pub fn from_keys(keys: &[[u8; KEY]]) -> Result<Self, KeyringError> {
        if keys.is_empty() || keys.len() > MOST {
            return Err(KeyringError::Count);
        }
        Ok(Self {
            keys: keys.iter().map(SealingKey::new).collect(),
        })
    }

    /// One random key that nothing else has: for tests, and where no session needs to outlive the process.
    ///
    /// # Errors
    /// The system has no randomness to give.
    pub fn random() -> Result<Self, KeyringError> {
        Self::from_keys(&[*random_key()?])
    }

    /// Reads the file, or makes it with one fresh key.
    ///
    /// # Errors
    /// It cannot be read or written, or is not a file of keys.
    pub fn load_or_create(path: &Path) -> Result<Self, KeyringError> {
        match fs::metadata(path) {
            Ok(about) if about.len() > MAX_FILE => return Err(KeyringError::Count),
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound => create(path)?,
            Err(e) => return Err(e.into()),
        }
        keep_private(path)?;
        Self::parse(&Zeroizing::new(fs::read_to_string(path)?))
    }

    fn parse(text: &str) -> Result<Self, KeyringError> {
        let mut keys = Zeroizing::new(Vec::new());
        for (at, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let bytes = STANDARD.decode(line).map(Zeroizing::new);
            let key = bytes.ok().and_then(|b| <[u8; KEY]>::try_from(&**b).ok());
            keys.push(key.ok_or(KeyringError::Line { line: at + 1 })?);
        }
        Self::from_keys(&keys)
    }

    pub(crate) fn current(&self) -> &SealingKey {
        self.keys.first().expect("a key ring is never empty")
    }

    pub(crate) fn find(&self, id: [u8; KEY_ID]) -> Option<&SealingKey> {
        self.keys.iter().find(|key| key.id == id)
    }
}

fn random_key() -> io::Result<Zeroizing<[u8; KEY]>> {
    let mut key = Zeroizing::new([0; KEY]);
    OsRng.try_fill_bytes(&mut *key).map_err(io::Error::other)?;
    Ok(key)
}

fn create(path: &Path) -> io::Result<()> {
    let text = Zeroizing::new(format!(
        "# Seals session ids. Secret. To rotate, put a new key first; `openssl rand -base64 32` makes one.\n{}\n",
        STANDARD.encode(*random_key()?)
    ));
    let temporary = path.with_extension("new");
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt as _;
        options.mode(0o600);
    }
    let mut file = options.open(&temporary)?;
    keep_private(&temporary)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&temporary, path)
}

#[cfg(unix)]
fn keep_private(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    match fs::set_permissions(path, fs::Permissions::from_mode(0o600)) {
        // A mounted Secret: who may read it was said by whoever mounted it.
        Err(e) if e.kind() == io::ErrorKind::ReadOnlyFilesystem => Ok(()),
        done => done,
    }
}

#[cfg(not(unix))]
fn keep_private(_path: &Path) -> io::Result<()> {
    Ok(())
}
