//! The text of a file with YAML documents → drafts and problems. Pure.

use std::path::Path;

use serde::{Deserialize, de::DeserializeOwned};
use serde_saphyr::{Error, Location};

use crate::{
    document::{BackendDocument, PolicyDocument, TenantDocument},
    draft::{Item, Key, Reading, Refused},
    place::Place,
    problem::Problem,
    split::{self, Part},
};

mod explain;
mod launch;
mod pod;

pub(crate) use explain::split_remedy;
use explain::{field_path, sentence, short};

/// Reads all documents of a file, for servers that run at `place`.
#[must_use]
pub fn read(file: &Path, text: &str, place: Place) -> Reading {
    let mut reading = Reading {
        file: file.to_owned(),
        ..Reading::default()
    };
    for part in split::documents(text) {
        let context = Context { file, part, place };
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
    place: Place,
}

impl Context<'_> {
    fn document(&self) -> Result<Item, Box<Refused>> {
        let head: Head = serde_saphyr::from_str(self.part.text).unwrap_or_default();
        let name = head.metadata.and_then(|metadata| metadata.name);
        let read = match head.kind.as_deref() {
            Some("McpBackend") => self.backend(),
            Some("ScalingPolicy") => self.policy(),
            Some("Tenant") => self.tenant(),
            other => Err(self.unknown_kind(other)),
        };
        read.map_err(|problem| {
            let key = match (head.kind.as_deref(), &name) {
                (Some("McpBackend"), Some(name)) => Some(Key::Backend(name.clone())),
                (Some("ScalingPolicy"), Some(name)) => Some(Key::Policy(name.clone())),
                (Some("Tenant"), Some(name)) => Some(Key::Tenant(name.clone())),
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
            .remedy("write 'kind: McpBackend', 'kind: ScalingPolicy' or 'kind: Tenant'")
    }

    fn backend(&self) -> Result<Item, Problem> {
        let document: BackendDocument = self.parse()?;
        let spec = document.spec;
        let draft = self.draft(document.metadata.name, &spec)?;
        Ok(Item::Backend(Box::new(draft)))
    }

    fn policy(&self) -> Result<Item, Problem> {
        let document: PolicyDocument = self.parse()?;
        Ok(Item::Policy {
            name: document.metadata.name,
            line: self.part.begins,
            spec: document.spec,
        })
    }

    fn tenant(&self) -> Result<Item, Problem> {
        let document: TenantDocument = self.parse()?;
        Ok(Item::Tenant {
            name: document.metadata.name,
            line: self.part.begins,
            spec: document.spec,
        })
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
