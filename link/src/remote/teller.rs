//! Tells the leader what the outbox holds, one telling at a time, until it is answered.

use tokio::time::Instant;

use super::{Inner, Unanswered, finder::Client, outbox::Tidings};
use crate::{convert::ToWire, scaler as wire};

/// Never returns.
pub(super) async fn run(inner: &Inner) {
    loop {
        let due = inner.outbox.lock().due(Instant::now());
        let Some(tidings) = due else {
            inner.due.notified().await;
            continue;
        };
        tell(inner, &tidings).await;
    }
}

async fn tell(inner: &Inner, tidings: &Tidings) {
    let message = wire::Tidings {
        report: tidings.report.as_ref().map(ToWire::to_wire),
        acknowledgements: tidings.acks.iter().map(ToWire::to_wire).collect(),
    };
    // After that long something newer may be due: it is put together again.
    let until = Instant::now() + inner.config.keepalive;
    let ask = async |mut leader: Client| leader.tell(message.clone()).await;
    let told: Result<wire::Told, _> = inner.ask(until, ask).await;
    match told {
        Ok(_) => inner.outbox.lock().told(tidings),
        Err(Unanswered::Timeout(_)) => {}
        Err(Unanswered::Refused(why)) => {
            tracing::error!(why, "the leader does not take this activator's report");
            tokio::time::sleep(inner.config.keepalive).await;
        }
    }
}
