//! Watches the paths, reads everything again on a change, and publishes.
//!
//! A change is noticed by the operating system's notice, gathered for [`DEBOUNCE`], and in any case by reading again
//! every [`RESCAN`] (network file systems and some containers give no notice). Readers see a catalog only when it
//! differs from the one before.

use std::{path::PathBuf, sync::Arc, time::Duration};

use mcp_gateway_api::catalog::{Catalog, CatalogWatch};
use notify::{
    EventKind, RecommendedWatcher, RecursiveMode, Watcher,
    event::{AccessKind, AccessMode},
};
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
    time::{Instant, MissedTickBehavior, interval_at, sleep},
};
use tokio_util::sync::CancellationToken;

use crate::{
    draft::{Item, Reading},
    place::Place,
    problem::Problems,
    publish,
    register::Register,
    source,
};

/// How long notices of changes are gathered: editors write a file in several steps.
pub const DEBOUNCE: Duration = Duration::from_millis(100);
/// How often everything is read again without any notice.
pub const RESCAN: Duration = Duration::from_secs(10);

/// The registry cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// A path does not exist at start, which is nearly always a slip of the hand.
    #[error(
        "--backends {path:?} does not exist: give a file or folder with documents, or an mcpServers JSON file"
    )]
    Missing {
        /// Which.
        path: PathBuf,
    },
}

/// What exists, kept up to date until dropped.
#[derive(Debug)]
pub struct Registry {
    catalog: CatalogWatch,
    problems: watch::Receiver<Problems>,
    cancel: CancellationToken,
    task: JoinHandle<()>,
}

struct Worker {
    place: Place,
    paths: Vec<PathBuf>,
    built_in: Vec<Reading>,
    register: Register,
    catalog: watch::Sender<Arc<Catalog>>,
    problems: watch::Sender<Problems>,
}

impl Registry {
    /// Reads everything once, for servers that run as processes, and goes on watching. `built_in` readings stand before those of `paths` and never change.
    ///
    /// # Errors
    /// A path does not exist. Documents with mistakes are no error: see [`Registry::problems`].
    pub async fn start(paths: Vec<PathBuf>, built_in: Vec<Reading>) -> Result<Self, RegistryError> {
        Self::start_for(Place::Process, paths, built_in).await
    }

    /// The same for servers that run at `place`.
    ///
    /// # Errors
    /// As [`Registry::start`].
    pub async fn start_for(
        place: Place,
        paths: Vec<PathBuf>,
        built_in: Vec<Reading>,
    ) -> Result<Self, RegistryError> {
        if let Some(path) = paths.iter().find(|path| !path.exists()) {
            return Err(RegistryError::Missing { path: path.clone() });
        }
        let (catalog, catalog_watch) = watch::channel(Arc::default());
        let (problems, problems_watch) = watch::channel(Problems::default());
        let mut worker = Worker {
            place,
            paths,
            built_in,
            register: Register::default(),
            catalog,
            problems,
        };
        // The watch stands before the first reading, so that no change falls between the two.
        let (notices, watcher) = notices(&worker.paths);
        worker.read_all().await;
        let cancel = CancellationToken::new();
        let task = tokio::spawn(worker.run(notices, watcher, cancel.clone()));
        Ok(Self {
            catalog: catalog_watch,
            problems: problems_watch,
            cancel,
            task,
        })
    }

    /// The backends of the moment.
    #[must_use]
    pub fn catalog(&self) -> CatalogWatch {
        self.catalog.clone()
    }

    /// What is wrong at the moment.
    #[must_use]
    pub fn problems(&self) -> watch::Receiver<Problems> {
        self.problems.clone()
    }

    /// Stops watching; the last catalog stays readable.
    pub fn stop(&self) {
        self.cancel.cancel();
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.cancel.cancel();
        self.task.abort();
    }
}

/// Built-in documents, as the text of a file that does not exist.
#[must_use]
pub fn built_in(name: &str, text: &str) -> Reading {
    source::read_bytes(std::path::Path::new(name), text.as_bytes(), Place::Process)
}

/// The names of the backends in a reading, for banners.
#[must_use]
pub fn names(reading: &Reading) -> Vec<String> {
    let name = |item: &Item| match item {
        Item::Backend(draft) => Some(draft.name.as_str().to_owned()),
        Item::Policy { .. } | Item::Tenant { .. } => None,
    };
    reading.items.iter().filter_map(name).collect()
}

/// A channel that holds a notice after something changed, and the watcher that must be kept for it.
fn notices(paths: &[PathBuf]) -> (mpsc::Receiver<()>, Option<RecommendedWatcher>) {
    let (tell, notices) = mpsc::channel(1);
    let told = move |event: notify::Result<notify::Event>| {
        // An error, such as an overflow, may hide any change.
        if event.map_or(true, |event| changes_documents(&event)) {
            // A full channel already says all there is to say.
            let _ = tell.try_send(());
        }
    };
    let watcher = notify::recommended_watcher(told).and_then(|mut watcher| {
        for path in paths {
            // A file is watched through its folder: editors replace it, and a watch on the old one would go blind.
            let folder = if path.is_dir() {
                Some(path.as_path())
            } else {
                path.parent()
            };
            let folder = folder.filter(|folder| !folder.as_os_str().is_empty());
            let folder = folder.unwrap_or(std::path::Path::new("."));
            watcher.watch(folder, RecursiveMode::NonRecursive)?;
        }
        Ok(watcher)
    });
    match watcher {
        Ok(watcher) => (notices, Some(watcher)),
        Err(error) => {
            tracing::warn!(%error, every = ?RESCAN, "no notice of changed documents here: they are read again at intervals");
            (notices, None)
        }
    }
}

/// Whether documents may be others after this: our own reading of them is an event too, and so is whatever else
/// happens to files beside them.
fn changes_documents(event: &notify::Event) -> bool {
    let read_only = matches!(event.kind, EventKind::Access(kind) if kind != AccessKind::Close(AccessMode::Write));
    let documents = event
        .paths
        .iter()
        .any(|path| source::may_hold_documents(path));
    !read_only && (documents || event.paths.is_empty() || event.need_rescan())
}

impl Worker {
    async fn run(
        mut self,
        mut notices: mpsc::Receiver<()>,
        watcher: Option<RecommendedWatcher>,
        cancel: CancellationToken,
    ) {
        // Kept alive: dropping it closes the channel of notices.
        let _watcher = watcher;
        let mut rescan = interval_at(Instant::now() + RESCAN, RESCAN);
        rescan.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut open = true;
        loop {
            tokio::select! {
                () = cancel.cancelled() => return,
                notice = notices.recv(), if open => {
                    open = notice.is_some();
                    sleep(DEBOUNCE).await;
                    while notices.try_recv().is_ok() {}
                }
                _ = rescan.tick() => {}
            }
            self.read_all().await;
        }
    }

    async fn read_all(&mut self) {
        tracing::trace!("reading the documents");
        let paths = self.paths.clone();
        let place = self.place;
        let read = move || -> Vec<Reading> {
            let readings = paths.iter().flat_map(|path| source::read(path, place));
            readings.collect()
        };
        let readings = match tokio::task::spawn_blocking(read).await {
            Ok(readings) => readings,
            Err(error) => {
                tracing::error!(%error, "reading the documents failed; the last ones stay in force");
                return;
            }
        };
        let all = self.built_in.iter().cloned().chain(readings).collect();
        let outcome = self.register.update(all);
        publish::problems(&self.problems, outcome.problems);
        publish::catalog(&self.catalog, outcome.catalog);
    }
}
