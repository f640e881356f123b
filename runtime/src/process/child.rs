//! One child process with its group: spawned, recorded, watched, ended.
//!
//! A task owns the process from the spawn until its whole group is dead; everybody else has a [`Process`] handle,
//! through which ending it may be asked for any number of times (the earliest deadline wins). If the task is torn down
//! with the executor, the group is killed at once.

use std::{
    path::PathBuf,
    process::{ExitStatus, Stdio},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use mcp_gateway_api::failure::ExitReport;
use rustix::io::Errno;
use tokio::{
    process::{Child, ChildStdin, ChildStdout, Command},
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};

use super::{
    brood::{Brood, Counted},
    ending::report,
    group::Group,
    memory::Kills,
    output::{Sink, Tail, capture},
    plan::{Plan, not_started},
    records::{self, ChildRecord, RecordFile},
    table,
};
use crate::child::ChildControl;

/// What descendants get to leave in when their leader has left by itself.
const LEFTOVER_GRACE: Duration = Duration::from_millis(500);
/// How long the end of a dead group's output is waited for: somebody who left the group may hold the pipe.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// What a child is spawned with, besides its plan.
#[derive(Clone)]
pub(crate) struct Surroundings {
    /// Of which backend.
    pub(crate) backend: String,
    /// Of which instance.
    pub(crate) instance: String,
    /// Where a record of it goes; none where nobody could read it later (a pod).
    pub(crate) records: Option<Records>,
    /// Among whom it is counted.
    pub(crate) brood: Brood,
    /// Where output goes, besides the child's own tail.
    pub(crate) sink: Sink,
}

/// Where child records go.
#[derive(Debug, Clone)]
pub(crate) struct Records {
    /// The folder.
    pub(crate) folder: PathBuf,
    /// This boot of the machine.
    pub(crate) boot: Arc<str>,
}

/// Pipes of a child whose stdin and stdout are a protocol.
pub(crate) struct Pipes {
    pub(crate) stdin: ChildStdin,
    pub(crate) stdout: ChildStdout,
}

/// A handle on a child.
#[derive(Debug)]
pub(crate) struct Process {
    pid: u32,
    /// When the group is to be killed; `None` until somebody wants it to end.
    end: watch::Sender<Option<Instant>>,
    exit: watch::Receiver<Option<ExitReport>>,
}

/// Spawns. Blocks for as long as the system takes to start a program (a millisecond), so it is to be called where
/// blocking is allowed, inside a Tokio runtime.
///
/// # Errors
/// A sentence on why nothing runs.
pub(crate) fn spawn(
    plan: Plan,
    piped: bool,
    surroundings: Surroundings,
) -> Result<(Arc<Process>, Option<Pipes>), ExitReport> {
    let mut command = command(&plan, piped);
    let spawned = surroundings.brood.spawn(|| command.spawn());
    let (mut child, counted) = spawned.map_err(|error| {
        tracing::debug!(program = %plan.program.display(), %error, "a child could not be spawned");
        not_started(refusal(&plan, &error))
    })?;
    let pid = child.id().unwrap_or_default();
    let leader = i32::try_from(pid).unwrap_or_default();
    let Some(group) = Group::new(leader) else {
        return Err(not_started("the system gave it no process id"));
    };
    let guard = Guard { group, armed: true };
    let record = surroundings
        .records
        .as_ref()
        .and_then(|to| record(leader, &surroundings, to));
    let tail = Arc::new(Tail::default());
    let mut sink = surroundings.sink;
    sink.tails.push(Arc::clone(&tail));
    let mut capturing = JoinSet::new();
    if let Some(stderr) = child.stderr.take() {
        capturing.spawn(capture(stderr, sink.clone()));
    }
    let pipes = match (piped, child.stdin.take(), child.stdout.take()) {
        (true, Some(stdin), Some(stdout)) => Some(Pipes { stdin, stdout }),
        (_, _, stdout) => {
            if let Some(stdout) = stdout {
                capturing.spawn(capture(stdout, sink));
            }
            None
        }
    };
    let (end, ending) = watch::channel(None);
    let (said, exit) = watch::channel(None);
    let keeper = Keeper {
        child,
        counted: Some(counted),
        guard,
        record,
        tail,
        capturing,
        ending,
        kills: Kills::so_far(),
    };
    tokio::spawn(async move {
        let report = keeper.keep().await;
        said.send_replace(Some(report));
    });
    Ok((Arc::new(Process { pid, end, exit }), pipes))
}

fn command(plan: &Plan, piped: bool) -> Command {
    let mut command = Command::new(&plan.program);
    command
        .arg0(&plan.name)
        .args(&plan.args)
        .env_clear()
        .envs(plan.env.iter().map(|(name, value)| (name, value)))
        .stdin(if piped { Stdio::piped() } else { Stdio::null() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0);
    if let Some(dir) = &plan.dir {
        command.current_dir(dir);
    }
    command
}

/// The plan has found the file executable, so what remains is what the kernel itself refuses.
fn refusal(plan: &Plan, error: &std::io::Error) -> String {
    let name = &plan.name;
    match Errno::from_io_error(error) {
        Some(Errno::NOENT) => format!(
            "its command {name} names an interpreter (its first line) that does not exist: install the interpreter"
        ),
        Some(Errno::ACCESS | Errno::PERM) => {
            format!("its command {name} may not be executed by this user")
        }
        Some(Errno::TOOBIG) => {
            "its command and environment together are longer than the system allows".to_owned()
        }
        Some(Errno::NOEXEC) => format!(
            "its command {name} is neither a program for this machine nor a script with a first line like #!/bin/sh"
        ),
        Some(_) | None => format!("its command {name} could not be started: {error}"),
    }
}

/// A child that cannot be recorded runs all the same: only its reaping after a crash of the gateway is lost.
fn record(leader: i32, surroundings: &Surroundings, to: &Records) -> Option<RecordFile> {
    let written = table::one(leader).and_then(|entry| {
        let entry = entry.ok_or_else(|| std::io::Error::other("it is not in the process table"))?;
        let record = ChildRecord {
            backend: surroundings.backend.clone(),
            instance: surroundings.instance.clone(),
            pid: leader,
            start: entry.start,
            session: entry.session,
            boot: to.boot.to_string(),
        };
        records::write(&to.folder, &record)
    });
    written
        .inspect_err(|error| {
            tracing::warn!(
                backend = surroundings.backend, pid = leader, %error,
                "a child could not be recorded; it would survive a crash of the gateway"
            );
        })
        .ok()
}

/// Kills the group when dropped armed: the executor is being torn down.
#[derive(Debug)]
struct Guard {
    group: Group,
    armed: bool,
}

impl Drop for Guard {
    fn drop(&mut self) {
        if self.armed {
            self.group.kill();
        }
    }
}

/// Owns the process; what its task runs.
struct Keeper {
    child: Child,
    counted: Option<Counted>,
    guard: Guard,
    record: Option<RecordFile>,
    tail: Arc<Tail>,
    capturing: JoinSet<()>,
    ending: watch::Receiver<Option<Instant>>,
    /// When it was spawned.
    kills: Kills,
}

impl Keeper {
    async fn keep(mut self) -> ExitReport {
        let group = self.guard.group;
        let (status, told) = self.leader_gone(group).await;
        // Reaped: its number may be another's soon.
        self.counted = None;
        let deadline = told.unwrap_or_else(|| {
            group.ask();
            Instant::now() + LEFTOVER_GRACE
        });
        let empty = group.gone_by(deadline).await;
        // From here on the number may be given to somebody else.
        self.guard.armed = false;
        if empty {
            if let Some(record) = self.record.take() {
                record.remove();
            }
        } else {
            tracing::warn!(?group, "processes of a group do not die even when killed");
        }
        let drained = async { while self.capturing.join_next().await.is_some() {} };
        // What is still held open belongs to a process outside the group: not our child's words any more.
        let _ = timeout(LAST_WORDS, drained).await;
        let hungry = self.kills.again();
        report(status, (told.is_some(), hungry), self.tail.lines())
    }

    /// Waits for the leader, carrying out the wish to end it; gives that wish's deadline.
    async fn leader_gone(&mut self, group: Group) -> (Option<ExitStatus>, Option<Instant>) {
        let mut deadline: Option<Instant> = None;
        let mut wishes = true;
        let mut killed = false;
        loop {
            tokio::select! {
                status = self.child.wait() => return (status.ok(), deadline),
                changed = self.ending.changed(), if wishes => {
                    // Nobody holds a handle any more: nobody could ever end it.
                    wishes = changed.is_ok();
                    let wish = *self.ending.borrow_and_update();
                    if deadline.is_none() {
                        group.ask();
                    }
                    deadline = wish.or_else(|| Some(Instant::now() + LEFTOVER_GRACE));
                }
                () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() && !killed => {
                    group.kill();
                    killed = true;
                }
            }
        }
    }
}

impl Process {
    /// Asks it to end, to be killed at `deadline`. The earliest deadline ever given counts.
    pub(crate) fn end_by(&self, deadline: Instant) {
        self.end.send_if_modified(|end| {
            let sooner = end.is_none_or(|given| deadline < given);
            if sooner {
                *end = Some(deadline);
            }
            sooner
        });
    }

    /// Waits until somebody wants it to end.
    pub(crate) async fn told_to_end(&self) {
        // The sender lives as long as we do, so this cannot fail.
        let _ = self.end.subscribe().wait_for(Option::is_some).await;
    }
}

#[async_trait]
impl ChildControl for Process {
    fn pid(&self) -> Option<u32> {
        Some(self.pid)
    }

    async fn exited(&self) -> ExitReport {
        let mut exit = self.exit.clone();
        match exit.wait_for(Option::is_some).await {
            Ok(report) => report.clone().unwrap_or_default(),
            // The executor is being torn down and has killed it.
            Err(_) => not_started("it was killed with the gateway"),
        }
    }

    async fn kill(&self, grace: Duration) -> ExitReport {
        self.end_by(Instant::now() + grace);
        self.exited().await
    }
}
