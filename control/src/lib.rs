//! What exists: the registry of backends, read from files or from the API server of a cluster.
//!
//! From bytes to catalog in four steps, each its own module:
//!
//! 1. [`source`] reads files and folders (the only module that touches the disk);
//! 2. [`yaml`] and [`servers`] turn the text of one file into drafts and problems;
//! 3. [`register`] remembers the last good form of everything and joins drafts and policies into a `Catalog`;
//! 4. [`registry`] watches, repeats the three on every change, and publishes.
//!
//! In a cluster [`cluster`] watches the API server instead of files; steps 2 and 3 are the same.
//!
//! Steps 2 and 3 are pure. Invariants: one bad document never takes a good one down; a document edited to something
//! bad keeps its last good form; every problem names its file, line, field and remedy; whatever is not understood is
//! refused, never silently accepted. This crate never starts anything and never resolves a secret.

pub mod cluster;
pub mod document;
pub mod place;
pub mod problem;
pub mod register;
pub mod registry;
pub mod servers;
pub mod source;
pub mod yaml;

mod draft;
mod generation;
mod json;
mod later;
mod publish;
mod split;

pub use cluster::{ClusterConfig, ClusterRegistry};
pub use draft::{Draft, Item, PolicyChoice, Reading};
pub use place::Place;
pub use problem::{Problem, Problems, Severity};
pub use registry::{Registry, RegistryError};
