//! Processes of pods, on the machine that is their node: found by their pod, and killed
//! at a known moment.
//!
//! Never finds one on another machine: then there is none.

use std::path::Path;
use std::time::Duration;

use anyhow::bail;
use rustix::process::{Pid, Signal, kill_process};
use tokio::time::{Instant, sleep};

use super::caller::Clock;
use super::cluster::PATIENCE;
use super::ledger::Micros;

/// Between two looks whether a process is dead.
const LOOK: Duration = Duration::from_millis(10);

/// The process in the pod of that uid whose command line holds that word, if the pod's
/// node is this machine.
#[must_use]
pub fn process_of(uid: &str, word: &str) -> Option<Pid> {
    let all = std::fs::read_dir("/proc").ok()?;
    let mut pids = all.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    let pid = pids.find(|pid| {
        let proc = Path::new("/proc").join(pid.to_string());
        let command = std::fs::read(proc.join("cmdline")).unwrap_or_default();
        let groups = std::fs::read_to_string(proc.join("cgroup")).unwrap_or_default();
        groups.contains(&format!("/pod{uid}/")) && String::from_utf8_lossy(&command).contains(word)
    })?;
    Pid::from_raw(pid)
}

/// Kills a process; between the two moments that are returned it died.
///
/// # Errors
/// It cannot be killed.
pub async fn kill(process: Pid, clock: Clock) -> anyhow::Result<(Micros, Micros)> {
    let from = clock.now();
    kill_process(process, Signal::KILL)?;
    dead(process).await?;
    Ok((from, clock.now()))
}

/// Waits until a process is dead.
///
/// # Errors
/// It lives on.
pub async fn dead(process: Pid) -> anyhow::Result<()> {
    let give_up = Instant::now() + PATIENCE;
    while is_alive(process) {
        if Instant::now() > give_up {
            bail!("process {} does not end", process.as_raw_nonzero());
        }
        sleep(LOOK).await;
    }
    Ok(())
}

/// Whether a process may still take and answer what is sent to it: it loses its memory,
/// and so its command line, before its sockets are closed, and its first thread may be
/// gone before the others, which hold the sockets too.
fn is_alive(pid: Pid) -> bool {
    let proc = Path::new("/proc").join(pid.as_raw_nonzero().to_string());
    let line = std::fs::read_to_string(proc.join("stat")).unwrap_or_default();
    let Some((_, rest)) = line.rsplit_once(") ") else {
        return false;
    };
    let threads = std::fs::read_dir(proc.join("task")).map_or(0, Iterator::count);
    !rest.starts_with(['Z', 'X']) || threads > 1
}
