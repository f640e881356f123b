//! The way from a child to one client stream: a queue bounded in messages and bytes.
//!
//! A child that writes faster than a client reads is slowed down, as a pipe would. A client that reads nothing for
//! longer than the outlet's patience loses its stream, so that it cannot hold the child's other clients up.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::timeout,
};

use super::router::Answers;

/// Messages that may wait in one stream.
const COUNT: usize = 256;
/// Bytes that may wait in one stream; a longer message goes alone.
const BYTES: usize = 4 << 20;

/// One message on its way.
#[derive(Debug)]
pub(super) struct Piece {
    /// The message, on one line; empty when a cancelled request will get no answer.
    pub(super) text: String,
    /// What it answers.
    pub(super) answers: Option<Answers>,
    _room: OwnedSemaphorePermit,
}

/// The client has gone, or reads nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Gone;

/// The sending end.
#[derive(Debug, Clone)]
pub(super) struct Outlet {
    tx: mpsc::Sender<Piece>,
    room: Arc<Semaphore>,
    patience: Duration,
}

/// Makes a stream's two ends.
pub(super) fn outlet(patience: Duration) -> (Outlet, mpsc::Receiver<Piece>) {
    let (tx, rx) = mpsc::channel(COUNT);
    let room = Arc::new(Semaphore::new(BYTES));
    (Outlet { tx, room, patience }, rx)
}

impl Outlet {
    /// Sends, waiting for room. The text is taken only if it was sent.
    pub(super) async fn send(
        &self,
        text: &mut String,
        answers: Option<Answers>,
    ) -> Result<(), Gone> {
        timeout(self.patience, self.push(text, answers))
            .await
            .unwrap_or(Err(Gone))
    }

    async fn push(&self, text: &mut String, answers: Option<Answers>) -> Result<(), Gone> {
        let bytes = u32::try_from(text.len().min(BYTES)).unwrap_or(u32::MAX);
        let room = tokio::select! {
            room = Arc::clone(&self.room).acquire_many_owned(bytes) => room.map_err(|_closed| Gone)?,
            () = self.tx.closed() => return Err(Gone),
        };
        let slot = self.tx.reserve().await.map_err(|_gone| Gone)?;
        slot.send(Piece {
            text: std::mem::take(text),
            answers,
            _room: room,
        });
        Ok(())
    }
}
