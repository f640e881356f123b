//! What the operating system says of processes: a snapshot of the process table, as values.
//!
//! Invariant: zombies are listed as such, so that "is anything of this group alive" has an answer even where nobody
//! reaps orphans (a gateway that is PID 1 of a container). Nothing here sends a signal.

use std::io;

/// One process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) pid: i32,
    pub(crate) parent: i32,
    pub(crate) group: i32,
    /// Its POSIX session; 0 where the system does not say.
    pub(crate) session: i32,
    /// When it started, in the system's own words; only equality means anything.
    pub(crate) start: String,
    pub(crate) zombie: bool,
}

#[cfg(target_os = "linux")]
mod system {
    use std::{fs, io};

    use super::Entry;

    pub(super) fn one(pid: i32) -> io::Result<Option<Entry>> {
        match fs::read_to_string(format!("/proc/{pid}/stat")) {
            Ok(text) => Ok(super::parse_stat(&text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            // ESRCH: it went away between open and read.
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error()) => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    pub(super) fn all() -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for folder in fs::read_dir("/proc")? {
            let name = folder?.file_name();
            let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            if let Ok(Some(entry)) = one(pid) {
                entries.push(entry);
            }
        }
        Ok(entries)
    }

    pub(super) fn boot() -> io::Result<String> {
        Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?
            .trim()
            .to_owned())
    }
}

#[cfg(not(target_os = "linux"))]
mod system {
    use std::{io, process::Command};

    use super::Entry;

    const COLUMNS: &str = "pid=,ppid=,pgid=,stat=,lstart=";

    fn run(program: &str, args: &[&str]) -> io::Result<String> {
        let output = Command::new(program)
            .args(args)
            .env("LC_ALL", "C")
            .output()?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    pub(super) fn one(pid: i32) -> io::Result<Option<Entry>> {
        let text = run("ps", &["-o", COLUMNS, "-p", &pid.to_string()])?;
        Ok(text.lines().find_map(super::parse_ps))
    }

    pub(super) fn all() -> io::Result<Vec<Entry>> {
        let text = run("ps", &["-axo", COLUMNS])?;
        Ok(text.lines().filter_map(super::parse_ps).collect())
    }

    pub(super) fn boot() -> io::Result<String> {
        Ok(run("sysctl", &["-n", "kern.boottime"])?.trim().to_owned())
    }
}

/// One process, or `None` if there is none of this id.
pub(crate) fn one(pid: i32) -> io::Result<Option<Entry>> {
    system::one(pid)
}

/// All processes.
pub(crate) fn all() -> io::Result<Vec<Entry>> {
    system::all()
}

/// What tells this boot of the machine from others: process ids mean nothing across it.
pub(crate) fn boot() -> io::Result<String> {
    system::boot()
}

/// `/proc/PID/stat` (proc(5)): the name in parentheses may hold anything, so fields are counted from the last `)`.
#[cfg_attr(
    not(target_os = "linux"),
    expect(dead_code, reason = "Linux only, tested everywhere")
)]
fn parse_stat(text: &str) -> Option<Entry> {
    let open = text.find('(')?;
    let close = text.rfind(')')?;
    let pid = text.get(..open)?.trim().parse().ok()?;
    let fields: Vec<&str> = text.get(close + 1..)?.split_ascii_whitespace().collect();
    Some(Entry {
        pid,
        zombie: matches!(*fields.first()?, "Z" | "X"),
        parent: fields.get(1)?.parse().ok()?,
        group: fields.get(2)?.parse().ok()?,
        session: fields.get(3)?.parse().ok()?,
        start: (*fields.get(19)?).to_owned(),
    })
}

/// A line of `ps -o pid=,ppid=,pgid=,stat=,lstart=`.
#[cfg_attr(
    target_os = "linux",
    cfg_attr(
        not(test),
        expect(dead_code, reason = "other systems, tested everywhere")
    )
)]
fn parse_ps(line: &str) -> Option<Entry> {
    let mut fields = line.split_ascii_whitespace();
    let pid = fields.next()?.parse().ok()?;
    let parent = fields.next()?.parse().ok()?;
    let group = fields.next()?.parse().ok()?;
    let zombie = fields.next()?.starts_with('Z');
    let start = fields.collect::<Vec<_>>().join(" ");
    (!start.is_empty()).then_some(Entry {
        pid,
        parent,
        group,
        session: 0,
        start,
        zombie,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_stat_line_is_read_whatever_the_process_calls_itself() {
        let line =
            "4711 (a) b (c) S 1 4700 4699 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 987654 1 2 3";
        let entry = parse_stat(line).unwrap();
        assert_eq!((entry.pid, entry.parent), (4711, 1));
        assert_eq!((entry.group, entry.session), (4700, 4699));
        assert_eq!(entry.start, "987654");
        assert!(!entry.zombie);
    }

    #[test]
    fn a_ps_line_is_read_with_the_start_as_one_text() {
        let entry = parse_ps(" 4711     1  4700 Z+   Sun Nov 22 12:56:50 2026").unwrap();
        assert_eq!((entry.pid, entry.parent, entry.group), (4711, 1, 4700));
        assert_eq!(entry.start, "Sun Nov 22 12:56:50 2026");
        assert!(entry.zombie);
    }

    #[test]
    fn this_process_is_in_the_table() {
        let me = i32::try_from(std::process::id()).unwrap();
        let alone = one(me).unwrap().unwrap();
        assert!(all().unwrap().contains(&alone));
        assert!(!boot().unwrap().is_empty());
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parsers_panic(text in "\\PC*") {
            let _ = parse_stat(&text);
            let _ = parse_ps(&text);
        }
    }
}
