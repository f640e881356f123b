//! What the text of one file yields: drafts, still without their policies, and problems.

use std::path::PathBuf;

use mcp_gateway_api::{
    backend::LaunchSpec,
    ids::{BackendName, PolicyName, TenantName},
};

use crate::{
    document::{PolicySpec, TenantSpec},
    place::Place,
    problem::Problem,
};

/// How a draft names its policy.
#[derive(Debug, Clone, PartialEq)]
pub enum PolicyChoice {
    /// The defaults, or what stands in the document itself.
    Inline(PolicySpec),
    /// A `ScalingPolicy` document.
    Ref {
        /// Its name.
        name: PolicyName,
        /// Where the reference stands, for a problem with it.
        line: u64,
        /// Likewise.
        column: u64,
    },
}

/// A backend as its own text says, before policies are joined.
#[derive(Debug, Clone, PartialEq)]
pub struct Draft {
    /// Its name.
    pub name: BackendName,
    /// The line its document or entry begins on.
    pub line: u64,
    /// Where its servers run.
    pub place: Place,
    /// For people.
    pub description: Option<String>,
    /// How it starts.
    pub launch: LaunchSpec,
    /// How it scales.
    pub policy: PolicyChoice,
    /// Who may use it; empty means every tenant.
    pub tenants: Vec<TenantName>,
}

/// One document.
#[derive(Debug, Clone, PartialEq)]
pub enum Item {
    /// `kind: McpBackend`, or an entry of an `mcpServers` file.
    Backend(Box<Draft>),
    /// `kind: ScalingPolicy`.
    Policy {
        /// Its name.
        name: PolicyName,
        /// The line its document begins on.
        line: u64,
        /// Its fields, absent ones still absent.
        spec: PolicySpec,
    },
    /// `kind: Tenant`. Nothing acts on it yet beyond showing it.
    Tenant {
        /// Its name.
        name: TenantName,
        /// The line its document begins on.
        line: u64,
        /// What it says.
        spec: TenantSpec,
    },
}

/// Names an item within its file.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Key {
    /// A backend.
    Backend(String),
    /// A policy.
    Policy(String),
    /// A tenant.
    Tenant(String),
}

impl Item {
    /// Its key.
    #[must_use]
    pub fn key(&self) -> Key {
        match self {
            Self::Backend(draft) => Key::Backend(draft.name.as_str().to_owned()),
            Self::Policy { name, .. } => Key::Policy(name.as_str().to_owned()),
            Self::Tenant { name, .. } => Key::Tenant(name.as_str().to_owned()),
        }
    }

    /// Its kind and name, as problems say them, and the line it begins on.
    #[must_use]
    pub fn label(&self) -> (String, u64) {
        match self {
            Self::Backend(draft) => (format!("McpBackend {}", draft.name), draft.line),
            Self::Policy { name, line, .. } => (format!("ScalingPolicy {name}"), *line),
            Self::Tenant { name, line, .. } => (format!("Tenant {name}"), *line),
        }
    }
}

/// A document that was refused, as far as it can be told which one it was.
#[derive(Debug, Clone, PartialEq)]
pub struct Refused {
    /// Which; none when not even its name can be read.
    pub key: Option<Key>,
    /// Why.
    pub problem: Problem,
}

/// All that one file yields.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Reading {
    /// Which file.
    pub file: PathBuf,
    /// What it holds.
    pub items: Vec<Item>,
    /// What was refused.
    pub refused: Vec<Refused>,
    /// What was remarked upon.
    pub warnings: Vec<Problem>,
    /// The file, or the folder, could not be read at all: nothing is known of what it holds now.
    pub unreadable: bool,
}
