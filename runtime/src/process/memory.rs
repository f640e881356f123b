//! Whether the kernel has killed something for want of memory.
//!
//! It tells nobody: a process just dies of SIGKILL. But it counts such ends for each control group, and a container sees
//! the count of its own. Where there is no count to see (most machines outside a container) nothing is said.

use std::fs;

/// Where the count is, in the second version of control groups and in the first.
const PLACES: [&str; 2] = [
    "/sys/fs/cgroup/memory.events",
    "/sys/fs/cgroup/memory/memory.oom_control",
];

/// How often the kernel had done it at some moment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Kills(Option<u64>);

impl Kills {
    /// So far.
    pub(super) fn so_far() -> Self {
        let text = PLACES.iter().find_map(|file| fs::read_to_string(file).ok());
        Self(text.and_then(|text| count(&text)))
    }

    /// Whether it has done it since.
    pub(super) fn again(self) -> bool {
        more(self.0, Self::so_far().0)
    }
}

fn more(before: Option<u64>, now: Option<u64>) -> bool {
    before.zip(now).is_some_and(|(before, now)| now > before)
}

fn count(text: &str) -> Option<u64> {
    let mut lines = text.lines();
    lines.find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_of_control_groups_are_read() {
        let second = "low 0\nhigh 0\nmax 31\noom 2\noom_kill 2\noom_group_kill 0\n";
        let first = "oom_kill_disable 0\nunder_oom 0\noom_kill 7\n";
        assert_eq!(
            [second, first, "oom_kill x", ""].map(count),
            [Some(2), Some(7), None, None]
        );
    }

    #[test]
    fn only_a_count_that_grew_says_anything() {
        assert!(more(Some(1), Some(2)));
        for (before, now) in [
            (Some(1), Some(1)),
            (None, Some(1)),
            (Some(1), None),
            (None, None),
        ] {
            assert!(!more(before, now), "{before:?} {now:?}");
        }
    }
}
