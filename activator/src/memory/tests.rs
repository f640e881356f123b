use mcp_gateway_api::ids::{BackendName, Generation};

use super::*;

fn key(generation: u64) -> MemoryKey {
    MemoryKey {
        backend: (BackendName::new("b").unwrap(), Generation(generation)),
        owner: Owner::Nobody,
    }
}

fn id(raw: &str) -> RequestId {
    RequestId::parse(raw).unwrap()
}

#[test]
fn a_result_is_given_again_under_the_new_id() {
    let memory = Memory::open(None);
    memory.discovered(
        &key(1),
        200,
        br#"{"id":1,"jsonrpc":"2.0","result":{"supportedVersions":["2026-07-28"]}}"#,
    );
    let answer = memory.get(&key(1)).unwrap().discover.unwrap();
    assert_eq!(
        answer.render(&id("\"x\"")).1,
        r#"{"jsonrpc":"2.0","id":"x","result":{"supportedVersions":["2026-07-28"]}}"#
    );
    assert_eq!(memory.get(&key(2)), None);
}

#[test]
fn a_rejection_is_given_again_as_it_was() {
    let memory = Memory::open(None);
    for (body, again) in [
        (
            r#"{"jsonrpc":"2.0","id":"server-error","error":{"code":-32600}}"#,
            r#"{"jsonrpc":"2.0","id":5,"error":{"code":-32600}}"#,
        ),
        (
            r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32000}}"#,
            r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32000}}"#,
        ),
        ("Bad Request", "Bad Request"),
    ] {
        memory.rejected(&key(1), 400, Some("text/plain"), body.as_bytes());
        let kept = memory.get(&key(1)).unwrap();
        assert_eq!(kept.discover, None);
        let answer = kept.rejection.unwrap();
        assert_eq!(answer.status, 400);
        assert_eq!(answer.render(&id("5")).1, again);
    }
}

#[test]
fn the_least_recently_used_is_forgotten_first() {
    let memory = Memory::open(None);
    for generation in 0..MOST as u64 {
        memory.speaks(&key(generation), Era::Legacy, true);
    }
    assert!(memory.get(&key(0)).is_some());
    memory.speaks(&key(9_999), Era::Modern, false);
    assert!(memory.get(&key(0)).is_some());
    assert_eq!(memory.get(&key(1)), None);
    let big = format!(r#"{{"result":"{}"}}"#, "x".repeat(MAX_ANSWER - 50));
    for generation in 0..400 {
        memory.discovered(&key(generation), 200, big.as_bytes());
    }
    assert!(memory.inner.entries.lock().bytes <= MAX_BYTES);
    memory.discovered(
        &key(500),
        200,
        format!("{big} {}", " ".repeat(100)).as_bytes(),
    );
    assert_eq!(memory.get(&key(500)).and_then(|kept| kept.discover), None);
}

#[tokio::test]
async fn it_outlives_the_process_and_a_damaged_file_is_begun_anew() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("servers.json");
    let memory = Memory::open(Some(&path));
    let cancel = CancellationToken::new();
    let task = tokio::spawn(memory.clone().run(cancel.clone()));
    memory.speaks(&key(1), Era::Legacy, true);
    memory.discovered(&key(2), 200, br#"{"result":{}}"#);
    cancel.cancel();
    task.await.unwrap();
    let again = Memory::open(Some(&path));
    assert_eq!(again.get(&key(1)).unwrap().legacy, Some(true));
    assert!(again.get(&key(2)).unwrap().discover.is_some());
    std::fs::write(&path, b"{\"version\":1,\"entr").unwrap();
    assert_eq!(Memory::open(Some(&path)).get(&key(1)), None);
}
