use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use mcp_gateway_api::{
    activity::{ActivityReport, DrainAck},
    catalog::Catalog,
    claim::{ClaimRequest, Claimed},
    endpoint::LocalDial,
    failure::FailureKind,
    ids::{ActivatorId, BackendName, InstanceId, TenantName, UpstreamSession},
    record::SessionBinding,
    scaler::Scaler,
    view::{Lookup, ViewEvent},
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
    gateway::Deps,
    memory::Memory,
    session::{keyring::Keyring, sealed::Sealer},
};

/// Writes each piece of news faster than the one before.
#[derive(Default)]
struct Hurried {
    asked: Mutex<u64>,
    written: Mutex<Vec<SessionNews>>,
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
