//! Over scripted children and paused time: keep-alives, deadlines, stalled readers.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use http::{Method, StatusCode};
use mcp_gateway_api::failure::ExitReport;
use mcp_gateway_runtime::{
    bridge::{BridgeConfig, BridgeEvent},
    child::{ChildControl, SpawnChild, StdioChild},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, DuplexStream, Lines},
    sync::{mpsc, watch},
    time::Instant,
};

use crate::support::{Rig, call, initialize, modern, modern_call, rig_over};

struct Exit(watch::Sender<Option<ExitReport>>);

#[async_trait]
impl ChildControl for Exit {
    fn pid(&self) -> Option<u32> {
        None
    }
    async fn exited(&self) -> ExitReport {
        let mut exit = self.0.subscribe();
        let report = exit.wait_for(Option::is_some).await;
        report.ok().and_then(|r| r.clone()).unwrap_or_default()
    }
    async fn kill(&self, _grace: Duration) -> ExitReport {
        self.0.send_if_modified(|exit| {
            exit.is_none() && exit.replace(ExitReport::default()).is_none()
        });
        self.exited().await
    }
}

/// A child in the hands of a test.
struct Kid {
    stdin: Lines<BufReader<DuplexStream>>,
    stdout: DuplexStream,
    exit: Arc<Exit>,
}

impl Kid {
    async fn hears(&mut self) -> Value {
        let line = self.stdin.next_line().await.unwrap().unwrap();
        serde_json::from_str(&line).unwrap()
    }

    async fn says(&mut self, message: Value) {
        let line = format!("{message}\n");
        self.stdout.write_all(line.as_bytes()).await.unwrap();
    }

    /// Answers the next request with a result and returns it.
    async fn answers(&mut self, result: Value) -> Value {
        let request = self.hears().await;
        self.says(json!({"jsonrpc": "2.0", "id": request["id"], "result": result}))
            .await;
        request
    }

    fn exits(&self, code: i32) {
        let report = ExitReport {
            code: Some(code),
            ..ExitReport::default()
        };
        self.exit.0.send_replace(Some(report));
    }
}

struct Kids(mpsc::Sender<Kid>);

#[async_trait]
impl SpawnChild for Kids {
    async fn spawn(&self) -> Result<StdioChild, ExitReport> {
        let (stdin, theirs_in) = tokio::io::duplex(64 << 10);
        let (stdout, theirs_out) = tokio::io::duplex(64 << 10);
        let exit = Arc::new(Exit(watch::Sender::new(None)));
        let kid = Kid {
            stdin: BufReader::new(theirs_in).lines(),
            stdout: theirs_out,
            exit: Arc::clone(&exit),
        };
        self.0.send(kid).await.unwrap();
        Ok(StdioChild {
            stdin: Box::new(stdin),
            stdout: Box::new(stdout),
            control: exit,
        })
    }
}

async fn kids() -> (Rig, mpsc::Receiver<Kid>) {
    let (tell, kids) = mpsc::channel(8);
    (rig_over(Arc::new(Kids(tell)), |_| {}).await, kids)
}

/// A bridge with one open session.
async fn session() -> (Rig, Kid, String) {
    let (rig, mut kids) = kids().await;
    let mut kid = kids.recv().await.unwrap();
    let handshake = initialize("2025-11-25");
    let answered = kid.answers(json!({"protocolVersion": "2025-11-25"}));
    let (reply, _) = tokio::join!(rig.post(&[], &handshake), answered);
    let id = reply.header("mcp-session-id").unwrap().to_owned();
    (rig, kid, id)
}

#[tokio::test(start_paused = true)]
async fn a_quiet_request_gets_a_stream_and_a_comment_every_15_seconds() {
    let (rig, mut kid, id) = session().await;
    let since = Instant::now();
    let (mut reply, request) = tokio::join!(rig.call(&id, 1, "x", json!({})), kid.hears());
    assert!(reply.is_stream());
    assert_eq!(since.elapsed().as_secs(), 15);
    for seconds in [30, 45] {
        assert_eq!(reply.block().await.unwrap(), ": keep-alive");
        assert_eq!(since.elapsed().as_secs(), seconds);
    }
    kid.says(json!({"jsonrpc": "2.0", "id": request["id"], "error": {"code": 7, "message": "no"}}))
        .await;
    assert_eq!(reply.event().await.unwrap()["error"]["code"], 7);
    assert_eq!(reply.block().await, None);
}

#[tokio::test(start_paused = true)]
async fn a_slow_handshake_still_brings_the_session_header() {
    let (rig, mut kids) = kids().await;
    let mut kid = kids.recv().await.unwrap();
    let answered = async {
        let request = kid.hears().await;
        tokio::time::sleep(Duration::from_secs(25)).await;
        // A log message before the answer must not be taken for it.
        kid.says(json!({"jsonrpc": "2.0", "method": "notifications/message", "params": {}}))
            .await;
        kid.says(json!({"jsonrpc": "2.0", "id": request["id"], "result": {"protocolVersion": "2025-11-25"}}))
            .await;
    };
    let handshake = initialize("2025-11-25");
    let (reply, ()) = tokio::join!(rig.post(&[], &handshake), answered);
    let id = reply.header("mcp-session-id").unwrap().to_owned();
    assert_eq!(
        reply.json().await["result"]["protocolVersion"],
        "2025-11-25"
    );
    let mut stream = rig.listen(&id).await;
    assert_eq!(
        stream.event().await.unwrap()["method"],
        "notifications/message"
    );
}

#[tokio::test(start_paused = true)]
async fn a_server_request_nobody_takes_is_answered_after_30_seconds() {
    let (_rig, mut kid, _id) = session().await;
    let since = Instant::now();
    kid.says(json!({"jsonrpc": "2.0", "id": "q", "method": "roots/list"}))
        .await;
    kid.says(json!({"jsonrpc": "2.0", "method": "notifications/x"}))
        .await;
    let answer = kid.hears().await;
    assert_eq!(
        (&answer["id"], &answer["error"]["code"]),
        (&json!("q"), &json!(-32603))
    );
    assert_eq!(since.elapsed().as_secs(), 30);
}

#[tokio::test(start_paused = true)]
async fn what_waits_goes_on_the_next_request_stream_before_its_answer() {
    let (rig, mut kid, id) = session().await;
    kid.says(json!({"jsonrpc": "2.0", "method": "notifications/x"}))
        .await;
    // The child's line is read before the next request is taken: it answers only then.
    kid.says(json!({"jsonrpc": "2.0", "id": 1, "method": "ping"}))
        .await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let answered = kid.answers(json!({}));
    let (mut reply, _) = tokio::join!(rig.call(&id, 1, "x", json!({})), answered);
    assert_eq!(reply.event().await.unwrap()["method"], "notifications/x");
    assert_eq!(reply.event().await.unwrap()["method"], "ping");
    assert_eq!(reply.event().await.unwrap()["result"], json!({}));
}

#[tokio::test(start_paused = true)]
async fn ids_and_numbers_come_back_as_they_were_written() {
    let (rig, mut kid, id) = session().await;
    let body = r#"{"params": {"n": 1.00000000000000000001e5,
        "big": 123456789012345678901234567890},
        "method":"x","jsonrpc":"2.0", "id": "\u0061"}"#;
    let headers = [
        ("mcp-session-id", id.as_str()),
        ("content-type", "application/json"),
        ("accept", "application/json, text/event-stream"),
    ];
    let heard = async {
        let line = kid.stdin.next_line().await.unwrap().unwrap();
        assert!(line.contains("1.00000000000000000001e5"), "{line}");
        assert!(line.contains("123456789012345678901234567890"), "{line}");
        kid.stdout
            .write_all(b"{\"id\":2,\"result\":{\"n\":0.10}, \"jsonrpc\":\"2.0\"}\r\n")
            .await
            .unwrap();
    };
    let post = rig.send(http::Method::POST, "/mcp", &headers, body);
    let (reply, ()) = tokio::join!(post, heard);
    assert_eq!(
        reply.text().await,
        r#"{"id":"\u0061","result":{"n":0.10}, "jsonrpc":"2.0"}"#
    );
}

#[tokio::test(start_paused = true)]
async fn a_child_that_dies_while_a_modern_request_waits_is_told_by_status() {
    let (rig, mut kids) = kids().await;
    let mut kid = kids.recv().await.unwrap();
    let dies = async {
        kid.answers(json!({"supportedVersions": ["2026-07-28"]}))
            .await;
        kid.hears().await;
        kid.exits(9);
    };
    let body = modern_call(json!("r"), "x", json!({}));
    let (reply, ()) = tokio::join!(rig.modern("", &body), dies);
    assert_eq!(reply.status, StatusCode::BAD_GATEWAY);
    let answer = reply.json().await;
    assert_eq!(answer["id"], "r");
    assert_eq!(answer["error"]["message"], "the server exited with code 9");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_exits_probed_or_not_has_crashed_and_is_not_taken_for_legacy() {
    let (mut rig, mut kids) = kids().await;
    let crashes = async {
        let mut first = kids.recv().await.unwrap();
        assert_eq!(first.hears().await["method"], "server/discover");
        first.exits(6);
        kids.recv().await.unwrap().exits(6);
    };
    let body = modern(json!("p"), "server/discover", json!({}));
    let (reply, ()) = tokio::join!(rig.modern("", &body), crashes);
    assert_eq!(reply.status, StatusCode::BAD_GATEWAY);
    assert_eq!(
        reply.json().await["error"]["message"],
        "the server exited with code 6"
    );
    let event = rig.event().await;
    assert!(
        matches!(&event, BridgeEvent::Failed(report) if report.code == Some(6)),
        "{event:?}"
    );
}

/// It has found out from the instance before this one.
#[tokio::test(start_paused = true)]
async fn a_modern_client_in_the_middle_of_its_work_waits_for_a_server_that_is_slow_to_start() {
    let (rig, mut kids) = kids().await;
    let mut kid = kids.recv().await.unwrap();
    let slow = async {
        tokio::time::sleep(Duration::from_secs(20)).await;
        kid.answers(json!({"supportedVersions": ["2026-07-28"]}))
            .await;
        kid.answers(json!({"content": []})).await;
        kid
    };
    let body = modern_call(json!("r"), "x", json!({}));
    let (reply, _kid) = tokio::join!(rig.modern("", &body), slow);
    assert_eq!(reply.status, StatusCode::OK);
    assert_eq!(reply.json().await["id"], "r");
}

#[tokio::test(start_paused = true)]
async fn a_modern_client_that_reads_nothing_cannot_hold_others_up() {
    let (rig, mut kids) = kids().await;
    let mut kid = kids.recv().await.unwrap();
    let begins = async {
        kid.answers(json!({"supportedVersions": ["2026-07-28"]}))
            .await;
        let listen = kid.hears().await;
        let ack = json!({"jsonrpc": "2.0", "method": "notifications/subscriptions/acknowledged",
            "params": {"_meta": {"io.modelcontextprotocol/subscriptionId": listen["id"]}}});
        kid.says(ack.clone()).await;
        (kid, ack, listen)
    };
    let body = modern(json!(1), "subscriptions/listen", json!({}));
    let (_never_read, (mut kid, mut ack, listen)) = tokio::join!(rig.modern("", &body), begins);
    ack["params"]["filler"] = json!("x".repeat(100_000));
    let since = Instant::now();
    let flood = async {
        for _ in 0..100 {
            kid.says(ack.clone()).await;
        }
        let mut cancelled = false;
        loop {
            let heard = kid.hears().await;
            if heard["method"] == "notifications/cancelled" {
                assert_eq!(heard["params"]["requestId"], listen["id"]);
                cancelled = true;
            } else {
                kid.says(json!({"jsonrpc": "2.0", "id": heard["id"], "result": {}}))
                    .await;
                break cancelled;
            }
        }
    };
    let other = modern_call(json!(2), "x", json!({}));
    let (reply, cancelled) = tokio::join!(rig.modern("", &other), flood);
    assert_eq!(reply.json().await["id"], 2);
    // The other request may have been written first; the stalled stream was cut all the same.
    assert!(
        since.elapsed() < Duration::from_secs(15),
        "{:?}",
        since.elapsed()
    );
    if !cancelled {
        assert_eq!(kid.hears().await["method"], "notifications/cancelled");
    }
}

#[tokio::test(start_paused = true)]
async fn a_child_that_reads_nothing_holds_only_its_own_clients() {
    let (rig, mut kids) = kids().await;
    let stuck = kids.recv().await.unwrap();
    let filler = "x".repeat(200_000);
    let hung = initialize("2025-11-25");
    let mut hung = Box::pin(rig.post(&[("x-filler", "1")], &hung));
    let other = async {
        let mut kid = kids.recv().await.unwrap();
        kid.answers(json!({"protocolVersion": "2025-11-25"})).await;
        let request = kid.hears().await;
        assert!(request["params"]["arguments"].as_str().unwrap().len() == 200_000);
        kid.says(json!({"jsonrpc": "2.0", "id": request["id"], "result": {}}))
            .await;
    };
    let session = async {
        let handshake = initialize("2025-11-25");
        let reply = rig.post(&[], &handshake).await;
        let id = reply.header("mcp-session-id").unwrap().to_owned();
        rig.in_session(&id, &call(json!(1), "x", json!(filler)))
            .await
    };
    tokio::select! {
        biased;
        _ = &mut hung => panic!("nobody answered it"),
        (reply, ()) = async { tokio::join!(session, other) } => {
            assert_eq!(reply.status, StatusCode::OK);
        }
    }
    drop(stuck);
}

#[tokio::test(start_paused = true)]
async fn a_child_that_babbles_and_never_answers_the_handshake_is_ended_at_its_start_timeout() {
    let (tell, mut kids) = mpsc::channel(8);
    let limit = |config: &mut BridgeConfig| config.start_timeout = Duration::from_secs(20);
    let mut rig = rig_over(Arc::new(Kids(tell)), limit).await;
    let mut kid = kids.recv().await.unwrap();
    let began = Instant::now();
    let body = initialize("2025-11-25");
    let asking = rig.post(&[], &body);
    let babbling = async {
        kid.hears().await;
        kid.stdout
            .write_all(b"hello, I am no server\n")
            .await
            .unwrap();
    };
    let (reply, ()) = tokio::join!(asking, babbling);
    assert_eq!(reply.status, StatusCode::BAD_GATEWAY);
    assert_eq!(began.elapsed().as_secs(), 20);
    let BridgeEvent::Failed(report) = rig.event().await else {
        panic!("the instance is over");
    };
    assert!(
        report.summary.contains("did not answer its first request"),
        "{}",
        report.summary
    );
}

/// What tells the activator, over HTTP alone, that a session is lost with its child while others go on.
const LOST: &str = "event: x-mcp-gateway-lost";

#[tokio::test(start_paused = true)]
async fn a_child_that_dies_says_so_last_on_each_stream_of_its_session() {
    let (rig, mut kid, id) = session().await;
    let mut get = rig.listen(&id).await;
    let (mut open, _) = tokio::join!(rig.call(&id, 1, "x", json!({})), kid.hears());
    let asks = json!({"jsonrpc": "2.0", "id": "q", "method": "elicitation/create", "params": {}});
    kid.says(asks).await;
    assert_eq!(open.event().await.unwrap()["id"], "q");
    let exit = async {
        kid.hears().await;
        kid.exits(9);
    };
    let (waiting, ()) = tokio::join!(rig.call(&id, 2, "x", json!({})), exit);
    assert_eq!(waiting.status, StatusCode::BAD_GATEWAY);
    assert_eq!(waiting.header("x-mcp-gateway-lost"), Some("session"));
    assert_eq!(open.event().await.unwrap()["error"]["code"], -31520);
    for stream in [&mut open, &mut get] {
        let mut last = None;
        while let Some(block) = stream.block().await {
            last = Some(block);
        }
        assert_eq!(last.as_deref(), Some(LOST));
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_that_was_deleted_is_not_lost() {
    let (rig, kid, id) = session().await;
    let mut get = rig.listen(&id).await;
    let headers = [("mcp-session-id", id.as_str())];
    let gone = rig.send(Method::DELETE, "/mcp", &headers, String::new());
    assert_eq!(gone.await.status, StatusCode::NO_CONTENT);
    drop(kid);
    assert_eq!(get.block().await, None);
}
