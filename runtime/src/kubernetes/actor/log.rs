//! The last lines that a pod's server wrote.
//!
//! What counts is the end of the log. The API server can be told to send at most so many bytes, but it counts them from
//! the first of the last lines, and would leave out the newest: so all of the last lines are read, and the end is kept.

use std::{borrow::Cow, pin::pin, time::Duration};

use futures_util::{AsyncBufRead, AsyncBufReadExt};
use kube::api::LogParams;
use mcp_gateway_link::protocol::AGENT_SAYS;
use tokio::time::timeout;

use crate::kubernetes::{World, seen::one_line, template::SERVER};

/// Lines read of a server's log, bytes kept of them, characters of each, and how long reading may take.
const LINES: i64 = 40;
const BYTES: usize = 64 << 10;
pub(crate) const LOG_WIDTH: usize = 500;
const PATIENCE: Duration = Duration::from_secs(3);

/// The last lines that a pod's server wrote; those that can be read.
pub(crate) async fn logs(world: &World, name: &str) -> Vec<String> {
    let params = LogParams {
        container: Some(SERVER.into()),
        tail_lines: Some(LINES),
        ..LogParams::default()
    };
    let mut tail = Tail::default();
    let read = async {
        let log = world.pods.log_stream(name, &params).await?;
        tail.read(log).await.map_err(kube::Error::ReadEvents)
    };
    match timeout(PATIENCE, read).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            tracing::debug!(pod = name, %error, "its log could not be read to its end");
        }
        Err(_) => tracing::debug!(pod = name, "its log could not be read to its end in time"),
    }
    last_words(&tail.text())
}

/// The end of a text.
#[derive(Debug, Default)]
struct Tail {
    bytes: Vec<u8>,
    /// The beginning is missing.
    cut: bool,
}

impl Tail {
    async fn read(&mut self, log: impl AsyncBufRead) -> std::io::Result<()> {
        let mut log = pin!(log);
        loop {
            let more = log.fill_buf().await?;
            let read = more.len();
            if read == 0 {
                return Ok(());
            }
            self.add(more);
            log.consume_unpin(read);
        }
    }

    fn add(&mut self, more: &[u8]) {
        self.bytes.extend_from_slice(more);
        // Seldom, so that each byte is moved once and not at each read.
        if self.bytes.len() > 2 * BYTES {
            self.shorten();
        }
    }

    fn shorten(&mut self) {
        let over = self.bytes.len().saturating_sub(BYTES);
        self.bytes.drain(..over);
        self.cut |= over > 0;
    }

    /// What is left of a first line is no line, unless it is all there is; servers write what they like, also no UTF-8.
    fn text(&mut self) -> Cow<'_, str> {
        self.shorten();
        let first = self.bytes.iter().position(|byte| *byte == b'\n');
        let whole = match first {
            Some(end) if self.cut && end + 1 < self.bytes.len() => end + 1,
            Some(_) | None => 0,
        };
        String::from_utf8_lossy(self.bytes.get(whole..).unwrap_or_default())
    }
}

/// The lines of a server; those of the agent in its container only if there are no others.
fn last_words(log: &str) -> Vec<String> {
    let servers = |line: &&str| !line.starts_with(AGENT_SAYS);
    let shown = |line| one_line(line, LOG_WIDTH);
    let words: Vec<String> = log.lines().filter(servers).map(shown).collect();
    if words.is_empty() {
        return log.lines().map(shown).collect();
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubernetes::fake::{self, Answer};

    fn tail(log: &[u8]) -> String {
        let mut tail = Tail::default();
        log.chunks(1000).for_each(|chunk| tail.add(chunk));
        assert!(tail.bytes.len() <= 2 * BYTES);
        tail.text().into_owned()
    }

    #[test]
    fn the_end_of_a_long_log_is_kept_and_begins_with_a_whole_line() {
        assert_eq!(tail(b""), "");
        assert_eq!(tail(b"one\ntwo\n"), "one\ntwo\n");
        let line = format!("{}\n", "x".repeat(999));
        let long = format!("{}the cause\n", line.repeat(500));
        let kept = tail(long.as_bytes());
        assert!(kept.len() <= BYTES && kept.len() > BYTES - 1000);
        assert!(kept.starts_with(&line) && kept.ends_with("\nthe cause\n"));
    }

    #[test]
    fn a_line_that_is_too_long_is_cut_also_within_a_character() {
        let kept = tail("é".repeat(BYTES).as_bytes());
        assert!(kept.ends_with('é'));
        let odd = format!("{}\n", "é".repeat(BYTES));
        assert!(tail(odd.as_bytes()).ends_with("é\n"));
        assert_eq!(tail(b"caf\xe9 closed\n"), "caf\u{fffd} closed\n");
    }

    #[tokio::test]
    async fn the_newest_lines_of_a_server_are_read_whatever_it_wrote() {
        let mut log = "é".repeat(BYTES).into_bytes();
        log.extend_from_slice(b"\ncannot read caf\xe9.toml\n");
        let (client, asked) = fake::api(move |_, _| Answer::Text(log.clone()));
        let (world, _events) = fake::world(client).await;
        assert_eq!(
            logs(&world, "time-1").await,
            ["cannot read caf\u{fffd}.toml"]
        );
        let asked = asked.lock().concat();
        assert!(
            !asked.contains("limitBytes") && asked.contains("tailLines=40"),
            "{asked}"
        );
    }

    #[tokio::test]
    async fn a_log_that_cannot_be_read_has_no_lines() {
        let (client, _asked) = fake::api(|_, _| Answer::Broken);
        let (world, _events) = fake::world(client).await;
        assert_eq!(logs(&world, "time-1").await, [""; 0]);
    }

    #[test]
    fn an_agents_lines_are_not_among_its_servers_last_words_unless_there_are_no_others() {
        let agents = "mcp-gateway-agent: INFO home does not welcome us";
        let both = format!("{agents}\ncannot read config\n{agents}\n");
        assert_eq!(last_words(&both), ["cannot read config"]);
        assert_eq!(last_words(agents), [agents]);
        assert_eq!(last_words(""), [""; 0]);
    }
}
