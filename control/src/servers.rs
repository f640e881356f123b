//! The `mcpServers` file that people already have (Claude, Cursor, VS Code's `servers`) → drafts and problems. Pure.
//!
//! The file is taken as it is: names become DNS labels with a warning, settings that are only the client's are passed
//! over with a warning, and what would change what starts but cannot be honoured is refused.

use std::{fmt, path::Path};

use indexmap::IndexMap;
use mcp_gateway_api::{
    backend::{EnvValue, EnvVar, LaunchSpec, Transport},
    ids::BackendName,
};
use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::value::RawValue;

use crate::{
    document::{
        PolicySpec,
        fields::{EnvName, EnvText},
    },
    draft::{Draft, Item, Key, PolicyChoice, Reading, Refused},
    json,
    place::Place,
    problem::Problem,
    yaml::{self, split_remedy},
};

/// Reads a JSON file: `mcpServers`, or else a document as [`yaml::read`] reads it (JSON is YAML).
#[must_use]
pub fn read(file: &Path, text: &str, place: Place) -> Reading {
    let plain = json::plain(text);
    let mut reading = Reading {
        file: file.to_owned(),
        ..Reading::default()
    };
    let top: Top<'_> = match serde_json::from_str(&plain) {
        Ok(top) => top,
        Err(error) => {
            let problem = json_problem(file, &error, 0).remedy("correct the JSON here");
            reading.refused.push(Refused { key: None, problem });
            return reading;
        }
    };
    let Some(servers) = top.mcp_servers.or(top.servers) else {
        if top.api_version.is_some() || top.kind.is_some() {
            return yaml::read(file, text, place);
        }
        let problem = Problem::error(file, "there is no mcpServers here")
            .at(1, 0)
            .remedy("give a file with {\"mcpServers\": {\"name\": {\"command\": …}}}, or documents of kind McpBackend");
        reading.refused.push(Refused { key: None, problem });
        return reading;
    };
    if place == Place::Pod {
        let problem = Problem::error(file, "an mcpServers file names no images")
            .at(1, 0)
            .remedy("servers run as pods here: write documents of kind McpBackend with spec.image");
        reading.refused.push(Refused { key: None, problem });
        return reading;
    }
    for (name, raw) in servers.0 {
        let line = line_of(&plain, raw.get());
        let entry = EntryReader { file, name, line };
        entry.read(raw.get(), &mut reading);
    }
    reading
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Top<'a> {
    #[serde(borrow)]
    mcp_servers: Option<Entries<'a>>,
    #[serde(borrow)]
    servers: Option<Entries<'a>>,
    #[serde(borrow)]
    api_version: Option<&'a RawValue>,
    #[serde(borrow)]
    kind: Option<&'a RawValue>,
}

/// The entries in order, doubles and all.
struct Entries<'a>(Vec<(String, &'a RawValue)>);

struct EntriesVisitor;

impl<'de> Visitor<'de> for EntriesVisitor {
    type Value = Entries<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of servers by name")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries<'de>, A::Error> {
        let mut all = Vec::new();
        while let Some(entry) = map.next_entry()? {
            all.push(entry);
        }
        Ok(Entries(all))
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Entries<'a> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_map(EntriesVisitor)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    command: Option<String>,
    #[serde(default)]
    args: Vec<String>,
    #[serde(default)]
    env: IndexMap<String, EnvText>,
    cwd: Option<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
    #[serde(alias = "serverUrl", alias = "httpUrl")]
    url: Option<String>,
    #[serde(default)]
    disabled: bool,
    description: Option<String>,
    env_file: Option<String>,
    #[serde(flatten)]
    others: IndexMap<String, serde::de::IgnoredAny>,
}

struct EntryReader<'a> {
    file: &'a Path,
    name: String,
    line: u64,
}

impl EntryReader<'_> {
    fn read(&self, raw: &str, reading: &mut Reading) {
        let name = match self.label() {
            Ok(name) => name,
            Err(problem) => return reading.refused.push(Refused { key: None, problem }),
        };
        let key = Key::Backend(name.as_str().to_owned());
        if reading.items.iter().any(|item| item.key() == key) {
            let problem = self
                .problem(format!("another server here is called {name} too"))
                .remedy("rename one of them");
            // Without a key: the first of the two is in force and needs no last good form.
            return reading.refused.push(Refused { key: None, problem });
        }
        match self.draft(name, raw, &mut reading.warnings) {
            Ok(Some(draft)) => reading.items.push(Item::Backend(Box::new(draft))),
            Ok(None) => {}
            Err(problem) => reading.refused.push(Refused {
                key: Some(key),
                problem,
            }),
        }
    }

    /// The name as a DNS label.
    fn label(&self) -> Result<BackendName, Problem> {
        let letters = self.name.chars().map(|c| {
            let c = c.to_ascii_lowercase();
            if c.is_ascii_alphanumeric() { c } else { '-' }
        });
        let label: String = letters.take(63).collect();
        BackendName::new(label.trim_matches('-')).map_err(|_invalid| {
            self.problem("nothing of this name can stand in a URL")
                .remedy("rename it with letters, digits and '-'")
        })
    }

    fn draft(
        &self,
        name: BackendName,
        raw: &str,
        warnings: &mut Vec<Problem>,
    ) -> Result<Option<Draft>, Problem> {
        let entry: Entry = self.parse(raw)?;
        if entry.disabled {
            let problem = self
                .problem("it is disabled, and left out")
                .field("disabled");
            warnings.push(problem.remedy("remove 'disabled' to serve it").warning());
            return Ok(None);
        }
        self.refuse_remote(&entry)?;
        let command = entry.command.clone().unwrap_or_default();
        if command.trim().is_empty() {
            let problem = self.problem("there is no command").field("command");
            return Err(problem.remedy("say what to run, such as \"npx\""));
        }
        if entry.env_file.is_some() {
            let problem = self.problem("envFile is not supported").field("envFile");
            return Err(problem.remedy("write the variables into \"env\""));
        }
        let env = self.env(&entry, warnings)?;
        if name.as_str() != self.name {
            let message = format!("it is served under the name {name}");
            let remedy = "rename it with a-z, 0-9 and '-' to choose the name yourself";
            warnings.push(self.problem(message).remedy(remedy).warning());
        }
        self.remark_on_others(&entry, warnings);
        let folder = self.file.parent().unwrap_or(Path::new("."));
        Ok(Some(Draft {
            name,
            line: self.line,
            place: Place::Process,
            description: entry.description,
            launch: LaunchSpec {
                image: None,
                port: None,
                pod: std::sync::Arc::default(),
                command: vec![command],
                args: entry.args,
                working_dir: entry.cwd.map(|cwd| folder.join(cwd)),
                env,
                transport: Transport::Stdio,
                path: "/mcp".to_owned(),
                host: None,
                health_path: None,
            },
            policy: PolicyChoice::Inline(PolicySpec::default()),
            tenants: Vec::new(),
        }))
    }

    fn refuse_remote(&self, entry: &Entry) -> Result<(), Problem> {
        let kind = entry.kind.as_deref().unwrap_or("stdio");
        let remote = entry.url.is_some() || !matches!(kind, "stdio" | "local");
        if !remote {
            return Ok(());
        }
        let field = if entry.url.is_some() { "url" } else { "type" };
        let problem = self
            .problem("it is a remote server, which there is nothing to start for")
            .field(field);
        Err(problem.remedy("point your client at its URL directly, or give a command to run here"))
    }

    fn env(&self, entry: &Entry, warnings: &mut Vec<Problem>) -> Result<Vec<EnvVar>, Problem> {
        let mut vars = Vec::new();
        for (name, text) in &entry.env {
            let field = format!("env.{}", name.chars().take(80).collect::<String>());
            if !EnvName::is_usable(name) {
                let problem = self.problem("not a name for an environment variable");
                return Err(problem.field(field).remedy("rename it"));
            }
            if text.0.contains("${input:") {
                let problem = self.problem("the value is asked for by the editor");
                let remedy = "write ${NAME} to take it from the gateway's environment";
                return Err(problem.field(field).remedy(remedy));
            }
            let value = reference(&text.0).map_or_else(
                || EnvValue::Literal(text.0.clone()),
                |name| EnvValue::FromEnv(name.to_owned()),
            );
            if matches!(value, EnvValue::Literal(_)) && text.0.contains("${") {
                let problem = self.problem("'${' inside a value is passed on as it stands");
                let remedy = "only a whole value such as ${NAME} is taken from the environment";
                warnings.push(problem.field(field).remedy(remedy).warning());
            }
            vars.push(EnvVar {
                name: name.clone(),
                value,
            });
        }
        Ok(vars)
    }

    fn remark_on_others(&self, entry: &Entry, warnings: &mut Vec<Problem>) {
        let known = ["name", "icon", "autoApprove", "alwaysAllow"];
        let others: Vec<String> = entry
            .others
            .keys()
            .filter(|key| !known.contains(&key.as_str()))
            .map(|key| key.chars().take(40).collect())
            .collect();
        if !others.is_empty() {
            let message = format!("passed over: {}", others.join(", "));
            let remedy =
                "these are not settings of the gateway; remove them if they are no client's either";
            warnings.push(self.problem(message).remedy(remedy).warning());
        }
    }

    fn parse(&self, raw: &str) -> Result<Entry, Problem> {
        let mut from = serde_json::Deserializer::from_str(raw);
        serde_path_to_error::deserialize(&mut from).map_err(|error| {
            let path = error.path().to_string();
            let problem =
                json_problem(self.file, error.inner(), self.line - 1).of(self.label_text());
            if path == "." {
                problem
            } else {
                problem.field(path)
            }
        })
    }

    fn problem(&self, message: impl Into<Box<str>>) -> Problem {
        Problem::error(self.file, message)
            .at(self.line, 0)
            .of(self.label_text())
    }

    fn label_text(&self) -> Option<String> {
        let name: String = self.name.chars().take(80).collect();
        Some(format!("mcpServers {name:?}"))
    }
}

/// `${NAME}` or `${env:NAME}` as the whole value: the name.
fn reference(text: &str) -> Option<&str> {
    let inner = text.strip_prefix("${")?.strip_suffix('}')?;
    let name = inner.strip_prefix("env:").unwrap_or(inner);
    let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    (plain && EnvName::is_usable(name)).then_some(name)
}

/// A JSON error as a problem; `before` lines precede the text it was found in.
fn json_problem(file: &Path, error: &serde_json::Error, before: u64) -> Problem {
    let text = error.to_string();
    let end = text.rfind(" at line ").unwrap_or(text.len());
    let said = unquoted(text.get(..end).unwrap_or_default());
    let (message, remedy) = split_remedy(&said);
    let line = before + error.line() as u64;
    let problem = Problem::error(file, message).at(line, error.column() as u64);
    let remedy = if remedy.is_empty() {
        "see docs/configuration.md for what an entry may hold".to_owned()
    } else {
        remedy
    };
    problem.remedy(remedy)
}

/// The sentence without the value it complains of, which may be a secret.
fn unquoted(said: &str) -> String {
    let complaint = said.starts_with("invalid type") || said.starts_with("invalid value");
    match said.rsplit_once(", expected ") {
        Some((_, expected)) if complaint => format!("expected {expected}"),
        Some(_) | None => said.to_owned(),
    }
}

/// The line on which a piece of a text begins, from 1.
fn line_of(text: &str, piece: &str) -> u64 {
    let offset = (piece.as_ptr() as usize).saturating_sub(text.as_ptr() as usize);
    let before = text.as_bytes().get(..offset).unwrap_or_default();
    1 + before.iter().filter(|byte| **byte == b'\n').count() as u64
}
