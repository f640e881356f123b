//! (in the making)
use axum::{body::Body, http::{HeaderMap, Response}};
use mcp_gateway_api::failure::{Failure, FailureKind};
use crate::{caller::Caller, gateway::Gateway};
pub(crate) fn open(_gateway: &Gateway, _caller: &Caller, _headers: &HeaderMap) -> Result<Response<Body>, Failure> {
    Err(Failure::new(FailureKind::Internal, "Not yet."))
}
