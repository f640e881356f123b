//! No request is lost to scale-down: instances go after 50 ms, and clients come back after about 50 ms, again and
//! again, with everything a client may have open at that moment.
//!
//! Each answer names who asked and which time, so that a lost, doubled or misrouted one shows. The seed is printed;
//! `MCP_GATEWAY_HAMMER_SEED` and `MCP_GATEWAY_HAMMER_SECONDS` repeat or prolong a run.

use std::{
    str::FromStr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use serde_json::json;
use tokio::time::{Instant, sleep, timeout};

use crate::{
    documents::Backend,
    gateway::{Gateway, PATIENCE},
    sse::SsePeer,
    tools,
    wire::{Outcome, Peer},
};

const IDLE: &str = "50ms";

/// How a client behaves between its pauses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    /// A session; calls, slow calls, elicitations.
    Session,
    /// A session with its passive stream open.
    Streaming,
    /// A session that is deleted and begun anew now and then.
    Renewing,
    /// No session: 2026-07-28.
    Modern,
    /// 2024-11-05: every answer comes on the one stream.
    Sse,
    /// A session whose POST streams the server closes and the client resumes.
    Polling,
}

/// What is shared by all clients of a run.
struct Run {
    /// Whether it has lasted long enough.
    over: AtomicBool,
    answered: AtomicUsize,
    resumed: AtomicUsize,
    asked: AtomicUsize,
    failures: Mutex<Vec<String>>,
}

impl Run {
    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }
}

/// One client.
struct Hammer {
    run: Arc<Run>,
    url: String,
    name: String,
    dice: StdRng,
}

impl Hammer {
    async fn swing(mut self, manner: Manner) {
        if let Err(error) = self.until_the_end(manner).await {
            let failure = format!("{manner:?} {}: {error}", self.name);
            eprintln!("{failure}");
            self.run.failures.lock().push(failure);
        }
    }

    async fn until_the_end(&mut self, manner: Manner) -> Result<(), String> {
        while !self.run.is_over() {
            match manner {
                Manner::Session | Manner::Renewing => {
                    let peer = soon(Peer::connect(&self.url, &self.name)).await?;
                    let rounds = if manner == Manner::Renewing {
                        5
                    } else {
                        usize::MAX
                    };
                    self.rounds(&peer, rounds).await?;
                    self.leave(&peer).await?;
                }
                Manner::Streaming => self.with_stream().await?,
                Manner::Modern => {
                    self.rounds(&Peer::modern(&self.url, &self.name), usize::MAX)
                        .await?
                }
                Manner::Sse => self.on_one_stream().await?,
                Manner::Polling => self.polling().await?,
            }
        }
        Ok(())
    }

    /// DELETE is the server's to answer while it runs, the gateway's while it sleeps: 2xx either way here.
    async fn leave(&mut self, peer: &Peer) -> Result<(), String> {
        self.pause().await;
        let status = soon(peer.delete()).await?;
        if !status.is_success() {
            return Err(format!("DELETE was answered {status}"));
        }
        Ok(())
    }

    async fn with_stream(&mut self) -> Result<(), String> {
        let peer = Arc::new(soon(Peer::connect(&self.url, &self.name)).await?);
        let events = soon(peer.stream()).await?;
        let attending = Arc::clone(&peer);
        let attendant = tokio::spawn(async move { attending.attend(events).await });
        let done = self.rounds(&peer, usize::MAX).await;
        if attendant.is_finished() {
            let ended = attendant.await.expect("no attendant panics");
            return Err(format!("the passive stream ended: {ended:?}; {done:?}"));
        }
        attendant.abort();
        done
    }

    async fn rounds(&mut self, peer: &Peer, most: usize) -> Result<(), String> {
        for round in 0..most {
            if self.run.is_over() {
                break;
            }
            self.pause().await;
            let what = format!("{} {round}", self.name);
            let (one, other) = (self.dice.random_range(0..10), self.dice.random_range(0..10));
            if self.dice.random_bool(0.3) {
                // Several at once in one session.
                let (one, other) =
                    tokio::join!(self.act(peer, one, &what), self.act(peer, other, &what));
                one.and(other)?;
            } else {
                self.act(peer, one, &what).await?;
            }
        }
        Ok(())
    }

    async fn act(&self, peer: &Peer, dice: u8, what: &str) -> Result<(), String> {
        match dice {
            0..5 => {
                let outcome = soon(peer.call("echo", json!({"message": what}))).await?;
                self.count(&outcome, outcome.text() == what)
            }
            5..8 => {
                let steps = json!({"steps": 4, "step_ms": 25});
                let outcome = soon(peer.call("slow", steps)).await?;
                let right = outcome.text().starts_with("done") && outcome.progress == 4;
                self.count(&outcome, right)
            }
            _ => {
                let outcome = soon(peer.call("elicit", json!({}))).await?;
                self.count(&outcome, outcome.text() == format!("Hello, {}!", self.name))
            }
        }
    }

    async fn on_one_stream(&mut self) -> Result<(), String> {
        let peer = soon(SsePeer::connect(&self.url, &self.name)).await?;
        for round in 0.. {
            if self.run.is_over() {
                break;
            }
            self.pause().await;
            let what = format!("{} {round}", self.name);
            let outcome = match self.dice.random_range(0..10) {
                0..6 => soon(peer.call("echo", json!({"message": what}))).await?,
                6..8 => {
                    soon(peer.call("slow", json!({"steps": 4, "step_ms": 25, "ms": 100}))).await?
                }
                _ => soon(peer.call("elicit", json!({}))).await?,
            };
            let text = outcome.text();
            let right = text == what
                || text.starts_with("done")
                || text.contains(&format!("Hello, {}", self.name));
            self.count(&outcome, right)?;
        }
        Ok(())
    }

    async fn polling(&mut self) -> Result<(), String> {
        let peer = soon(Peer::connect(&self.url, &self.name)).await?;
        while !self.run.is_over() {
            self.pause().await;
            let outcome = soon(peer.call("test_reconnection", json!({}))).await?;
            let right = outcome.text().contains("econnect") && outcome.resumed > 0;
            self.count(&outcome, right)?;
        }
        Ok(())
    }

    fn count(&self, outcome: &Outcome, right: bool) -> Result<(), String> {
        if !right {
            return Err(format!("not the right answer: {outcome:?}"));
        }
        self.run.answered.fetch_add(1, Ordering::Relaxed);
        self.run.asked.fetch_add(outcome.asked, Ordering::Relaxed);
        self.run
            .resumed
            .fetch_add(outcome.resumed, Ordering::Relaxed);
        Ok(())
    }

    /// Mostly right around the idle timeout, where drain and demand meet.
    async fn pause(&mut self) {
        let millis = if self.dice.random_bool(0.7) {
            self.dice.random_range(40..70)
        } else {
            self.dice.random_range(0..150)
        };
        sleep(Duration::from_millis(millis)).await;
    }
}

/// Nothing may hang.
async fn soon<T>(work: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    timeout(PATIENCE, work)
        .await
        .unwrap_or_else(|_| Err(format!("no answer within {PATIENCE:?}")))
}

fn given<T: FromStr>(name: &str, default: T) -> T {
    std::env::var(name)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(default)
}

fn demo(name: &str, transport: &str, isolation: &str) -> Backend {
    Backend::demo(name, transport)
        .policy("isolation", isolation)
        .policy("idleTimeout", IDLE)
}

/// Which backends, and who hammers each: (backend, manner, how many).
#[derive(Default)]
struct Plan {
    backends: Vec<Backend>,
    crews: Vec<(String, Manner, usize)>,
    starts_per_second: u64,
    answers_per_second: u64,
    /// Instances stay; what comes and goes are the sessions within.
    sessions_only: bool,
}

/// Instances that are never idle let go of sessions that are, in the middle of everything those do.
fn released_sessions() -> Plan {
    use Manner::{Renewing, Session, Streaming};
    let mut plan = Plan {
        answers_per_second: 5,
        sessions_only: true,
        ..Plan::default()
    };
    for (transport, isolation) in [("stdio", "shared"), ("streamable-http", "tenant")] {
        let name = format!("{transport}-{isolation}");
        let backend = Backend::demo(&name, transport)
            .policy("isolation", isolation)
            .policy("sessionIdleTimeout", "1ms");
        plan.backends.push(backend);
        for (manner, many) in [(Session, 4), (Streaming, 4), (Renewing, 2)] {
            plan.crews.push((name.clone(), manner, many));
        }
    }
    plan
}

/// Needs nothing but this binary. Where callers share an instance there are one or two, or it would never be idle.
fn own_servers() -> Plan {
    use Manner::{Modern, Renewing, Session, Sse, Streaming};
    type Crew = (&'static str, &'static str, &'static [(Manner, usize)]);
    let crews: [Crew; 10] = [
        ("stdio", "session", &[(Session, 3), (Modern, 1), (Sse, 2)]),
        ("stdio", "shared", &[(Session, 1)]),
        ("stdio", "shared", &[(Streaming, 1), (Modern, 1)]),
        ("stdio", "shared", &[(Renewing, 1), (Sse, 1)]),
        ("stdio", "tenant", &[(Streaming, 1)]),
        ("streamable-http", "session", &[(Streaming, 3)]),
        ("streamable-http", "tenant", &[(Streaming, 2)]),
        ("streamable-http", "tenant", &[(Modern, 1)]),
        ("streamable-http", "shared", &[(Streaming, 1), (Modern, 1)]),
        ("streamable-http", "shared", &[(Streaming, 1)]),
    ];
    let mut plan = Plan::default();
    for (number, (transport, isolation, crew)) in crews.into_iter().enumerate() {
        let name = format!("{transport}-{isolation}-{number}");
        plan.backends.push(demo(&name, transport, isolation));
        plan.crews.extend(
            crew.iter()
                .map(|(manner, many)| (name.clone(), *manner, *many)),
        );
    }
    plan.starts_per_second = 5;
    plan.answers_per_second = 5;
    plan
}

/// What the demo server cannot do: the 2024-11-05 transport, and streams closed by the server.
fn installed_servers(tools: &tools::Tools) -> Plan {
    let sse = Backend::new(
        "sse",
        "sse",
        &[tools.path("PY1"), tools.path("SERVER_PY1"), "sse"],
    );
    let sse = sse
        .spec("path", "/sse")
        .policy("isolation", "tenant")
        .policy("idleTimeout", IDLE);
    let fixture = Backend::fixture("fixture", tools)
        .policy("isolation", "tenant")
        .policy("idleTimeout", IDLE);
    Plan {
        backends: vec![sse, fixture],
        crews: vec![
            ("sse".to_owned(), Manner::Sse, 1),
            ("fixture".to_owned(), Manner::Polling, 1),
        ],
        // Python takes most of a second to start.
        ..Plan::default()
    }
}

/// Hammers, and asserts that nothing was lost and that there was something to lose.
async fn hammer(plan: Plan) -> Arc<Run> {
    let seed = given("MCP_GATEWAY_HAMMER_SEED", rand::rng().random::<u64>());
    let seconds = given("MCP_GATEWAY_HAMMER_SECONDS", 10);
    println!("MCP_GATEWAY_HAMMER_SEED={seed}");
    let gateway = Gateway::start(&plan.backends).await;
    let run = Arc::new(Run {
        over: AtomicBool::new(false),
        answered: AtomicUsize::new(0),
        resumed: AtomicUsize::new(0),
        asked: AtomicUsize::new(0),
        failures: Mutex::default(),
    });
    tokio::join!(
        all_at_once(&plan, &gateway, &run, seed),
        watch_over(&plan, &gateway, &run, seconds)
    );
    let failed = run.failures.lock().join("\n");
    assert!(failed.is_empty(), "clients failed:\n{failed}");
    let starts = starts(&plan, &gateway).await;
    let answered = run.answered.load(Ordering::Relaxed);
    let asked = run.asked.load(Ordering::Relaxed);
    let resumed = run.resumed.load(Ordering::Relaxed);
    println!("{answered} answered, {asked} asked, {resumed} resumed, {starts} starts");
    assert!(
        enough(&plan, &gateway, &run, seconds).await,
        "hardly anything happened: {starts} starts, {answered} answers, {} sessions came back",
        revived(&gateway)
    );
    if !plan.sessions_only {
        for backend in &plan.backends {
            gateway.until_cold(&backend.name).await;
        }
    }
    run
}

/// Ends the run after so many seconds, or later if too little has happened by then: a busy machine needs longer.
async fn watch_over(plan: &Plan, gateway: &Gateway, run: &Run, seconds: u64) {
    sleep(Duration::from_secs(seconds)).await;
    let give_up = Instant::now() + PATIENCE;
    while Instant::now() < give_up
        && run.failures.lock().is_empty()
        && !enough(plan, gateway, run, seconds).await
    {
        sleep(Duration::from_millis(500)).await;
    }
    run.over.store(true, Ordering::Relaxed);
}

fn revived(gateway: &Gateway) -> usize {
    let log = gateway.whole_log();
    log.matches("a session was revived").count()
}

/// Whether there was something to lose.
async fn enough(plan: &Plan, gateway: &Gateway, run: &Run, seconds: u64) -> bool {
    let mut starts = Vec::new();
    for backend in &plan.backends {
        starts.push(gateway.status(&backend.name).await.starts);
    }
    let answered = run.answered.load(Ordering::Relaxed) as u64;
    let came_and_went = if plan.sessions_only {
        revived(gateway) > 10
    } else {
        starts.iter().all(|starts| *starts > 2)
            && starts.iter().sum::<u64>() >= plan.starts_per_second * seconds
    };
    came_and_went && answered > plan.answers_per_second * seconds
}

async fn all_at_once(plan: &Plan, gateway: &Gateway, run: &Arc<Run>, seed: u64) {
    let mut clients = Vec::new();
    for (backend, manner, many) in &plan.crews {
        for number in 0..*many {
            let sse = *manner == Manner::Sse;
            let hammer = Hammer {
                run: Arc::clone(run),
                url: if sse {
                    gateway.sse_url(backend)
                } else {
                    gateway.url(backend)
                },
                name: format!("{backend}-{manner:?}-{number}"),
                dice: StdRng::seed_from_u64(seed.wrapping_add(clients.len() as u64)),
            };
            clients.push(tokio::spawn(hammer.swing(*manner)));
        }
    }
    for client in clients {
        client.await.expect("no client panics");
    }
}

/// How often instances were started; each backend went to zero, and none ever failed.
async fn starts(plan: &Plan, gateway: &Gateway) -> u64 {
    let mut starts = 0;
    for backend in &plan.backends {
        let status = gateway.status(&backend.name).await;
        println!("{}: {} starts", backend.name, status.starts);
        assert_eq!(
            status.failures, 0,
            "{}: {:?}",
            backend.name, status.last_failure
        );
        if plan.sessions_only {
            assert_eq!(status.starts, 1, "{} was never idle", backend.name);
        } else {
            assert!(status.starts > 2, "{} never went to zero", backend.name);
        }
        starts += status.starts;
    }
    starts
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_is_lost_to_scale_down() {
    let _turn = tools::turn(tools::Share::Whole).await;
    let run = hammer(own_servers()).await;
    assert!(
        run.asked.load(Ordering::Relaxed) > 0,
        "no elicitation was among the traffic"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_is_lost_when_a_busy_instance_lets_go_of_idle_sessions() {
    let _turn = tools::turn(tools::Share::Whole).await;
    hammer(released_sessions()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_pending_2024_answer_and_no_resumed_stream_is_lost_to_scale_down() {
    let Some(tools) = tools::installed("hammer with installed servers") else {
        return;
    };
    let _turn = tools::turn(tools::Share::Whole).await;
    let run = hammer(installed_servers(tools)).await;
    assert!(
        run.resumed.load(Ordering::Relaxed) > 0,
        "no stream was resumed"
    );
}
