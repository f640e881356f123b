//! The registry of a cluster, on a real API server: `MCP_GATEWAY_TEST_KUBECONFIG` names its kubeconfig. Without it these
//! tests say that they are skipped; under CI that is a failure. Each works in a namespace of its own.

#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    clippy::too_many_lines,
    reason = "tests: a failed unwrap is a failed test, a skipped one must be seen, and a table is long"
)]

#[path = "cluster/support.rs"]
mod support;

#[path = "cluster/definitions.rs"]
mod definitions;
#[path = "cluster/registry.rs"]
mod registry;
