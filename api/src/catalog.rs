//! All backends at one moment. Published by the registry on a `watch` channel; activator and autoscaler only read.

use std::{collections::BTreeMap, sync::Arc};

use tokio::sync::watch;

use crate::{backend::Backend, ids::BackendName};

/// The backends by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Catalog {
    /// Sorted, so that lists people see have an order.
    pub backends: BTreeMap<BackendName, Arc<Backend>>,
}

impl Catalog {
    /// The backend of that name.
    #[must_use]
    pub fn get(&self, name: &BackendName) -> Option<&Arc<Backend>> {
        self.backends.get(name)
    }
}

/// The reading end.
pub type CatalogWatch = watch::Receiver<Arc<Catalog>>;
