//! A scaler that does as it is told and remembers what it heard, replicas that lead or do not, and a wire that can be
//! cut.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use mcp_gateway_api::{
    activity::{ActivityReport, DrainAck, InstanceActivity},
    claim::{ClaimRequest, Claimed, Purpose, Standing},
    failure::Failure,
    ids::{ActivatorId, BackendName, ClaimId, Generation, InstanceId, TenantName},
    principal::Principal,
    record::SessionUpdate,
    scaler::{ActivatorPod, PodUid, Restatement, Scaler},
    slot::{Owner, SlotKey},
    view::{Endpoint, InstanceSecret, InstanceView, Lookup, Reach, Service, Stamp, ViewEvent},
};
use mcp_gateway_link::{
    ACTIVATOR_NAME, AUTOSCALER_NAME, Authority, Lead, RemoteConfig, RemoteScaler, ScalerServer,
};
use parking_lot::Mutex;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::{mpsc, watch},
    time::timeout,
};

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// How a claim goes.
#[derive(Clone)]
pub(crate) enum Script {
    Answer(Box<Result<Claimed, Failure>>),
    Hangs,
}

/// Who listens, from which pod, and how it is spoken to.
pub(crate) type Listener = (ActivatorId, Option<ActivatorPod>, mpsc::Sender<ViewEvent>);

/// Remembers everything; decides nothing.
pub(crate) struct Fake {
    pub(crate) script: Mutex<Script>,
    pub(crate) claims: Mutex<Vec<ClaimRequest>>,
    pub(crate) waiting: watch::Sender<usize>,
    pub(crate) begun: watch::Sender<usize>,
    pub(crate) views: watch::Sender<Vec<Listener>>,
    pub(crate) reports: watch::Sender<Vec<ActivityReport>>,
    pub(crate) acks: watch::Sender<Vec<DrainAck>>,
    pub(crate) records: watch::Sender<Vec<SessionUpdate>>,
    pub(crate) restated: watch::Sender<Vec<Restatement>>,
    pub(crate) left: watch::Sender<Vec<ActivatorId>>,
    pub(crate) epoch: u64,
}

impl Fake {
    pub(crate) fn new(epoch: u64) -> Arc<Self> {
        Arc::new(Self {
            script: Mutex::new(Script::Answer(Box::new(Ok(claimed(epoch))))),
            claims: Mutex::default(),
            waiting: watch::Sender::default(),
            begun: watch::Sender::default(),
            views: watch::Sender::default(),
            reports: watch::Sender::default(),
            acks: watch::Sender::default(),
            records: watch::Sender::default(),
            restated: watch::Sender::default(),
            left: watch::Sender::default(),
            epoch,
        })
    }

    fn listen(
        &self,
        activator: ActivatorId,
        pod: Option<ActivatorPod>,
    ) -> mpsc::Receiver<ViewEvent> {
        let (view, events) = mpsc::channel(16);
        let stamp = Stamp {
            epoch: self.epoch,
            sequence: 1,
        };
        let snapshot = ViewEvent::Snapshot {
            stamp,
            complete: true,
            instances: vec![view_of(self.epoch, 1)],
            records: Vec::new(),
        };
        view.try_send(snapshot).unwrap();
        self.views
            .send_modify(|views| views.push((activator, pod, view)));
        events
    }
}

struct Waiting<'a>(&'a watch::Sender<usize>);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|waiting| *waiting -= 1);
    }
}

#[async_trait]
impl Scaler for Fake {
    async fn claim(&self, request: ClaimRequest) -> Result<Claimed, Failure> {
        self.claims.lock().push(request);
        self.waiting.send_modify(|waiting| *waiting += 1);
        self.begun.send_modify(|begun| *begun += 1);
        let _waiting = Waiting(&self.waiting);
        let script = self.script.lock().clone();
        match script {
            Script::Answer(answer) => *answer,
            Script::Hangs => std::future::pending().await,
        }
    }

    fn subscribe(&self, activator: ActivatorId) -> mpsc::Receiver<ViewEvent> {
        self.listen(activator, None)
    }

    async fn report(&self, report: ActivityReport) {
        self.reports.send_modify(|reports| reports.push(report));
    }

    async fn acknowledge(&self, ack: DrainAck) {
        self.acks.send_modify(|acks| acks.push(ack));
    }

    async fn lookup(&self, instance: InstanceId) -> Lookup {
        if instance == InstanceId(1) {
            Lookup::Ready(view_of(self.epoch, 1))
        } else {
            Lookup::Gone
        }
    }

    async fn record(&self, update: SessionUpdate) -> Result<(), Failure> {
        self.records.send_modify(|records| records.push(update));
        Ok(())
    }

    fn subscribe_from(
        &self,
        activator: ActivatorId,
        pod: ActivatorPod,
    ) -> mpsc::Receiver<ViewEvent> {
        self.listen(activator, Some(pod))
    }

    async fn restate(&self, restatement: Restatement) -> Result<(), Failure> {
        self.restated.send_modify(|all| all.push(restatement));
        Ok(())
    }

    async fn leave(&self, activator: ActivatorId) {
        self.left.send_modify(|left| left.push(activator));
    }
}

pub(crate) fn view_of(epoch: u64, sequence: u64) -> InstanceView {
    let backend = BackendName::new("demo").unwrap();
    InstanceView {
        id: InstanceId(1),
        slot: SlotKey {
            backend,
            owner: Owner::Nobody,
        },
        tenant: TenantName::default(),
        generation: Generation(7),
        endpoint: Endpoint {
            reach: Reach::Tcp("127.0.0.1:9".parse().unwrap()),
            host: "localhost:9".into(),
            path: "/mcp".into(),
            secret: Some(InstanceSecret("hush".into())),
        },
        service: Service::Open,
        stamp: Stamp { epoch, sequence },
    }
}

pub(crate) fn claimed(epoch: u64) -> Claimed {
    Claimed {
        session: None,
        instance: view_of(epoch, 1),
        standing: Standing::Fresh,
        cold: None,
    }
}

pub(crate) fn request(budget: Duration) -> ClaimRequest {
    ClaimRequest {
        id: ClaimId::random(),
        backend: BackendName::new("demo").unwrap(),
        tenant: TenantName::default(),
        principal: Principal::anonymous().id,
        purpose: Purpose::Exchange,
        budget,
    }
}

pub(crate) fn report(sequence: u64, full: bool, uses: &[(u128, u32)]) -> ActivityReport {
    let instances = uses.iter().map(|(id, leases)| InstanceActivity {
        instance: InstanceId(*id),
        leases: *leases,
        idle_for: Duration::ZERO,
    });
    ActivityReport {
        activator: ActivatorId(5),
        sequence,
        full,
        instances: instances.collect(),
    }
}

/// One installation.
pub(crate) struct Installation {
    pub(crate) authority: Authority,
}

/// One replica of the autoscaler.
pub(crate) struct Replica {
    pub(crate) address: SocketAddr,
    pub(crate) lead: watch::Sender<Lead>,
}

impl Replica {
    pub(crate) fn lead(&self, fake: &Arc<Fake>) {
        let scaler = Arc::clone(fake) as Arc<dyn Scaler>;
        let epoch = fake.epoch;
        self.lead.send_replace(Lead::Here { epoch, scaler });
    }
}

impl Installation {
    pub(crate) fn new() -> Self {
        Self {
            authority: Authority::generate().unwrap(),
        }
    }

    pub(crate) async fn replica(&self) -> Replica {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (lead, leads) = watch::channel(Lead::Elsewhere(None));
        let credentials = self.authority.credentials(AUTOSCALER_NAME).unwrap();
        tokio::spawn(async move {
            let server = ScalerServer::new(leads);
            let forever = std::future::pending();
            server.serve(listener, &credentials, forever).await.unwrap();
        });
        Replica { address, lead }
    }

    pub(crate) fn config(&self) -> RemoteConfig {
        let pod = ActivatorPod {
            uid: PodUid(77),
            incarnation: 3,
        };
        RemoteConfig::new(self.authority.credentials(ACTIVATOR_NAME).unwrap(), pod)
    }

    pub(crate) fn activator(&self, replicas: &[SocketAddr]) -> RemoteScaler {
        let (_, addresses) = watch::channel(replicas.to_vec());
        RemoteScaler::connect(self.config(), addresses).unwrap()
    }
}

/// A wire to an address that can be cut, and mended.
pub(crate) struct Wire {
    pub(crate) address: SocketAddr,
    up: watch::Sender<bool>,
    pub(crate) dialled: Arc<AtomicUsize>,
}

impl Wire {
    pub(crate) async fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (up, is_up) = watch::channel(true);
        let dialled = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&dialled);
        tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::Relaxed);
                let mut is_up = is_up.clone();
                if !*is_up.borrow_and_update() {
                    continue;
                }
                tokio::spawn(async move {
                    let mut far = TcpStream::connect(target).await.unwrap();
                    tokio::select! {
                        _ = copy_bidirectional(&mut near, &mut far) => {}
                        _ = is_up.changed() => {}
                    }
                });
            }
        });
        Self {
            address,
            up,
            dialled,
        }
    }

    /// Drops every connection and takes no new one.
    pub(crate) fn cut(&self) {
        self.up.send_replace(false);
    }

    pub(crate) fn mend(&self) {
        self.up.send_replace(true);
    }
}

/// Waits until a value is as wanted; a test that waits for what never comes fails.
pub(crate) async fn until<T: Clone>(
    watched: &watch::Sender<T>,
    wanted: impl FnMut(&T) -> bool,
) -> T {
    let mut watched = watched.subscribe();
    let found = timeout(PATIENCE, watched.wait_for(wanted)).await;
    found.expect("it never came").unwrap().clone()
}

/// The next event of a view.
pub(crate) async fn next(view: &mut mpsc::Receiver<ViewEvent>) -> ViewEvent {
    let event = timeout(PATIENCE, view.recv()).await;
    event
        .expect("nothing was said")
        .expect("the view has ended")
}

/// The term of a snapshot.
pub(crate) fn term_of(event: &ViewEvent) -> Option<u64> {
    match event {
        ViewEvent::Snapshot { stamp, .. } => Some(stamp.epoch),
        ViewEvent::Instance(_)
        | ViewEvent::Gone { .. }
        | ViewEvent::Record(_)
        | ViewEvent::Forget(_) => None,
    }
}
