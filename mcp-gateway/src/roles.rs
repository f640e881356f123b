//! The two roles that a gateway in a cluster is split into: [`activator`]s hold and forward what clients send,
//! [`autoscaler`]s start and stop pods, and one of these leads.
//!
//! Invariants: an activator needs neither the API server nor a leader for sessions whose pods run; an autoscaler that
//! does not lead touches no pod; nothing that runs ends because a role does.

pub(crate) mod activator;
pub(crate) mod autoscaler;
mod home;
mod peers;
mod replicas;
mod term;
