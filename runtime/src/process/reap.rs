//! Ends what a killed gateway left running.
//!
//! Deciding is pure ([`judge`]): a group is killed only if it is proven ours. Proof is the leader's (pid, start time)
//! in this boot; or, when the leader is gone, a member of a group of that number in the recorded POSIX session: the
//! number cannot have been given away while the group lived.

use std::{io, path::Path, time::Duration};

use tokio::time::Instant;

use super::{
    group::Group,
    records::{self, ChildRecord, RecordFile},
    table::{self, Entry},
};

/// What was found and done at the start.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReapReport {
    /// Groups that were still running and have been ended.
    pub reaped: Vec<Orphan>,
    /// Records of children that were gone already.
    pub stale: usize,
    /// Groups that could not be ended; their records are kept for the next start.
    pub stubborn: Vec<Orphan>,
}

/// A child that outlived its gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Orphan {
    /// Of which backend.
    pub backend: String,
    /// Leader of its group.
    pub pid: i32,
}

/// Whether a recorded group is to be ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// It is ours and runs.
    End,
    /// Nothing of it is left, or what bears its number is not ours.
    Gone,
}

fn judge(record: &ChildRecord, boot: &str, table: &[Entry]) -> Verdict {
    if record.boot != boot {
        return Verdict::Gone;
    }
    let leader = table.iter().find(|p| p.pid == record.pid);
    let mut members = table.iter().filter(|p| p.group == record.pid && !p.zombie);
    let ours = match leader {
        // A leader that is a zombie still holds the number for its group.
        Some(leader) => leader.start == record.start && members.next().is_some(),
        None => members.any(|p| p.session == record.session),
    };
    if ours { Verdict::End } else { Verdict::Gone }
}

/// Ends all recorded groups that still run: asked first, killed after `grace`.
pub(crate) async fn reap(folder: &Path, boot: &str, grace: Duration) -> io::Result<ReapReport> {
    let records = records::load(folder)?;
    if records.is_empty() {
        return Ok(ReapReport::default());
    }
    let table = table::all()?;
    let mut report = ReapReport::default();
    let mut ending: Vec<(RecordFile, Orphan, Group)> = Vec::new();
    for (file, record) in records {
        let group = Group::new(record.pid);
        match (judge(&record, boot, &table), group) {
            (Verdict::End, Some(group)) => {
                group.ask();
                let orphan = Orphan {
                    backend: record.backend,
                    pid: record.pid,
                };
                ending.push((file, orphan, group));
            }
            (Verdict::End | Verdict::Gone, None) | (Verdict::Gone, Some(_)) => {
                report.stale += 1;
                file.remove();
            }
        }
    }
    let deadline = Instant::now() + grace;
    for (file, orphan, group) in ending {
        if group.gone_by(deadline).await {
            file.remove();
            report.reaped.push(orphan);
        } else {
            report.stubborn.push(orphan);
        }
    }
    Ok(report)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> ChildRecord {
        ChildRecord {
            backend: "github".into(),
            instance: "00".into(),
            pid: 500,
            start: "77".into(),
            session: 9,
            boot: "b1".into(),
        }
    }

    fn process(pid: i32, group: i32, session: i32, start: &str) -> Entry {
        Entry {
            pid,
            parent: 1,
            group,
            session,
            start: start.into(),
            zombie: false,
        }
    }

    #[test]
    fn a_leader_with_its_start_time_is_ended() {
        let table = [process(500, 500, 9, "77")];
        assert_eq!(judge(&record(), "b1", &table), Verdict::End);
    }

    #[test]
    fn a_number_given_to_another_process_is_left_alone() {
        let table = [process(500, 500, 9, "78"), process(501, 500, 9, "79")];
        assert_eq!(judge(&record(), "b1", &table), Verdict::Gone);
    }

    #[test]
    fn survivors_of_a_dead_leader_are_ended() {
        let table = [process(501, 500, 9, "79")];
        assert_eq!(judge(&record(), "b1", &table), Verdict::End);
    }

    #[test]
    fn a_group_of_that_number_in_another_session_is_left_alone() {
        let table = [process(501, 500, 10, "79")];
        assert_eq!(judge(&record(), "b1", &table), Verdict::Gone);
    }

    #[test]
    fn numbers_mean_nothing_after_a_reboot() {
        let table = [process(500, 500, 9, "77")];
        assert_eq!(judge(&record(), "b2", &table), Verdict::Gone);
    }

    #[test]
    fn a_group_of_zombies_is_gone() {
        let mut zombie = process(500, 500, 9, "77");
        zombie.zombie = true;
        assert_eq!(judge(&record(), "b1", &[zombie]), Verdict::Gone);
    }
}
