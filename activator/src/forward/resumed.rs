//! Streams taken over by their clients: when a client that left resumes a stream (GET with `Last-Event-ID`), whoever
//! still reads that stream for it stops, because servers answer 409 while the old reader is there, or give it what the
//! client should get.

use std::{collections::VecDeque, sync::Arc};

use mcp_gateway_api::ids::SessionKey;
use tokio::sync::broadcast;

/// Event ids remembered of one stream.
const REMEMBERED: usize = 256;
/// Announcements a reader may fall behind by; a reader that misses one reads on, and the client is told 409.
const BEHIND: usize = 256;

/// Announces resumptions to all that read without a client.
#[derive(Debug)]
pub(crate) struct Resumptions(broadcast::Sender<(SessionKey, Arc<str>)>);

impl Default for Resumptions {
    fn default() -> Self {
        Self(broadcast::Sender::new(BEHIND))
    }
}

impl Resumptions {
    /// A client resumes the stream that carried this event.
    pub(crate) fn announce(&self, session: SessionKey, event_id: &str) {
        // Nobody listens when nothing is read without its client.
        let _listeners = self.0.send((session, event_id.into()));
    }

    /// Resolves when the stream with these events is resumed.
    pub(crate) async fn of(&self, session: SessionKey, events: &EventIds) {
        let mut announced = self.0.subscribe();
        loop {
            match announced.recv().await {
                Ok((key, id)) if key == session && events.0.contains(&id) => return,
                Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
            }
        }
    }
}

/// The ids of a stream's newest events.
#[derive(Debug, Default)]
pub(crate) struct EventIds(VecDeque<Arc<str>>);

impl EventIds {
    /// One passed.
    pub(crate) fn passed(&mut self, id: &str) {
        if self.0.len() == REMEMBERED {
            self.0.pop_front();
        }
        self.0.push_back(id.into());
    }
}
