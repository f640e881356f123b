//! Signals → tokens. The first SIGINT or SIGTERM asks for a graceful end, the second for one at once.

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
        tokio::spawn(shutdown.clone().listen(interrupt, terminate));
        Ok(shutdown)
    }

    async fn listen(self, mut interrupt: Signal, mut terminate: Signal) {
        for token in [&self.asked, &self.at_once] {
            let name = tokio::select! {
                _ = interrupt.recv() => "SIGINT",
                _ = terminate.recv() => "SIGTERM",
            };
            tracing::debug!(signal = name, "asked to end");
            token.cancel();
        }
    }
}
