//! Messages of a child for which no stream is open yet.
//!
//! Invariants: bounded in count and bytes, the oldest go first; a server request that leaves unheard is named, so that
//! it can be answered and the server does not wait for ever.

use std::collections::VecDeque;

use tokio::time::Instant;

/// Most messages that wait.
pub(super) const MAX_COUNT: usize = 256;
/// Most bytes that wait.
pub(super) const MAX_BYTES: usize = 4 << 20;

#[derive(Debug)]
struct Waiting {
    text: String,
    asks: Option<String>,
    since: Instant,
}

/// The queue.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    queue: VecDeque<Waiting>,
    bytes: usize,
}

impl Backlog {
    /// Appends a message; `asks` is the id if it is a request. Returns the ids of requests that had to make room.
    pub(super) fn push(
        &mut self,
        text: String,
        asks: Option<String>,
        since: Instant,
    ) -> Vec<String> {
        self.bytes += text.len();
        self.queue.push_back(Waiting { text, asks, since });
        let mut evicted = Vec::new();
        while self.queue.len() > MAX_COUNT || self.bytes > MAX_BYTES {
            let Some(out) = self.queue.pop_front() else {
                break;
            };
            self.bytes -= out.text.len();
            evicted.extend(out.asks);
        }
        evicted
    }

    /// Takes all, oldest first.
    pub(super) fn drain(&mut self) -> Vec<String> {
        self.bytes = 0;
        self.queue.drain(..).map(|w| w.text).collect()
    }

    /// Since when the oldest request waits.
    pub(super) fn oldest_question(&self) -> Option<Instant> {
        self.queue
            .iter()
            .find(|w| w.asks.is_some())
            .map(|w| w.since)
    }

    /// Takes out the requests that wait since `cutoff` or longer and returns their ids.
    pub(super) fn overdue(&mut self, cutoff: Instant) -> Vec<String> {
        let mut out = Vec::new();
        self.queue.retain_mut(|w| {
            if w.since > cutoff {
                return true;
            }
            match w.asks.take() {
                Some(id) => {
                    self.bytes -= w.text.len();
                    out.push(id);
                    false
                }
                None => true,
            }
        });
        out
    }
}
