//! The receiving ends of client streams. Dropping one is how its child's router learns that the client has gone.

use std::{collections::VecDeque, sync::Arc};

use tokio::sync::mpsc;

use super::Worker;
use crate::bridge::{outlet::Piece, router::ExchangeId};

/// The receiving end of a POST's stream. Dropping it tells the child's router that the client has gone.
#[derive(Debug)]
pub(in crate::bridge) struct Waiting {
    /// What comes.
    pub(in crate::bridge) rx: mpsc::Receiver<Piece>,
    /// What goes first.
    pub(in crate::bridge) first: VecDeque<String>,
    /// Whom it waits for.
    pub(in crate::bridge) worker: Arc<Worker>,
    pub(super) exchange: ExchangeId,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.worker.client_left(self.exchange);
    }
}

/// The receiving end of a GET stream. Dropping it frees the place.
#[derive(Debug)]
pub(in crate::bridge) struct Listening {
    /// What comes.
    pub(in crate::bridge) rx: mpsc::Receiver<Piece>,
    /// What goes first.
    pub(in crate::bridge) first: VecDeque<String>,
    /// Whom it listens to.
    pub(in crate::bridge) worker: Arc<Worker>,
    pub(super) number: u64,
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.worker.listener_left(self.number);
    }
}
