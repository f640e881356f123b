//! Notifications and posted responses in a legacy session: they wake nothing. An awake server gets them, and for a
//! sleeping one they are taken (202) and mean nothing any more. A cancellation of an exchange that still waits here ends
//! that wait and goes no further.

use axum::http::{Method, StatusCode};

use super::{
    Answered, Exchange, accepted, opened,
    opened::Opened,
    ready::{self, Ready},
    session,
};
use crate::{
    forward,
    message::{Message, RequestId},
};

/// Answers it.
pub(super) async fn answer(x: &Exchange) -> Answered {
    let opened = opened::open(&x.gateway, &x.caller, &x.headers)?;
    let called_off = cancelled(&x.message)
        .filter(|id| x.gateway.turns.cancel(&opened.about.key, id))
        .count();
    if called_off > 0 && called_off == x.message.each().count() {
        return Ok(accepted());
    }
    let Some(ready) = ready(x, &opened).await else {
        let lost = session::expired(&x.gateway, &x.caller, &opened).await;
        return lost.map_or_else(|| Ok(accepted()), Err);
    };
    let (life, behind) = (ready.lease.life(), ready.behind);
    match session::send(x, &opened, ready, Method::POST).await {
        // A bridge lost the session's child: asleep, not ended.
        Ok(response) if session::is_lost(&response) => Ok(accepted()),
        // The session that is not known there any more lives elsewhere.
        Ok(response) if behind && response.status() == StatusCode::NOT_FOUND => Ok(accepted()),
        Ok(mut response) => {
            session::show_id(&opened, &mut response);
            Ok(forward::into_body(response))
        }
        // It went to sleep just now.
        Err(forward::Undelivered::Unreachable(_) | forward::Undelivered::Released) => {
            Ok(accepted())
        }
        // Nobody is left to hear it.
        Err(forward::Undelivered::Failed(_)) if life.borrow().is_over() => Ok(accepted()),
        Err(forward::Undelivered::Failed(failure)) => Err(failure),
    }
}

async fn ready(x: &Exchange, opened: &Opened) -> Option<Ready> {
    if let Some(behind) = ready::behind(x, opened) {
        return Some(behind);
    }
    if !x.gateway.turns.is_busy(&opened.about.key) {
        return ready::visit(x, opened).await;
    }
    // The session is waking: this message goes after those that came before it.
    let place = x.gateway.turns.queue(opened.about.key, &x.message);
    let until = x.arrived + x.caller.backend.policy.hold_timeout;
    let turn = tokio::select! {
        turn = tokio::time::timeout_at(until, place.turn()) => turn.ok()?,
        () = opened.session.ended().cancelled() => return None,
        () = x.gateway.closing.cancelled() => return None,
    };
    let mut ready = ready::visit_now(x, opened).ok().flatten()?;
    ready.turn = Some(turn);
    Some(ready)
}

fn cancelled(message: &Message) -> impl Iterator<Item = &RequestId> {
    message.each().filter_map(|one| match one {
        Message::Notification(n) if &*n.method == "notifications/cancelled" => {
            n.params.request_id.as_ref()
        }
        Message::Notification(_)
        | Message::Request(_)
        | Message::Response(_)
        | Message::Batch(_) => None,
    })
}
