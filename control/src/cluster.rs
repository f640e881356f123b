//! What exists in a cluster: the documents of one namespace, followed on its API server.
//!
//! An object's `spec` is read by the parser of the files, so that a mistake gets the same sentence; the sentence goes to
//! the object's conditions and to its events. Modules, in reading order:
//!
//! 1. [`objects`]: what the API server says there is, one parse per edit (pure);
//! 2. [`status`]: what each object's status should say (pure);
//! 3. [`watch`], [`references`], [`older`], [`writer`]: those that speak with the API server;
//! 4. [`registry`]: joins them.
//!
//! Invariants: nothing is published before every kind has been listed once, so that no backend is missing only because
//! its policy came later; an API server that is away, or that has lost our definitions, takes nothing down; only one
//! gateway (the leader) writes; an object that is being deleted goes when no instance of it is left, and not before.

pub mod definitions;
pub mod objects;
pub mod older;
pub mod references;
pub mod registry;
pub mod status;
pub mod watch;
pub mod writer;

pub use registry::{ClusterConfig, ClusterRegistry, Owners};
pub use status::BackendReport;
pub use writer::Writing;

#[cfg(test)]
mod tests;
