//! Who asks for which backend: settled before a session is looked up and before anything wakes.

use axum::{
    extract::{FromRequestParts, Path},
    http::{Method, request::Parts},
};
use mcp_gateway_api::{
    backend::Backend,
    failure::{Failure, FailureKind},
    ids::BackendName,
    principal::Principal,
};
use std::sync::Arc;

use crate::{edge::headers, error::Refusal, forward::shutting_down, gateway::Gateway};

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
        let caller = identify(gateway, &parts.headers, named.as_ref())?;
        // A new stream would only be cut again; what ends an exchange or answers its server may still come.
        if parts.method == Method::GET && gateway.closing.is_cancelled() {
            return Err(shutting_down().into());
        }
        Ok(caller)
    }
}

fn identify(
    gateway: &Gateway,
    headers: &http::HeaderMap,
    named: Option<&BackendName>,
) -> Result<Caller, Failure> {
    headers::refuse_duplicates(headers)?;
    let principal = gateway.deps.auth.authenticate(headers)?;
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
