//! The documents behind `serve --demo`: this very program as an MCP server, once on stdio and once on HTTP.

use anyhow::Context;
use mcp_gateway_control::{Reading, registry};

/// The reading of the demo's documents.
///
/// # Errors
/// The operating system does not say where this program is.
pub(crate) fn demo() -> anyhow::Result<Reading> {
    let program = std::env::current_exe().context("where this program is")?;
    // A JSON string is a YAML string, whatever is in the path.
    let program =
        serde_json::to_string(&program.to_string_lossy()).context("this program's path")?;
    Ok(registry::built_in("(built in).yaml", &documents(&program)))
}

fn documents(program: &str) -> String {
    format!(
        "apiVersion: mcp-gateway.dev/v1alpha1
kind: McpBackend
metadata: {{name: demo}}
spec:
  description: Built-in demo server on stdio, one instance for each session
  command: [{program}, demo-server]
  policy: {{idleTimeout: 15s}}
---
apiVersion: mcp-gateway.dev/v1alpha1
kind: McpBackend
metadata: {{name: demo-http}}
spec:
  description: Built-in demo server on streamable HTTP, one instance for each tenant
  command: [{program}, demo-server, --transport, http]
  transport: streamable-http
  policy: {{idleTimeout: 15s}}
"
    )
}

#[cfg(test)]
mod tests {
    use mcp_gateway_control::registry::{built_in, names};

    #[test]
    fn the_documents_are_in_order_wherever_the_program_is() {
        let reading = built_in(
            "x.yaml",
            &super::documents(r#""/a \"b\": {c}/mcp-gateway""#),
        );
        assert_eq!(names(&reading), ["demo", "demo-http"]);
        assert!(reading.refused.is_empty() && reading.warnings.is_empty());
    }
}
