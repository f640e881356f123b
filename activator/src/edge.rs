//! The edge: what is decided about a request before anybody asks who sent it.
//!
//! Host, then Origin, then CORS preflight; then headers that may stand only once. Whatever is refused here has woken
//! nothing, looked nothing up and read no body. What may be passed on, in either direction, is [`headers`]' business.

pub mod cors;
pub mod headers;
pub mod hosts;
pub mod origins;
#[cfg(test)]
mod tests;

use axum::{
    extract::{Request, State},
    http::{HeaderMap, Uri, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use mcp_gateway_api::failure::{Failure, FailureKind};

use self::{hosts::HostRules, origins::OriginRules};
use crate::{
    error::{MethodRefused, Refusal},
    gateway::Gateway,
    routes,
};

/// The edge as the one layer in front of every route.
pub(crate) async fn guard(
    State(gateway): State<Gateway>,
    request: Request,
    next: Next,
) -> Response {
    let origin = request.headers().get(header::ORIGIN).cloned();
    let config = gateway.config();
    let verdict = check(
        request.uri(),
        request.headers(),
        &config.hosts,
        &config.origins,
    );
    let (mut response, allowed) = match verdict {
        Err(failure) => {
            // The origin is told why only if it is an allowed one (a wrong Host from a right page).
            let known = origin.as_ref().is_some_and(|o| config.origins.admit(o));
            (Refusal::from(failure).into_response(), known)
        }
        Ok(()) if cors::is_preflight(request.method(), request.headers()) => {
            return cors::preflight(request.headers());
        }
        Ok(()) => {
            let uri = request.uri().clone();
            let in_session = request.headers().contains_key(headers::SESSION_ID);
            let mut response = next.run(request).await;
            let refused = response.extensions().get::<MethodRefused>().is_some();
            if refused && !response.headers().contains_key(header::ALLOW) {
                let allow = routes::allow(&gateway, &uri, in_session);
                response.headers_mut().insert(header::ALLOW, allow);
            }
            (response, true)
        }
    };
    if let Some(origin) = origin.filter(|_| allowed) {
        cors::decorate(response.headers_mut(), origin);
    }
    response
}

/// Checks Host and Origin.
///
/// # Errors
/// `BadRequest` without a usable Host, `Forbidden` for a strange Host or Origin.
pub fn check(
    uri: &Uri,
    headers: &HeaderMap,
    hosts: &HostRules,
    origins: &OriginRules,
) -> Result<(), Failure> {
    let mut named = headers.get_all(header::HOST).iter();
    // HTTP/2 says it in `:authority`.
    let host = named.next().map(http::HeaderValue::as_bytes).or_else(|| {
        uri.authority()
            .map(|authority| authority.as_str().as_bytes())
    });
    let Some(host) = host.filter(|_| named.next().is_none()) else {
        return Err(Failure::new(
            FailureKind::BadRequest,
            "A request must name exactly one Host.",
        ));
    };
    if !hosts.admit(host) {
        return Err(Failure::new(
            FailureKind::Forbidden,
            "This gateway is not served under that Host. Its operator can allow it with --allowed-host.",
        ));
    }
    check_origin(headers, origins)
}

/// Checks Origin alone.
///
/// # Errors
/// `Forbidden` for a strange one.
pub fn check_origin(headers: &HeaderMap, origins: &OriginRules) -> Result<(), Failure> {
    let mut given = headers.get_all(header::ORIGIN).iter();
    if given.all(|origin| origins.admit(origin)) {
        Ok(())
    } else {
        Err(Failure::new(
            FailureKind::Forbidden,
            "Pages of that Origin may not use this gateway. Its operator can allow it with --allowed-origin.",
        ))
    }
}
