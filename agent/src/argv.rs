//! What the command line asks for. Pure.
//!
//! In an image that embeds the agent its entry point is the agent and its `CMD` the server's command: so anything that
//! is none of our few words is somebody else's command line, taken as it is.

/// For `--help`.
pub(crate) const HELP: &str = "\
The process of mcp-gateway inside a pod: calls home, runs the MCP server it is ordered to, bridges stdio to HTTP.

  mcp-gateway-agent [COMMAND ARGS...]   serve, as the pod's environment (MCP_GATEWAY_AGENT_*) says; COMMAND is the
                                        server of an image that embeds the agent, where the document names none
  mcp-gateway-agent lend DIR            put this program into DIR and stay until told to end
  mcp-gateway-agent lent DIR            return once that has been done
  mcp-gateway-agent --version | --help
";

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Invocation {
    /// Call home and serve; with the image's own command.
    Serve(Vec<String>),
    /// Copy this program into a folder, and stay.
    Lend(String),
    /// Wait for that copy.
    Lent(String),
    /// Say the version.
    Version,
    /// Say how it is used.
    Help,
    /// Cannot be meant.
    Misused(&'static str),
}

/// Reads the arguments, without the program's own name.
pub(crate) fn read(args: Vec<String>) -> Invocation {
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["--version"] => Invocation::Version,
        ["--help" | "-h"] => Invocation::Help,
        ["lend", dir] => Invocation::Lend((*dir).to_owned()),
        ["lent", dir] => Invocation::Lent((*dir).to_owned()),
        ["lend" | "lent", ..] => Invocation::Misused("lend and lent take one folder"),
        _ => Invocation::Serve(args),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(words: &[&str]) -> Invocation {
        read(words.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn our_words_are_known_and_all_else_is_the_servers_command() {
        assert_eq!(of(&[]), Invocation::Serve(Vec::new()));
        assert_eq!(of(&["--version"]), Invocation::Version);
        assert_eq!(of(&["--help"]), Invocation::Help);
        assert_eq!(of(&["lend", "/x"]), Invocation::Lend("/x".into()));
        assert_eq!(of(&["lent", "/x"]), Invocation::Lent("/x".into()));
        assert!(matches!(of(&["lend"]), Invocation::Misused(_)));
        let server = ["node", "server.js", "--help"];
        assert_eq!(
            of(&server),
            Invocation::Serve(server.map(String::from).into())
        );
    }
}
