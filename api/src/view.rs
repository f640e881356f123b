//! What the data plane may know: instances and session records, as a snapshot followed by changes.
//!
//! Invariant: every event carries a [`Stamp`]; per instance a reader ignores events with a lower one. Absence from a
//! view means nothing until it is complete.

use std::{fmt, net::SocketAddr, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::{
    ids::{Generation, InstanceId, TenantName},
    record::SessionRecord,
    slot::SlotKey,
};

/// (epoch, sequence): orders everything the control plane says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Stamp {
    /// The leadership term.
    pub epoch: u64,
    /// Grows within a term.
    pub sequence: u64,
}

/// Where an instance is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reach {
    /// An HTTP server at an address.
    Tcp(SocketAddr),
    /// A bridge in this process, dialled by [`crate::endpoint::LocalDial`].
    InProcess,
}

/// An instance's endpoint: where, which path, which `Host`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Where.
    pub reach: Reach,
    /// The `Host` header to send.
    pub host: Arc<str>,
    /// The path of its MCP (or, for `sse`, SSE) endpoint.
    pub path: Arc<str>,
    /// What a bridge in a pod must be shown with each request ([`SECRET_HEADER`]), so that no neighbour uses it.
    pub secret: Option<InstanceSecret>,
}

impl Endpoint {
    /// Whether a bridge answers there: in this process, or in a pod, where bridges alone have a secret.
    #[must_use]
    pub fn is_bridge(&self) -> bool {
        self.reach == Reach::InProcess || self.secret.is_some()
    }
}

/// The request header that bears an instance's secret. A client's own is stripped at the edge, and the bridge strips it
/// before the server.
pub const SECRET_HEADER: &str = "x-mcp-gateway-instance";

/// An instance's secret: visible ASCII. `Debug` hides it.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct InstanceSecret(pub Arc<str>);

impl fmt::Debug for InstanceSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InstanceSecret(…)")
    }
}

/// Whether an instance may be leased.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Service {
    /// Leases may be taken.
    Open,
    /// No new lease; cancelled by demand (claim to get it back). Acknowledge with the count, again whenever it changes.
    IdleDrain,
    /// No new lease, not cancelled; exchanges of sessions move by revival. Acknowledge likewise.
    RetireDrain,
    /// As `RetireDrain`, and what is still open is cut now with a terminal event (deletion and shutdown, after
    /// `drainTimeout`).
    Cut,
}

/// A ready instance as the data plane sees it. Instances still starting are nobody's business here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceView {
    /// Which.
    pub id: InstanceId,
    /// Whose.
    pub slot: SlotKey,
    /// Whom it is charged to.
    pub tenant: TenantName,
    /// Of which text of the document.
    pub generation: Generation,
    /// Where.
    pub endpoint: Endpoint,
    /// Whether it may be leased.
    pub service: Service,
    /// When the control plane said so.
    pub stamp: Stamp,
}

/// One thing the control plane says.
#[derive(Debug, Clone)]
pub enum ViewEvent {
    /// All there is: replaces what was known. `complete` is false until a new leader has heard everybody.
    Snapshot {
        /// Orders it.
        stamp: Stamp,
        /// Whether absence means gone.
        complete: bool,
        /// Ready instances.
        instances: Vec<InstanceView>,
        /// Session records.
        records: Vec<Arc<SessionRecord>>,
    },
    /// A ready instance is new or changed.
    Instance(InstanceView),
    /// An instance is gone for good; its connections are to be dropped.
    Gone {
        /// Which.
        instance: InstanceId,
        /// A short safe sentence on why.
        why: Arc<str>,
        /// Orders it.
        stamp: Stamp,
    },
    /// A session record is new or changed.
    Record(Arc<SessionRecord>),
    /// A session record is no longer needed.
    Forget(crate::ids::SessionKey),
}

/// What is known of an instance id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lookup {
    /// It runs.
    Ready(InstanceView),
    /// It is gone for good.
    Gone,
    /// Nobody can say yet.
    Unknown,
}
