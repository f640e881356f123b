//! Joins watches, parser, statuses and writer: the registry of a cluster.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, SystemTime},
};

use kube::Client;
use mcp_gateway_api::{
    catalog::{Catalog, CatalogWatch},
    ids::BackendName,
};
use parking_lot::RwLock;
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use super::{
    objects::{self, Kind, News, Object, Objects},
    older,
    references::{self, Verdicts},
    status::{self, BackendReport, Facts},
    watch::follow,
    writer::{self, Finalizer, Order, Orders, Writing},
};
use crate::{
    problem::{Problem, Problems},
    publish,
    register::Register,
};

/// How long news are gathered: an edit of many documents is one change.
const GATHER: Duration = Duration::from_millis(20);
/// How long [`ClusterRegistry::start`] waits for the first listing.
const PATIENCE: Duration = Duration::from_secs(10);
/// How much later than an object's removal from the catalog a report must have been asked for, to be believed when it
/// says that no instance is left: the autoscaler hears of the removal a moment after us, and may start one until then.
const SETTLED: Duration = Duration::from_millis(500);

/// UIDs of `McpBackend`s by name, for those who make objects that they own.
pub type Owners = Arc<RwLock<BTreeMap<BackendName, String>>>;

/// What to follow.
pub struct ClusterConfig {
    /// For the watches alone.
    pub watches: Client,
    /// Where the documents are.
    pub namespace: String,
    /// How to write statuses; none for gateways that only read.
    pub writing: Option<Writing>,
}

/// What the autoscaler says of all backends, and when it was asked.
type Report = Option<(Instant, BTreeMap<BackendName, BackendReport>)>;

/// What exists, kept up to date until dropped.
#[derive(Debug)]
pub struct ClusterRegistry {
    catalog: CatalogWatch,
    problems: watch::Receiver<Problems>,
    known: watch::Receiver<bool>,
    owners: Owners,
    report: watch::Sender<Report>,
    /// Dropping it ends them all.
    _tasks: JoinSet<()>,
}

impl ClusterRegistry {
    /// Begins to follow, and waits a while for the first listing. An API server that is away is no error: see
    /// [`ClusterRegistry::problems`] and [`ClusterRegistry::known`].
    pub async fn start(config: ClusterConfig) -> Self {
        let ClusterConfig {
            watches,
            namespace,
            writing,
        } = config;
        let mut tasks = JoinSet::new();
        let (tell, news) = mpsc::channel(64);
        for kind in Kind::ALL {
            tasks.spawn(follow(
                watches.clone(),
                namespace.clone(),
                kind,
                tell.clone(),
            ));
        }
        let (catalog, catalog_watch) = watch::channel(Arc::default());
        let (problems, problems_watch) = watch::channel(Problems::default());
        let (known, mut known_watch) = watch::channel(false);
        let (report, reports) = watch::channel(None);
        let (orders, orders_watch) = watch::channel(Orders::default());
        let (verdicts, verdicts_watch) = watch::channel(Verdicts::default());
        if let Some(writing) = writing {
            let Writing {
                client, leading, ..
            } = writing.clone();
            let look = references::look(
                client,
                namespace.clone(),
                catalog_watch.clone(),
                leading,
                verdicts,
            );
            tasks.spawn(look);
            tasks.spawn(writer::write(namespace.clone(), writing, orders_watch));
        }
        let (older, older_watch) = watch::channel(None);
        tasks.spawn(older::compare(watches, older));
        let owners = Owners::default();
        let worker = Worker {
            objects: Objects::new(&namespace),
            register: Register::default(),
            said: Vec::new(),
            older: older_watch,
            left: BTreeMap::new(),
            last_starts: BTreeMap::new(),
            owners: Arc::clone(&owners),
            catalog,
            problems,
            known,
            orders,
        };
        tasks.spawn(worker.run(news, reports, verdicts_watch));
        // Whoever starts while the API server is away must not wait for it.
        let first = known_watch.wait_for(|known| *known);
        drop(timeout(PATIENCE, first).await);
        Self {
            catalog: catalog_watch,
            problems: problems_watch,
            known: known_watch,
            owners,
            report,
            _tasks: tasks,
        }
    }

    /// The backends of the moment.
    #[must_use]
    pub fn catalog(&self) -> CatalogWatch {
        self.catalog.clone()
    }

    /// What is wrong at the moment, the API server's absence included.
    #[must_use]
    pub fn problems(&self) -> watch::Receiver<Problems> {
        self.problems.clone()
    }

    /// Whether everything has been listed once. Before that the catalog is empty because nothing is known.
    #[must_use]
    pub fn known(&self) -> watch::Receiver<bool> {
        self.known.clone()
    }

    /// UIDs of the objects, shared.
    #[must_use]
    pub fn owners(&self) -> Owners {
        Arc::clone(&self.owners)
    }

    /// Takes in how all backends are doing; one that is not named has no instance. `asked` is the moment just before the
    /// autoscaler was asked. Cheap; called once a second or so. See [`BackendReport::all`].
    pub fn report(&self, asked: Instant, reports: BTreeMap<BackendName, BackendReport>) {
        self.report.send_replace(Some((asked, reports)));
    }
}

struct Worker {
    objects: Objects,
    register: Register,
    /// What is wrong with documents, as last found.
    said: Vec<Problem>,
    /// What of our definitions the cluster does not know.
    older: watch::Receiver<Option<Problem>>,
    /// Objects that are being deleted, by UID: since when no catalog has them.
    left: BTreeMap<String, Instant>,
    last_starts: BTreeMap<String, SystemTime>,
    owners: Owners,
    catalog: watch::Sender<Arc<Catalog>>,
    problems: watch::Sender<Problems>,
    known: watch::Sender<bool>,
    orders: watch::Sender<Orders>,
}

impl Worker {
    async fn run(
        mut self,
        mut news: mpsc::Receiver<(Kind, News)>,
        mut reports: watch::Receiver<Report>,
        mut verdicts: watch::Receiver<Verdicts>,
    ) {
        // Without a writer nobody looks at references, and nobody ever reports to those who only read.
        let (mut reporting, mut looking, mut comparing) = (true, true, true);
        loop {
            let mut changed = false;
            tokio::select! {
                first = news.recv() => {
                    let Some((kind, first)) = first else { return };
                    self.objects.take(kind, first);
                    sleep(GATHER).await;
                    while let Ok((kind, next)) = news.try_recv() {
                        self.objects.take(kind, next);
                    }
                    changed = true;
                }
                said = reports.changed(), if reporting => reporting = said.is_ok(),
                said = verdicts.changed(), if looking => looking = said.is_ok(),
                said = self.older.changed(), if comparing => {
                    comparing = said.is_ok();
                    changed = true;
                }
            }
            if changed {
                self.documents();
            }
            if self.objects.complete() {
                let report = reports.borrow_and_update().clone();
                let verdicts = Arc::clone(&verdicts.borrow_and_update());
                self.order(&report, &verdicts);
            }
        }
    }

    /// Publishes what the documents say.
    fn documents(&mut self) {
        let mut problems = self.objects.troubles();
        problems.extend(self.older.borrow_and_update().clone());
        if self.objects.complete() {
            let mut outcome = self.register.update(self.objects.readings());
            outcome.problems.iter_mut().for_each(objects::placeless);
            self.said.clone_from(&outcome.problems);
            problems.append(&mut outcome.problems);
            self.own(&outcome.catalog);
            publish::catalog(&self.catalog, outcome.catalog);
            self.note_leaving();
            self.known
                .send_if_modified(|known| !std::mem::replace(known, true));
        }
        publish::problems(&self.problems, problems);
    }

    /// Before the catalog is published: whoever starts an instance must find its owner.
    fn own(&self, catalog: &Catalog) {
        let backends = self.objects.of(Kind::McpBackend);
        let uid = |name: &BackendName| {
            let object = backends.get(name.as_str())?;
            Some((name.clone(), object.uid.clone()))
        };
        *self.owners.write() = catalog.backends.keys().filter_map(uid).collect();
    }

    fn note_leaving(&mut self) {
        let backends = self.objects.of(Kind::McpBackend).values();
        let leaving: BTreeSet<&str> = backends
            .filter(|object| object.deleting)
            .map(|object| object.uid.as_str())
            .collect();
        self.left.retain(|uid, _| leaving.contains(uid.as_str()));
        for uid in leaving {
            self.left.entry(uid.to_owned()).or_insert_with(Instant::now);
        }
    }

    /// Says what every object should be like.
    fn order(&mut self, report: &Report, verdicts: &Verdicts) {
        let namespace = self.objects.namespace().to_owned();
        let problems: BTreeMap<_, _> = self.said.iter().map(|p| (p.file.as_ref(), p)).collect();
        let catalog = Arc::clone(&self.catalog.borrow());
        let mut orders = BTreeMap::new();
        for kind in Kind::ALL {
            for object in self.objects.of(kind).values() {
                let name = BackendName::new(&object.name).ok();
                let name = name.as_ref().filter(|_| kind == Kind::McpBackend);
                let reports = report.as_ref().map(|(_, reports)| reports);
                let facts = Facts {
                    object,
                    kind,
                    problem: problems
                        .get(objects::path(&namespace, kind, &object.name).as_path())
                        .copied(),
                    in_force: name.is_some_and(|name| catalog.get(name).is_some()),
                    references: name.and_then(|name| verdicts.get(name)),
                    report: name.and_then(|name| reports?.get(name)),
                };
                let mut wanted = status::wanted(facts);
                if kind == Kind::McpBackend {
                    let known = self.last_starts.get(&object.uid).copied();
                    let known = known.or_else(|| last_start(object));
                    wanted.last_start = status::last_start(known, wanted.last_start);
                    if let Some(start) = wanted.last_start {
                        self.last_starts.insert(object.uid.clone(), start);
                    }
                }
                let finalizer = finalizer(facts, report, self.left.get(&object.uid));
                let order = Order {
                    uid: object.uid.clone(),
                    resource_version: object.resource_version.clone(),
                    finalizers: object.finalizers.clone(),
                    status: object.status.clone(),
                    wanted,
                    finalizer,
                };
                orders.insert((kind, object.name.clone()), order);
            }
        }
        let there = |uid: &String| orders.values().any(|order: &Order| order.uid == *uid);
        self.last_starts.retain(|uid, _| there(uid));
        self.orders.send_if_modified(|before| {
            let changed = **before != orders;
            if changed {
                *before = Arc::new(orders);
            }
            changed
        });
    }
}

/// What is to be done about an object's finalizer. Pure.
fn finalizer(facts: Facts<'_>, report: &Report, left: Option<&Instant>) -> Finalizer {
    let object = facts.object;
    if facts.kind != Kind::McpBackend {
        return Finalizer::Leave;
    }
    if !object.deleting {
        let wanting = facts.in_force && !object.held();
        return if wanting {
            Finalizer::Add
        } else {
            Finalizer::Leave
        };
    }
    let late_enough = match (report, left) {
        (Some((asked, _)), Some(left)) => *asked >= *left + SETTLED,
        (_, _) => false,
    };
    let empty = facts.report.is_none_or(|report| report.instances == 0);
    if object.held() && late_enough && empty {
        Finalizer::Remove
    } else {
        Finalizer::Leave
    }
}

/// When the last instance was started, as the object's own status remembers it.
fn last_start(object: &Object) -> Option<SystemTime> {
    let stamp: k8s_openapi::jiff::Timestamp = object.status["lastStart"].as_str()?.parse().ok()?;
    Some(stamp.into())
}
