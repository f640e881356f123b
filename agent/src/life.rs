//! The life of an agent: orders, one server, its end.
//!
//! Invariants: orders are carried out once; home is told of every step by what is [`Known`], in whatever state the line
//! is; whoever asks for the end (home, the kubelet's SIGTERM, nobody wanting the pod) gets a polite one within the grace,
//! then a kill; the process ends with the server's own exit code. Never starts a server again: that is the autoscaler's.

use std::{ffi::OsString, io, process::ExitCode, sync::Arc, time::Duration};

use mcp_gateway_api::failure::ExitReport;
use mcp_gateway_link::agent::{Exited, Orders, Ready};
use mcp_gateway_runtime::{
    RuntimeEvent,
    process::{
        Brood,
        alone::{Alone, AloneConfig, Neighbour},
    },
};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::{mpsc, watch},
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};

use crate::{
    contract::{Contract, Form},
    home::{Home, Wish},
    known::Known,
    orders::{self, Task},
};

/// A pod that nobody gives orders to is not kept for longer.
const ORDERS_WITHIN: Duration = Duration::from_secs(600);
/// From the kubelet's SIGTERM, or from knowing that nobody wants the pod, to our kill; the kubelet's own may be sooner.
const GRACE: Duration = Duration::from_secs(25);
/// How long home may be looked for to tell it the end.
const FAREWELL: Duration = Duration::from_secs(5);
/// Orphans are reaped at most this often.
const REAP_EVERY: Duration = Duration::from_millis(50);
/// The exit code of an agent whose server never ran.
const NEVER_RAN: u8 = 1;

/// What this process was started with.
pub(crate) struct Given {
    pub(crate) contract: Contract,
    /// What the image itself would run.
    pub(crate) image_command: Vec<String>,
    /// What the server gets.
    pub(crate) environment: Vec<(OsString, OsString)>,
    pub(crate) began: Instant,
}

/// Lives.
///
/// # Errors
/// Signals cannot be heard.
pub(crate) async fn live(given: Given) -> io::Result<ExitCode> {
    let mut ends = Ends {
        term: signal(SignalKind::terminate())?,
        int: signal(SignalKind::interrupt())?,
    };
    let brood = reaping()?;
    let contract = Arc::new(given.contract);
    let (known, knowing) = watch::channel(Known::default());
    let (tell, wishes) = mpsc::channel(8);
    let home = Home::new(Arc::clone(&contract), knowing, tell, given.began);
    let mut pod = Pod {
        contract,
        known,
        wishes,
        line: tokio::spawn(home.keep()),
    };
    let Some((orders, hello_after)) = pod.orders(&mut ends).await else {
        return Ok(ExitCode::SUCCESS);
    };
    let ordered = Instant::now();
    pod.known.send_modify(|known| known.ordered = true);
    let task = match orders::read(orders, &given.image_command) {
        Ok(task) => task,
        Err(report) => return Ok(pod.over(report).await),
    };
    let phases = Phases {
        hello_after,
        ordered,
        running: ordered,
    };
    if pod.contract.form == Form::Sidecar {
        pod.watch(&task, phases, &mut ends).await;
        return Ok(ExitCode::SUCCESS);
    }
    let config = AloneConfig {
        backend: task.backend.clone(),
        launch: task.launch.clone(),
        ip: pod.contract.ip,
        port: task.port,
        environment: given.environment,
        max_body: task.max_body,
        start_timeout: task.start_timeout,
        secret: task.secret.clone(),
        brood,
    };
    let report = pod.serve(config, &task, phases, &mut ends).await;
    Ok(pod.over(report).await)
}

/// Who outside may end us.
struct Ends {
    term: Signal,
    int: Signal,
}

impl Ends {
    async fn asked(&mut self) {
        tokio::select! {
            _ = self.term.recv() => {}
            _ = self.int.recv() => {}
        }
    }
}

/// Moments of a cold start.
#[derive(Debug, Clone, Copy)]
struct Phases {
    /// From our start to the hello.
    hello_after: Duration,
    ordered: Instant,
    running: Instant,
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

impl Phases {
    fn ready(self, task: &Task, path: &str, host: &str) -> Ready {
        Ready {
            port: u32::from(task.port),
            path: path.to_owned(),
            host: host.to_owned(),
            hello_us: micros(self.hello_after),
            spawn_us: micros(self.running - self.ordered),
            serve_us: micros(self.running.elapsed()),
        }
    }
}

/// Reaps what this pod's processes leave behind, for as long as we live.
fn reaping() -> io::Result<Brood> {
    let brood = Brood::default();
    if let Err(error) = Brood::inherit_orphans() {
        tracing::debug!(%error, "orphans go to the pod's first process");
    }
    let mut deaths = signal(SignalKind::child())?;
    let reaper = brood.clone();
    tokio::spawn(async move {
        while deaths.recv().await.is_some() {
            let reaped = reaper.reap_orphans();
            tracing::trace!(reaped, "orphans");
            sleep(REAP_EVERY).await;
        }
    });
    Ok(brood)
}

struct Pod {
    contract: Arc<Contract>,
    known: watch::Sender<Known>,
    wishes: mpsc::Receiver<Wish>,
    line: JoinHandle<()>,
}

impl Pod {
    /// Waits for orders; `None` if there will be none.
    async fn orders(&mut self, ends: &mut Ends) -> Option<(Orders, Duration)> {
        let wish = tokio::select! {
            wish = timeout(ORDERS_WITHIN, self.wishes.recv()) => wish,
            () = ends.asked() => return None,
        };
        match wish {
            Ok(Some(Wish::Orders(orders, hello_after))) => Some((*orders, hello_after)),
            Ok(Some(Wish::Drain(_))) => None,
            Ok(Some(Wish::Abandoned(why))) => {
                tracing::error!("{why}: this pod ends");
                None
            }
            Ok(None) => None,
            Err(_elapsed) => {
                tracing::error!("no orders came within {ORDERS_WITHIN:?}: this pod ends");
                None
            }
        }
    }

    /// Waits until somebody wants the end; gives the time until the kill.
    async fn told_to_end(wishes: &mut mpsc::Receiver<Wish>, ends: &mut Ends) -> Duration {
        loop {
            tokio::select! {
                wish = wishes.recv() => match wish {
                    Some(Wish::Drain(grace)) => return grace,
                    Some(Wish::Abandoned(why)) => {
                        tracing::error!("{why}: its server is ended");
                        return GRACE;
                    }
                    // Carried out once.
                    Some(Wish::Orders(..)) => {}
                    // The line has ended because everything was said; the kubelet is left.
                    None => {
                        ends.asked().await;
                        return GRACE;
                    }
                },
                () = ends.asked() => return GRACE,
            }
        }
    }

    /// A server beside us: tells when it serves, and stays, so that the pod's containers are seen as running.
    async fn watch(&mut self, task: &Task, phases: Phases, ends: &mut Ends) {
        let neighbour = Neighbour {
            ip: self.contract.ip,
            port: task.port,
            host: task.host(),
            health_path: task.launch.health_path.clone(),
        };
        let serving = async {
            neighbour.serving().await;
            let ready = phases.ready(task, &task.launch.path, &task.host());
            self.known.send_modify(|known| known.ready = Some(ready));
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = serving => {}
            _grace = Self::told_to_end(&mut self.wishes, ends) => {}
        }
    }

    /// A server of our own: from its start to its end.
    async fn serve(
        &mut self,
        config: AloneConfig,
        task: &Task,
        mut phases: Phases,
        ends: &mut Ends,
    ) -> ExitReport {
        let (server, mut events) = match Alone::start(config).await {
            Ok(started) => started,
            Err(report) => return report,
        };
        loop {
            tokio::select! {
                event = events.recv() => match event {
                    Some(RuntimeEvent::Running(_)) => {
                        phases.running = Instant::now();
                        self.known.send_modify(|known| known.running = true);
                    }
                    Some(RuntimeEvent::Ready(_, at)) => {
                        let ready = phases.ready(task, &at.path, &at.host);
                        self.known.send_modify(|known| known.ready = Some(ready));
                    }
                    Some(RuntimeEvent::Warning(_, text)) => {
                        self.known.send_modify(|known| known.warn(text));
                    }
                    // A process waits for nothing.
                    Some(RuntimeEvent::Waits(..)) => {}
                    Some(RuntimeEvent::Exited(_, report)) => return report,
                    None => return ExitReport::default(),
                },
                grace = Self::told_to_end(&mut self.wishes, ends) => {
                    server.end_by(Instant::now() + grace);
                }
            }
        }
    }

    /// Says the last word and gives the code to end with.
    async fn over(mut self, report: ExitReport) -> ExitCode {
        tracing::info!("the server: {}", report.summary);
        let code = exit_code(&report);
        let exited = Exited {
            code: report.code,
            signal: report.signal,
            stderr_tail: report.stderr_tail,
            summary: report.summary,
            private: Some(report.private),
        };
        self.known.send_modify(|known| known.exited = Some(exited));
        if timeout(FAREWELL, &mut self.line).await.is_err() {
            tracing::warn!("home could not be told the end; the pod's status says it");
        }
        code
    }
}

/// As a shell would have it.
fn exit_code(report: &ExitReport) -> ExitCode {
    let code = match (report.code, report.signal) {
        (Some(code), _) => code,
        (None, Some(signal)) => signal.saturating_add(128),
        (None, None) => return ExitCode::from(NEVER_RAN),
    };
    ExitCode::from(u8::try_from(code).unwrap_or(NEVER_RAN))
}
