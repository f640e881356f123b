//! Where the installed servers, clients and the conformance suite are. Never installs what was never asked for.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use tokio::sync::{Semaphore, SemaphorePermit};

/// What `dev/protocol/install` wrote down: names and paths.
pub(crate) struct Tools(BTreeMap<String, String>);

impl Tools {
    /// The path under a name such as `PY2`.
    pub(crate) fn path(&self, name: &str) -> &str {
        self.0
            .get(name)
            .unwrap_or_else(|| panic!("dev/protocol/install wrote no {name}: run it again"))
    }
}

/// The repository.
pub(crate) fn root() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    root.canonicalize().expect("the repository is there")
}

/// What is installed; `None`, having said so, if it is not and this is no CI.
pub(crate) fn installed(test: &str) -> Option<&'static Tools> {
    static TOOLS: OnceLock<Result<Tools, String>> = OnceLock::new();
    match TOOLS.get_or_init(look) {
        Ok(tools) => Some(tools),
        Err(why) if in_ci() => panic!("{test}: {why}; in CI nothing is skipped"),
        Err(why) => {
            eprintln!("SKIPPED {test}: {why}");
            None
        }
    }
}

fn look() -> Result<Tools, String> {
    let own = root().join("target/protocol");
    let dir = std::env::var_os("MCP_GATEWAY_PROTOCOL_DIR").map_or(own, PathBuf::from);
    let file = dir.join("env");
    if !file.exists() {
        return Err(format!(
            "{} is missing: run dev/protocol/install",
            file.display()
        ));
    }
    // A lock file may have changed since; without a change this takes a tenth of a second.
    let install = root().join("dev/protocol/install");
    let done = Command::new(&install)
        .output()
        .map_err(|error| format!("{}: {error}", install.display()))?;
    if !done.status.success() {
        return Err(format!(
            "dev/protocol/install failed: {}",
            String::from_utf8_lossy(&done.stderr)
        ));
    }
    let text =
        std::fs::read_to_string(&file).map_err(|error| format!("{}: {error}", file.display()))?;
    let pairs = text.lines().filter_map(|line| line.split_once('='));
    Ok(Tools(
        pairs
            .map(|(name, path)| (name.to_owned(), path.to_owned()))
            .collect(),
    ))
}

fn in_ci() -> bool {
    matches!(std::env::var("CI").as_deref(), Ok("true" | "1"))
}

/// How much of the machine a test fills.
#[derive(Clone, Copy)]
pub(crate) enum Share {
    /// Half: two such tests may run at once.
    Half = 1,
    /// All of it.
    Whole = 2,
}

/// Tests that fill the machine take turns: what they measure is the gateway, not each other.
pub(crate) async fn turn(share: Share) -> SemaphorePermit<'static> {
    static MACHINE: Semaphore = Semaphore::const_new(Share::Whole as usize);
    MACHINE
        .acquire_many(share as u32)
        .await
        .expect("it is never closed")
}
