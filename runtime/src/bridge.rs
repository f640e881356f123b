//! Serves stdio children as one HTTP MCP server.
