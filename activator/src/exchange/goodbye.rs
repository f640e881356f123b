//! Goodbyes: a server is told (DELETE) that nobody will use a session of it any more, so that a busy instance does not
//! collect them. Best effort: one try, under a lease, and not for long. Never: ends what a client may still use.

use std::{sync::Arc, time::Duration};

use axum::http::{HeaderMap, Method};
use bytes::Bytes;
use mcp_gateway_api::ids::UpstreamSession;
use tokio::time::Instant;

use crate::{
    forward::{self, Outbound, answer::Answer},
    gateway::Gateway,
    lease::Lease,
    message::Message,
    metrics::Operation,
};

/// Longest goodbye to a server.
const GOODBYE: Duration = Duration::from_secs(10);

/// Says goodbye without keeping anybody waiting.
pub(crate) fn say(gateway: &Gateway, lease: Lease, session: UpstreamSession) {
    // A guard may be dropped when the runtime is gone, and the instances with it.
    if tokio::runtime::Handle::try_current().is_ok() {
        let gateway_ = gateway.clone();
        let work = async move { goodbye(&gateway_, lease, &session).await };
        gateway.tasks.spawn(work);
    }
}

async fn goodbye(gateway: &Gateway, lease: Lease, session: &UpstreamSession) {
    let headers = HeaderMap::new();
    let answer = Answer {
        lease,
        message: Arc::new(Message::Batch(Vec::new())),
        begun: None,
        unclaimed: None,
        deadline: Instant::now() + GOODBYE,
        outlives: false,
        news: Vec::new(),
        operation: Operation::begin(None, Instant::now()),
    };
    let outbound = Outbound {
        method: Method::DELETE,
        headers: &headers,
        query: None,
        body: Bytes::new(),
        session: Some(session),
        owner: None,
        turn: None,
    };
    if let Err(undelivered) = forward::send(gateway, outbound, answer).await {
        tracing::debug!(?undelivered, "a server did not hear the goodbye");
    }
}

/// A session that a server may have issued and that no client has yet: dropped so, its server hears a goodbye.
pub(crate) struct Unclaimed {
    gateway: Gateway,
    lease: Lease,
    issued: Option<UpstreamSession>,
}

impl Unclaimed {
    /// Nothing is issued yet; its instance is kept for it until `ends`.
    pub(crate) fn new(gateway: &Gateway, lease: &Lease, ends: Instant) -> Self {
        let mut lease = lease.another();
        lease.until(ends);
        Self {
            gateway: gateway.clone(),
            lease,
            issued: None,
        }
    }

    /// The server issued this.
    pub(crate) fn issued(&mut self, session: UpstreamSession) {
        self.issued = Some(session);
    }

    /// A client has it now.
    pub(crate) fn claimed(mut self) {
        self.issued = None;
    }
}

impl Drop for Unclaimed {
    fn drop(&mut self) {
        if let Some(session) = self.issued.take() {
            say(&self.gateway, self.lease.another(), session);
        }
    }
}
