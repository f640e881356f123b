//! One subscription to the view, through all leaders, until its reader has gone.

use mcp_gateway_api::{ids::ActivatorId, scaler::ActivatorPod, view::ViewEvent};
use tokio::sync::mpsc;
use tonic::{Status, Streaming};

use super::{Backoff, Inner, finder::Leader, is_final};
use crate::{
    convert::{Assembly, ToWire, activator_bytes},
    protocol,
    scaler::{self as wire, view_message},
};

/// Returns when the reader has gone.
pub(super) async fn run(
    inner: &Inner,
    activator: ActivatorId,
    pod: ActivatorPod,
    view: mpsc::Sender<ViewEvent>,
) {
    let listening = async {
        let mut pause = Backoff::default();
        loop {
            let leader = inner.finder.leader().await;
            let mut welcomed = false;
            let why = follow(inner, &leader, (activator, pod), &view, &mut welcomed).await;
            inner.finder.hint(&why);
            inner.finder.lost(&leader);
            if welcomed {
                pause = Backoff::default();
            }
            if is_final(why.code()) {
                tracing::error!(
                    ?leader,
                    why = why.message(),
                    "the leader refuses this activator"
                );
            } else {
                tracing::warn!(?leader, why = why.message(), "the view was interrupted");
            }
            tokio::time::sleep(pause.next()).await;
        }
    };
    tokio::select! {
        () = view.closed() => {}
        () = listening => {}
    }
}

/// Passes on what one leader says until it ends; returns why.
async fn follow(
    inner: &Inner,
    leader: &Leader,
    (activator, pod): (ActivatorId, ActivatorPod),
    view: &mpsc::Sender<ViewEvent>,
    welcomed: &mut bool,
) -> Status {
    let subscription = wire::Subscription {
        activator: activator_bytes(activator),
        protocol: protocol::NEWEST,
        oldest_protocol: protocol::OLDEST,
        epoch_seen: inner.finder.heard(),
        pod: Some(pod.to_wire()),
    };
    let mut messages = match leader.client.clone().subscribe(subscription).await {
        Ok(messages) => messages.into_inner(),
        Err(why) => return why,
    };
    let epoch = match welcome(&mut messages).await {
        Ok(epoch) => epoch,
        Err(why) => return why,
    };
    *welcomed = true;
    inner.outbox.lock().subscribed();
    inner.due.notify_one();
    let mut assembly = Assembly::default();
    loop {
        let message = match messages.message().await {
            Ok(Some(message)) => message,
            Ok(None) => return Status::unavailable("the view has ended"),
            Err(why) => return why,
        };
        if !inner.finder.believes(epoch) {
            return Status::unavailable("its term is over");
        }
        let event = match assembly.take(message) {
            Ok(None) => continue,
            Ok(Some(event)) => event,
            // Skipping what is not understood could skip a drain: a snapshot tells all again, perhaps by another leader.
            Err(why) => return Status::internal(why.to_string()),
        };
        if let ViewEvent::Gone { instance, .. } = &event {
            inner.outbox.lock().gone(*instance);
        }
        if view.send(event).await.is_err() {
            return Status::cancelled("nobody reads any more");
        }
    }
}

async fn welcome(messages: &mut Streaming<wire::ViewMessage>) -> Result<u64, Status> {
    match messages.message().await?.and_then(|message| message.what) {
        Some(view_message::What::Welcome(welcome)) => Ok(welcome.epoch),
        _ => Err(Status::internal("the view does not begin with a welcome")),
    }
}
