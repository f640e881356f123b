//! Joins readings to a catalog and remembers the last good form of everything. Pure.
//!
//! Invariants: what is in the catalog was good once; a document leaves the catalog only when its file was read whole
//! and does not hold it, or is gone. A file of which some document cannot even be named is not read whole: any of the
//! missing ones may be the nameless one, so all of them stay.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    path::PathBuf,
    sync::Arc,
};

use mcp_gateway_api::{
    backend::Backend,
    catalog::Catalog,
    ids::{BackendName, PolicyName},
};

use crate::{
    document::PolicySpec,
    draft::{Draft, Item, Key, PolicyChoice, Reading},
    generation,
    problem::{Problem, Severity},
};

/// What is in force, and whence.
#[derive(Debug, Default)]
pub struct Register {
    files: BTreeMap<PathBuf, BTreeMap<Key, Item>>,
    resolved: BTreeMap<BackendName, Arc<Backend>>,
}

/// The outcome of a reading of everything.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// All backends in force.
    pub catalog: Catalog,
    /// All that is wrong, in the order of files and lines.
    pub problems: Vec<Problem>,
}

struct Policies(BTreeMap<PolicyName, PolicySpec>);

impl Register {
    /// Takes in a reading of every file there is.
    pub fn update(&mut self, readings: Vec<Reading>) -> Outcome {
        let mut problems = Vec::new();
        let mut files = BTreeMap::new();
        for reading in readings {
            let path = reading.file.clone();
            if reading.unreadable {
                // Also the files of a folder that cannot be listed.
                let within = self
                    .files
                    .iter()
                    .filter(|(file, _)| file.starts_with(&path));
                files.extend(within.map(|(file, items)| (file.clone(), items.clone())));
                problems.extend(reading.refused.into_iter().map(|refused| refused.problem));
                continue;
            }
            let before = self.files.remove(&path).unwrap_or_default();
            files.insert(path, merge(before, reading, &mut problems));
        }
        self.files = files;
        let policies = self.policies(&mut problems);
        self.tenants(&mut problems);
        let catalog = self.catalog(&policies, &mut problems);
        self.resolved.clone_from(&catalog.backends);
        problems.sort_by(|a, b| (&a.file, a.line, a.column).cmp(&(&b.file, b.line, b.column)));
        Outcome { catalog, problems }
    }

    fn policies(&self, problems: &mut Vec<Problem>) -> Policies {
        let mut all = BTreeMap::new();
        for (file, items) in &self.files {
            for item in items.values() {
                if let Item::Policy { name, line, spec } = item {
                    if all.contains_key(name) {
                        problems.push(doubled(file, *line, format!("ScalingPolicy {name}")));
                    } else {
                        all.insert(name.clone(), spec.clone());
                    }
                }
            }
        }
        Policies(all)
    }

    fn tenants(&self, problems: &mut Vec<Problem>) {
        let mut all = BTreeSet::new();
        for (file, items) in &self.files {
            for item in items.values() {
                if let Item::Tenant { name, line, .. } = item
                    && !all.insert(name)
                {
                    problems.push(doubled(file, *line, format!("Tenant {name}")));
                }
            }
        }
    }

    fn catalog(&self, policies: &Policies, problems: &mut Vec<Problem>) -> Catalog {
        let mut backends = BTreeMap::new();
        let mut claimed = BTreeSet::new();
        for (file, items) in &self.files {
            for item in items.values() {
                let Item::Backend(draft) = item else { continue };
                let label = format!("McpBackend {}", draft.name);
                if !claimed.insert(draft.name.clone()) {
                    problems.push(doubled(file, draft.line, label));
                    continue;
                }
                let before = self.resolved.get(&draft.name);
                match policies.join(draft) {
                    Ok(backend) => {
                        let backend = unchanged(before, backend);
                        backends.insert(draft.name.clone(), backend);
                    }
                    Err((name, line, column)) => {
                        let message = format!("there is no ScalingPolicy {name}");
                        let mut problem = Problem::error(file, message)
                            .at(line, column)
                            .of(Some(label))
                            .field("spec.policyRef.name")
                            .remedy(format!(
                                "add a document 'kind: ScalingPolicy' with the name {name}, or correct the name"
                            ));
                        if let Some(before) = before {
                            problem.last_good_kept = true;
                            backends.insert(draft.name.clone(), Arc::clone(before));
                        }
                        problems.push(problem);
                    }
                }
            }
        }
        Catalog { backends }
    }
}

impl Policies {
    /// The backend, or where its reference to a policy that is not there stands.
    fn join<'d>(&self, draft: &'d Draft) -> Result<Backend, (&'d PolicyName, u64, u64)> {
        let spec = match &draft.policy {
            PolicyChoice::Inline(spec) => spec,
            PolicyChoice::Ref { name, line, column } => {
                self.0.get(name).ok_or((name, *line, *column))?
            }
        };
        let policy = spec.resolve(draft.launch.transport, draft.place);
        Ok(Backend {
            name: draft.name.clone(),
            generation: generation::of(&draft.launch, policy.isolation),
            description: draft.description.clone(),
            launch: draft.launch.clone(),
            policy: Arc::new(policy),
            tenants: draft.tenants.clone(),
        })
    }
}

/// The very value of before where nothing changed, so that readers may compare pointers.
fn unchanged(before: Option<&Arc<Backend>>, now: Backend) -> Arc<Backend> {
    match before {
        Some(before) if **before == now => Arc::clone(before),
        _ => Arc::new(now),
    }
}

/// One file: its new items, and of the old ones those that must stay.
fn merge(
    mut before: BTreeMap<Key, Item>,
    reading: Reading,
    problems: &mut Vec<Problem>,
) -> BTreeMap<Key, Item> {
    let mut now: BTreeMap<Key, Item> = BTreeMap::new();
    let file = reading.file;
    for item in reading.items {
        let key = item.key();
        let Entry::Vacant(place) = now.entry(key) else {
            let (label, line) = item.label();
            problems.push(doubled(&file, line, label));
            continue;
        };
        place.insert(item);
    }
    let mut nameless = false;
    for mut refused in reading.refused {
        match &refused.key {
            None => nameless = true,
            Some(key) => {
                if let Some(item) = before.remove(key) {
                    refused.problem.last_good_kept = !now.contains_key(key);
                    now.entry(key.clone()).or_insert(item);
                }
            }
        }
        problems.push(refused.problem);
    }
    if nameless {
        for (key, item) in before {
            now.entry(key).or_insert(item);
        }
    }
    problems.extend(
        reading
            .warnings
            .into_iter()
            .filter(|problem| problem.severity == Severity::Warning),
    );
    now
}

fn doubled(file: &std::path::Path, line: u64, label: String) -> Problem {
    Problem::error(file, "another document has the same name and came first")
        .at(line, 0)
        .of(Some(label))
        .field("metadata.name")
        .remedy("rename or remove one of them")
}
