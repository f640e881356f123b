//! The control loop: claims, lifecycle, idleness, session records.
//!
//! [`core`] decides: a synchronous value without IO or clock. [`driver`] acts: one task that owns the core, feeds it
//! what happens and carries out what it says. Activators meet it in [`mcp_gateway_api::scaler::Scaler`], of which
//! [`InProcessScaler`] is the form for one process.
//!
//! Invariants, as absences: the core never does IO; nothing in service is ended that an activator may still lease
//! (deletion and shutdown cut openly, after their time); an instance that nobody knows is terminated, and
//! adopted only by a new leader whose runtime found it; a
//! claim is never left without an answer.

pub mod core;
pub mod driver;
pub mod leader;
pub mod metrics;
pub mod store;

pub use driver::{
    Autoscaler, AutoscalerConfig, AutoscalerHandle, InProcessScaler, Leftover, StartError, Takeover,
};
