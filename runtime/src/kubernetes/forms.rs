//! How the agent gets into a pod: the rule. Pure.

use mcp_gateway_api::backend::{AgentForm, LaunchSpec, Transport};
use serde::{Deserialize, Serialize};

/// A form that was chosen; [`AgentForm`] without `Auto`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Form {
    /// The image's entry point is the agent.
    Embedded,
    /// A second container.
    Sidecar,
    /// The agent's image, mounted.
    ImageVolume,
    /// Copied by a container beside the server that starts first.
    Init,
    /// No agent.
    None,
}

impl Form {
    /// As it is written in documents and in the agent's environment.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Embedded => "embedded",
            Self::Sidecar => "sidecar",
            Self::ImageVolume => "imageVolume",
            Self::Init => "init",
            Self::None => "none",
        }
    }

    /// Whether an agent runs the server, so that it knows how the server ended.
    pub(crate) const fn supervises(self) -> bool {
        match self {
            Self::Embedded | Self::ImageVolume | Self::Init => true,
            Self::Sidecar | Self::None => false,
        }
    }
}

/// What this installation and this cluster can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Abilities {
    /// The agent's image is known.
    pub agent_image: bool,
    /// Images can be mounted as volumes.
    pub image_volumes: bool,
}

/// Chooses the form.
///
/// # Errors
/// A sentence that names the field and the remedy.
pub fn choose(spec: &LaunchSpec, can: Abilities) -> Result<Form, String> {
    if spec.image.is_none() {
        return Err(
            "it has no `image`, so no pod can be made of it: name one in `spec.image`".into(),
        );
    }
    let stdio = spec.transport == Transport::Stdio;
    let form = match spec.pod.agent {
        AgentForm::Auto if stdio && can.image_volumes => Form::ImageVolume,
        AgentForm::Auto if stdio => Form::Init,
        AgentForm::Auto if can.agent_image => Form::Sidecar,
        AgentForm::Auto | AgentForm::None => Form::None,
        AgentForm::Embedded => Form::Embedded,
        AgentForm::Sidecar => Form::Sidecar,
        AgentForm::ImageVolume => Form::ImageVolume,
        AgentForm::Init => Form::Init,
    };
    let label = form.label();
    match form {
        Form::Sidecar | Form::None if stdio => Err(format!(
            "`agent: {label}` cannot reach a stdio server, which speaks over pipes: use embedded, imageVolume or init"
        )),
        Form::ImageVolume | Form::Init if spec.command.is_empty() => Err(format!(
            "`agent: {label}` starts the server itself, and the image's own entry point cannot be known: write the \
             program in `spec.command`, or put the agent into the image and use `agent: embedded`"
        )),
        Form::Sidecar | Form::ImageVolume | Form::Init if !can.agent_image => Err(format!(
            "`agent: {label}` needs the agent's image: start the gateway with --agent-image"
        )),
        Form::ImageVolume if !can.image_volumes => Err(
            "`agent: imageVolume` needs Kubernetes 1.35 or later, and containerd 2.1 or later on its nodes: use init".into(),
        ),
        Form::Embedded | Form::Sidecar | Form::ImageVolume | Form::Init | Form::None => Ok(form),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use mcp_gateway_api::backend::PodOptions;

    use super::*;

    const ALL: Abilities = Abilities {
        agent_image: true,
        image_volumes: true,
    };

    fn spec(transport: Transport, agent: AgentForm, command: &[&str]) -> LaunchSpec {
        LaunchSpec {
            image: Some("localhost/x:1".into()),
            port: None,
            pod: Arc::new(PodOptions {
                agent,
                ..PodOptions::default()
            }),
            command: command.iter().map(ToString::to_string).collect(),
            args: Vec::new(),
            working_dir: None,
            env: Vec::new(),
            transport,
            path: "/mcp".into(),
            host: None,
            health_path: None,
        }
    }

    #[test]
    fn auto_is_a_sidecar_for_http_and_a_volume_for_stdio_where_there_are_any() {
        let http = spec(Transport::StreamableHttp, AgentForm::Auto, &[]);
        let stdio = spec(Transport::Stdio, AgentForm::Auto, &["server"]);
        assert_eq!(choose(&http, ALL), Ok(Form::Sidecar));
        assert_eq!(choose(&stdio, ALL), Ok(Form::ImageVolume));
        let old = Abilities {
            image_volumes: false,
            ..ALL
        };
        assert_eq!(choose(&stdio, old), Ok(Form::Init));
        let bare = Abilities {
            agent_image: false,
            ..ALL
        };
        assert_eq!(choose(&http, bare), Ok(Form::None));
        assert!(choose(&stdio, bare).unwrap_err().contains("--agent-image"));
    }

    #[test]
    fn what_cannot_work_is_refused_with_its_remedy() {
        for (transport, agent, command, word) in [
            (Transport::Stdio, AgentForm::Sidecar, &["x"][..], "embedded"),
            (Transport::Stdio, AgentForm::None, &["x"], "embedded"),
            (
                Transport::StreamableHttp,
                AgentForm::ImageVolume,
                &[],
                "spec.command",
            ),
            (Transport::Sse, AgentForm::Init, &[], "spec.command"),
        ] {
            let refused = choose(&spec(transport, agent, command), ALL).unwrap_err();
            assert!(refused.contains(word), "{refused}");
        }
        let mut nameless = spec(Transport::Sse, AgentForm::None, &[]);
        nameless.image = None;
        assert!(choose(&nameless, ALL).unwrap_err().contains("spec.image"));
    }

    #[test]
    fn a_form_is_written_as_documents_write_it() {
        for form in [
            Form::Embedded,
            Form::Sidecar,
            Form::ImageVolume,
            Form::Init,
            Form::None,
        ] {
            assert_eq!(serde_json::to_value(form).unwrap(), form.label());
        }
    }
}
