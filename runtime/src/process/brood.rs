//! Which children are ours to wait for, and the reaping of those that are not.
//!
//! The first process of a container inherits every process whose parent has died, and must reap it: a zombie keeps its
//! number, and a container may have few. But a child that is waited for elsewhere must not be reaped here, or its exit
//! status is lost. So whoever spawns is counted from before the child exists until it is reaped.
//!
//! Invariant: no id is reaped here while it is in the set, nor while a spawn is between the child's birth and its being
//! counted.

use std::{collections::HashSet, io, process, sync::Arc};

use parking_lot::{Mutex, RwLock};
use rustix::process::{Pid, WaitOptions, waitpid};
use tokio::process::Child;

use super::table;

/// Children that are waited for elsewhere. Clones are the same set.
#[derive(Debug, Clone, Default)]
pub struct Brood(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    ours: Mutex<HashSet<i32>>,
}

/// Shared by spawns, so that they do not wait for each other; taken alone by what no birth may interrupt. One for the whole
/// process, for a child gets copies of all that is open in it.
static SPAWNING: RwLock<()> = RwLock::new(());

/// Keeps one child in the set; to be dropped once it is reaped.
#[derive(Debug)]
pub(crate) struct Counted {
    brood: Brood,
    pid: i32,
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.brood.0.ours.lock().remove(&self.pid);
    }
}

impl Brood {
    /// Spawns a child and counts it.
    pub(crate) fn spawn(
        &self,
        spawn: impl FnOnce() -> io::Result<Child>,
    ) -> io::Result<(Child, Counted)> {
        let _shared = SPAWNING.read();
        let child = spawn()?;
        // A child that was just spawned has an id; 0 is nobody's.
        let pid = child.id().and_then(|id| i32::try_from(id).ok());
        let pid = pid.unwrap_or_default();
        self.0.ours.lock().insert(pid);
        let brood = self.clone();
        Ok((child, Counted { brood, pid }))
    }

    /// Does something while no child is born, for what is opened meanwhile would be open in the child too until it has become
    /// its program. Children that were just born may still be on their way to that.
    pub(crate) fn between_spawns<T>(work: impl FnOnce() -> T) -> T {
        let _alone = SPAWNING.write();
        work()
    }

    /// Makes this process the one that inherits orphans of its descendants, also where it is not the first.
    ///
    /// # Errors
    /// The system refuses.
    #[cfg(target_os = "linux")]
    pub fn inherit_orphans() -> io::Result<()> {
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
        Ok(())
    }

    /// Makes this process the one that inherits orphans; other systems know no such thing.
    ///
    /// # Errors
    /// None.
    #[cfg(not(target_os = "linux"))]
    pub fn inherit_orphans() -> io::Result<()> {
        Ok(())
    }

    /// Reaps what has ended and is nobody's here; says how many. Reads the process table.
    pub fn reap_orphans(&self) -> usize {
        let Ok(me) = i32::try_from(process::id()) else {
            return 0;
        };
        let _alone = SPAWNING.write();
        let all = table::all().unwrap_or_default();
        let ours = self.0.ours.lock();
        all.iter()
            .filter(|p| p.zombie && p.parent == me && !ours.contains(&p.pid))
            .filter_map(|p| Pid::from_raw(p.pid))
            .filter(|pid| matches!(waitpid(Some(*pid), WaitOptions::NOHANG), Ok(Some(_))))
            .count()
    }
}
