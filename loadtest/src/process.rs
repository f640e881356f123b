//! What a process costs, read from `/proc`: CPU time and resident memory.
//!
//! Linux only; elsewhere every answer is `None` and the report leaves the column
//! empty.

use serde::{Deserialize, Serialize};

/// Clock ticks per second of `/proc/PID/stat`; the kernel's user interface has
/// used 100 on every Linux for decades, whatever its own tick is.
const TICKS_PER_SECOND: f64 = 100.0;

/// CPU seconds, user and system, that the processes have used so far, in ticks
/// of 10 ms each; `None` if one of them cannot be read.
#[must_use]
pub fn cpu_seconds(pids: &[u32]) -> Option<f64> {
    pids.iter()
        .map(|pid| parse_stat(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?))
        .sum()
}

/// `utime + stime` of a line of `/proc/PID/stat`, in seconds. The second field
/// is a name in parentheses that may itself hold blanks and parentheses.
fn parse_stat(line: &str) -> Option<f64> {
    let (_, rest) = line.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace().skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some((user + system) / TICKS_PER_SECOND)
}

/// Memory of one or several processes, in KiB.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// Resident, shared pages included.
    pub resident: u64,
    /// Resident and belonging to no file.
    pub anonymous: u64,
}

/// Resident memory of all the processes together; `None` if one cannot be read.
#[must_use]
pub fn memory(pids: &[u32]) -> Option<Memory> {
    pids.iter().try_fold(Memory::default(), |sum, pid| {
        let one = parse_status(&std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?)?;
        Some(Memory {
            resident: sum.resident + one.resident,
            anonymous: sum.anonymous + one.anonymous,
        })
    })
}

fn parse_status(text: &str) -> Option<Memory> {
    let field = |name: &str| -> Option<u64> {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim_start_matches(':')
            .split_ascii_whitespace()
            .next()?
            .parse()
            .ok()
    };
    Some(Memory {
        resident: field("VmRSS")?,
        anonymous: field("RssAnon")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_found_behind_a_hostile_name() {
        let line = "7 (a) b (c)) S 1 7 7 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 4 0 123 1 2";
        assert_eq!(parse_stat(line), Some(3.0));
        assert_eq!(parse_stat("7 (a) S 1"), None);
    }

    #[test]
    fn memory_is_read_by_name() {
        let text = "Name:\tx\nVmRSS:\t   2048 kB\nRssAnon:\t  1024 kB\n";
        assert_eq!(
            parse_status(text),
            Some(Memory {
                resident: 2048,
                anonymous: 1024
            })
        );
        assert_eq!(parse_status("Name:\tx\n"), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_process_costs_something() {
        let own = [std::process::id()];
        assert!(memory(&own).unwrap().resident > 0);
        assert!(cpu_seconds(&own).is_some());
    }
}
