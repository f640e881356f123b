//! The life of one HTTP server: probed until it serves, watched until it is gone.
//!
//! `Running`, then at most one `Ready`, warnings, then `Exited`, in this order, from this one task.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use mcp_gateway_api::{
    backend::LaunchSpec,
    failure::ExitReport,
    ids::InstanceId,
    view::{Endpoint, Reach},
};
use tokio::{sync::mpsc, task::JoinHandle, time::timeout};

use super::{
    child::Process,
    listener::{self, Listening},
    port::Reservation,
    probe::{NotYet, Probe, Seen, loopback},
};
use crate::{RuntimeEvent, child::ChildControl};

/// If somebody else answers on the port, how long our child gets to fail at binding it.
const DISPUTE: Duration = Duration::from_millis(250);

/// Where a server listens.
#[derive(Debug)]
pub(crate) enum Place {
    /// On loopback, at a port of this machine that it was given.
    Machine(Reservation),
    /// At its pod's address, where others reach it.
    Pod {
        /// The pod's address.
        ip: IpAddr,
        /// The port of the document.
        port: u16,
    },
}

impl Place {
    fn port(&self) -> u16 {
        match self {
            Self::Machine(reservation) => reservation.port(),
            Self::Pod { port, .. } => *port,
        }
    }

    /// Where it must answer, and where an answer would be of no use.
    fn addresses(&self) -> (Vec<SocketAddr>, Vec<SocketAddr>) {
        match self {
            Self::Machine(reservation) => (loopback(reservation.port()).into(), Vec::new()),
            Self::Pod { ip, port } => pod_addresses(*ip, *port),
        }
    }
}

/// Where a server in a pod must answer, and where an answer would be of no use to anybody.
pub(crate) fn pod_addresses(ip: IpAddr, port: u16) -> (Vec<SocketAddr>, Vec<SocketAddr>) {
    let at = SocketAddr::new(ip, port);
    let elsewhere = loopback(port).into_iter().filter(|other| *other != at);
    (vec![at], elsewhere.collect())
}

/// One HTTP server that was spawned.
pub(crate) struct HttpServer {
    pub(crate) id: InstanceId,
    pub(crate) process: Arc<Process>,
    pub(crate) place: Place,
    pub(crate) host: Option<String>,
    pub(crate) path: String,
    pub(crate) health_path: Option<String>,
    pub(crate) events: mpsc::Sender<RuntimeEvent>,
}

impl HttpServer {
    pub(crate) fn new(
        id: InstanceId,
        process: Arc<Process>,
        place: Place,
        spec: &LaunchSpec,
        events: mpsc::Sender<RuntimeEvent>,
    ) -> Self {
        Self {
            id,
            process,
            place,
            host: spec.host.clone(),
            path: spec.path.clone(),
            health_path: spec.health_path.clone(),
            events,
        }
    }

    /// Sees it through to its end; gives what is to be said of it.
    pub(crate) async fn live(self) -> ExitReport {
        self.say(RuntimeEvent::Running(self.id)).await;
        let mut last = NotYet::Silent;
        let (at, useless) = self.place.addresses();
        let probe = Probe {
            at,
            useless,
            host: self.host(),
            health_path: self.health_path.clone(),
        };
        // Looking takes about as long as the server's first answer, so it is done meanwhile.
        let mut look: Option<JoinHandle<Listening>> = None;
        let watch = |seen| match seen {
            // In a pod there is nobody else's listener to tell it from.
            Seen::Listening if matches!(self.place, Place::Machine(_)) => {
                look.get_or_insert_with(|| self.look());
            }
            Seen::Listening => {}
            Seen::NotYet(why) => last = why,
        };
        let address = tokio::select! {
            biased;
            report = self.process.exited() => return never_served(report, None),
            () = self.process.told_to_end() => {
                return never_served(self.process.exited().await, Some(&last));
            }
            address = probe.until_serving(watch) => address,
        };
        let listening = match look {
            Some(look) => look.await.unwrap_or_default(),
            None => Listening::default(),
        };
        if listening.ours == Some(false)
            && let Ok(report) = timeout(DISPUTE, self.process.exited()).await
        {
            return never_served(report, None);
        }
        self.say(RuntimeEvent::Ready(self.id, self.endpoint(address)))
            .await;
        for warning in warnings(&listening, self.place.port()) {
            self.say(RuntimeEvent::Warning(self.id, warning)).await;
        }
        self.process.exited().await
    }

    fn look(&self) -> JoinHandle<Listening> {
        let port = self.place.port();
        let leader = self.process.pid().and_then(|pid| i32::try_from(pid).ok());
        tokio::task::spawn_blocking(move || {
            leader.map_or_else(Listening::default, |leader| listener::look(port, leader))
        })
    }

    fn host(&self) -> String {
        self.host
            .clone()
            .unwrap_or_else(|| format!("localhost:{}", self.place.port()))
    }

    fn endpoint(&self, address: SocketAddr) -> Endpoint {
        Endpoint {
            secret: None,
            reach: Reach::Tcp(address),
            host: self.host().into(),
            path: self.path.as_str().into(),
        }
    }

    async fn say(&self, event: RuntimeEvent) {
        // Nobody listens any more: the gateway is going down and ends its instances otherwise.
        let _ = self.events.send(event).await;
    }
}

/// `last` is what the last probe saw; of a server that left by itself its own words are worth more.
fn never_served(mut report: ExitReport, last: Option<&NotYet>) -> ExitReport {
    report.summary = match last {
        None => format!("{} before it served", report.summary),
        Some(last) => format!("{} before it served: {last}", report.summary),
    };
    report
}

fn warnings(listening: &Listening, port: u16) -> Vec<String> {
    let exposed = listening.exposed().map(|address| {
        let at = SocketAddr::new(address, port);
        format!(
            "it listens on {at}, where other machines may reach it past the gateway: make it listen on 127.0.0.1 (it \
             is given HOST=127.0.0.1)"
        )
    });
    let foreign = (listening.ours == Some(false)).then(|| {
        format!(
            "the listener on port {port} belongs to none of its processes: fine if it hands its port to a service such \
             as a container engine, else another program took the port"
        )
    });
    exposed.into_iter().chain(foreign).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exit_before_serving_says_so_and_what_the_probe_saw() {
        let report = |summary: &str| ExitReport {
            summary: summary.into(),
            ..ExitReport::default()
        };
        let said = never_served(report("it exited with code 3"), None);
        assert_eq!(said.summary, "it exited with code 3 before it served");
        let said = never_served(report("it was told to end"), Some(&NotYet::NoHttp));
        assert_eq!(
            said.summary,
            "it was told to end before it served: it accepted a connection on its port, but gave no HTTP answer"
        );
    }

    #[test]
    fn a_listener_off_loopback_is_named_with_the_remedy() {
        let listening = Listening {
            addresses: vec![[0, 0, 0, 0].into()],
            ours: Some(true),
        };
        let said = warnings(&listening, 4711);
        assert_eq!(said.len(), 1);
        assert!(said[0].contains("0.0.0.0:4711") && said[0].contains("listen on 127.0.0.1"));
    }
}
