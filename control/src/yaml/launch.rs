//! What fields of an `McpBackend` say together: its draft, or what is wrong with it. Pure.
//!
//! A document is held to the rules of pods wherever it is read, so that one tried on a laptop is good in a cluster; what
//! depends on where servers run is only what must be there, and where values may come from.

use std::{path::Path, sync::Arc};

use mcp_gateway_api::{
    backend::{AgentForm, EnvValue, EnvVar, KeyRef, LaunchSpec, PodOptions, Transport},
    ids::BackendName,
};
use serde_saphyr::{Location, Spanned};

use super::{Context, explain::short, pod};
use crate::{
    document::{BackendSpec, EnvEntry, KeySelector, ValueFrom},
    draft::{Draft, PolicyChoice},
    place::Place,
    problem::Problem,
};

/// What to write where there is no command.
const COMMAND: &str = "say what to run, such as 'command: [npx, -y, some-mcp-server]'";
/// What to write where there is no image.
const IMAGE: &str = "servers run as pods here: name the image that holds the server, such as 'image: ghcr.io/example/server:v1'";
/// What names of variables the agent keeps for itself.
const AGENT_PREFIX: &str = "MCP_GATEWAY_AGENT_";

impl Context<'_> {
    pub(super) fn draft(
        &self,
        name: BackendName,
        spec: &Spanned<BackendSpec>,
    ) -> Result<Draft, Problem> {
        let at = spec.referenced;
        let spec = &spec.value;
        let command = self.command(spec, at)?;
        let transport = match spec.transport {
            Some(given) => given,
            None if command.is_empty() => Transport::StreamableHttp,
            None => Transport::Stdio,
        };
        if transport == Transport::Stdio {
            self.nothing_of_http(spec)?;
        }
        self.form(spec, transport, &command)?;
        let options = self.options(spec)?;
        let image = spec.image.as_ref().map(|image| image.value.0.clone());
        let port = spec.port.as_ref().map(|port| port.value.0);
        // A process has none of these, and its generation must not change with them.
        let (image, port, options) = match self.place {
            Place::Process => (None, None, PodOptions::default()),
            Place::Pod => (image, port, options),
        };
        let path = spec.path.as_ref().map(|path| path.value.0.clone());
        let health = spec.health_check.as_ref();
        let launch = LaunchSpec {
            image,
            port,
            pod: Arc::new(options),
            command,
            args: spec.args.clone().unwrap_or_default(),
            working_dir: self.working_dir(spec)?,
            env: self.env(spec, transport)?,
            transport,
            path: path.unwrap_or_else(|| usual_path(transport).to_owned()),
            host: spec.host.as_ref().map(|host| host.value.0.clone()),
            health_path: health.map(|check| check.value.path.0.clone()),
        };
        Ok(Draft {
            name,
            line: self.part.begins,
            place: self.place,
            description: spec.description.clone(),
            launch,
            policy: self.policy_choice(spec)?,
            tenants: spec.tenants.clone().unwrap_or_default(),
        })
    }

    /// The command, empty where the image's own is meant.
    fn command(&self, spec: &BackendSpec, at: Location) -> Result<Vec<String>, Problem> {
        if let Some(command) = &spec.command {
            let program = command.value.first();
            if program.is_none_or(|program| program.trim().is_empty()) {
                let problem = self.located(command.referenced, "the command is empty");
                return Err(problem.field("spec.command").remedy(COMMAND));
            }
        }
        let problem = match (self.place, &spec.command, &spec.image) {
            (Place::Process, Some(_), _) | (Place::Pod, _, Some(_)) => {
                return Ok(spec
                    .command
                    .as_ref()
                    .map(|command| command.value.clone())
                    .unwrap_or_default());
            }
            (Place::Process, None, None) => self
                .located(at, "there is no command")
                .field("spec.command")
                .remedy(COMMAND),
            (Place::Process, None, Some(image)) => self
                .located(image.referenced, "an image needs a cluster, and servers run as processes here")
                .field("spec.image")
                .remedy("add what to run on this machine, such as 'command: [npx, -y, some-mcp-server]', or run the gateway with --kubernetes"),
            (Place::Pod, _, None) => self
                .located(at, "there is no image")
                .field("spec.image")
                .remedy(IMAGE),
        };
        Err(problem)
    }

    /// A stdio server has no port, path, host or probe.
    fn nothing_of_http(&self, spec: &BackendSpec) -> Result<(), Problem> {
        let given = [
            ("port", spec.port.as_ref().map(|f| f.referenced)),
            ("path", spec.path.as_ref().map(|f| f.referenced)),
            ("host", spec.host.as_ref().map(|f| f.referenced)),
            (
                "healthCheck",
                spec.health_check.as_ref().map(|f| f.referenced),
            ),
        ];
        match given
            .into_iter()
            .find_map(|(name, at)| at.map(|at| (name, at)))
        {
            None => Ok(()),
            Some((name, at)) => Err(self
                .located(at, format!("a stdio server has no {name}"))
                .field(format!("spec.{name}"))
                .remedy("remove it, or write 'transport: streamable-http' or 'transport: sse'")),
        }
    }

    /// Whether the agent can get into a pod of this kind.
    fn form(
        &self,
        spec: &BackendSpec,
        transport: Transport,
        command: &[String],
    ) -> Result<(), Problem> {
        let (form, at) = match &spec.agent {
            Some(agent) => (agent.value, agent.referenced),
            None => (
                AgentForm::Auto,
                spec.image
                    .as_ref()
                    .map_or(Location::UNKNOWN, |image| image.referenced),
            ),
        };
        let stdio = transport == Transport::Stdio;
        let (message, remedy) = match form {
            AgentForm::Sidecar | AgentForm::None if stdio => (
                "a stdio server needs the agent in its own container, to speak with it",
                "write 'agent: auto' with a command, or 'agent: embedded' for an image that holds the agent",
            ),
            AgentForm::ImageVolume | AgentForm::Init if command.is_empty() => (
                "this form runs the server itself, and there is no command",
                "say what to run in spec.command; the image's own entry point is not known to the gateway",
            ),
            AgentForm::Auto if stdio && command.is_empty() => (
                "a stdio server needs a command in a pod",
                "say what to run in spec.command, or write 'agent: embedded' for an image that holds the agent",
            ),
            AgentForm::Auto
            | AgentForm::Embedded
            | AgentForm::Sidecar
            | AgentForm::None
            | AgentForm::ImageVolume
            | AgentForm::Init => return Ok(()),
        };
        Err(self.located(at, message).field("spec.agent").remedy(remedy))
    }

    fn options(&self, spec: &BackendSpec) -> Result<PodOptions, Problem> {
        pod::options(spec).map_err(|wrong| {
            let place = if wrong.field.starts_with("spec.resources") {
                spec.resources.as_ref().map(|field| field.referenced)
            } else {
                spec.pod.as_ref().map(|field| field.referenced)
            };
            self.located(place.unwrap_or(Location::UNKNOWN), wrong.message)
                .field(wrong.field)
                .remedy(wrong.remedy)
        })
    }

    fn working_dir(&self, spec: &BackendSpec) -> Result<Option<std::path::PathBuf>, Problem> {
        let Some(dir) = &spec.working_dir else {
            return Ok(None);
        };
        let wrong = |message: &str, remedy: &str| {
            self.located(dir.referenced, message)
                .field("spec.workingDir")
                .remedy(remedy)
        };
        if dir.value.is_empty() || dir.value.contains('\0') {
            let remedy = "write a path, relative to the folder of this file";
            return Err(wrong("not a folder", remedy));
        }
        match self.place {
            Place::Process => {
                let folder = self.file.parent().unwrap_or(Path::new("."));
                Ok(Some(folder.join(&dir.value)))
            }
            Place::Pod if matches!(dir.value.as_str(), "." | "./") => Ok(None),
            Place::Pod if dir.value.starts_with('/') => Ok(Some(dir.value.clone().into())),
            Place::Pod => Err(wrong(
                "a pod has no folder that this could be relative to",
                "write a path within the image that begins with '/', or '.' for the image's own",
            )),
        }
    }

    fn env(&self, spec: &BackendSpec, transport: Transport) -> Result<Vec<EnvVar>, Problem> {
        let mut vars: Vec<EnvVar> = Vec::new();
        for (index, entry) in spec.env.iter().flatten().enumerate() {
            let wrong = |message: String, remedy: &str| {
                self.located(entry.referenced, message)
                    .field(format!("spec.env[{index}]"))
                    .remedy(remedy)
            };
            let name = &entry.value.name.0;
            let value = self
                .value(&entry.value)
                .map_err(|(message, remedy)| wrong(message, remedy))?;
            if vars.iter().any(|var| var.name == *name) {
                return Err(wrong(format!("{name} is set twice"), "remove one"));
            }
            if name == "PORT" && transport != Transport::Stdio {
                return Err(wrong(
                    "PORT is the gateway's to choose".to_owned(),
                    "remove it; the server gets its port as $PORT and as ${PORT} in command and args",
                ));
            }
            if name.starts_with(AGENT_PREFIX) {
                let message = format!("{} is the gateway's own", short(name));
                return Err(wrong(message, "rename it"));
            }
            vars.push(EnvVar {
                name: name.clone(),
                value,
            });
        }
        Ok(vars)
    }

    /// Where the value of a variable comes from, or what is wrong and what to do.
    fn value(&self, entry: &EnvEntry) -> Result<EnvValue, (String, &'static str)> {
        let name = &entry.name.0;
        let from = match (&entry.value, &entry.value_from) {
            (Some(text), None) => return Ok(EnvValue::from(text.clone())),
            (None, Some(from)) => from,
            (Some(_), Some(_)) => {
                let message = format!("{name} has both value and valueFrom");
                return Err((message, "remove one of them"));
            }
            (None, None) => {
                let remedy = match self.place {
                    Place::Process => {
                        "add 'value: …', or 'valueFrom: {env: NAME}' to take it from the gateway's environment"
                    }
                    Place::Pod => {
                        "add 'value: …', or 'valueFrom: {secretKeyRef: {name: …, key: …}}'"
                    }
                };
                return Err((format!("{name} has no value"), remedy));
            }
        };
        let ValueFrom {
            env,
            secret_key_ref: secret,
            config_map_key_ref: config,
        } = from;
        match (env, secret, config, self.place) {
            (Some(env), None, None, Place::Process) => Ok(EnvValue::FromEnv(env.0.clone())),
            (None, Some(of), None, Place::Pod) => Ok(EnvValue::FromSecret(key(of))),
            (None, None, Some(of), Place::Pod) => Ok(EnvValue::FromConfigMap(key(of))),
            (Some(_), None, None, Place::Pod) => Err((
                format!(
                    "{name} is to come from the gateway's environment, which is no concern of a pod"
                ),
                "put the value into a Secret and use 'valueFrom: {secretKeyRef: {name: …, key: …}}'",
            )),
            (None, Some(_), None, Place::Process) => {
                Err((format!("{name} has a secretKeyRef"), NEEDS_CLUSTER))
            }
            (None, None, Some(_), Place::Process) => {
                Err((format!("{name} has a configMapKeyRef"), NEEDS_CLUSTER))
            }
            (None, None, None, _) => Err((
                format!("the valueFrom of {name} is empty"),
                "add 'env', 'secretKeyRef' or 'configMapKeyRef'",
            )),
            (_, _, _, _) => Err((
                format!("{name} has more than one source"),
                "keep one of env, secretKeyRef and configMapKeyRef",
            )),
        }
    }

    fn policy_choice(&self, spec: &BackendSpec) -> Result<PolicyChoice, Problem> {
        match (&spec.policy_ref, &spec.policy) {
            (Some(reference), Some(_)) => Err(self
                .located(
                    reference.referenced,
                    "there is both a policyRef and a policy",
                )
                .field("spec.policyRef")
                .remedy("remove one of them")),
            (Some(reference), None) => Ok(PolicyChoice::Ref {
                name: reference.value.name.clone(),
                line: self.line(reference.referenced),
                column: reference.referenced.column(),
            }),
            (None, inline) => Ok(PolicyChoice::Inline(
                inline
                    .as_ref()
                    .map(|policy| policy.value.clone())
                    .unwrap_or_default(),
            )),
        }
    }
}

const NEEDS_CLUSTER: &str = "Secrets and ConfigMaps need a cluster, and servers run as processes here: use 'valueFrom: {env: NAME}' to take the value from the gateway's own environment";

fn key(of: &KeySelector) -> KeyRef {
    KeyRef {
        name: of.name.0.clone(),
        key: of.key.0.clone(),
        optional: of.optional,
    }
}

/// The endpoint's path where the document names none.
fn usual_path(transport: Transport) -> &'static str {
    match transport {
        Transport::Stdio | Transport::StreamableHttp => "/mcp",
        Transport::Sse => "/sse",
    }
}
