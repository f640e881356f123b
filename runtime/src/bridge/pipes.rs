//! The pipes of one child: writes what was posted, reads what it says, sees it to its end.
//!
//! Invariants: nothing of the child is left when [`run`] returns; a line that is no message is skipped, one without
//! end kills the child. Never decides where a message goes.

use std::{io, sync::Arc, time::Duration};

use futures_util::StreamExt;
use mcp_gateway_api::failure::ExitReport;
use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    sync::mpsc,
    time::{sleep_until, timeout},
};
use tokio_util::codec::{AnyDelimiterCodec, AnyDelimiterCodecError, FramedRead};

use super::worker::{Line, Treatment, Worker};
use crate::child::StdioChild;

/// How long the rest of a dead child's output is read.
const LAST_WORDS: Duration = Duration::from_millis(500);
/// Characters of a line that is no message that go to the log.
const QUOTED: usize = 200;

/// Why the reading ended.
enum Silence {
    /// The output was closed.
    Closed,
    /// A line was longer than allowed.
    Endless,
}

/// Runs a child to its end and says how it ended.
pub(super) async fn run(
    worker: &Arc<Worker>,
    child: StdioChild,
    lines: mpsc::Receiver<Line>,
    treatment: Treatment,
    grace: &Mutex<Duration>,
) -> ExitReport {
    // Asked for late, since a stop may bring its own.
    let grace = || *grace.lock();
    let StdioChild {
        stdin,
        stdout,
        control,
    } = child;
    let writing = tokio::spawn(write(stdin, lines, Arc::clone(worker)));
    let reading = read(worker, stdout, treatment.max_line);
    tokio::pin!(reading);
    let mut report = tokio::select! {
        silence = &mut reading => match silence {
            Silence::Closed => match timeout(LAST_WORDS, control.exited()).await {
                Ok(report) => report,
                Err(_lives_on) => ExitReport {
                    summary: "it closed its output".to_owned(),
                    ..control.kill(grace()).await
                },
            },
            Silence::Endless => ExitReport {
                summary: format!("it wrote a line of more than {} bytes", treatment.max_line),
                ..control.kill(grace()).await
            },
        },
        () = worker.mute_for(treatment.start_timeout) => {
            let waited = treatment.start_timeout.as_secs_f64();
            ExitReport {
                // The signal is ours, and says nothing about the server.
                signal: None,
                summary: format!("it did not answer its first request within {waited} s"),
                ..control.kill(grace()).await
            }
        },
        report = control.exited() => {
            // What it said before it went may still be in the pipe.
            let _all_read = timeout(LAST_WORDS, &mut reading).await;
            report
        }
        () = worker.stopping().cancelled() => {
            // The writer closes stdin, which is the polite way; what ignores it is asked by signal.
            let grace = grace();
            let polite = (grace / 4).min(Duration::from_secs(1));
            match timeout(polite, control.exited()).await {
                Ok(report) => report,
                Err(_still_there) => control.kill(grace - polite).await,
            }
        }
    };
    // A leader that has gone may have left others of its group behind.
    let leftovers = control.kill(grace()).await;
    if report.stderr_tail.is_empty() {
        report.stderr_tail = leftovers.stderr_tail;
    }
    writing.abort();
    report
}

async fn write(
    mut stdin: Box<dyn AsyncWrite + Send + Unpin>,
    mut lines: mpsc::Receiver<Line>,
    worker: Arc<Worker>,
) {
    loop {
        let line = tokio::select! {
            biased;
            () = worker.stopping().cancelled() => break,
            line = lines.recv() => line,
        };
        let Some(line) = line else { break };
        let written = tokio::select! {
            () = worker.stopping().cancelled() => break,
            written = write_line(&mut stdin, &line.text) => written,
        };
        if let Err(error) = written {
            tracing::debug!(child = worker.number, %error, "the child's stdin is closed");
            break;
        }
    }
    // Whoever posts from now on waits for the end of the child, which a closed stdin brings about or has shown.
    drop(stdin);
    worker.ended().await;
}

async fn write_line(stdin: &mut (dyn AsyncWrite + Send + Unpin), text: &str) -> io::Result<()> {
    stdin.write_all(text.as_bytes()).await?;
    stdin.flush().await
}

async fn read(
    worker: &Arc<Worker>,
    stdout: Box<dyn AsyncRead + Send + Unpin>,
    max_line: usize,
) -> Silence {
    let codec = AnyDelimiterCodec::new_with_max_length(b"\n".to_vec(), b"\n".to_vec(), max_line);
    let mut framed = FramedRead::new(stdout, codec);
    let mut garbage = 0_u64;
    loop {
        let due = worker.next_give_up();
        let next = tokio::select! {
            next = framed.next() => next,
            () = async {
                match due {
                    Some(due) => sleep_until(due).await,
                    None => std::future::pending().await,
                }
            } => {
                worker.give_up();
                continue;
            }
        };
        match next {
            None => return Silence::Closed,
            Some(Ok(bytes)) => {
                if bytes.trim_ascii().is_empty() {
                    continue;
                }
                let heard = match std::str::from_utf8(&bytes) {
                    Ok(text) => worker.heard(text).await,
                    Err(_not_text) => false,
                };
                if !heard {
                    garbage += 1;
                    let quoted = String::from_utf8_lossy(&bytes);
                    let quoted: String = quoted.chars().take(QUOTED).collect();
                    tracing::debug!(
                        child = worker.number,
                        garbage,
                        quoted,
                        "stdout holds no message"
                    );
                }
            }
            Some(Err(AnyDelimiterCodecError::MaxChunkLengthExceeded)) => return Silence::Endless,
            Some(Err(AnyDelimiterCodecError::Io(error))) => {
                tracing::debug!(child = worker.number, %error, "the child's stdout failed");
                return Silence::Closed;
            }
        }
    }
}
