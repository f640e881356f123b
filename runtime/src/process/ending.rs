//! How a child has ended, in a sentence. Pure.

use std::{os::unix::process::ExitStatusExt, process::ExitStatus};

use mcp_gateway_api::failure::ExitReport;

/// The report of an end: of its own accord or because it was `told` to; `hungry` if the kernel has killed something for
/// want of memory meanwhile.
pub(super) fn report(
    status: Option<ExitStatus>,
    (told, hungry): (bool, bool),
    stderr_tail: Vec<String>,
) -> ExitReport {
    let code = status.and_then(|status| status.code());
    let signal = status.and_then(|status| status.signal());
    if signal == Some(9) && hungry && !told {
        return ExitReport {
            code,
            signal,
            stderr_tail,
            summary: "it used more memory than its limit and was killed".to_owned(),
            private: false,
        };
    }
    ExitReport {
        code,
        signal,
        stderr_tail,
        summary: summary(code, signal, told),
        private: false,
    }
}

fn summary(code: Option<i32>, signal: Option<i32>, told: bool) -> String {
    let how = match (code, signal) {
        (Some(code), _) => format!("exited with code {code}"),
        (None, Some(signal)) => format!("was killed by {}", signal_name(signal)),
        (None, None) => "ended".to_owned(),
    };
    if told {
        format!("it was told to end and {how}")
    } else {
        format!("it {how}")
    }
}

fn signal_name(signal: i32) -> String {
    let name = match signal {
        1 => "SIGHUP",
        2 => "SIGINT",
        3 => "SIGQUIT",
        4 => "SIGILL",
        6 => "SIGABRT",
        8 => "SIGFPE",
        9 => "SIGKILL",
        11 => "SIGSEGV",
        13 => "SIGPIPE",
        14 => "SIGALRM",
        15 => "SIGTERM",
        other => return format!("signal {other}"),
    };
    format!("signal {signal} ({name})")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_says_how_it_ended_and_whether_it_was_told_to() {
        assert_eq!(summary(Some(3), None, false), "it exited with code 3");
        assert_eq!(
            summary(None, Some(9), false),
            "it was killed by signal 9 (SIGKILL)"
        );
        assert_eq!(
            summary(Some(0), None, true),
            "it was told to end and exited with code 0"
        );
        assert_eq!(summary(None, Some(42), false), "it was killed by signal 42");
    }

    #[test]
    fn a_kill_is_for_want_of_memory_only_if_the_kernel_counted_one_and_nobody_else_asked() {
        let killed = Some(ExitStatus::from_raw(9));
        let of_memory = |told, hungry| {
            let report = report(killed, (told, hungry), Vec::new());
            report.summary.contains("memory")
        };
        assert!(of_memory(false, true));
        assert!(!of_memory(false, false) && !of_memory(true, true));
        let crash = report(Some(ExitStatus::from_raw(11)), (false, true), Vec::new());
        assert!(!crash.summary.contains("memory"));
    }
}
