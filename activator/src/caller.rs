//! Who asks for which backend: settled before a session is looked up and before anything wakes.

use axum::{
    extract::{FromRequestParts, Path},
    http::request::Parts,
};
use mcp_gateway_api::{
    backend::Backend,
    failure::{Failure, FailureKind},
    ids::BackendName,
    principal::Principal,
};
use std::sync::Arc;

use crate::{edge::headers, error::Refusal, gateway::Gateway};

/// A caller that may use a backend.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    /// Who.
    pub(crate) principal: Principal,
    /// Which backend, as it is now.
    pub(crate) backend: Arc<Backend>,
}

impl FromRequestParts<Gateway> for Caller {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, gateway: &Gateway) -> Result<Self, Refusal> {
        let named = Path::<String>::from_request_parts(parts, gateway).await;
        let named = named
            .ok()
            .and_then(|Path(name)| BackendName::new(&name).ok());
        identify(gateway, &parts.headers, named.as_ref()).map_err(Refusal::from)
    }
}

fn identify(
    gateway: &Gateway,
    headers: &http::HeaderMap,
    named: Option<&BackendName>,
) -> Result<Caller, Failure> {
    headers::refuse_duplicates(headers)?;
    let principal = gateway.deps.auth.authenticate(headers)?;
    if gateway.closing.is_cancelled() {
        return Err(Failure::new(
            FailureKind::ShuttingDown,
            "The gateway is shutting down.",
        ));
    }
    let backend = named.and_then(|name| gateway.deps.catalog.borrow().get(name).map(Arc::clone));
    let backend = backend.ok_or_else(|| {
        Failure::new(
            FailureKind::UnknownBackend,
            "There is no backend of that name here.",
        )
    })?;
    if backend.admits(&principal.tenant) {
        Ok(Caller { principal, backend })
    } else {
        Err(Failure::new(
            FailureKind::Forbidden,
            "Your tenant may not use this backend.",
        ))
    }
}
