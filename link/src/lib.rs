//! What the parts of the gateway say to each other over a network.
//!
//! [`agent`] is the protocol between an agent in a pod and the autoscaler, [`scaler`] the network form of
//! [`mcp_gateway_api::scaler::Scaler`]. Both are gRPC, so that a newer side may add fields and an older one ignore them:
//! agents outlive upgrades. Nothing is decided here.

pub mod authority;
pub mod convert;
pub mod protocol;
pub mod remote;
pub mod server;
pub mod token;

/// Messages between an agent and the autoscaler (`proto/agent.proto`).
#[expect(
    missing_docs,
    clippy::all,
    clippy::clone_on_ref_ptr,
    clippy::doc_markdown,
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    reason = "generated; the comments are in proto/agent.proto"
)]
pub mod agent {
    tonic::include_proto!("mcp_gateway.agent.v1");
}

/// Messages between an activator and the autoscaler (`proto/scaler.proto`).
#[expect(
    missing_docs,
    clippy::all,
    clippy::too_many_lines,
    clippy::clone_on_ref_ptr,
    clippy::doc_markdown,
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    reason = "generated; the comments are in proto/scaler.proto"
)]
pub mod scaler {
    tonic::include_proto!("mcp_gateway.scaler.v1");
}

pub use authority::{ACTIVATOR_NAME, AUTOSCALER_NAME, Authority, HOME_NAME};
pub use remote::{RemoteConfig, RemoteScaler};
pub use server::{Lead, ScalerServer};
