//! GET without a session: of servers that issue no ids, or of clients that forgot theirs.

use std::io;

use axum::{body::Body, http::Response};
use bytes::Bytes;
use mcp_gateway_api::failure::{Failure, FailureKind};
use tokio::time::sleep;

use super::{
    KEEP_ALIVE, Source,
    attached::{self, Asked, Attached, Passed, ask, pass_on},
    broken_off, event_stream,
    get::Ask,
    right::Right,
};
use crate::{caller::Caller, exchange::slots, gateway::Gateway};

/// A GET without a session id: the server's to answer if it happens to run; nothing wakes for it.
pub(super) async fn sessionless(
    gateway: Gateway,
    caller: &Caller,
    head: &http::request::Parts,
) -> Result<Response<Body>, Failure> {
    let none = || {
        Failure::new(
            FailureKind::Method,
            "There is no stream here without a session.",
        )
    };
    let slot = slots::slot_of(caller);
    let view = gateway
        .deps
        .directory
        .open_instance(&slot)
        .ok_or_else(none)?;
    let right = Right::of(&gateway, caller)?;
    let request = Ask::of(head, None).request(&view, None);
    match ask(&gateway, &view, request)
        .await
        .map_err(attached::lost)?
    {
        Asked::Stream(head, attached) => Ok(event_stream(
            Some(head),
            Plain {
                gateway,
                right,
                attached,
            },
        )),
        Asked::Refused(head, body) => pass_on(head, body).await,
    }
}

/// The stream of a server without sessions: passes until it ends.
struct Plain {
    gateway: Gateway,
    right: Right,
    attached: Box<Attached>,
}

impl Source for Plain {
    async fn next(&mut self) -> Option<io::Result<Bytes>> {
        loop {
            let boundary = self.attached.at_boundary();
            tokio::select! {
                biased;
                () = self.gateway.cut.cancelled() => return None,
                () = self.right.over() => return None,
                passed = self.attached.next() => match passed {
                    Passed::Bytes(bytes, _) => return Some(Ok(bytes)),
                    Passed::Ended | Passed::Lost => return (!boundary).then(|| Err(broken_off())),
                    Passed::Service(_) => {}
                },
                () = sleep(self.gateway.config.keep_alive), if boundary => return Some(Ok(KEEP_ALIVE)),
            }
        }
    }
}
