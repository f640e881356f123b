//! What is done now and then: overdue leases given back, pools of lost instances dropped, sessions released that have
//! been idle inside an instance which others keep busy (`sessionIdleTimeout`).

use std::{sync::Arc, time::Duration};

use axum::http::{HeaderMap, Method};
use bytes::Bytes;
use mcp_gateway_api::{
    backend::Backend,
    policy::{Isolation, OnIdle},
    record::{SessionBinding, SessionNews, SessionUpdate},
};
use tokio::time::Instant;

use crate::{
    exchange::news,
    forward::{self, Outbound, answer::Answer},
    gateway::Gateway,
    lease::Lease,
    message::Message,
    metrics::Operation,
    session::Session,
};

const EACH: Duration = Duration::from_secs(1);
/// Entries of sessions this quiet are forgotten; their backend's `sessionIdleTimeout` no longer applies then.
const FORGET: Duration = Duration::from_secs(24 * 3600);
/// Ticks from one such round to the next.
const FORGET_EACH: u64 = 60;
/// Longest goodbye to a server.
const GOODBYE: Duration = Duration::from_secs(10);

/// Runs until the gateway is cut.
pub(crate) async fn run(gateway: Gateway) {
    let mut tick = 0_u64;
    let mut each = tokio::time::interval(EACH);
    each.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = each.tick() => {
                once(&gateway, tick);
                tick += 1;
            }
            () = gateway.cut.cancelled() => return,
        }
    }
}

fn once(gateway: &Gateway, tick: u64) {
    let directory = &gateway.deps.directory;
    gateway.sessions.sweep(Instant::now());
    gateway
        .upstreams
        .retain(|instance| directory.view(instance).is_some());
    if tick.is_multiple_of(FORGET_EACH) {
        gateway.sessions.forget_quiet(FORGET);
    }
    let catalog = Arc::clone(&gateway.deps.catalog.borrow());
    let shared = |backend: &&Arc<Backend>| backend.policy.isolation != Isolation::Session;
    let timeouts = catalog.backends.values().filter(shared);
    // Of a hundred thousand sessions hardly any is due: only those are looked at closely.
    let Some(shortest) = timeouts.map(|b| b.policy.session_idle_timeout).min() else {
        return;
    };
    let mut idle = Vec::new();
    gateway.sessions.for_each_quiet(shortest, |session, quiet| {
        idle.push((Arc::clone(session), quiet));
    });
    for (session, quiet) in idle {
        let backend = catalog.get(&session.about().backend).filter(shared);
        let due = backend.filter(|backend| quiet >= backend.policy.session_idle_timeout);
        if let Some(backend) = due {
            release(gateway, backend, &session);
        }
    }
}

/// Lets an instance forget a session: asleep under `revive`, ended under `expire`.
fn release(gateway: &Gateway, backend: &Arc<Backend>, session: &Arc<Session>) {
    let Some(living) = session.binding() else {
        return;
    };
    let Ok(lease) = gateway.deps.directory.lease(living.instance) else {
        // The instance is going or gone, and takes the session with it.
        session.asleep();
        return;
    };
    // It may be in use again since it was found quiet.
    let Some(binding) = session.release(backend.policy.session_idle_timeout) else {
        return;
    };
    let expires = backend.policy.on_idle == OnIdle::Expire;
    let news = if expires {
        SessionNews::Ended
    } else {
        SessionNews::Asleep
    };
    news::record(
        gateway,
        SessionUpdate {
            session: session.about().clone(),
            news,
        },
    );
    if expires {
        gateway.sessions.end(&session.about().key);
    }
    let gateway_ = gateway.clone();
    gateway
        .tasks
        .spawn(async move { goodbye(&gateway_, lease, &binding).await });
}

async fn goodbye(gateway: &Gateway, lease: Lease, binding: &SessionBinding) {
    let headers = HeaderMap::new();
    let answer = Answer {
        lease,
        message: Arc::new(Message::Batch(Vec::new())),
        begun: None,
        deadline: Instant::now() + GOODBYE,
        outlives: false,
        news: None,
        operation: Operation::begin(None, Instant::now()),
    };
    let outbound = Outbound {
        method: Method::DELETE,
        headers: &headers,
        query: None,
        body: Bytes::new(),
        session: Some(&binding.upstream),
        owner: None,
        turn: None,
    };
    if let Err(undelivered) = forward::send(gateway, outbound, answer).await {
        tracing::debug!(
            ?undelivered,
            "an idle session's server did not hear the goodbye"
        );
    }
}
