//! What the API server says there is. Pure.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use kube::core::DynamicObject;
use mcp_gateway_api::crds::{FINALIZER, GROUP, VERSION};
use serde_json::{Value, json};

use crate::{draft::Reading, place::Place, problem::Problem, yaml};

/// The kinds that are followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// Backends.
    McpBackend,
    /// Policies.
    ScalingPolicy,
    /// Tenants.
    Tenant,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::McpBackend, Self::ScalingPolicy, Self::Tenant];

    /// As documents write it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::McpBackend => "McpBackend",
            Self::ScalingPolicy => "ScalingPolicy",
            Self::Tenant => "Tenant",
        }
    }

    /// As paths of the API write it.
    #[must_use]
    pub fn plural(self) -> &'static str {
        match self {
            Self::McpBackend => "mcpbackends",
            Self::ScalingPolicy => "scalingpolicies",
            Self::Tenant => "tenants",
        }
    }

    /// How the API is asked for it.
    #[must_use]
    pub fn resource(self) -> kube::core::ApiResource {
        let kind = kube::core::GroupVersionKind::gvk(GROUP, VERSION, self.as_str());
        kube::core::ApiResource::from_gvk_with_plural(&kind, self.plural())
    }
}

/// One object, as far as it concerns us.
#[derive(Debug, Clone, PartialEq)]
pub struct Object {
    /// Its name.
    pub name: String,
    /// Tells it from another of the same name.
    pub uid: String,
    /// For writing only what was seen.
    pub resource_version: String,
    /// Counts edits of its spec.
    pub generation: i64,
    /// Somebody wants it gone.
    pub deleting: bool,
    /// What keeps it until then.
    pub finalizers: Vec<String>,
    /// As the API server has it.
    pub status: Value,
    /// What its spec says.
    pub reading: Reading,
}

impl Object {
    /// Reads what came over the watch; `before` is the object of that name, whose reading is kept while its spec is the
    /// same.
    #[must_use]
    pub fn read(kind: Kind, namespace: &str, from: &DynamicObject, before: Option<&Self>) -> Self {
        let meta = &from.metadata;
        let name = meta.name.clone().unwrap_or_default();
        let uid = meta.uid.clone().unwrap_or_default();
        let generation = meta.generation.unwrap_or_default();
        let same = before.filter(|old| old.uid == uid && old.generation == generation);
        let reading = match same {
            Some(old) => old.reading.clone(),
            None => read(kind, &path(namespace, kind, &name), &name, from),
        };
        Self {
            uid,
            generation,
            reading,
            resource_version: meta.resource_version.clone().unwrap_or_default(),
            deleting: meta.deletion_timestamp.is_some(),
            finalizers: meta.finalizers.clone().unwrap_or_default(),
            status: from.data.get("status").cloned().unwrap_or(Value::Null),
            name,
        }
    }

    /// Whether our finalizer holds it.
    #[must_use]
    pub fn held(&self) -> bool {
        self.finalizers.iter().any(|f| f == FINALIZER)
    }
}

/// What stands for the file of an object, in problems.
#[must_use]
pub fn path(namespace: &str, kind: Kind, name: &str) -> PathBuf {
    [namespace, kind.plural(), name].iter().collect()
}

fn read(kind: Kind, path: &Path, name: &str, from: &DynamicObject) -> Reading {
    let document = json!({
        "apiVersion": format!("{GROUP}/{VERSION}"),
        "kind": kind.as_str(),
        "metadata": {"name": name},
        "spec": from.data.get("spec").cloned().unwrap_or_else(|| json!({})),
    });
    // JSON is YAML.
    let mut reading = yaml::read(path, &document.to_string(), Place::Pod);
    for refused in &mut reading.refused {
        placeless(&mut refused.problem);
    }
    reading
}

/// Lines and columns are those of files.
pub fn placeless(problem: &mut Problem) {
    problem.line = None;
    problem.column = None;
}

/// Why a kind cannot be followed at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trouble {
    /// The cluster has no such kind.
    Absent,
    /// We may not list or watch it.
    Forbidden,
    /// The API server is away, or refuses for another reason.
    Away,
}

/// News of one kind.
#[derive(Debug)]
pub enum News {
    /// All there are.
    All(Vec<DynamicObject>),
    /// One that is new or changed.
    One(Box<DynamicObject>),
    /// One that is gone, by its name.
    Gone(String),
    /// It cannot be followed; what was known stays.
    Trouble(Trouble, String),
}

/// All objects of a kind.
#[derive(Debug, Default)]
struct Shelf {
    objects: BTreeMap<String, Object>,
    /// Listed once, or known to be absent.
    known: bool,
    trouble: Option<(Trouble, String)>,
}

/// All objects.
#[derive(Debug)]
pub struct Objects {
    namespace: String,
    shelves: BTreeMap<Kind, Shelf>,
}

impl Objects {
    /// None yet.
    #[must_use]
    pub fn new(namespace: &str) -> Self {
        let shelves = Kind::ALL.map(|kind| (kind, Shelf::default()));
        Self {
            namespace: namespace.to_owned(),
            shelves: shelves.into(),
        }
    }

    /// Takes in news.
    pub fn take(&mut self, kind: Kind, news: News) {
        let namespace = &self.namespace;
        let shelf = self.shelves.entry(kind).or_default();
        match news {
            News::All(all) => {
                let before = std::mem::take(&mut shelf.objects);
                let read = |from: &DynamicObject| {
                    let name = from.metadata.name.as_deref().unwrap_or_default();
                    let object = Object::read(kind, namespace, from, before.get(name));
                    (object.name.clone(), object)
                };
                shelf.objects = all.iter().map(read).collect();
                shelf.known = true;
                shelf.trouble = None;
            }
            News::One(from) => {
                let name = from.metadata.name.as_deref().unwrap_or_default();
                let object = Object::read(kind, namespace, &from, shelf.objects.get(name));
                shelf.objects.insert(object.name.clone(), object);
                shelf.trouble = None;
            }
            News::Gone(name) => {
                shelf.objects.remove(&name);
                shelf.trouble = None;
            }
            News::Trouble(trouble, said) => {
                // A cluster that never had the kind has no objects of it; one that lost it for a moment still has.
                shelf.known |= trouble == Trouble::Absent;
                shelf.trouble = Some((trouble, said));
            }
        }
    }

    /// Whether every kind has been listed once.
    #[must_use]
    pub fn complete(&self) -> bool {
        self.shelves.values().all(|shelf| shelf.known)
    }

    /// The namespace.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// All objects of a kind, by name.
    #[must_use]
    pub fn of(&self, kind: Kind) -> &BTreeMap<String, Object> {
        const NONE: &BTreeMap<String, Object> = &BTreeMap::new();
        self.shelves.get(&kind).map_or(NONE, |shelf| &shelf.objects)
    }

    /// What all objects that nobody wants gone say.
    #[must_use]
    pub fn readings(&self) -> Vec<Reading> {
        let objects = self
            .shelves
            .values()
            .flat_map(|shelf| shelf.objects.values());
        let wanted = objects.filter(|object| !object.deleting);
        wanted.map(|object| object.reading.clone()).collect()
    }

    /// What keeps kinds from being followed: one problem for each cause, naming all kinds it concerns.
    #[must_use]
    pub fn troubles(&self) -> Vec<Problem> {
        let mut causes: BTreeMap<Trouble, (Vec<&str>, &str)> = BTreeMap::new();
        for (kind, shelf) in &self.shelves {
            if let Some((trouble, said)) = &shelf.trouble {
                causes
                    .entry(*trouble)
                    .or_insert_with(|| (Vec::new(), said))
                    .0
                    .push(kind.as_str());
            }
        }
        let problem = |(trouble, (kinds, said)): (Trouble, (Vec<&str>, &str))| {
            self.trouble(trouble, &kinds.join(", "), said)
        };
        causes.into_iter().map(problem).collect()
    }

    fn trouble(&self, trouble: Trouble, kinds: &str, said: &str) -> Problem {
        let namespace = &self.namespace;
        let (message, remedy) = match trouble {
            Trouble::Absent => (
                format!("the cluster has no definition of {kinds}"),
                "install it with 'mcp-gateway crds | kubectl apply --server-side -f -'; it is looked for again and again".to_owned(),
            ),
            Trouble::Forbidden => (
                format!("the gateway may not list and watch {kinds} in namespace {namespace} ({said})"),
                "give its service account the Role of dev/manifests; it is tried again and again".to_owned(),
            ),
            Trouble::Away => (
                format!("the API server does not answer ({said})"),
                "what is registered stays in force; it is tried again and again".to_owned(),
            ),
        };
        Problem::error(Path::new("kubernetes"), message).remedy(remedy)
    }
}
