//! Open-loop load: calls are due at random moments of a given rate, whether or not
//! earlier ones have been answered, in sessions that stay, some with their passive
//! stream open, beside new sessions that need an instance each.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, bail};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use rand::Rng as _;
use serde_json::Value;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep, sleep_until};

use super::caller::{Asked, Caller, Clock, initialize, initialized, tools_call};
use super::doors::Entrance;
use super::ledger::{Call, Kind, Micros, Outcome, Trouble};
use crate::witness::Testimony;

/// How long slow calls are asked to take, in milliseconds.
const SLOW_MS: std::ops::Range<u64> = 1_000..3_000;
/// Share of slow calls.
const SLOW: f64 = 0.15;
/// One session in so many has its passive stream open.
const STREAM_EACH: usize = 3;
/// Between two tries for a stream.
const STREAM_AGAIN: Duration = Duration::from_millis(200);

/// How much.
#[derive(Clone, Copy, Debug)]
pub struct Rates {
    /// Calls per second in sessions that stay.
    pub calls: f64,
    /// New sessions per second.
    pub cold: f64,
}

/// Where sessions are opened.
#[derive(Clone, Debug)]
pub struct Places {
    /// Paths of the backends of the sessions that stay, and how many each has.
    pub sessions: Vec<(String, usize)>,
    /// Path of the backend whose every session starts an instance.
    pub cold: String,
}

/// A session that stays.
#[derive(Debug)]
struct Session {
    name: String,
    path: String,
    id: String,
    /// Where it was last answered from.
    instance: Mutex<Option<String>>,
}

impl Session {
    fn instance(&self) -> Option<String> {
        lock(&self.instance).clone()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What is shared by all that calls.
#[derive(Debug)]
struct Shared {
    caller: Caller,
    clock: Clock,
    calls: Mutex<Vec<Call>>,
    troubles: Mutex<Vec<Trouble>>,
}

/// Calls that come until they are ended.
#[derive(Debug)]
struct Arrivals {
    ended: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl Arrivals {
    /// No more of them; waits for those under way.
    async fn end(self) -> anyhow::Result<()> {
        self.ended.store(true, Ordering::Relaxed);
        self.task.await.context("a caller")
    }
}

/// What [`Load::run`] began.
#[derive(Debug)]
pub struct Running {
    stay: Arrivals,
    cold: Arrivals,
}

/// Load that goes on until it is ended.
#[derive(Debug)]
pub struct Load {
    shared: Arc<Shared>,
    sessions: Vec<Arc<Session>>,
    cold: String,
    streams: JoinSet<()>,
}

impl Load {
    /// Opens the sessions that stay, and the streams.
    ///
    /// # Errors
    /// A session cannot be opened.
    pub async fn open(entrance: Entrance, clock: Clock, places: &Places) -> anyhow::Result<Self> {
        let shared = Arc::new(Shared {
            caller: Caller::new(entrance, clock),
            clock,
            calls: Mutex::default(),
            troubles: Mutex::default(),
        });
        let mut sessions = Vec::new();
        for (path, count) in &places.sessions {
            for number in 0..*count {
                let name = format!("{path} {number}");
                let (asked, id) = shared.begin(path, &name).await;
                let id = match (id, asked.reply) {
                    (Some(id), Ok(_)) => id,
                    (_, reply) => bail!("no session for {name}: {reply:?}"),
                };
                sessions.push(Arc::new(Session {
                    name,
                    path: path.clone(),
                    id,
                    instance: Mutex::default(),
                }));
            }
        }
        let mut load = Self {
            shared,
            sessions,
            cold: places.cold.clone(),
            streams: JoinSet::new(),
        };
        load.attend();
        Ok(load)
    }

    fn attend(&mut self) {
        for session in self.sessions.iter().step_by(STREAM_EACH) {
            let (shared, session) = (Arc::clone(&self.shared), Arc::clone(session));
            self.streams
                .spawn(async move { shared.attend(&session).await });
        }
    }

    /// Calls at random moments until [`Load::stop`].
    pub fn run(&self, rates: Rates) -> Running {
        let (shared, sessions) = (Arc::clone(&self.shared), self.sessions.clone());
        let stay = arrivals(rates.calls, Arc::clone(&shared), move |shared| {
            let session = &sessions[rand::rng().random_range(0..sessions.len())];
            let slow = rand::rng().random_bool(SLOW);
            let ms = slow.then(|| rand::rng().random_range(SLOW_MS));
            let session = Arc::clone(session);
            async move { shared.call(&session, ms).await }
        });
        let path = self.cold.clone();
        let cold = arrivals(rates.cold, shared, move |shared| {
            let path = path.clone();
            async move { shared.cold(&path).await }
        });
        Running { stay, cold }
    }

    /// One call in each session that stays.
    pub async fn each(&self) {
        for session in &self.sessions {
            self.shared.call(session, None).await;
        }
    }

    /// One new session, to its end.
    pub async fn one_cold(&self) {
        self.shared.cold(&self.cold).await;
    }

    /// The instance that most sessions were last answered from.
    #[must_use]
    pub fn busiest(&self) -> Option<String> {
        let mut counts = std::collections::BTreeMap::<String, usize>::new();
        for instance in self.sessions.iter().filter_map(|one| one.instance()) {
            *counts.entry(instance).or_default() += 1;
        }
        let most = counts.into_iter().max_by_key(|(_, count)| *count);
        most.map(|(instance, _)| instance)
    }

    /// How many calls are over, and how many of them have no result.
    #[must_use]
    pub fn tally(&self) -> (usize, usize) {
        let calls = lock(&self.shared.calls);
        let failed = |call: &&Call| matches!(call.outcome, Outcome::Failed { .. });
        (calls.len(), calls.iter().filter(failed).count())
    }

    /// No more calls; those under way go on to their end. Sessions that stay are in use
    /// until the last new one has its answer, which may take long: they would be idle
    /// meanwhile, and be moved rightly.
    ///
    /// # Errors
    /// A caller panicked.
    pub async fn stop(&self, running: Running) -> anyhow::Result<()> {
        running.cold.end().await?;
        running.stay.end().await
    }

    /// Closes the streams; all that was seen.
    pub async fn close(mut self) -> (Vec<Call>, Vec<Trouble>) {
        self.streams.shutdown().await;
        let calls = std::mem::take(&mut *lock(&self.shared.calls));
        let troubles = std::mem::take(&mut *lock(&self.shared.troubles));
        (calls, troubles)
    }
}

fn arrivals<F>(
    rate: f64,
    shared: Arc<Shared>,
    work: impl Fn(Arc<Shared>) -> F + Send + 'static,
) -> Arrivals
where
    F: Future<Output = ()> + Send + 'static,
{
    let ended = Arc::new(AtomicBool::new(false));
    let task = tokio::spawn(arrive(rate, Arc::clone(&ended), move || {
        work(Arc::clone(&shared))
    }));
    Arrivals { ended, task }
}

/// Spawns work at random moments, so many a second, and waits for all of it.
async fn arrive<F>(rate: f64, ended: Arc<AtomicBool>, work: impl Fn() -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let mut calls = JoinSet::new();
    let mut due = Instant::now();
    while !ended.load(Ordering::Relaxed) {
        // Exponential pauses: arrivals know nothing of each other.
        let pause = -rand::rng().random_range(f64::EPSILON..1.0).ln() / rate;
        due += Duration::from_secs_f64(pause.min(10.0));
        sleep_until(due).await;
        calls.spawn(work());
        while calls.try_join_next().is_some() {}
    }
    calls.join_all().await;
}

impl Shared {
    async fn begin(&self, path: &str, name: &str) -> (Asked, Option<String>) {
        let mut asked = self.caller.ask(path, None, &initialize(name)).await;
        let id = asked.session.take();
        if let (Some(id), Ok(_)) = (&id, &asked.reply) {
            let done = self.caller.ask(path, Some(id), &initialized()).await;
            asked.delayed += done.delayed;
            asked.turned += done.turned;
            if let Err(failed) = done.reply {
                (asked.activator, asked.sent) = (done.activator, done.sent);
                asked.reply = Err(failed);
            }
        }
        (asked, id)
    }

    async fn call(&self, session: &Session, ms: Option<u64>) {
        let begun = self.clock.now();
        let id = self.caller.number();
        let instance = session.instance();
        let message = tools_call(id, ms);
        let asked = self
            .caller
            .ask(&session.path, Some(&session.id), &message)
            .await;
        let call = self.judged(asked, (id, begun, &session.name), ms);
        if let Outcome::Answered(testimony) = &call.outcome {
            *lock(&session.instance) = Some(testimony.instance.clone());
        }
        let kind = if ms.is_some() { Kind::Slow } else { Kind::Warm };
        lock(&self.calls).push(Call {
            kind,
            instance,
            ..call
        });
    }

    /// A new session, its first call, and its end.
    async fn cold(&self, path: &str) {
        let begun = self.clock.now();
        let id = self.caller.number();
        let name = format!("cold {id}");
        let (mut asked, session) = self.begin(path, &name).await;
        if let (Ok(_), Some(session)) = (&asked.reply, &session) {
            let first = tools_call(id, None);
            let answer = self.caller.ask(path, Some(session), &first).await;
            asked = Asked {
                delayed: asked.delayed + answer.delayed,
                turned: asked.turned + answer.turned,
                ..answer
            };
        }
        let call = self.judged(asked, (id, begun, &name), None);
        lock(&self.calls).push(Call {
            kind: Kind::Cold,
            ..call
        });
        if let Some(session) = session {
            self.caller.end(path, &session).await;
        }
    }

    fn judged(
        &self,
        asked: Asked,
        (id, begun, name): (u64, Micros, &str),
        ms: Option<u64>,
    ) -> Call {
        let outcome = match asked.reply {
            Ok(result) => testified(&result).map_or_else(
                || Outcome::Failed {
                    failure: super::ledger::Failure::Refused,
                    said: format!("no testimony: {result}"),
                },
                Outcome::Answered,
            ),
            Err((failure, said)) => Outcome::Failed { failure, said },
        };
        Call {
            id,
            client: name.to_owned(),
            kind: Kind::Warm,
            begun,
            ended: self.clock.now(),
            asked: ms.unwrap_or(0) * 1_000,
            delayed: asked.delayed,
            turned: asked.turned,
            activator: asked.activator,
            sent: asked.sent,
            instance: None,
            outcome,
        }
    }

    /// Keeps a session's passive stream open, and looks whose messages come.
    async fn attend(&self, session: &Session) {
        loop {
            let activator = self.caller.any();
            let stream = self
                .caller
                .stream(activator, &session.path, &session.id)
                .await;
            if let Some(body) = stream {
                let strange = strange(body, &session.name).await;
                let trouble = Trouble {
                    client: session.name.clone(),
                    activator,
                    at: self.clock.now(),
                    strange,
                };
                lock(&self.troubles).push(trouble);
            }
            sleep(STREAM_AGAIN).await;
        }
    }
}

/// Reads to the stream's end (`false`), or to a message that is not its owner's.
async fn strange(mut body: Incoming, owner: &str) -> bool {
    let mut text = String::new();
    while let Some(Ok(frame)) = body.frame().await {
        let Ok(data) = frame.into_data() else {
            continue;
        };
        text.push_str(&String::from_utf8_lossy(&data));
        while let Some(end) = text.find('\n') {
            let line: String = text.drain(..=end).collect();
            let message = line
                .strip_prefix("data:")
                .map(serde_json::from_str::<Value>);
            if let Some(Ok(message)) = message
                && message["params"]["data"] != owner
            {
                return true;
            }
        }
    }
    false
}

fn testified(result: &Value) -> Option<Testimony> {
    serde_json::from_str(result["content"][0]["text"].as_str()?).ok()
}
