//! Children for modern exchanges: one per owner, asked first whether it speaks that era.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, timeout};

use super::{Owner, Shared};
use crate::bridge::{
    eras::{PROBE, Verdict, verdict},
    message::Message,
    refusal::Refusal,
    router::Mode,
    worker::Worker,
};

/// How long a child may take to answer the probe. SDK clients give up after 10 s and open with `initialize`.
const PROBE_PATIENCE: Duration = Duration::from_secs(8);
/// The same for whoever knows the era already, perhaps from a pod before this one: a client that asks for anything but
/// `server/discover` has no handshake to fall back to, and a server that is slow to start is not a legacy one.
const KNOWN_PATIENCE: Duration = Duration::from_secs(45);

impl Shared {
    /// The child for the modern exchanges of an owner, known to speak that era.
    pub(in crate::bridge) async fn modern(
        self: &Arc<Self>,
        owner: &str,
        message: &Message<'_>,
    ) -> Result<Arc<Worker>, Refusal> {
        let requested = message.version();
        let patience = match message.method() {
            "server/discover" => PROBE_PATIENCE,
            _ => KNOWN_PATIENCE.min(self.config.start_timeout),
        };
        let legacy = || self.eras(|e| e.legacy_only(requested));
        if self.eras(|e| e.modern()) == Some(false) {
            return Err(legacy());
        }
        let slot = {
            let mut state = self.state.lock();
            if state.owners.len() >= self.config.max_children.saturating_mul(2) {
                state
                    .owners
                    .retain(|_, o| Arc::strong_count(o) > 1 || has_child(o));
            }
            Arc::clone(state.owners.entry(owner.to_owned()).or_default())
        };
        let mut slot = slot.worker.lock().await;
        if let Some(worker) = slot.as_ref().filter(|w| w.death().is_none())
            && !worker.stopping().is_cancelled()
            && !worker.probing()
        {
            return Ok(Arc::clone(worker));
        }
        let worker = match slot.take().filter(|w| w.death().is_none() && w.probing()) {
            Some(undecided) => undecided,
            None => {
                let worker = self.take().await?;
                worker.set_mode(Mode::Modern);
                worker
            }
        };
        // Kept from here on, so that a child is not lost when the client leaves in the middle of this.
        *slot = Some(Arc::clone(&worker));
        if self.eras(|e| e.modern()) == Some(true) {
            worker.set_probing(false);
            return Ok(worker);
        }
        match self.probe(&worker, patience).await {
            Some(Ok(Verdict::Modern)) => Ok(worker),
            Some(Ok(Verdict::Legacy)) => {
                slot.take();
                Err(legacy())
            }
            Some(Err(refusal)) => {
                slot.take();
                Err(refusal)
            }
            // It may still be starting: no verdict to remember, but the client must get on.
            None => Err(legacy().for_now()),
        }
    }

    /// Asks a child which era it speaks. `None`: it does not say.
    async fn probe(
        self: &Arc<Self>,
        worker: &Arc<Worker>,
        patience: Duration,
    ) -> Option<Result<Verdict, Refusal>> {
        let since = Instant::now();
        worker.set_probing(true);
        let probe = Message::parse(PROBE).ok()?;
        let answer = async {
            let mut waiting = worker.post(&[probe]).await.ok()??;
            waiting.rx.recv().await
        };
        match timeout(patience, answer).await {
            Err(_silent) => None,
            Ok(Some(piece)) => {
                let message = Message::parse(&piece.text).ok()?;
                let answer = message.result().ok_or(message.error().unwrap_or_default());
                let verdict = verdict(answer);
                self.eras(|e| e.learn(verdict));
                match verdict {
                    Verdict::Modern => worker.set_probing(false),
                    Verdict::Legacy => {
                        worker.stop();
                        // The client falls back to `initialize` at once; let its child start now.
                        let shared = Arc::clone(self);
                        self.tasks.spawn(async move {
                            if let Ok(spare) = shared.start().await {
                                shared.keep_spare(spare);
                            }
                        });
                    }
                }
                Some(Ok(verdict))
            }
            Ok(None) => Some(self.left_at_probe(since).await),
        }
    }

    /// A child exited when probed. That means legacy, unless the next one exits as well without being asked anything.
    async fn left_at_probe(self: &Arc<Self>, since: Instant) -> Result<Verdict, Refusal> {
        let lived = since.elapsed();
        let fresh = self.start().await?;
        self.keep_spare(Arc::clone(&fresh));
        let trial = (lived * 2).clamp(Duration::from_millis(100), Duration::from_secs(3));
        if fresh.ended_within(trial).await && !fresh.stopping().is_cancelled() {
            let report = fresh.death().unwrap_or_default();
            return Err(Refusal::lost(&report));
        }
        self.eras(|e| e.learn(Verdict::Legacy));
        Ok(Verdict::Legacy)
    }
}

fn has_child(owner: &Owner) -> bool {
    // Locked means that a child is just being started.
    owner
        .worker
        .try_lock()
        .map_or(true, |w| w.as_ref().is_some_and(|w| w.death().is_none()))
}
