//! Which of several autoscalers leads, and in which term.
//!
//! [`candidate`] decides, purely; [`elect`] acts on a Lease of Kubernetes (`coordination.k8s.io/v1`). The term's number
//! (the epoch that every order carries) is the lease's `leaseTransitions`: it grows by one in the very write that takes
//! the lease, which the API server accepts only if nobody wrote in between. So no two candidates ever lead in the same
//! term, whatever is delayed or lost.
//!
//! Invariants: a candidate that leads has had a write confirmed that was sent less than two thirds of the lease's
//! duration ago; it stands down by its own clock, connected or not, before anybody else may take over. One that has
//! stood down never leads again in the same term.

pub mod candidate;
#[cfg(feature = "lease")]
mod lease;

#[cfg(feature = "lease")]
pub use lease::{Election, LeaseConfig, elect};
