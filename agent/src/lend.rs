//! Puts this program into a folder that the server's container mounts: the form `init`.
//!
//! A container of its own lends the program, and its `postStart` hook waits until it is there: the kubelet starts the
//! server's container only when the hook has returned. An init container would do the same half a second later, because
//! the kubelet looks only once a second whether one has ended.
//!
//! Invariants: nobody sees half a file; whoever lends stays until told to end, or its hook would fail with it.

use std::{
    env, fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use tokio::{
    signal::unix::{SignalKind, signal},
    time::{sleep, timeout},
};

/// The program's name wherever it is copied or mounted.
const NAME: &str = "mcp-gateway-agent";
/// Longest that the copy is waited for; the kubelet knows no limit of its own.
const PATIENCE: Duration = Duration::from_secs(60);
/// From one look to the next.
const LOOK: Duration = Duration::from_millis(2);

/// Copies, and stays until SIGTERM or SIGINT: as a container's first process nothing else would end it.
pub(crate) async fn lend(dir: &Path) -> io::Result<ExitCode> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let copy = copy(dir)?;
    crate::say(&format!("lent as {}\n", copy.display()));
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(ExitCode::SUCCESS)
}

/// Returns once the copy is there.
pub(crate) async fn lent(dir: &Path) -> io::Result<ExitCode> {
    let whole = dir.join(NAME);
    let there = async {
        while !whole.exists() {
            sleep(LOOK).await;
        }
    };
    timeout(PATIENCE, there).await.map_err(|_elapsed| {
        let text = format!("{} is not there after {PATIENCE:?}", whole.display());
        io::Error::new(io::ErrorKind::TimedOut, text)
    })?;
    Ok(ExitCode::SUCCESS)
}

fn copy(dir: &Path) -> io::Result<PathBuf> {
    let whole = dir.join(NAME);
    let half = dir.join(format!(".{NAME}.part"));
    fs::copy(env::current_exe()?, &half)?;
    fs::set_permissions(&half, fs::Permissions::from_mode(0o755))?;
    fs::rename(&half, &whole)?;
    Ok(whole)
}
