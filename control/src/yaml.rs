//! The text of a file with YAML documents → drafts and problems. Pure.

use std::path::Path;

use mcp_gateway_api::{
    backend::{EnvValue, EnvVar, LaunchSpec, Transport},
    ids::{BackendName, PolicyName},
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_saphyr::{Error, Location, Spanned};

use crate::{
    document::{BackendDocument, BackendSpec, EnvEntry, PolicyDocument},
    draft::{Draft, Item, Key, PolicyChoice, Reading, Refused},
    problem::Problem,
    split::{self, Part},
};

mod explain;

pub(crate) use explain::split_remedy;
use explain::{field_path, sentence, short};

/// Reads all documents of a file.
#[must_use]
pub fn read(file: &Path, text: &str) -> Reading {
    let mut reading = Reading {
        file: file.to_owned(),
        ..Reading::default()
    };
    for part in split::documents(text) {
        let context = Context { file, part };
        match context.document() {
            Ok(item) => reading.items.push(item),
            Err(refused) => reading.refused.push(*refused),
        }
    }
    reading
}

/// What of a document can be read even when the rest is wrong.
#[derive(Debug, Default, Deserialize)]
struct Head {
    kind: Option<String>,
    metadata: Option<HeadMetadata>,
}

#[derive(Debug, Default, Deserialize)]
struct HeadMetadata {
    name: Option<String>,
}

struct Context<'a> {
    file: &'a Path,
    part: Part<'a>,
}

impl Context<'_> {
    fn document(&self) -> Result<Item, Box<Refused>> {
        let head: Head = serde_saphyr::from_str(self.part.text).unwrap_or_default();
        let name = head.metadata.and_then(|metadata| metadata.name);
        let read = match head.kind.as_deref() {
            Some("McpBackend") => self.backend(),
            Some("ScalingPolicy") => self.policy(),
            other => Err(self.unknown_kind(other)),
        };
        read.map_err(|problem| {
            let key = match (head.kind.as_deref(), &name) {
                (Some("McpBackend"), Some(name)) => Some(Key::Backend(name.clone())),
                (Some("ScalingPolicy"), Some(name)) => Some(Key::Policy(name.clone())),
                _ => None,
            };
            let label = head.kind.map(|kind| match &name {
                Some(name) => format!("{} {}", short(&kind), short(name)),
                None => short(&kind),
            });
            let problem = problem.of(label);
            Box::new(Refused { key, problem })
        })
    }

    fn unknown_kind(&self, kind: Option<&str>) -> Problem {
        // A syntax error hides the kind too, and is then the thing to speak of.
        if let Err(problem) = self.parse::<serde::de::IgnoredAny>() {
            return problem;
        }
        let problem = match kind {
            None => self.problem("there is no kind").field("kind"),
            Some(kind) => self
                .problem(format!("{:?} is no kind this gateway knows", short(kind)))
                .field("kind"),
        };
        problem
            .at(self.part.begins, 0)
            .remedy("write 'kind: McpBackend' or 'kind: ScalingPolicy'")
    }

    fn backend(&self) -> Result<Item, Problem> {
        let document: BackendDocument = self.parse()?;
        let spec = document.spec;
        let draft = self.draft(document.metadata.name, &spec)?;
        Ok(Item::Backend(Box::new(draft)))
    }

    fn policy(&self) -> Result<Item, Problem> {
        let document: PolicyDocument = self.parse()?;
        let name: PolicyName = document.metadata.name;
        Ok(Item::Policy {
            name,
            line: self.part.begins,
            spec: document.spec,
        })
    }

    fn draft(&self, name: BackendName, spec: &Spanned<BackendSpec>) -> Result<Draft, Problem> {
        let at = spec.referenced;
        let spec = &spec.value;
        let transport = spec.transport.unwrap_or(Transport::Stdio);
        let command = self.command(spec, at)?;
        if transport == Transport::Stdio {
            self.nothing_of_http(spec)?;
        }
        let usual = if transport == Transport::Sse {
            "/sse"
        } else {
            "/mcp"
        };
        let launch = LaunchSpec {
            image: None,
            port: None,
            pod: std::sync::Arc::default(),
            command,
            args: spec.args.clone().unwrap_or_default(),
            working_dir: self.working_dir(spec)?,
            env: self.env(spec, transport)?,
            transport,
            path: spec
                .path
                .as_ref()
                .map_or_else(|| usual.to_owned(), |path| path.value.0.clone()),
            host: spec.host.as_ref().map(|host| host.value.0.clone()),
            health_path: spec
                .health_check
                .as_ref()
                .map(|check| check.value.path.0.clone()),
        };
        Ok(Draft {
            name,
            line: self.part.begins,
            description: spec.description.clone(),
            launch,
            policy: self.policy_choice(spec)?,
            tenants: spec.tenants.clone().unwrap_or_default(),
        })
    }

    fn command(&self, spec: &BackendSpec, at: Location) -> Result<Vec<String>, Problem> {
        let remedy = "say what to run, such as 'command: [npx, -y, some-mcp-server]'";
        let Some(command) = &spec.command else {
            let problem = self.located(at, "there is no command");
            return Err(problem.field("spec.command").remedy(remedy));
        };
        match command.value.first() {
            Some(program) if !program.trim().is_empty() => Ok(command.value.clone()),
            Some(_) | None => {
                let problem = self.located(command.referenced, "the command is empty");
                Err(problem.field("spec.command").remedy(remedy))
            }
        }
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

    fn working_dir(&self, spec: &BackendSpec) -> Result<Option<std::path::PathBuf>, Problem> {
        let Some(dir) = &spec.working_dir else {
            return Ok(None);
        };
        if dir.value.is_empty() || dir.value.contains('\0') {
            return Err(self
                .located(dir.referenced, "not a folder")
                .field("spec.workingDir")
                .remedy("write a path, relative to the folder of this file"));
        }
        let folder = self.file.parent().unwrap_or(Path::new("."));
        Ok(Some(folder.join(&dir.value)))
    }

    fn env(&self, spec: &BackendSpec, transport: Transport) -> Result<Vec<EnvVar>, Problem> {
        let mut vars: Vec<EnvVar> = Vec::new();
        for (index, entry) in spec.env.iter().flatten().enumerate() {
            let wrong = |message: String, remedy: &str| {
                self.located(entry.referenced, message)
                    .field(format!("spec.env[{index}]"))
                    .remedy(remedy)
            };
            let EnvEntry {
                name,
                value,
                value_from,
            } = &entry.value;
            let value = match (value, value_from) {
                (Some(text), None) => EnvValue::from(text.clone()),
                (None, Some(from)) => EnvValue::FromEnv(from.env.0.clone()),
                (Some(_), Some(_)) => {
                    let message = format!("{} has both value and valueFrom", name.0);
                    return Err(wrong(message, "remove one of them"));
                }
                (None, None) => {
                    let message = format!("{} has no value", name.0);
                    let remedy = "add 'value: …', or 'valueFrom: {env: NAME}' to take it from the gateway's environment";
                    return Err(wrong(message, remedy));
                }
            };
            if vars.iter().any(|var| var.name == name.0) {
                return Err(wrong(format!("{} is set twice", name.0), "remove one"));
            }
            if name.0 == "PORT" && transport != Transport::Stdio {
                return Err(wrong(
                    "PORT is the gateway's to choose".to_owned(),
                    "remove it; the server gets a free port as $PORT and as ${PORT} in command and args",
                ));
            }
            vars.push(EnvVar {
                name: name.0.clone(),
                value,
            });
        }
        Ok(vars)
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

    /// Reads the document as `T`, with the path of whatever is wrong.
    fn parse<T: DeserializeOwned>(&self) -> Result<T, Problem> {
        let mut path = String::new();
        let read = serde_saphyr::with_deserializer_from_str(self.part.text, |from| {
            serde_path_to_error::deserialize(from).map_err(|error| {
                path = field_path(error.path());
                error.into_inner()
            })
        });
        read.map_err(|error| self.explain(&error, &path))
    }

    fn explain(&self, error: &Error, path: &str) -> Problem {
        let error = error.without_snippet();
        let at = error.location().unwrap_or(Location::UNKNOWN);
        let (message, remedy) = sentence(error, path);
        let problem = self.located(at, message).remedy(remedy);
        if path.is_empty() {
            problem
        } else {
            problem.field(path)
        }
    }

    fn problem(&self, message: impl Into<Box<str>>) -> Problem {
        Problem::error(self.file, message)
    }

    fn located(&self, at: Location, message: impl Into<Box<str>>) -> Problem {
        self.problem(message).at(self.line(at), at.column())
    }

    /// The line within the file; that of the document where the parser cannot tell.
    fn line(&self, at: Location) -> u64 {
        self.part.first_line + at.line().saturating_sub(1)
    }
}
