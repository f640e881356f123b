//! A stand-in for a document that is gone, for instances that outlived it.

use std::sync::Arc;

use mcp_gateway_api::{
    backend::{Backend, LaunchSpec, Transport},
    ids::{BackendName, Generation},
    policy::{Isolation, ScalingPolicy},
};

/// What is known of a backend whose document is gone.
pub(super) fn remnant(name: BackendName, generation: Generation) -> Backend {
    Backend {
        name,
        generation,
        description: None,
        launch: LaunchSpec {
            image: None,
            port: None,
            pod: Arc::default(),
            command: Vec::new(),
            args: Vec::new(),
            working_dir: None,
            env: Vec::new(),
            transport: Transport::StreamableHttp,
            path: String::new(),
            host: None,
            health_path: None,
        },
        policy: Arc::new(ScalingPolicy::for_pods(Isolation::Session)),
        tenants: Vec::new(),
    }
}
