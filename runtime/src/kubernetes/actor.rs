//! One task per pod: feeds its state machine and does what that says.
//!
//! Invariants: everything said of a pod is said here, in order; at most one call that ends it is under way; the task
//! ends when `Exited` was said or when a newer leader has taken the pod over.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use mcp_gateway_api::view::{Endpoint, InstanceSecret, Reach};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep, sleep_until},
};
use tokio_util::task::AbortOnDropHandle;

use super::{
    World,
    end::{self, Outcome, Target},
    names::Facts,
    pods::{Effect, Input, Pod, Stage},
    table::{Drain, Entry, Watched},
};
use crate::process::probe::{NotYet, Probe};

mod log;

pub(crate) use log::{LOG_WIDTH, logs};

/// How long after its grace a pod is waited for.
const OVERDUE: Duration = Duration::from_secs(60);
/// Pace of the probe of a pod without an agent, at first and at most.
const PROBE: Duration = Duration::from_millis(10);
const PROBE_AT_MOST: Duration = Duration::from_millis(100);

/// What a task of ours has come to.
enum Done {
    Logs(Vec<String>),
    Ended(Outcome),
}

/// The task of one pod.
pub(crate) struct PodTask {
    world: Arc<World>,
    entry: Arc<Entry>,
    pod: Pod,
    inbox: mpsc::Receiver<Input>,
    watched: watch::Receiver<Watched>,
    told: watch::Receiver<Option<Duration>>,
    work: Option<AbortOnDropHandle<Done>>,
    probe: Option<AbortOnDropHandle<()>>,
    deadline: Instant,
    over: bool,
}

impl PodTask {
    /// Begins to look after a pod that is in the table.
    pub(crate) fn start(
        world: Arc<World>,
        entry: Arc<Entry>,
        inbox: mpsc::Receiver<Input>,
        found: bool,
    ) {
        let mut watched = entry.watched.subscribe();
        watched.mark_changed();
        let told = entry.told.subscribe();
        let task = Self {
            deadline: Instant::now() + world.launch_deadline,
            pod: Pod::new(entry.id, entry.facts.form, found),
            world,
            entry,
            inbox,
            watched,
            told,
            work: None,
            probe: None,
            over: false,
        };
        tokio::spawn(task.live());
    }

    async fn live(mut self) {
        let stop = self.world.stop.clone();
        while !self.over {
            let input = tokio::select! {
                input = self.next() => input,
                // The pods stay; whoever opens the next runtime finds them.
                () = stop.cancelled() => return,
            };
            let before = self.pod.stage();
            let effects = match input {
                Ok(input) => self.pod.step(input),
                Err(done) => self.done(done),
            };
            for effect in effects {
                self.act(effect).await;
            }
            self.entered(before);
        }
        self.world.table.forget(&self.entry);
    }

    /// What happens next: to the pod, or to our own work.
    async fn next(&mut self) -> Result<Input, Done> {
        let stage = self.pod.stage();
        let armed = matches!(stage, Stage::Created | Stage::Ending);
        let late = || match stage {
            Stage::Created => Input::LaunchDeadline,
            Stage::Running | Stage::Ready | Stage::Ending | Stage::Gone => Input::Overdue,
        };
        tokio::select! {
            Some(input) = self.inbox.recv() => Ok(input),
            Ok(()) = self.told.changed() => {
                let grace = self.told.borrow_and_update().unwrap_or_default();
                Ok(Input::Terminate(grace))
            }
            Ok(()) = self.watched.changed() => Ok(match &*self.watched.borrow_and_update() {
                Watched::Here(seen) => Input::Seen(Box::new(seen.as_ref().clone())),
                Watched::Gone(last) => Input::Gone(last.as_deref().cloned().map(Box::new)),
            }),
            done = finished(&mut self.work) => Err(done),
            () = sleep_until(self.deadline), if armed => {
                // Once; what follows it sets its own.
                self.deadline = Instant::now() + OVERDUE;
                Ok(late())
            }
        }
    }

    fn entered(&mut self, before: Stage) {
        let now = self.pod.stage();
        if now == before {
            return;
        }
        match now {
            Stage::Created | Stage::Running => {}
            Stage::Ready => self.probe = None,
            Stage::Ending => {
                self.probe = None;
                let grace = self.told.borrow().unwrap_or_default();
                self.deadline = Instant::now() + grace + OVERDUE;
            }
            Stage::Gone => self.over = true,
        }
    }

    fn done(&mut self, done: Done) -> Vec<Effect> {
        self.work = None;
        match done {
            Done::Logs(lines) => {
                self.pod.last_words(lines);
                self.remove();
                Vec::new()
            }
            Done::Ended(Outcome::Asked) => self.pod.step(Input::Deleting),
            Done::Ended(Outcome::Gone) => self.pod.step(Input::Gone(None)),
            Done::Ended(Outcome::Theirs) => {
                tracing::warn!(pod = self.entry.name, "a newer leader ends this pod");
                self.over = true;
                Vec::new()
            }
        }
    }

    async fn act(&mut self, effect: Effect) {
        match effect {
            Effect::Say(event) => {
                // Nobody listens any more only when the gateway is going down.
                let _ = self.world.events.send(event).await;
            }
            Effect::Probe(ip) => self.probe = Some(self.probe(ip)),
            Effect::Drain(grace) => {
                self.entry.agent.send_replace(Some(Drain(grace)));
            }
            Effect::Delete(grace) => {
                let (world, target) = (Arc::clone(&self.world), self.target());
                let tell = self.tell();
                let work =
                    async move { Done::Ended(end::end(&world.pods, target, grace, tell).await) };
                self.work = Some(AbortOnDropHandle::new(tokio::spawn(work)));
            }
            Effect::Bury { logs: true } => {
                let (world, name) = (Arc::clone(&self.world), self.entry.name.clone());
                let work = async move { Done::Logs(logs(&world, &name).await) };
                self.work = Some(AbortOnDropHandle::new(tokio::spawn(work)));
            }
            Effect::Bury { logs: false } => self.remove(),
        }
    }

    fn remove(&mut self) {
        let (world, target) = (Arc::clone(&self.world), self.target());
        let tell = self.tell();
        let work = async move { Done::Ended(end::bury(&world.pods, target, tell).await) };
        self.work = Some(AbortOnDropHandle::new(tokio::spawn(work)));
    }

    /// For what operators must hear of.
    fn tell(&self) -> impl Fn(String) + Send + 'static {
        let inbox = self.entry.inbox.clone();
        // What is said again is dropped here, or there.
        move |text| drop(inbox.try_send(Input::Warns(text)))
    }

    fn target(&self) -> Target {
        target(&self.entry, self.world.epoch)
    }

    fn probe(&self, ip: IpAddr) -> AbortOnDropHandle<()> {
        let entry = Arc::clone(&self.entry);
        let endpoint = endpoint(
            &entry.facts,
            &entry.secret,
            SocketAddr::new(ip, entry.facts.port),
        );
        let probe = Probe {
            at: vec![SocketAddr::new(ip, entry.facts.port)],
            useless: Vec::new(),
            host: entry.facts.host.clone(),
            health_path: entry.facts.health_path.clone(),
        };
        AbortOnDropHandle::new(tokio::spawn(async move {
            let mut pause = PROBE;
            let mut last = None;
            loop {
                match probe.once(&mut |_| {}).await {
                    Ok(_) => break,
                    Err(why) if last.as_ref() == Some(&why) => {}
                    Err(why) => {
                        let _ = entry.inbox.send(Input::NotYet(not_yet(&why))).await;
                        last = Some(why);
                    }
                }
                sleep(pause).await;
                pause = (pause * 2).min(PROBE_AT_MOST);
            }
            let _ = entry.inbox.send(Input::Serves(endpoint)).await;
        }))
    }
}

/// A pod as it was last seen, for a leader of this term.
pub(crate) fn target(entry: &Entry, epoch: u64) -> Target {
    let last = match &*entry.watched.borrow() {
        Watched::Here(seen) => Some(Arc::clone(seen)),
        Watched::Gone(last) => last.clone(),
    };
    Target {
        name: entry.name.clone(),
        uid: entry.uid.clone(),
        version: last
            .as_ref()
            .map_or_else(String::new, |seen| seen.version.clone()),
        marked_by: last.and_then(|seen| seen.marked_by),
        epoch,
    }
}

fn not_yet(why: &NotYet) -> String {
    match why {
        NotYet::Silent => {
            "it did not listen on its port where other pods reach it (it must listen on 0.0.0.0; \
                           `spec.port` says on which port)"
                .to_owned()
        }
        NotYet::OnlyLoopback
        | NotYet::Hangs
        | NotYet::NoHttp
        | NotYet::BadPath
        | NotYet::Unhealthy { .. } => why.to_string(),
    }
}

/// Waits for our own work, if there is any.
async fn finished(work: &mut Option<AbortOnDropHandle<Done>>) -> Done {
    match work {
        // A task that panicked has nothing to say; the pod's own events go on.
        Some(work) => match work.await {
            Ok(done) => done,
            Err(_) => Done::Ended(Outcome::Asked),
        },
        None => std::future::pending().await,
    }
}

/// Where requests to an instance go.
pub(crate) fn endpoint(
    facts: &Facts,
    secret: &Option<InstanceSecret>,
    address: SocketAddr,
) -> Endpoint {
    Endpoint {
        reach: Reach::Tcp(address),
        host: facts.host.as_str().into(),
        path: facts.path.as_str().into(),
        secret: secret.clone(),
    }
}
