//! The backends under test, as documents. JSON is YAML.

use serde_json::{Value, json};

use crate::tools::Tools;

/// The gateway's own binary, which is the demo server too.
pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_mcp-gateway");

/// One `McpBackend` document.
#[derive(Clone)]
pub(crate) struct Backend {
    pub(crate) name: String,
    spec: Value,
}

impl Backend {
    /// A backend started by `command`.
    pub(crate) fn new(name: &str, transport: &str, command: &[&str]) -> Self {
        let spec = json!({"command": command, "transport": transport, "policy": {}});
        Self {
            name: name.to_owned(),
            spec,
        }
    }

    /// A backend of pods from `image`.
    pub(crate) fn image(name: &str, transport: &str, image: &str) -> Self {
        let spec = json!({"image": image, "transport": transport, "policy": {}});
        Self {
            name: name.to_owned(),
            spec,
        }
    }

    /// The demo server over `stdio` or `streamable-http`.
    pub(crate) fn demo(name: &str, transport: &str) -> Self {
        let over = if transport == "stdio" {
            "stdio"
        } else {
            "http"
        };
        Self::new(
            name,
            transport,
            &[BINARY, "demo-server", "--transport", over],
        )
    }

    /// The conformance fixture.
    pub(crate) fn fixture(name: &str, tools: &Tools) -> Self {
        Self::new(
            name,
            "streamable-http",
            &[tools.path("PY2"), tools.path("FIXTURE")],
        )
    }

    /// A field of its policy.
    pub(crate) fn policy(mut self, field: &str, value: impl Into<Value>) -> Self {
        self.spec["policy"][field] = value.into();
        self
    }

    /// A field of its spec.
    pub(crate) fn spec(mut self, field: &str, value: impl Into<Value>) -> Self {
        self.spec[field] = value.into();
        self
    }

    /// The whole document.
    pub(crate) fn document(&self) -> String {
        let document = json!({
            "apiVersion": "mcp-gateway.dev/v1alpha1",
            "kind": "McpBackend",
            "metadata": {"name": self.name},
            "spec": self.spec,
        });
        format!("---\n{document}\n")
    }
}
