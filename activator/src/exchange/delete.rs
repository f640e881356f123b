//! DELETE of a session. An awake server decides: 2xx ends the session, 405 leaves it. A sleeping session just ends (204):
//! nothing wakes in order to be told goodbye.

use std::sync::Arc;

use axum::{
    body::Body,
    extract::{Request, State},
    http::{Method, Response, StatusCode},
    response::IntoResponse,
};
use bytes::Bytes;
use mcp_gateway_api::failure::{Failure, FailureKind};
use tokio::time::Instant;

use super::{
    Answered, Exchange,
    opened::{self, Opened},
    ready, session,
};
use crate::{
    caller::Caller,
    edge::headers::SESSION_ID,
    error::Refusal,
    forward::{self, Undelivered},
    gateway::Gateway,
    message::Message,
};

/// `DELETE /adapters/{backend}/mcp`.
pub(crate) async fn delete(
    State(gateway): State<Gateway>,
    caller: Caller,
    request: Request,
) -> Response<Body> {
    let (head, _no_body) = request.into_parts();
    let x = Exchange {
        _token: gateway.tasks.token(),
        gateway,
        caller,
        headers: head.headers,
        uri: head.uri,
        body: Bytes::new(),
        // Nothing is asked, so nothing becomes pending.
        message: Arc::new(Message::Batch(Vec::new())),
        arrived: Instant::now(),
        span: tracing::Span::none(),
    };
    act(&x)
        .await
        .unwrap_or_else(|failure| Refusal::from(failure).into_response())
}

async fn act(x: &Exchange) -> Answered {
    if !x.headers.contains_key(SESSION_ID) {
        return Err(Failure::new(
            FailureKind::Method,
            "There is no session to end: the request names none.",
        ));
    }
    let opened = opened::open(&x.gateway, &x.caller, &x.headers)?;
    let Some(ready) = ready::visit(x, &opened).await else {
        let lost = session::expired(&x.gateway, &x.caller, &opened).await;
        return lost.map_or_else(|| Ok(asleep(x, &opened)), Err);
    };
    let life = ready.lease.life();
    match session::send(x, &opened, ready, Method::DELETE).await {
        Ok(mut response) => {
            let status = response.status();
            if status.is_success() || status == StatusCode::NOT_FOUND {
                opened.end(&x.gateway);
            }
            session::show_id(&opened, &mut response);
            Ok(forward::into_body(response))
        }
        Err(Undelivered::Unreachable(_) | Undelivered::Released) => Ok(asleep(x, &opened)),
        Err(Undelivered::Failed(_)) if life.borrow().is_over() => Ok(asleep(x, &opened)),
        Err(Undelivered::Failed(failure)) => Err(failure),
    }
}

fn asleep(x: &Exchange, opened: &Opened) -> Response<Body> {
    opened.end(&x.gateway);
    StatusCode::NO_CONTENT.into_response()
}
