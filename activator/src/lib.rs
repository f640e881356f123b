//! The data plane: one request from its arrival to its answer.
//!
//! 1. [`edge`]: Host, Origin, CORS. Nothing has been looked up yet.
//! 2. [`routes`] names the handler; [`caller`] refuses doubled headers, authenticates ([`auth`]) and finds the backend.
//! 3. [`body`] reads a POST's body, bounded in size and time; [`message`] and [`era`] say what it is.
//! 4. [`exchange`] has one file for each row of the table "What wakes, what counts" (ARCHITECTURE.md). A row
//!    decides whether the message wakes anything, and gets a [`lease`] on an instance: at once from the [`directory`] when one is ready (the warm walk: no lock across an await,
//!    no channel, no call), else by waiting in the [`hold`] for a claim.
//! 5. [`forward`] sends the client's bytes and follows the answer while it passes, untouched and unbuffered: the end of
//!    the answer ends the lease.
//!
//! Around them: [`session`] (sealed ids, handshakes, what counts), [`revive`] (a session that lost its instance),
//! [`streams`] and [`sse_transport`] (what stays open while nothing runs), [`memory`] (what is known of sleeping
//! servers), [`error`] (every failure on the wire), [`metrics`].
//!
//! The control plane is met in one place, [`mcp_gateway_api::scaler::Scaler`]. Nothing here starts or stops anything.

mod activator;
pub mod auth;
pub(crate) mod body;
pub(crate) mod caller;
pub mod config;
pub mod directory;
pub mod edge;
pub mod era;
pub mod error;
pub(crate) mod exchange;
pub(crate) mod forward;
pub mod gateway;
pub mod hold;
pub mod lease;
pub mod memory;
pub mod message;
pub(crate) mod metrics;
pub(crate) mod revive;
pub(crate) mod routes;
pub mod session;
pub mod sse;
pub(crate) mod sse_transport;
pub(crate) mod streams;
pub(crate) mod sweep;
pub(crate) mod trace;

pub use self::{activator::Activator, config::ActivatorConfig, gateway::Deps};
