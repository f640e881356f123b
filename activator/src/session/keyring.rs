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

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::{os::unix::fs::MetadataExt as _, process::Command};

    use super::*;

    /// Set in the process that sees the folder read-only: the file of keys.
    const FILE: &str = "MCP_GATEWAY_TEST_KEYRING";
    /// Makes a folder read-only for one command, in a mount namespace of its own, as the kubelet mounts a Secret.
    const READ_ONLY: &str =
        r#"mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec "$@""#;

    /// Runs a command in which the folder is read-only; whether it succeeded, and what it said.
    fn with_read_only(dir: &Path, command: &[&str], file: &Path) -> (bool, String) {
        let mut unshare = Command::new("unshare");
        if fs::metadata("/proc/self").expect("this process").uid() != 0 {
            unshare.arg("--map-root-user");
        }
        unshare
            .args(["--mount", "sh", "-c", READ_ONLY])
            .arg(dir)
            .args(command)
            .env(FILE, file);
        let done = unshare.output().expect("unshare runs");
        let said = [done.stdout, done.stderr].concat();
        (done.status.success(), String::from_utf8_lossy(&said).into())
    }

    #[test]
    fn keys_in_a_folder_that_is_mounted_read_only_are_read_as_they_are() {
        let dir = tempfile::tempdir().expect("a folder");
        let file = dir.path().join("sealing-keys");
        let made = Keyring::load_or_create(&file).expect("made");
        let (able, said) = with_read_only(dir.path(), &["true"], &file);
        if !able {
            assert!(
                std::env::var_os("CI").is_none(),
                "in CI nothing is skipped: {said}"
            );
            eprintln!("skipped: this user may not mount anything: {said}");
            return;
        }
        // That it is so, or nothing is proved.
        let file_text = file.to_str().expect("a readable path");
        let (changed, said) = with_read_only(dir.path(), &["chmod", "600", file_text], &file);
        assert!(!changed && said.contains("ead-only"), "{said}");

        let me = std::env::current_exe().expect("a path");
        let me = me.to_str().expect("a readable path");
        let reader = "session::keyring::tests::the_reader_of_a_mounted_secret";
        let (read, said) =
            with_read_only(dir.path(), &[me, "--exact", reader, "--nocapture"], &file);
        let id = format!("read {:?}", made.current().id);
        assert!(read && said.contains(&id), "{id}: {said}");
    }

    /// Not a test by itself: what the one above runs where the folder is read-only.
    #[test]
    fn the_reader_of_a_mounted_secret() {
        let Some(file) = std::env::var_os(FILE) else {
            return;
        };
        let keys = Keyring::load_or_create(Path::new(&file)).expect("they can be read");
        println!("read {:?}", keys.current().id);
    }
}
