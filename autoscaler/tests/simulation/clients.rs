//! Modelled clients: what they ask for, and what they remember of their sessions.

use std::{sync::Arc, time::Duration};

use mcp_gateway_api::{
    backend::{Backend, LaunchSpec, Transport},
    catalog::Catalog,
    claim::{ClaimRequest, Purpose},
    ids::{ActivatorId, BackendName, ClaimId, Generation, InstanceId, TenantName},
    policy::{Isolation, OnIdle, ScalingPolicy},
    principal::Principal,
    record::SessionRef,
};
use rand::{Rng, rngs::StdRng};
use tokio::time::Instant;

/// A session as its sealed id says.
#[derive(Clone)]
pub(crate) struct Session {
    pub(crate) about: SessionRef,
    pub(crate) principal: Principal,
    pub(crate) home: InstanceId,
}

/// A claim under way.
pub(crate) struct Pending {
    pub(crate) activator: ActivatorId,
    pub(crate) request: ClaimRequest,
    pub(crate) asked: Instant,
    /// The client has left.
    pub(crate) left: bool,
    pub(crate) answered: bool,
    /// Claimed again after its instance went away before it could be leased.
    pub(crate) tries: u32,
}

pub(crate) const NAMES: [&str; 3] = ["alpha", "beta", "gamma"];

pub(crate) fn name(of: usize) -> BackendName {
    BackendName::new(NAMES[of]).expect("a label")
}

pub(crate) fn principal(rng: &mut StdRng) -> Principal {
    let tenant = ["red", "green", "blue"][rng.random_range(0..3)];
    let subject = ["ann", "bob"][rng.random_range(0..2)];
    Principal::new("keys", TenantName::new(tenant).expect("a label"), subject)
}

pub(crate) fn backend(of: usize, generation: u64, rng: &mut StdRng) -> Backend {
    let isolation = [Isolation::Session, Isolation::Tenant, Isolation::Shared][of];
    let policy = ScalingPolicy {
        idle_timeout: Duration::from_millis(rng.random_range(0..3_000)),
        on_idle: if of == 2 {
            OnIdle::Expire
        } else {
            OnIdle::Revive
        },
        start_timeout: Duration::from_secs(2),
        hold_timeout: Duration::from_secs(5),
        max_slots: rng.random_range(2..8),
        drain_timeout: Duration::from_millis(rng.random_range(100..2_000)),
        ..ScalingPolicy::for_processes(isolation)
    };
    Backend {
        name: name(of),
        generation: Generation(generation),
        description: None,
        launch: LaunchSpec {
            image: None,
            port: None,
            pod: Arc::default(),
            command: vec!["server".into()],
            args: vec![],
            working_dir: None,
            env: vec![],
            transport: Transport::Stdio,
            path: "/mcp".into(),
            host: None,
            health_path: None,
        },
        policy: Arc::new(policy),
        tenants: vec![],
    }
}

pub(crate) fn catalog(rng: &mut StdRng) -> Catalog {
    let all = (0..NAMES.len()).map(|of| (name(of), Arc::new(backend(of, 1, rng))));
    Catalog {
        backends: all.collect(),
    }
}

pub(crate) fn ask(
    of: usize,
    principal: &Principal,
    purpose: Purpose,
    rng: &mut StdRng,
) -> ClaimRequest {
    let budget = match rng.random_range(0..10) {
        0 => Duration::from_millis(rng.random_range(1..200)),
        _ => Duration::from_secs(5),
    };
    ClaimRequest {
        id: ClaimId(rng.random()),
        backend: name(of),
        tenant: principal.tenant.clone(),
        principal: principal.id,
        purpose,
        budget,
    }
}
