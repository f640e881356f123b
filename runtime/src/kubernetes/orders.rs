//! What an agent is told, once in its life. Pure.
//!
//! Invariant: nothing secret is in it but the secret of its own bridge; secrets of the server reach its environment by
//! the kubelet, never through here.

use std::{collections::HashMap, time::Duration};

use mcp_gateway_api::backend::{LaunchSpec, Transport};
use mcp_gateway_link::agent;

use super::{forms::Form, names::Facts};

/// What the agent is told, once.
pub(crate) fn orders(
    launch: &LaunchSpec,
    start_timeout: Duration,
    facts: &Facts,
    secret: Option<&str>,
    max_body: usize,
) -> agent::Orders {
    let watches = facts.form == Form::Sidecar;
    let words = |words: &[String]| if watches { Vec::new() } else { words.to_vec() };
    let dir = launch
        .working_dir
        .as_ref()
        .map(|dir| dir.display().to_string());
    agent::Orders {
        backend: facts.slot.backend.to_string(),
        transport: match launch.transport {
            Transport::Stdio => agent::Transport::Stdio,
            Transport::StreamableHttp => agent::Transport::StreamableHttp,
            Transport::Sse => agent::Transport::Sse,
        }
        .into(),
        command: words(&launch.command),
        args: words(&launch.args),
        working_dir: dir.unwrap_or_default(),
        env: HashMap::new(),
        port: facts.port.into(),
        path: facts.path.clone(),
        host: facts.host.clone(),
        health_path: facts.health_path.clone().unwrap_or_default(),
        start_timeout_ms: u64::try_from(start_timeout.as_millis()).unwrap_or(u64::MAX),
        instance_secret: secret.unwrap_or_default().to_owned(),
        max_body: max_body as u64,
    }
}
