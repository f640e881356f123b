//! A fake agent over real TLS on loopback; no cluster: the API server is a service that refuses everything.

use mcp_gateway_api::{
    ids::{BackendName, Generation, InstanceId, TenantName},
    slot::{Owner, SlotKey},
};
use mcp_gateway_link::{
    HOME_NAME,
    agent::{hello::Proof, home_client::HomeClient},
    authority::client_tls,
    token::{HomeKey, LaunchToken},
};
use tokio::time::sleep;
use tonic::{Code, transport::Channel};

use super::*;
use crate::kubernetes::{
    KubernetesConfig,
    fake::{api, home, status},
    forms::Form,
    names::Facts,
    pods::tests::seen,
    seen::Seen,
    table::{Entry, Watched},
};

const UID: &str = "00000000-0000-0000-0000-000000000007";
const OTHER_UID: &str = "00000000-0000-0000-0000-000000000008";

struct Bench {
    world: Arc<World>,
    /// What the API server was asked for.
    requests: mpsc::Receiver<String>,
    address: SocketAddr,
    ca: String,
}

fn facts() -> Facts {
    let backend = BackendName::new("time").unwrap();
    Facts {
        slot: SlotKey {
            backend,
            owner: Owner::Nobody,
        },
        tenant: TenantName::default(),
        generation: Generation(1),
        number: 1,
        form: Form::Embedded,
        port: 8000,
        path: "/mcp".into(),
        host: "localhost:8000".into(),
        health_path: None,
        bridge: true,
    }
}

/// An API server that refuses everything, and what it was asked for.
fn nobody() -> (kube::Client, mpsc::Receiver<String>) {
    let (asked, requests) = mpsc::channel(64);
    let (client, _all) = api(move |line, _body| {
        let what = line.split_once('?').map_or(line, |(what, _how)| what);
        let _ = asked.try_send(what.to_owned());
        status(503, "ServiceUnavailable", "no")
    });
    (client, requests)
}

impl Bench {
    async fn new() -> Self {
        let home = home().await;
        let (address, ca) = (home.advertise[0], home.authority.cert_pem().to_owned());
        let tls = home.authority.issue(HOME_NAME).unwrap().server_tls();
        let (client, requests) = nobody();
        let config = KubernetesConfig::new((client.clone(), client), "mcp", "test", home);
        let (listener, world, _events) = World::new(config, false);
        let world = Arc::new(world);
        tokio::spawn(serve(Arc::clone(&world), listener, tls));
        Self {
            world,
            requests,
            address,
            ca,
        }
    }

    /// A pod without its task: what its agent says comes out of the receiver.
    fn pod(&self, name: &str, uid: &str) -> (Arc<Entry>, mpsc::Receiver<Input>, LaunchToken) {
        let mut seen = seen();
        seen.id = instance_of(uid).unwrap();
        (seen.name, seen.uid) = (name.into(), uid.into());
        let (entry, inbox) = self.world.entry(seen, facts());
        let token = self.world.key.launch_token(name);
        *entry.token.lock() = Some(token.clone());
        *entry.orders.lock() = Some(Box::new(agent::Orders {
            backend: "time".into(),
            ..agent::Orders::default()
        }));
        let entry = Arc::new(entry);
        self.world.table.created(Arc::clone(&entry));
        (entry, inbox, token)
    }

    async fn channel(&self) -> Channel {
        Channel::from_shared(format!("https://{}", self.address))
            .unwrap()
            .tls_config(client_tls(&self.ca, HOME_NAME))
            .unwrap()
            .connect()
            .await
            .unwrap()
    }

    async fn call(&self, hello: agent::Hello) -> Result<Line, Status> {
        let (to, stream) = mpsc::channel(8);
        let first = from_agent::What::Hello(hello);
        to.send(FromAgent { what: Some(first) }).await.unwrap();
        let mut client = HomeClient::new(self.channel().await);
        let mut from = client.call(ReceiverStream::new(stream)).await?.into_inner();
        match from.message().await?.and_then(|message| message.what) {
            Some(to_agent::What::Welcome(welcome)) => Ok(Line { to, from, welcome }),
            other => panic!("no welcome: {other:?}"),
        }
    }

    fn counted(&self, why: Refusal) -> u64 {
        self.world.refusals.get(why)
    }
}

/// An open call.
#[derive(Debug)]
struct Line {
    to: mpsc::Sender<FromAgent>,
    from: Streaming<ToAgent>,
    welcome: agent::Welcome,
}

fn hello(name: &str, uid: &str, proof: Proof) -> agent::Hello {
    agent::Hello {
        protocol: 1,
        pod_name: name.into(),
        pod_uid: uid.into(),
        ip: "127.0.0.1".into(),
        proof: Some(proof),
        ..agent::Hello::default()
    }
}

fn with_token(name: &str, uid: &str, token: &LaunchToken) -> agent::Hello {
    hello(name, uid, Proof::LaunchToken(token.as_bytes().to_vec()))
}

fn ready() -> agent::Ready {
    agent::Ready {
        port: 8000,
        ..agent::Ready::default()
    }
}

#[tokio::test]
async fn an_agent_is_welcomed_once_with_its_orders_and_its_news_arrive_in_order() {
    let bench = Bench::new().await;
    let (entry, mut inbox, token) = bench.pod("time-1", UID);
    let mut line = bench.call(with_token("time-1", UID, &token)).await.unwrap();
    assert_eq!(line.welcome.orders.as_ref().unwrap().backend, "time");
    assert!(matches!(inbox.recv().await, Some(Input::Hello)));
    for what in [
        from_agent::What::Running(agent::Running {}),
        from_agent::What::Ready(ready()),
        from_agent::What::Exited(agent::Exited {
            code: Some(3),
            stderr_tail: vec!["x\u{1b}[2J".into(); 100],
            ..agent::Exited::default()
        }),
    ] {
        line.to.send(FromAgent { what: Some(what) }).await.unwrap();
    }
    assert!(matches!(inbox.recv().await, Some(Input::AgentRuns)));
    let Some(Input::Serves(endpoint)) = inbox.recv().await else {
        panic!("not ready");
    };
    assert_eq!(endpoint.secret, entry.secret);
    assert!(
        endpoint.secret.is_some(),
        "a bridge lets in who bears its secret"
    );
    let Some(Input::AgentExited(report)) = inbox.recv().await else {
        panic!("not exited");
    };
    assert_eq!((report.code, report.stderr_tail.len()), (Some(3), LINES));
    assert!(!report.stderr_tail.concat().contains('\u{1b}'));
    entry
        .agent
        .send_replace(Some(Drain(Duration::from_secs(2))));
    let asked = line.from.message().await.unwrap().unwrap().what;
    assert_eq!(
        asked,
        Some(to_agent::What::Drain(agent::Drain { grace_ms: 2000 }))
    );
}

#[tokio::test]
async fn a_token_is_good_once() {
    let bench = Bench::new().await;
    let (_entry, _inbox, token) = bench.pod("time-1", UID);
    let _line = bench.call(with_token("time-1", UID, &token)).await.unwrap();
    let refused = bench
        .call(with_token("time-1", UID, &token))
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    assert_eq!(bench.counted(Refusal::Spent), 1);
}

/// The leader before this one noted it when it stood down, and this one had taken the pod in by then.
#[tokio::test]
async fn a_token_is_spent_once_the_pod_says_so_whenever_that_is_seen() {
    let bench = Bench::new().await;
    let (entry, _inbox, token) = bench.pod("time-1", UID);
    let noted = Seen {
        spent: true,
        ..seen()
    };
    entry.watched.send_replace(Watched::Here(Arc::new(noted)));
    let refused = bench.call(with_token("time-1", UID, &token)).await;
    assert_eq!(refused.unwrap_err().code(), Code::Unauthenticated);
    assert_eq!(bench.counted(Refusal::Spent), 1);
}

/// Not in the middle of a burst; and not so late that many leaders would have to be told by the agent itself.
#[tokio::test(start_paused = true)]
async fn that_a_token_was_used_is_noted_half_a_minute_later_on_a_pod_that_is_still_there() {
    let mut bench = Bench::new().await;
    let (entry, _inbox, _) = bench.pod("time-1", UID);
    let (gone, _inbox, _) = bench.pod("time-2", OTHER_UID);
    for entry in [&entry, &gone] {
        let (world, entry) = (Arc::clone(&bench.world), Arc::clone(entry));
        tokio::spawn(async move { world.keep_spent(&entry).await });
    }
    let begun = tokio::time::Instant::now();
    bench.world.table.forget(&gone);
    let noted = bench.requests.recv().await.expect("it is noted");
    assert_eq!(begun.elapsed().as_secs(), 30);
    assert_eq!(noted, "PATCH /api/v1/namespaces/mcp/pods/time-1");
    // What came at the same moment would be here by now.
    sleep(HELLO).await;
    assert!(bench.requests.try_recv().is_err());
}

/// The leader before this one was lost before it could note on the pod that it had called.
#[tokio::test]
async fn a_pod_that_comes_back_with_its_secret_needs_its_token_no_more() {
    let bench = Bench::new().await;
    let (entry, _inbox, token) = bench.pod("time-1", UID);
    let secret = bench.world.key.reconnect_secret("time-1", UID);
    let again = hello("time-1", UID, Proof::ReconnectSecret(secret.into()));
    let _line = bench.call(again).await.unwrap();
    assert!(entry.token.lock().is_none());
    let refused = bench.call(with_token("time-1", UID, &token)).await;
    assert_eq!(refused.unwrap_err().code(), Code::Unauthenticated);
    assert_eq!(bench.counted(Refusal::Spent), 1);
}

/// It was made by a leader that was lost, and what it was to run with it.
#[tokio::test]
async fn a_pod_that_calls_for_the_first_time_when_its_orders_are_lost_is_over_at_once() {
    let bench = Bench::new().await;
    let (entry, mut inbox, token) = bench.pod("time-1", UID);
    *entry.orders.lock() = None;
    // An agent asks again before it believes it, which nobody is to take for a stolen token.
    for _ in 0..2 {
        let refused = bench.call(with_token("time-1", UID, &token)).await;
        assert_eq!(refused.unwrap_err().code(), Code::NotFound);
    }
    assert_eq!(bench.counted(Refusal::Spent), 0);
    // Nor does anybody get its place by saying that it runs already.
    let mut running = with_token("time-1", UID, &token);
    running.state = Some(agent::State::default());
    assert!(bench.call(running).await.is_err());
    assert_eq!(bench.counted(Refusal::Spent), 1);
    match inbox.recv().await {
        Some(Input::AgentExited(report)) => assert_eq!(report.summary, proof::ORPHAN),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_stranger_learns_nothing_and_is_counted() {
    let bench = Bench::new().await;
    let (_entry, mut inbox, token) = bench.pod("time-1", UID);
    let (_entry, _inbox, others) = bench.pod("time-2", OTHER_UID);
    let key = HomeKey::random();
    for (hello, why) in [
        (
            with_token("time-1", UID, &key.launch_token("time-1")),
            Refusal::Token,
        ),
        // Another pod's identity, with one's own token.
        (with_token("time-1", UID, &others), Refusal::Token),
        (with_token("time-1", OTHER_UID, &token), Refusal::Foreign),
        // The pod before this one had the same name.
        (
            with_token("time-1", UID, &bench.world.key.launch_token("time-1")),
            Refusal::Token,
        ),
        (
            hello("time-1", UID, Proof::LaunchToken(vec![1])),
            Refusal::Token,
        ),
        (
            hello("time-1", UID, Proof::ReconnectSecret(vec![0; 32])),
            Refusal::Token,
        ),
    ] {
        let before = bench.counted(why);
        let refused = bench.call(hello).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unauthenticated, "{why:?}");
        assert_eq!(bench.counted(why), before + 1, "{why:?}");
    }
    let Some(Input::Warns(text)) = inbox.recv().await else {
        panic!("the pod in whose name it was is not told of");
    };
    assert!(text.contains("without its token"), "{text}");
    // None of that has spent the token of the pod itself.
    bench.call(with_token("time-1", UID, &token)).await.unwrap();
}

#[tokio::test]
async fn a_claimed_address_that_neither_connection_nor_status_confirms_is_refused() {
    let bench = Bench::new().await;
    let (entry, _inbox, token) = bench.pod("time-1", UID);
    let mut seen = seen();
    seen.ip = Some([10, 0, 0, 9].into());
    entry.watched.send_replace(Watched::Here(Arc::new(seen)));
    let claim = |ip: &str| agent::Hello {
        ip: ip.into(),
        ..with_token("time-1", UID, &token)
    };
    let refused = bench.call(claim("10.0.0.8")).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    assert_eq!(bench.counted(Refusal::Address), 1);
    bench.call(claim("10.0.0.9")).await.unwrap();
}

#[tokio::test]
async fn a_reconnect_proves_itself_to_any_leader_and_is_given_no_orders_again() {
    let bench = Bench::new().await;
    let (_entry, mut inbox, token) = bench.pod("time-1", UID);
    let line = bench.call(with_token("time-1", UID, &token)).await.unwrap();
    let secret = line.welcome.reconnect_secret.clone();
    drop(line);
    assert!(matches!(inbox.recv().await, Some(Input::Hello)));
    let again = agent::Hello {
        state: Some(agent::State {
            ready: Some(ready()),
            running: true,
            exited: None,
        }),
        ..hello("time-1", UID, Proof::ReconnectSecret(secret.clone()))
    };
    let line = bench.call(again).await.unwrap();
    assert_eq!(line.welcome.orders, None);
    assert!(matches!(inbox.recv().await, Some(Input::Hello)));
    assert!(matches!(inbox.recv().await, Some(Input::AgentRuns)));
    assert!(matches!(inbox.recv().await, Some(Input::Serves(_))));
    let theirs = hello("time-2", OTHER_UID, Proof::ReconnectSecret(secret));
    let refused = bench.call(theirs).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
}

#[tokio::test]
async fn a_pod_that_nobody_knows_or_that_was_told_to_end_is_told_to_end() {
    let bench = Bench::new().await;
    let secret = |uid: &str| {
        let secret = bench.world.key.reconnect_secret("time-1", uid);
        hello("time-1", uid, Proof::ReconnectSecret(secret.to_vec()))
    };
    let refused = bench.call(secret(OTHER_UID)).await.unwrap_err();
    assert_eq!(refused.code(), Code::NotFound);
    let (entry, _inbox, _token) = bench.pod("time-1", UID);
    entry.told.send_replace(Some(Duration::from_secs(1)));
    let refused = bench.call(secret(UID)).await.unwrap_err();
    assert_eq!(refused.code(), Code::NotFound);
    assert_eq!(bench.world.table.get(InstanceId(7)).unwrap().name, "time-1");
}
