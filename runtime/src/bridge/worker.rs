//! One running child: its pipes, its router, the streams of its clients.
//!
//! Invariants: what a client posted is written to the child in the order in which the router admitted it; messages of
//! the child are delivered in the order in which it wrote them; everything between the two is bounded. When the child
//! is over, `death` is set before any stream is closed, so that whoever meets a closed stream can say why.
//! The router's lock is never held across an await.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use mcp_gateway_api::failure::ExitReport;
use parking_lot::Mutex;
use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, watch},
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    message::Message,
    outlet::{Outlet, outlet},
    router::{ExchangeId, Mode, Router},
};

mod delivery;
mod streams;

pub(super) use streams::{Listening, Waiting};

/// POSTs that may wait to be written to a child.
const LINES: usize = 1_024;
/// How long a new GET stream waits for the old one to be gone: whoever replaces a stream closes the old one first, but
/// over another connection.
const REPLACE: Duration = Duration::from_millis(500);
/// How long a modern client may read nothing before it loses its stream: it shares the child with others.
const MODERN_PATIENCE: Duration = Duration::from_secs(5);

/// How a child is treated.
#[derive(Debug, Clone, Copy)]
pub(super) struct Treatment {
    /// Bytes of posted messages that may wait to be written.
    pub(super) stdin_bytes: usize,
    /// Longest line of the child.
    pub(super) max_line: usize,
    /// After which an undelivered server request is answered, and a stalled legacy stream cut.
    pub(super) undeliverable_after: Duration,
    /// From its first request to its first message.
    pub(super) start_timeout: Duration,
}

/// Why a POST was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    /// Too many requests are open.
    Full,
    /// The child is over.
    Lost,
}

pub(super) struct Line {
    pub(super) text: String,
    _room: Option<OwnedSemaphorePermit>,
}

struct Inner {
    router: Router,
    posts: HashMap<ExchangeId, Outlet>,
    passive: Option<(u64, Outlet)>,
    over: bool,
}

/// A running child.
pub(super) struct Worker {
    /// Names it in the bridge.
    pub(super) number: u64,
    /// Its process id.
    pub(super) pid: Option<u32>,
    inner: Mutex<Inner>,
    stdin: mpsc::Sender<Line>,
    room: Arc<Semaphore>,
    stdin_bytes: usize,
    patience: Duration,
    stop: CancellationToken,
    probing: AtomicBool,
    death: watch::Sender<Option<Arc<ExitReport>>>,
    orphans: Mutex<Vec<String>>,
    passive_freed: Notify,
    /// When a legacy client first asked it something.
    asked: watch::Sender<Option<Instant>>,
    /// Whether it has ever said a message.
    spoke: AtomicBool,
}

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worker")
            .field("number", &self.number)
            .field("pid", &self.pid)
            .finish_non_exhaustive()
    }
}

impl Worker {
    /// A worker and the receiving end of what is to be written to its child.
    pub(super) fn new(
        number: u64,
        pid: Option<u32>,
        treatment: &Treatment,
        stop: CancellationToken,
    ) -> (Arc<Self>, mpsc::Receiver<Line>) {
        let (stdin, lines) = mpsc::channel(LINES);
        let worker = Self {
            number,
            pid,
            inner: Mutex::new(Inner {
                router: Router::new(Mode::Legacy),
                posts: HashMap::new(),
                passive: None,
                over: false,
            }),
            stdin,
            room: Arc::new(Semaphore::new(treatment.stdin_bytes)),
            stdin_bytes: treatment.stdin_bytes,
            patience: treatment.undeliverable_after,
            stop,
            probing: AtomicBool::new(false),
            death: watch::Sender::new(None),
            orphans: Mutex::default(),
            passive_freed: Notify::new(),
            asked: watch::Sender::new(None),
            spoke: AtomicBool::new(false),
        };
        (Arc::new(worker), lines)
    }

    /// Resolves when it has been asked and has said no message for `limit`; never if it has once spoken.
    pub(super) async fn mute_for(&self, limit: Duration) {
        let mut asked = self.asked.subscribe();
        let since = asked
            .wait_for(Option::is_some)
            .await
            .ok()
            .and_then(|at| *at);
        if let Some(since) = since {
            tokio::time::sleep_until(since + limit).await;
        }
        if since.is_none() || self.spoke.load(Ordering::Acquire) {
            std::future::pending::<()>().await;
        }
    }

    /// Decides what it is used for. Only before its first exchange.
    pub(super) fn set_mode(&self, mode: Mode) {
        self.inner.lock().router.set_mode(mode);
    }

    /// Asks it to end, on purpose.
    pub(super) fn stop(&self) {
        self.stop.cancel();
    }

    /// Resolves when it is to end.
    pub(super) const fn stopping(&self) -> &CancellationToken {
        &self.stop
    }

    /// Marks the time in which an exit only says that the server does not know the question.
    pub(super) fn set_probing(&self, on: bool) {
        self.probing.store(on, Ordering::Release);
    }

    /// Whether an exit now says nothing but that.
    pub(super) fn probing(&self) -> bool {
        self.probing.load(Ordering::Acquire)
    }

    /// How it ended, if it did.
    pub(super) fn death(&self) -> Option<Arc<ExitReport>> {
        self.death.borrow().clone()
    }

    /// Waits for its end.
    pub(super) async fn ended(&self) -> Arc<ExitReport> {
        let mut watch = self.death.subscribe();
        let report = watch.wait_for(Option::is_some).await;
        // The sender is `self`, so it outlives the wait.
        report.map(|r| r.clone()).ok().flatten().unwrap_or_default()
    }

    /// Whether no request is open.
    pub(super) fn idle(&self) -> bool {
        self.inner.lock().router.open_requests() == 0
    }

    /// Hands posted messages to the child. `Some` when they hold requests that are answered on a stream of their own.
    /// Dropping the future before it is done has sent nothing.
    ///
    /// # Errors
    /// The child is over, or has too many open requests.
    pub(super) async fn post(
        self: &Arc<Self>,
        items: &[Message<'_>],
    ) -> Result<Option<Waiting>, Refused> {
        let bytes: usize = items.iter().map(|m| m.text().len()).sum();
        let bytes = u32::try_from(bytes.min(self.stdin_bytes)).unwrap_or(u32::MAX);
        let (room, slot) = tokio::select! {
            both = async {
                let room = Arc::clone(&self.room).acquire_many_owned(bytes).await.ok()?;
                Some((room, self.stdin.reserve().await.ok()?))
            } => both.ok_or(Refused::Lost)?,
            _ = self.ended() => return Err(Refused::Lost),
        };
        let (waiting, orders) = {
            let mut inner = self.inner.lock();
            if inner.over {
                return Err(Refused::Lost);
            }
            let admitted = inner.router.admit(items).map_err(|_full| Refused::Full)?;
            // A probe may rightly be met with silence; the handshake may not.
            if admitted.exchange.is_some() && inner.router.mode() != Mode::Modern {
                self.asked
                    .send_if_modified(|at| at.is_none() && at.replace(Instant::now()).is_none());
            }
            let waiting = admitted.exchange.map(|exchange| {
                let (tx, rx) = outlet(self.patience_of(inner.router.mode()));
                inner.posts.insert(exchange, tx);
                Waiting {
                    rx,
                    first: admitted.first.into(),
                    worker: Arc::clone(self),
                    exchange,
                }
            });
            if !admitted.lines.is_empty() {
                let mut text = admitted.lines.join("\n");
                text.push('\n');
                slot.send(Line {
                    text,
                    _room: Some(room),
                });
            }
            (waiting, admitted.orders)
        };
        self.carry_out(orders).await;
        Ok(waiting)
    }

    const fn patience_of(&self, mode: Mode) -> Duration {
        match mode {
            Mode::Modern => MODERN_PATIENCE,
            Mode::Legacy | Mode::OneStream => self.patience,
        }
    }

    /// Opens the GET stream, waiting a moment for one that is just closing. `None`: there is one, or the child is over.
    pub(super) async fn listen(self: &Arc<Self>) -> Option<Listening> {
        let deadline = Instant::now() + REPLACE;
        loop {
            let freed = self.passive_freed.notified();
            {
                let mut inner = self.inner.lock();
                if inner.over {
                    return None;
                }
                if let Ok((number, first)) = inner.router.open_passive() {
                    let (tx, rx) = outlet(self.patience);
                    inner.passive = Some((number, tx));
                    return Some(Listening {
                        rx,
                        first: first.into(),
                        worker: Arc::clone(self),
                        number,
                    });
                }
            }
            tokio::time::timeout_at(deadline, freed).await.ok()?;
        }
    }

    fn client_left(&self, exchange: ExchangeId) {
        let orders = {
            let mut inner = self.inner.lock();
            inner.posts.remove(&exchange);
            inner.router.close(exchange)
        };
        self.write_all(orders);
    }

    fn listener_left(&self, number: u64) {
        let mut inner = self.inner.lock();
        inner.router.close_passive(number);
        inner.passive.take_if(|(n, _)| *n == number);
        drop(inner);
        self.passive_freed.notify_waiters();
    }

    /// When a waiting server request is to be answered in the client's stead.
    pub(super) fn next_give_up(&self) -> Option<Instant> {
        let since = self.inner.lock().router.oldest_question()?;
        Some(since + self.patience)
    }

    /// Answers those that are overdue.
    pub(super) fn give_up(&self) {
        let orders = Instant::now()
            .checked_sub(self.patience)
            .map(|cutoff| self.inner.lock().router.give_up(cutoff));
        self.write_all(orders.unwrap_or_default());
    }

    /// It is over: every stream closes.
    pub(super) fn bury(&self, report: ExitReport) {
        let mut inner = self.inner.lock();
        *self.orphans.lock() = inner.router.unanswered();
        self.death.send_replace(Some(Arc::new(report)));
        inner.over = true;
        inner.posts.clear();
        inner.passive = None;
    }

    /// The ids of a 2024-11-05 session's requests that its end left unanswered; once.
    pub(super) fn take_orphans(&self) -> Vec<String> {
        std::mem::take(&mut self.orphans.lock())
    }

    /// Whether it has ended unasked, and a session of streams with it.
    pub(super) fn lost_its_session(&self) -> bool {
        let unasked = !self.stop.is_cancelled() && !self.probing();
        unasked && self.death().is_some() && self.inner.lock().router.mode() == Mode::Legacy
    }

    /// Waits at most this long for its end.
    pub(super) async fn ended_within(&self, limit: Duration) -> bool {
        timeout(limit, self.ended()).await.is_ok()
    }
}
