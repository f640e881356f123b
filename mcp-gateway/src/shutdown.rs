//! Signals → tokens. The first SIGINT, SIGTERM or SIGHUP asks for a graceful end, the second for one at once.
//!
//! SIGHUP too, because servers run in process groups of their own: a closed terminal would leave them behind.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// The two requests to end.
#[derive(Debug, Clone, Default)]
pub(crate) struct Shutdown {
    /// Cancelled by the first signal.
    pub(crate) asked: CancellationToken,
    /// Cancelled by the second.
    pub(crate) at_once: CancellationToken,
}

impl Shutdown {
    /// Listens for signals from here on.
    ///
    /// # Errors
    /// The operating system has no more handlers to give.
    pub(crate) fn on_signals() -> std::io::Result<Self> {
        let shutdown = Self::default();
        let interrupt = signal(SignalKind::interrupt())?;
        let terminate = signal(SignalKind::terminate())?;
        let hangup = signal(SignalKind::hangup())?;
        tokio::spawn(shutdown.clone().listen(interrupt, terminate, hangup));
        Ok(shutdown)
    }

    async fn listen(self, mut interrupt: Signal, mut terminate: Signal, mut hangup: Signal) {
        for token in [&self.asked, &self.at_once] {
            let name = tokio::select! {
                _ = interrupt.recv() => "SIGINT",
                _ = terminate.recv() => "SIGTERM",
                _ = hangup.recv() => "SIGHUP",
            };
            tracing::debug!(signal = name, "asked to end");
            token.cancel();
        }
    }
}
