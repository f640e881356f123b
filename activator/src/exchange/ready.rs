//! Where a session's message can go right now. Never: wakes anything.

use mcp_gateway_api::{record::SessionBinding, view::Service};

use super::{Exchange, opened::Opened, turn::Turn};
use crate::lease::{Lease, Life, NotNow};

/// An exchange that may go upstream.
pub(super) struct Ready {
    pub lease: Lease,
    pub binding: SessionBinding,
    pub turn: Option<Turn>,
    pub timing: Option<http::HeaderValue>,
    /// The session has moved on from there.
    pub behind: bool,
}

/// The instance that holds the session, if it can be used right now and nobody waits before.
pub(super) fn warm(x: &Exchange, opened: &Opened) -> Option<Ready> {
    if x.gateway.turns.is_busy(&opened.about.key) {
        return None;
    }
    lease_now(x, opened).ok().flatten()
}

/// A lease on the instance that holds the session; `None` when it sleeps.
pub(super) fn lease_now(x: &Exchange, opened: &Opened) -> Result<Option<Ready>, NotNow> {
    let Some(binding) = opened.binding(&x.gateway) else {
        return Ok(None);
    };
    let directory = &x.gateway.deps.directory;
    let leased = directory.lease_until(binding.instance, x.deadline());
    // While something of this session runs on a draining instance, the rest of it belongs there too.
    let lease = leased.or_else(|not_now| {
        opened
            .session
            .beside(binding.instance)
            .filter(|lease| !lease.is_over())
            .ok_or(not_now)
    })?;
    Ok(Some(at(binding, lease)))
}

fn at(binding: SessionBinding, lease: Lease) -> Ready {
    Ready {
        lease,
        binding,
        turn: None,
        timing: None,
        behind: false,
    }
}

/// Where something runs that the message answers or cancels, if the session has moved on from there.
pub(super) fn behind(x: &Exchange, opened: &Opened) -> Option<Ready> {
    let lives = opened.binding(&x.gateway);
    let (lease, binding) = opened.session.runs_behind(&x.message, lives.as_ref())?;
    Some(Ready {
        behind: true,
        ..at(binding, lease)
    })
}

/// As [`lease_now`], for what wakes nothing: it also goes to an instance that retires. Whatever of the session still runs
/// there may be another activator's, and waits for just this.
pub(super) fn visit_now(x: &Exchange, opened: &Opened) -> Result<Option<Ready>, NotNow> {
    lease_now(x, opened).or_else(|not_now| {
        let binding = opened.binding(&x.gateway).ok_or(not_now)?;
        let visit = x.gateway.deps.directory.visit(binding.instance);
        visit.map(|lease| Some(at(binding, lease))).ok_or(not_now)
    })
}

/// As [`visit_now`], but an instance that the view does not know is asked about first.
pub(super) async fn visit(x: &Exchange, opened: &Opened) -> Option<Ready> {
    match visit_now(x, opened) {
        Ok(ready) => ready,
        // Called off, or gone, within moments: what is said now is either heard by a server that stays, or by nobody.
        Err(NotNow::Draining(Service::IdleDrain)) => {
            let instance = opened.binding(&x.gateway)?.instance;
            let mut life = x.gateway.deps.directory.watch(instance)?;
            let decided = life.wait_for(|life| *life != Life::In(Service::IdleDrain));
            let _late = tokio::time::timeout(x.gateway.config.lost_grace, decided).await;
            visit_now(x, opened).ok().flatten()
        }
        Err(NotNow::Gone | NotNow::Draining(_)) => None,
        Err(NotNow::Unknown) => {
            let instance = opened.binding(&x.gateway)?.instance;
            let deps = &x.gateway.deps;
            let _kept = deps.directory.resolve(&*deps.scaler, instance).await;
            visit_now(x, opened).ok().flatten()
        }
    }
}
