//! Says what is new: on the channels for those who act on it, in the log for people. Nothing is said twice.

use std::sync::Arc;

use mcp_gateway_api::catalog::Catalog;
use tokio::sync::watch;

use crate::problem::{Problem, Problems, Severity};

/// Publishes what is wrong, and logs what is new of it.
pub(crate) fn problems(to: &watch::Sender<Problems>, problems: Vec<Problem>) {
    let before = Arc::clone(&to.borrow());
    if *before == problems {
        return;
    }
    for problem in problems.iter().filter(|problem| !before.contains(problem)) {
        match problem.severity {
            Severity::Error => tracing::error!("{problem}"),
            Severity::Warning => tracing::warn!("{problem}"),
        }
    }
    if problems.is_empty() {
        tracing::info!("all documents are in order again");
    }
    to.send_replace(Arc::new(problems));
}

/// Publishes the backends, and logs what is new of them.
pub(crate) fn catalog(to: &watch::Sender<Arc<Catalog>>, catalog: Catalog) {
    let before = Arc::clone(&to.borrow());
    if *before == catalog {
        return;
    }
    for (name, backend) in &catalog.backends {
        match before.get(name) {
            None => tracing::info!(backend = %name, "{name}: registered"),
            Some(old) if old.generation != backend.generation => {
                tracing::info!(backend = %name, "{name}: changed; running instances retire");
            }
            Some(old) if old != backend => {
                tracing::info!(backend = %name, "{name}: policy changed");
            }
            Some(_) => {}
        }
    }
    for name in before.backends.keys() {
        if !catalog.backends.contains_key(name) {
            tracing::info!(backend = %name, "{name}: removed");
        }
    }
    to.send_replace(Arc::new(catalog));
}
