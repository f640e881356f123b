//! Signals to whole process groups.
//!
//! Every child leads a group of its own, so what it starts dies with it, however deep. The number of a group is not
//! given to another process while any member lives, zombies included; so a signal sent while the leader is unreaped,
//! or while the group was just seen alive, hits the group that is meant. What leaves the group by itself (`setsid`)
//! is out of reach.

use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group, test_kill_process_group};
use tokio::time::{Instant, sleep};

use super::table;

/// How long a group may live on after SIGKILL (processes in uninterruptible sleep) before we stop waiting.
const UNKILLABLE_AFTER: Duration = Duration::from_secs(10);

/// A process group that was started here or recorded as such.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Group(Pid);

impl Group {
    /// `None` for numbers that can be no group of ours: 0 and 1 would mean ourselves and everybody.
    pub(crate) fn new(leader: i32) -> Option<Self> {
        (leader > 1)
            .then(|| Pid::from_raw(leader))
            .flatten()
            .map(Self)
    }

    /// Asks it to end.
    pub(crate) fn ask(self) {
        self.signal(Signal::TERM);
    }

    /// Ends it.
    pub(crate) fn kill(self) {
        self.signal(Signal::KILL);
    }

    fn signal(self, signal: Signal) {
        // The only failure that matters is "nobody there", and then there is nothing to do. EPERM (a member changed
        // its user) does not keep the signal from the others.
        let _ = kill_process_group(self.0, signal);
    }

    /// Whether it may have a member, counting zombies.
    fn occupied(self) -> bool {
        test_kill_process_group(self.0) != Err(rustix::io::Errno::SRCH)
    }

    /// Whether it has a living member. Reads the process table: a few milliseconds.
    fn alive(self) -> bool {
        let group = self.0.as_raw_nonzero().get();
        table::all().is_ok_and(|all| all.iter().any(|p| p.group == group && !p.zombie))
    }

    /// Waits until it is empty or `deadline` has come; says whether it is empty. To be called once the leader is reaped.
    pub(crate) async fn emptied_by(self, deadline: Instant) -> bool {
        let began = Instant::now();
        let mut pause = Duration::from_millis(1);
        loop {
            if !self.occupied() {
                return true;
            }
            // Only zombies that nobody reaps can keep a dead group occupied for long: look closer, off this thread.
            if began.elapsed() > Duration::from_millis(50) {
                match tokio::task::spawn_blocking(move || self.alive()).await {
                    Ok(true) => {}
                    Ok(false) | Err(_) => return true,
                }
            }
            let now = Instant::now();
            if now >= deadline {
                return false;
            }
            sleep(pause.min(deadline - now)).await;
            pause = (pause * 2).min(Duration::from_millis(20));
        }
    }

    /// Lets it live until `deadline`, then kills what is left and waits for it to be gone; says whether it is.
    pub(crate) async fn gone_by(self, deadline: Instant) -> bool {
        if self.emptied_by(deadline).await {
            return true;
        }
        self.kill();
        self.emptied_by(Instant::now() + UNKILLABLE_AFTER).await
    }
}
