//! Waiting for an instance: admission to the hold, the claim, the lease. The one place where something wakes.
//!
//! Invariants: what waits is counted, in number and bytes, until it has its lease; the wait ends with the exchange's
//! `holdTimeout`, with its client (the future is dropped, which withdraws the claim) or with the gateway.

use std::time::Duration;

use mcp_gateway_api::{
    claim::{ClaimRequest, Claimed, Purpose},
    failure::{Failure, FailureKind},
    ids::ClaimId,
    slot::SlotKey,
};
use tokio::time::Instant;

use super::{Exchange, news, permit::Permit};
use crate::{
    body::Lent,
    caller::Caller,
    forward::shutting_down,
    gateway::Gateway,
    hold::{Bound, HoldGuard},
    lease::Lease,
    metrics::Waiting,
};

/// Between two claims whose instance went away before it could be leased.
const AGAIN: Duration = Duration::from_millis(5);

/// A place in the hold.
pub(crate) struct Held {
    _guard: HoldGuard,
    // Counted by the guard meanwhile.
    _lent: Lent,
    _waiting: Waiting,
}

/// An instance that may be used.
pub(crate) struct Got {
    pub lease: Lease,
    pub claimed: Claimed,
    /// To revive the session there, if that is how it stands.
    pub permit: Option<Permit>,
}

/// Admits an exchange to the hold.
///
/// # Errors
/// `Overloaded` at a bound.
pub(crate) fn hold(x: &Exchange, key: &SlotKey) -> Result<Held, Failure> {
    x.span.record("mcp_gateway.cold", true);
    let policy = &x.caller.backend.policy;
    let bound = Bound {
        exchanges: policy.max_pending,
        bytes: policy.max_pending_bytes,
    };
    let tenant = &x.caller.principal.tenant;
    let admitted = x
        .gateway
        .holds
        .admit(key, tenant, x.body.len() as u64, bound);
    let guard = admitted.map_err(|overflow| {
        Failure::new(
            FailureKind::Overloaded,
            format!("Try again shortly: {overflow}."),
        )
        .retry_after(Duration::from_secs(1))
    })?;
    Ok(Held {
        _guard: guard,
        _lent: x.gateway.bodies.lend(x.body.len()),
        _waiting: Waiting::begin(),
    })
}

/// Claims and leases an instance.
///
/// # Errors
/// What the claim answers; `HoldTimeout`; `ShuttingDown`.
pub(crate) async fn claim(
    gateway: &Gateway,
    caller: &Caller,
    purpose: Purpose,
    arrived: Instant,
) -> Result<Got, Failure> {
    let until = arrived + caller.backend.policy.hold_timeout;
    loop {
        let budget = until.saturating_duration_since(Instant::now());
        if budget.is_zero() {
            return Err(hold_timeout());
        }
        let request = ClaimRequest {
            id: ClaimId::random(),
            backend: caller.backend.name.clone(),
            tenant: caller.principal.tenant.clone(),
            principal: caller.principal.id,
            purpose: purpose.clone(),
            budget,
        };
        let claimed = tokio::select! {
            claimed = gateway.deps.scaler.claim(request) => claimed?,
            () = gateway.closing.cancelled() => return Err(shutting_down()),
        };
        let permit = Permit::of(gateway, &purpose, &claimed);
        gateway
            .deps
            .directory
            .apply_claimed(claimed.instance.clone());
        match gateway.deps.directory.lease(claimed.instance.id) {
            Ok(lease) => {
                return Ok(Got {
                    lease,
                    claimed,
                    permit,
                });
            }
            Err(not_now) => {
                tracing::debug!(%not_now, instance = ?claimed.instance.id, "claimed, and lost before its first use");
                drop(permit);
                if let Purpose::Session { session, .. } = &purpose {
                    news::written(gateway, session.key).await;
                }
                tokio::time::sleep(AGAIN).await;
            }
        }
    }
}

/// The hold's time ran out.
pub(crate) fn hold_timeout() -> Failure {
    Failure::new(
        FailureKind::HoldTimeout,
        "The server is still starting. Try again shortly; the start goes on.",
    )
    .retry_after(Duration::from_secs(2))
}

/// What a cold answer tells its client of what it waited for (`Server-Timing`): `handshake` is the replay of a revival.
pub(crate) fn server_timing(
    claimed: &Claimed,
    waited: Duration,
    handshake: Option<Duration>,
) -> Option<http::HeaderValue> {
    let cold = claimed.cold.as_ref();
    let phases = [
        ("hold", Some(waited)),
        ("claim", cold.map(|cold| cold.claim)),
        ("create", cold.map(|cold| cold.create)),
        ("start", cold.map(|cold| cold.start)),
        ("serve", cold.map(|cold| cold.serve)),
        ("handshake", handshake),
    ];
    let told = phases.into_iter().filter_map(|(name, took)| {
        took.map(|took| format!("{name};dur={:.1}", took.as_secs_f64() * 1e3))
    });
    let text = told.collect::<Vec<_>>().join(", ");
    http::HeaderValue::from_str(&text).ok()
}
