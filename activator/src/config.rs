//! What the data plane is told at its start. Values only: whoever reads files and flags fills it in, and a value of
//! these types is valid. Nothing here changes while the gateway runs.

use std::{sync::Arc, time::Duration};

use mcp_gateway_api::ids::ActivatorId;

use crate::{
    edge::{hosts::HostRules, origins::OriginRules},
    hold::HoldBounds,
};

/// The data plane's settings. [`ActivatorConfig::default`] is a laptop's.
#[derive(Debug, Clone)]
pub struct ActivatorConfig {
    /// Which activator this is, in reports and acknowledgements.
    pub id: ActivatorId,
    /// Whether no other activator serves the same sessions. Only then is one that was quiet here quiet everywhere, and may be
    /// let go of by its `sessionIdleTimeout`.
    pub alone: bool,
    /// Which `Host` values are served.
    pub hosts: HostRules,
    /// Which `Origin` values are served; an absent one always is.
    pub origins: OriginRules,
    /// How clients reach the gateway (`https://mcp.example.com`), without a final slash; for URLs shown to people.
    pub public_url: Option<Arc<str>>,
    /// Largest request body, in bytes.
    pub max_body: usize,
    /// Most bytes of all request bodies in memory together, but for those in the hold, which has bounds of its own, and
    /// small ones (8 KiB).
    pub max_bodies: u64,
    /// How long a client may take to send a body.
    pub body_timeout: Duration,
    /// Most bytes of an `initialize` answer read before its result must have come.
    pub max_initialize_answer: usize,
    /// Silence on a legacy or listen stream after which a comment is sent.
    pub keep_alive: Duration,
    /// Most streams that one principal may have open: GET, listen and 2024-11-05 together.
    pub max_streams: usize,
    /// Bounds of everything that waits for an instance.
    pub hold: HoldBounds,
    /// Between two exchanges of a session that were held, at most: the second follows when the first is answered, or this
    /// long after it was written, so that a server which takes connections one by one also reads them in order.
    pub settle: Duration,
    /// How long to wait for word of an instance's end when it no longer takes connections. Longer than a busy kubelet
    /// takes to tell of a container's: it looks once a second, and nothing has been sent that waiting could spoil.
    pub lost_grace: Duration,
}

impl Default for ActivatorConfig {
    fn default() -> Self {
        Self {
            id: ActivatorId::random(),
            alone: true,
            hosts: HostRules::loopback(),
            origins: OriginRules::loopback(),
            public_url: None,
            max_body: 4 << 20,
            max_bodies: 256 << 20,
            body_timeout: Duration::from_secs(30),
            max_initialize_answer: 4 << 20,
            keep_alive: Duration::from_secs(15),
            max_streams: 4_096,
            hold: HoldBounds::default(),
            settle: Duration::from_millis(1),
            lost_grace: Duration::from_secs(5),
        }
    }
}
