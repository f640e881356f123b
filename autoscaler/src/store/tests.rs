use std::sync::Arc;

use mcp_gateway_api::{
    ids::{BackendName, InstanceId, TenantName, UpstreamSession},
    record::SessionBinding,
};
use proptest::prelude::*;

use super::*;

fn record(n: u8) -> SessionRecord {
    SessionRecord {
        key: SessionKey([n; 24]),
        backend: BackendName::new("everything").unwrap(),
        tenant: TenantName::default(),
        expires_at: 1_000 + u64::from(n),
        ended: false,
        binding: Some(Some(SessionBinding {
            instance: InstanceId(u128::from(n)),
            upstream: UpstreamSession("upstream".into()),
        })),
        log_level: Some("debug".into()),
        subscriptions: vec!["file:///a".into()],
        stamp: mcp_gateway_api::view::Stamp::default(),
    }
}

fn put(n: u8) -> Change {
    Change::Put(Arc::new(record(n)))
}

async fn write(store: &Store, changes: Vec<Change>) {
    let (done, written) = oneshot::channel();
    let done = Some(done);
    store.write(Job { changes, done }).await;
    written.await.unwrap().unwrap();
}

fn keys(mut records: Vec<SessionRecord>) -> Vec<u8> {
    records.sort_by_key(|record| record.key);
    records.iter().map(|record| record.key.0[0]).collect()
}

#[tokio::test]
async fn what_was_answered_is_there_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let (store, before) = Store::open(folder.path()).unwrap();
    assert!(before.is_empty());
    write(&store, vec![put(1), put(2)]).await;
    write(&store, vec![Change::Remove(SessionKey([1; 24])), put(3)]).await;
    // Not closed: as after SIGKILL, what was answered is in the file.
    let (_store, after) = Store::open(folder.path()).unwrap();
    assert_eq!(keys(after), [2, 3]);
}

#[tokio::test]
async fn an_absent_binding_is_not_an_unknown_one() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(folder.path()).unwrap();
    let mut asleep = record(1);
    asleep.binding = Some(None);
    let mut unknown = record(2);
    unknown.binding = None;
    let changes = [asleep.clone(), unknown.clone()].map(|r| Change::Put(Arc::new(r)));
    write(&store, changes.to_vec()).await;
    let (_store, mut after) = Store::open(folder.path()).unwrap();
    after.sort_by_key(|record| record.key);
    assert_eq!(after, [asleep, unknown]);
}

#[tokio::test]
async fn a_torn_end_loses_nothing_before_it() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(folder.path()).unwrap();
    write(&store, vec![put(1), put(2)]).await;
    let path = folder.path().join(FILE);
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..whole.len() - 3]).unwrap();
    let (store, after) = Store::open(folder.path()).unwrap();
    assert_eq!(keys(after), [1]);
    write(&store, vec![put(4)]).await;
    let (_store, after) = Store::open(folder.path()).unwrap();
    assert_eq!(keys(after), [1, 4]);
}

#[tokio::test]
async fn a_foreign_file_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(FILE);
    fs::write(&path, "something else entirely").unwrap();
    let error = Store::open(folder.path()).unwrap_err();
    assert!(matches!(error, StoreError::Foreign { .. }), "{error}");
    assert_eq!(fs::read(&path).unwrap(), b"something else entirely");
}

#[test]
fn a_stale_file_is_rewritten_smaller() {
    let folder = tempfile::tempdir().unwrap();
    let (mut file, _) = LogFile::open(folder.path()).unwrap();
    while !file.is_mostly_stale() {
        file.append(&vec![put(1); 1_000]).unwrap();
    }
    file.rewrite().unwrap();
    assert!(file.length < 1_000, "{}", file.length);
    file.append(&[put(2)]).unwrap();
    drop(file);
    let (_, after) = LogFile::open(folder.path()).unwrap();
    assert_eq!(keys(after), [1, 2]);
}

#[cfg(unix)]
#[test]
fn only_the_owner_may_read_the_file() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let (_file, _) = LogFile::open(&folder.path().join("records")).unwrap();
    let mode = |path: PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(folder.path().join("records")), 0o700);
    assert_eq!(mode(folder.path().join("records").join(FILE)), 0o600);
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_panic_and_never_past_their_end(
        bytes in proptest::collection::vec(any::<u8>(), 0..400),
    ) {
        let (_, used) = replay(&bytes);
        prop_assert!(used <= bytes.len());
    }

    #[test]
    fn a_cut_anywhere_keeps_the_whole_frames_before_it(cut in 0_usize..1_000) {
        let mut bytes = Vec::new();
        let mut ends = vec![0];
        for n in 0..5 {
            Frame::Put(record(n)).write(&mut bytes).unwrap();
            ends.push(bytes.len());
        }
        let cut = cut.min(bytes.len());
        let (records, used) = replay(&bytes[..cut]);
        let whole = ends.iter().filter(|end| **end <= cut).count() - 1;
        prop_assert_eq!(records.len(), whole);
        prop_assert_eq!(used, ends[whole]);
    }
}
