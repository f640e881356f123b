use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use mcp_gateway_api::{
    activity::{ActivityReport, DrainAck},
    catalog::Catalog,
    claim::{ClaimRequest, Claimed},
    claim::{Purpose, Standing},
    endpoint::LocalDial,
    failure::FailureKind,
    ids::Generation,
    ids::{ActivatorId, BackendName, InstanceId, TenantName, UpstreamSession},
    record::SessionBinding,
    scaler::Scaler,
    slot::{Owner, SlotKey},
    view::{Endpoint, InstanceView, Lookup, Reach, Service, Stamp, ViewEvent},
};
use tokio::{
    io::DuplexStream,
    sync::{mpsc, watch},
};

use super::*;
use crate::{
    auth::Anonymous,
    config::ActivatorConfig,
    directory::Directory,
    exchange::permit::Permit,
    gateway::Deps,
    memory::Memory,
    session::{keyring::Keyring, sealed::Sealer},
};

/// Writes each piece of news faster than the one before.
#[derive(Default)]
struct Hurried {
    asked: Mutex<u64>,
    written: Mutex<Vec<SessionNews>>,
    /// Keeps nothing.
    away: AtomicBool,
}

#[async_trait]
impl Scaler for Hurried {
    async fn claim(&self, _request: ClaimRequest) -> Result<Claimed, Failure> {
        Err(Failure::new(FailureKind::Internal, "not in this script"))
    }
    fn subscribe(&self, _activator: ActivatorId) -> mpsc::Receiver<ViewEvent> {
        mpsc::channel(1).1
    }
    async fn report(&self, _report: ActivityReport) {}
    async fn acknowledge(&self, _ack: DrainAck) {}
    async fn lookup(&self, _instance: InstanceId) -> Lookup {
        Lookup::Unknown
    }
    async fn record(&self, update: SessionUpdate) -> Result<(), Failure> {
        let nth = {
            let mut asked = self.asked.lock();
            *asked += 1;
            *asked
        };
        tokio::time::sleep(Duration::from_millis(100 / nth)).await;
        if self.away.load(Ordering::Relaxed) {
            return Err(Failure::new(FailureKind::HoldTimeout, "nobody leads"));
        }
        self.written.lock().push(update.news);
        Ok(())
    }
}

impl LocalDial for Hurried {
    fn dial(&self, _instance: InstanceId) -> std::io::Result<DuplexStream> {
        Err(std::io::ErrorKind::NotFound.into())
    }
}

fn gateway(scaler: &Arc<Hurried>) -> Gateway {
    let config = ActivatorConfig::default();
    let deps = Deps {
        scaler: Arc::clone(scaler) as Arc<dyn Scaler>,
        catalog: watch::channel(Arc::new(Catalog::default())).1,
        dial: Arc::clone(scaler) as Arc<dyn LocalDial>,
        auth: Arc::new(Anonymous::default()),
        sealer: Sealer::new(Keyring::random().unwrap()),
        memory: Memory::open(None),
        directory: Directory::new(config.id),
    };
    Gateway::new(config, deps)
}

/// A gateway with nothing behind it.
pub(crate) fn lonely_gateway() -> Gateway {
    gateway(&Arc::default())
}

fn update(news: SessionNews) -> SessionUpdate {
    let session = SessionRef {
        key: SessionKey([1; 24]),
        backend: BackendName::new("b").unwrap(),
        tenant: TenantName::default(),
        expires_at: u64::MAX,
    };
    SessionUpdate { session, news }
}

#[tokio::test(start_paused = true)]
async fn news_of_a_session_is_written_in_the_order_in_which_it_happened() {
    let scaler = Arc::new(Hurried::default());
    let gateway = gateway(&scaler);
    let binding = SessionBinding {
        instance: InstanceId(1),
        upstream: UpstreamSession("u".into()),
    };
    let subscribed = SessionNews::Subscribed("file:///a".into());
    let unsubscribed = SessionNews::Unsubscribed("file:///a".into());
    let revived = SessionNews::Revived(binding.clone());
    record(&gateway, update(subscribed.clone()));
    record(&gateway, update(unsubscribed.clone()));
    record(&gateway, update(SessionNews::Asleep));
    let key = SessionKey([1; 24]);
    let here = |gateway: &Gateway| gateway.deps.directory.record(&key).unwrap();
    assert_eq!(here(&gateway).binding, Some(None));
    kept(&gateway, update(revived.clone())).await.unwrap();
    let expected = [subscribed, unsubscribed, SessionNews::Asleep, revived];
    assert_eq!(*scaler.written.lock(), expected);
    assert_eq!(here(&gateway).binding, Some(Some(binding)));
    gateway.tasks.close();
    gateway.tasks.wait().await;
    assert!(gateway.writing.0.lock().is_empty());
}

/// A leader of that term has told all there is, which is nothing.
fn knows_all(gateway: &Gateway, epoch: u64) {
    gateway.deps.directory.apply(ViewEvent::Snapshot {
        stamp: Stamp { epoch, sequence: 1 },
        complete: true,
        instances: vec![],
        records: vec![],
    });
}

#[tokio::test(start_paused = true)]
async fn what_went_with_a_leader_is_written_again_to_the_next_before_anything_newer() {
    let scaler = Arc::new(Hurried::default());
    let gateway = gateway(&scaler);
    knows_all(&gateway, 1);
    tokio::spawn(repeat(gateway.clone()));
    let key = SessionKey([1; 24]);
    let subscribed = SessionNews::Subscribed("file:///a".into());
    let level = |level: &str| SessionNews::LogLevel(level.into());
    // Kept by a leader that told nobody, and two that none was there to keep.
    kept(&gateway, update(SessionNews::Asleep)).await.unwrap();
    scaler.away.store(true, Ordering::Relaxed);
    record(&gateway, update(subscribed.clone()));
    record(&gateway, update(level("debug")));
    written(&gateway, key).await;
    scaler.away.store(false, Ordering::Relaxed);
    scaler.written.lock().clear();
    // Some is on its way, and more waits behind it.
    record(&gateway, update(level("error")));
    tokio::task::yield_now().await;
    record(
        &gateway,
        update(SessionNews::Unsubscribed("file:///a".into())),
    );
    knows_all(&gateway, 2);
    tokio::task::yield_now().await;
    written(&gateway, key).await;
    let unsubscribed = SessionNews::Unsubscribed("file:///a".into());
    let again = [
        SessionNews::Asleep,
        subscribed,
        level("debug"),
        level("error"),
    ];
    let expected: Vec<_> = [level("error")]
        .into_iter()
        .chain(again)
        .chain([unsubscribed])
        .collect();
    assert_eq!(*scaler.written.lock(), expected);
}

fn instance() -> InstanceView {
    InstanceView {
        id: InstanceId(1),
        slot: SlotKey {
            backend: BackendName::new("b").unwrap(),
            owner: Owner::Nobody,
        },
        tenant: TenantName::default(),
        generation: Generation(1),
        endpoint: Endpoint {
            reach: Reach::InProcess,
            host: "localhost".into(),
            path: "/mcp".into(),
            secret: None,
        },
        service: Service::Open,
        stamp: Stamp::default(),
    }
}

#[tokio::test(start_paused = true)]
async fn a_permit_that_is_dropped_unused_is_given_back_and_held_until_that_is_written() {
    let scaler = Arc::new(Hurried::default());
    let gateway = gateway(&scaler);
    let session = update(SessionNews::Asleep).session;
    let purpose = Purpose::Session {
        session: session.clone(),
        bound: None,
    };
    let claimed = |standing| Claimed {
        session: None,
        instance: instance(),
        standing,
        cold: None,
    };
    let permit = |standing| Permit::of(&gateway, &purpose, &claimed(standing));
    let held = || gateway.deps.directory.restatement(1, 1).permits.len();
    assert!(permit(Standing::Fresh).is_none());
    assert_eq!(held(), 0);
    drop(permit(Standing::Revive).unwrap());
    assert_eq!(held(), 1);
    written(&gateway, session.key).await;
    let back = SessionNews::RevivalFailed { retry: true };
    assert_eq!((held(), &*scaler.written.lock()), (0, &vec![back]));
    permit(Standing::Revive).unwrap().used();
    written(&gateway, session.key).await;
    assert_eq!(scaler.written.lock().len(), 1);
}
