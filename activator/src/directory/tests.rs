use std::{
    net::SocketAddr,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use async_trait::async_trait;
use mcp_gateway_api::{
    activity::{ActivityReport, DrainAck},
    claim::{ClaimRequest, Claimed},
    failure::{Failure, FailureKind},
    ids::{BackendName, Generation, TenantName, UpstreamSession},
    record::{SessionBinding, SessionNews, SessionRef},
    scaler::Restatement,
    slot::{Owner, SlotKey},
    view::{Endpoint, Reach, Service},
};
use proptest::prelude::*;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::lease::{Lease, NotNow};

mod restated;
mod terms;

/// Keeps what it is told; its view is what the test sends.
struct Scripted {
    views: Mutex<Option<mpsc::Receiver<ViewEvent>>>,
    told: mpsc::Sender<Told>,
    /// Of so many restatements nobody will hear.
    deaf: AtomicU32,
}

#[derive(Debug)]
enum Told {
    Report(ActivityReport),
    Ack(DrainAck),
    Restated(Box<Restatement>),
    Left(ActivatorId),
}

#[async_trait]
impl Scaler for Scripted {
    async fn claim(&self, _request: ClaimRequest) -> Result<Claimed, Failure> {
        Err(Failure::new(FailureKind::Internal, "not in this script"))
    }
    fn subscribe(&self, _activator: ActivatorId) -> mpsc::Receiver<ViewEvent> {
        self.views
            .lock()
            .take()
            .unwrap_or_else(|| mpsc::channel(1).1)
    }
    async fn report(&self, report: ActivityReport) {
        self.told.send(Told::Report(report)).await.unwrap();
    }
    async fn acknowledge(&self, ack: DrainAck) {
        self.told.send(Told::Ack(ack)).await.unwrap();
    }
    async fn lookup(&self, instance: InstanceId) -> Lookup {
        match instance.0 {
            7 => Lookup::Ready(view(7, Service::Open, 1)),
            8 => Lookup::Unknown,
            _ => Lookup::Gone,
        }
    }
    async fn record(&self, _update: SessionUpdate) -> Result<(), Failure> {
        Ok(())
    }
    async fn restate(&self, restatement: Restatement) -> Result<(), Failure> {
        let all = Told::Restated(Box::new(restatement));
        self.told.send(all).await.unwrap();
        let less = |deaf: u32| deaf.checked_sub(1);
        let deaf = self
            .deaf
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        match deaf {
            Ok(_) => Err(Failure::new(FailureKind::HoldTimeout, "Nobody leads.")),
            Err(_) => Ok(()),
        }
    }
    async fn leave(&self, activator: ActivatorId) {
        self.told.send(Told::Left(activator)).await.unwrap();
    }
}

fn stamp(sequence: u64) -> Stamp {
    Stamp { epoch: 1, sequence }
}

fn view(id: u128, service: Service, sequence: u64) -> InstanceView {
    InstanceView {
        id: InstanceId(id),
        slot: SlotKey {
            backend: BackendName::new("b").unwrap(),
            owner: Owner::Nobody,
        },
        tenant: TenantName::default(),
        generation: Generation(1),
        endpoint: Endpoint {
            secret: None,
            reach: Reach::Tcp(SocketAddr::from(([127, 0, 0, 1], 1))),
            host: "localhost:1".into(),
            path: "/mcp".into(),
        },
        service,
        stamp: stamp(sequence),
    }
}

fn gone(id: u128, sequence: u64) -> ViewEvent {
    ViewEvent::Gone {
        instance: InstanceId(id),
        why: "test".into(),
        stamp: stamp(sequence),
    }
}

fn directory() -> Directory {
    Directory::new(ActivatorId(1))
}

struct Running {
    directory: Directory,
    scaler: Arc<Scripted>,
    view: mpsc::Sender<ViewEvent>,
    told: mpsc::Receiver<Told>,
    _cancel: tokio_util::sync::DropGuard,
}

fn running() -> Running {
    let (view, views) = mpsc::channel(16);
    let (tell, told) = mpsc::channel(1_024);
    let scaler = Arc::new(Scripted {
        views: Mutex::new(Some(views)),
        told: tell,
        deaf: AtomicU32::new(0),
    });
    let cancel = CancellationToken::new();
    let directory = directory();
    let shared = Arc::clone(&scaler) as Arc<dyn Scaler>;
    tokio::spawn(directory.clone().run(shared, cancel.clone()));
    Running {
        directory,
        scaler,
        view,
        told,
        _cancel: cancel.drop_guard(),
    }
}

impl Running {
    async fn next_ack(&mut self) -> DrainAck {
        loop {
            if let Told::Ack(ack) = self.told.recv().await.unwrap() {
                return ack;
            }
        }
    }

    async fn next_restatement(&mut self) -> Restatement {
        loop {
            if let Told::Restated(all) = self.told.recv().await.unwrap() {
                return *all;
            }
        }
    }

    async fn next_report(&mut self) -> ActivityReport {
        loop {
            if let Told::Report(report) = self.told.recv().await.unwrap() {
                return report;
            }
        }
    }
}

#[test]
fn a_lease_is_to_be_had_only_while_the_service_is_open() {
    let directory = directory();
    let id = InstanceId(1);
    assert_eq!(directory.lease(id).err(), Some(NotNow::Unknown));
    directory.apply(ViewEvent::Instance(view(1, Service::Open, 1)));
    let lease = directory.lease(id).unwrap();
    for (sequence, drain) in [Service::IdleDrain, Service::RetireDrain, Service::Cut]
        .into_iter()
        .enumerate()
    {
        directory.apply(ViewEvent::Instance(view(1, drain, 2 + sequence as u64)));
        assert_eq!(directory.lease(id).err(), Some(NotNow::Draining(drain)));
        drop(lease.another());
    }
    assert!(lease.is_over());
    directory.apply(gone(1, 9));
    assert_eq!(directory.lease(id).err(), Some(NotNow::Gone));
}

#[test]
fn older_news_of_an_instance_is_ignored() {
    let directory = directory();
    directory.apply(ViewEvent::Instance(view(1, Service::IdleDrain, 5)));
    directory.apply_claimed(view(1, Service::Open, 4));
    assert!(directory.lease(InstanceId(1)).is_err());
    directory.apply(gone(1, 4));
    assert!(directory.view(InstanceId(1)).is_some());
    directory.apply_claimed(view(1, Service::Open, 6));
    assert!(directory.lease(InstanceId(1)).is_ok());
    directory.apply(gone(1, 7));
    directory.apply_claimed(view(1, Service::Open, 8));
    assert_eq!(directory.lease(InstanceId(1)).err(), Some(NotNow::Gone));
}

#[test]
fn absence_from_a_snapshot_means_gone_only_when_it_is_complete() {
    let directory = directory();
    let snapshot = |sequence, complete, instances| ViewEvent::Snapshot {
        stamp: stamp(sequence),
        complete,
        instances,
        records: Vec::new(),
    };
    directory.apply(ViewEvent::Instance(view(1, Service::Open, 1)));
    directory.apply(snapshot(2, false, vec![view(2, Service::Open, 2)]));
    assert!(directory.lease(InstanceId(1)).is_ok());
    // It was claimed after this snapshot was taken.
    directory.apply_claimed(view(3, Service::Open, 9));
    directory.apply(snapshot(3, true, vec![view(2, Service::Open, 2)]));
    assert_eq!(directory.lease(InstanceId(1)).err(), Some(NotNow::Gone));
    assert!(directory.lease(InstanceId(2)).is_ok());
    assert!(directory.lease(InstanceId(3)).is_ok());
}

#[tokio::test]
async fn what_the_view_does_not_know_is_asked_for_and_kept() {
    let directory = directory();
    let scaler = Scripted {
        views: Mutex::default(),
        told: mpsc::channel(1).0,
        deaf: AtomicU32::new(0),
    };
    let answer = directory.resolve(&scaler, InstanceId(7)).await;
    assert!(matches!(answer, Lookup::Ready(_)));
    assert!(directory.lease(InstanceId(7)).is_ok());
    assert_eq!(
        directory.resolve(&scaler, InstanceId(8)).await,
        Lookup::Unknown
    );
    assert_eq!(directory.lease(InstanceId(8)).err(), Some(NotNow::Unknown));
    assert_eq!(
        directory.resolve(&scaler, InstanceId(9)).await,
        Lookup::Gone
    );
    assert_eq!(directory.lease(InstanceId(9)).err(), Some(NotNow::Gone));
}

#[tokio::test(start_paused = true)]
async fn a_drain_is_acknowledged_at_once_and_again_until_no_lease_is_left() {
    let mut running = running();
    let directory = running.directory.clone();
    directory.apply_claimed(view(1, Service::Open, 1));
    let lease = directory.lease(InstanceId(1)).unwrap();
    let second = lease.another();
    running
        .view
        .send(ViewEvent::Instance(view(1, Service::IdleDrain, 2)))
        .await
        .unwrap();
    let ack = running.next_ack().await;
    assert_eq!((ack.stamp, ack.leases), (stamp(2), 2));
    drop(second);
    assert_eq!(running.next_ack().await.leases, 1);
    drop(lease);
    assert_eq!(running.next_ack().await.leases, 0);
}

#[tokio::test(start_paused = true)]
async fn changes_are_gathered_into_one_report_and_everything_is_told_now_and_then() {
    let mut running = running();
    let directory = running.directory.clone();
    assert!(running.next_report().await.full);
    for id in 1..=3 {
        directory.apply_claimed(view(id, Service::Open, 1));
    }
    let leases: Vec<_> = (0..5)
        .map(|_| directory.lease(InstanceId(1)).unwrap())
        .collect();
    let report = running.next_report().await;
    assert!(!report.full);
    assert_eq!(report.instances.len(), 3);
    let of = |report: &ActivityReport| {
        let found = report
            .instances
            .iter()
            .find(|i| i.instance == InstanceId(1));
        found.map(|i| (i.leases, i.idle_for))
    };
    assert_eq!(of(&report), Some((5, Duration::ZERO)));
    drop(leases);
    let started = Instant::now();
    let report = running.next_report().await;
    assert_eq!(of(&report), Some((0, Duration::from_millis(10))));
    assert_eq!(started.elapsed(), Duration::from_millis(10));
    let full = running.next_report().await;
    assert!(full.full && full.sequence > report.sequence);
    assert_eq!(full.instances.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn whoever_watches_an_instance_hears_of_its_end() {
    let running = running();
    running.directory.apply_claimed(view(1, Service::Open, 1));
    let mut life = running.directory.watch(InstanceId(1)).unwrap();
    running.view.send(gone(1, 2)).await.unwrap();
    assert_eq!(
        *life.wait_for(|life| life.is_over()).await.unwrap(),
        Life::Gone
    );
}

fn about(key: u8) -> SessionRef {
    SessionRef {
        key: SessionKey([key; 24]),
        backend: BackendName::new("b").unwrap(),
        tenant: TenantName::default(),
        expires_at: 0,
    }
}

#[test]
fn what_was_just_recorded_is_known_at_once_and_an_end_stays_an_end() {
    let directory = directory();
    let heard = Arc::new(Mutex::new(Vec::new()));
    let ears = Arc::clone(&heard);
    directory.on_record(move |record| ears.lock().push(record.ended));
    let learn = |news| {
        directory.learn(&SessionUpdate {
            session: about(1),
            news,
        });
    };
    let binding = SessionBinding {
        instance: InstanceId(1),
        upstream: UpstreamSession("u".into()),
    };
    learn(SessionNews::Opened(InstanceId(1)));
    assert_eq!(directory.record(&about(1).key), None);
    learn(SessionNews::Revived(binding.clone()));
    learn(SessionNews::Subscribed("file:///a".into()));
    learn(SessionNews::Subscribed("file:///a".into()));
    learn(SessionNews::LogLevel("debug".into()));
    let record = directory.record(&about(1).key).unwrap();
    assert_eq!(record.binding, Some(Some(binding)));
    assert_eq!(record.subscriptions, ["file:///a"]);
    assert_eq!(record.log_level.as_deref(), Some("debug"));
    learn(SessionNews::Ended);
    directory.apply(ViewEvent::Record(record));
    assert!(directory.record(&about(1).key).unwrap().ended);
    directory.apply(ViewEvent::Forget(about(1).key));
    assert_eq!(directory.record(&about(1).key), None);
    assert_eq!(heard.lock().last(), Some(&true));
}

proptest! {
    #[test]
    fn leases_are_never_taken_while_draining_and_always_add_up(
        steps in proptest::collection::vec((0..5_u8, any::<prop::sample::Index>()), 0..120),
    ) {
        let directory = directory();
        let id = InstanceId(1);
        directory.apply_claimed(view(1, Service::Open, 0));
        let mut leases: Vec<Lease> = Vec::new();
        let mut service = Service::Open;
        for (sequence, (step, which)) in steps.into_iter().enumerate() {
            match step {
                0 => {
                    let lease = directory.lease(id);
                    prop_assert_eq!(lease.is_ok(), service == Service::Open);
                    leases.extend(lease.ok());
                }
                1 if !leases.is_empty() => {
                    leases.swap_remove(which.index(leases.len()));
                }
                2 if !leases.is_empty() => {
                    let another = leases[which.index(leases.len())].another();
                    leases.push(another);
                }
                3 => service = Service::IdleDrain,
                _ => service = Service::Open,
            }
            directory.apply(ViewEvent::Instance(view(1, service, 1 + sequence as u64)));
            let entry = directory.entry(id).unwrap();
            prop_assert_eq!(entry.state.lock().leases as usize, leases.len());
        }
        drop(leases);
        let entry = directory.entry(id).unwrap();
        prop_assert_eq!(entry.state.lock().leases, 0);
    }
}
