//! What is done now and then: overdue leases given back, whether or not their clients read, pools of lost instances dropped, sessions released that have
//! been idle inside an instance which others keep busy (`sessionIdleTimeout`).

use std::{sync::Arc, time::Duration};

use mcp_gateway_api::{backend::Backend, policy::Isolation};
use tokio::time::Instant;

use crate::{
    exchange::{goodbye, news},
    gateway::Gateway,
    session::Session,
};

const EACH: Duration = Duration::from_secs(1);
/// Entries of sessions this quiet are forgotten; their backend's `sessionIdleTimeout` no longer applies then.
const FORGET: Duration = Duration::from_secs(24 * 3600);
/// Ticks from one such round to the next.
const FORGET_EACH: u64 = 60;

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
    let now = Instant::now();
    gateway.sessions.sweep(now);
    directory.give_back_overdue(now);
    gateway
        .upstreams
        .retain(|instance| directory.view(instance).is_some());
    if tick.is_multiple_of(FORGET_EACH) {
        gateway.sessions.forget_quiet(FORGET);
    }
    if gateway.config.alone {
        release_idle(gateway);
    }
}

/// Lets go of sessions that nobody has used for their `sessionIdleTimeout`. What is quiet at one of several activators may be
/// busy at another, whose calls a server would end with the session.
fn release_idle(gateway: &Gateway) {
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
    news::let_go(gateway, session.about());
    goodbye::say(gateway, lease, binding.upstream);
}
