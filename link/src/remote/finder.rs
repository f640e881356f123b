//! Which replica leads.
//!
//! All are asked at once, and where a replica names another that one too; the first that leads, in a term not below the
//! highest heard of, is it, until somebody who asked it found it lost.

use std::{
    fmt,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use parking_lot::Mutex;
use tokio::{sync::watch, time::timeout};
use tonic::{
    Status,
    transport::{Channel, ClientTlsConfig, Endpoint},
};

use super::{Backoff, RemoteConfig};
use crate::{
    authority::AUTOSCALER_NAME,
    protocol,
    scaler::{self as wire, scaler_client::ScalerClient},
};

/// A connection to a replica.
pub(super) type Client = ScalerClient<Channel>;

/// How long a replica may take to say whether it leads.
const ASKING: Duration = Duration::from_secs(2);
/// Most replicas asked in one round, named ones among them.
const MAX_REPLICAS: usize = 64;

/// The replica that leads.
pub(super) struct Leader {
    pub(super) client: Client,
    address: SocketAddr,
    epoch: u64,
}

impl fmt::Debug for Leader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (term {})", self.address, self.epoch)
    }
}

enum Reply {
    Leads(Arc<Leader>),
    Names(SocketAddr),
    No(String),
}

/// Finds it.
pub(super) struct Finder {
    tls: ClientTlsConfig,
    keepalive: Duration,
    leader: watch::Sender<Option<Arc<Leader>>>,
    /// The highest term heard of.
    heard: AtomicU64,
    /// Where a replica said that the leader is.
    named: Mutex<Option<SocketAddr>>,
}

impl Finder {
    pub(super) fn new(config: &RemoteConfig) -> Result<Self, tonic::transport::Error> {
        let tls = config.credentials.client_tls(AUTOSCALER_NAME);
        // Only to refuse bad certificates now instead of at each try.
        Endpoint::from_static("https://127.0.0.1:1").tls_config(tls.clone())?;
        Ok(Self {
            tls,
            keepalive: config.keepalive,
            leader: watch::Sender::new(None),
            heard: AtomicU64::new(0),
            named: Mutex::new(None),
        })
    }

    /// The leader as last known.
    pub(super) fn current(&self) -> Option<Arc<Leader>> {
        self.leader.borrow().clone()
    }

    /// Waits for a leader.
    pub(super) async fn leader(&self) -> Arc<Leader> {
        let mut leader = self.leader.subscribe();
        loop {
            // The sender lives in self: waiting cannot fail.
            if let Ok(found) = leader.wait_for(Option::is_some).await
                && let Some(found) = &*found
            {
                return Arc::clone(found);
            }
        }
    }

    /// Somebody found it lost.
    pub(super) fn lost(&self, leader: &Arc<Leader>) {
        self.leader.send_if_modified(|now| {
            let same = now.as_ref().is_some_and(|now| Arc::ptr_eq(now, leader));
            if same {
                *now = None;
            }
            same
        });
    }

    /// Takes note of a term; `false` if a higher one has been heard of, so that what was said in this one is void.
    pub(super) fn believes(&self, epoch: u64) -> bool {
        self.heard.fetch_max(epoch, Ordering::Relaxed) <= epoch
    }

    /// The highest term heard of.
    pub(super) fn heard(&self) -> u64 {
        self.heard.load(Ordering::Relaxed)
    }

    /// Takes note of the leader that a refusal names.
    pub(super) fn hint(&self, refusal: &Status) {
        if let Some(address) = named_by(refusal) {
            *self.named.lock() = Some(address);
        }
    }

    /// Looks for a leader whenever there is none.
    pub(super) async fn search(&self, mut replicas: watch::Receiver<Vec<SocketAddr>>) {
        let mut leader = self.leader.subscribe();
        let mut pause = Backoff::default();
        loop {
            if leader.wait_for(Option::is_none).await.is_err() {
                return;
            }
            let addresses = replicas.borrow_and_update().clone();
            if let Some(found) = self.round(addresses).await {
                tracing::info!(leader = ?found, "found the autoscaler's leader");
                self.leader.send_replace(Some(found));
                pause = Backoff::default();
                continue;
            }
            tokio::select! {
                () = tokio::time::sleep(pause.next()) => {}
                Ok(()) = replicas.changed() => {}
            }
        }
    }

    /// Asks everybody once.
    async fn round(&self, addresses: Vec<SocketAddr>) -> Option<Arc<Leader>> {
        let named = self.named.lock().take();
        let mut asked: Vec<SocketAddr> = named.into_iter().collect();
        for address in addresses {
            if !asked.contains(&address) {
                asked.push(address);
            }
        }
        asked.truncate(MAX_REPLICAS);
        let mut replies: FuturesUnordered<_> = asked.iter().map(|at| self.question(*at)).collect();
        while let Some((address, reply)) = replies.next().await {
            match reply {
                Reply::Leads(leader) if self.believes(leader.epoch) => return Some(leader),
                Reply::Leads(_) => tracing::debug!(%address, "a leader of an older term"),
                Reply::Names(other) => {
                    if !asked.contains(&other) && asked.len() < MAX_REPLICAS {
                        asked.push(other);
                        replies.push(self.question(other));
                    }
                }
                Reply::No(why) => tracing::debug!(%address, why, "no leader there"),
            }
        }
        None
    }

    async fn question(&self, address: SocketAddr) -> (SocketAddr, Reply) {
        let reply = match timeout(ASKING, self.ask(address)).await {
            Ok(reply) => reply,
            Err(_elapsed) => Reply::No("no answer in time".into()),
        };
        (address, reply)
    }

    async fn ask(&self, address: SocketAddr) -> Reply {
        let channel = match self.dial(address).await {
            Ok(channel) => channel,
            Err(why) => return Reply::No(format!("{why:?}")),
        };
        let mut client = ScalerClient::new(channel)
            .max_decoding_message_size(protocol::MAX_MESSAGE)
            .max_encoding_message_size(protocol::MAX_MESSAGE);
        match client.lead(wire::Nothing {}).await {
            Ok(leading) => Reply::Leads(Arc::new(Leader {
                client,
                address,
                epoch: leading.into_inner().epoch,
            })),
            Err(status) => match named_by(&status) {
                Some(other) => Reply::Names(other),
                None => Reply::No(status.message().to_owned()),
            },
        }
    }

    async fn dial(&self, address: SocketAddr) -> Result<Channel, tonic::transport::Error> {
        Endpoint::from_shared(format!("https://{address}"))?
            .tls_config(self.tls.clone())?
            .tcp_nodelay(true)
            .connect_timeout(ASKING)
            .http2_keep_alive_interval(self.keepalive)
            .keep_alive_timeout(self.keepalive)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(protocol::STREAM_WINDOW)
            .initial_connection_window_size(protocol::CONNECTION_WINDOW)
            .http2_max_concurrent_reset_streams(protocol::MAX_RESETS)
            .connect()
            .await
    }
}

fn named_by(status: &Status) -> Option<SocketAddr> {
    let named = status.metadata().get(protocol::LEADER)?;
    named.to_str().ok()?.parse().ok()
}
