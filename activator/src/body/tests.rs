use std::sync::Arc;

use axum::body::Body;
use futures_util::stream;

use super::*;

const MIB: usize = 1 << 20;

fn json() -> HeaderMap {
    HeaderMap::from_iter([(
        header::CONTENT_TYPE,
        http::HeaderValue::from_static("application/json"),
    )])
}

async fn read(budget: &Budget, body: Body) -> Result<Bytes, Failure> {
    read_within(budget, &ActivatorConfig::default(), &json(), body).await
}

fn of(size: usize) -> Body {
    let chunk = |_| Ok::<_, std::io::Error>(Bytes::from(vec![b' '; 1 << 10]));
    Body::from_stream(stream::iter((0..size >> 10).map(chunk)))
}

#[tokio::test]
async fn a_body_is_counted_until_its_last_copy_is_dropped() {
    let budget = Budget::new(4 << 20);
    let body = read(&budget, of(MIB)).await.unwrap();
    assert_eq!((body.len(), budget.taken()), (MIB, MIB as u64));
    let copy = body.slice(10..20);
    drop(body);
    assert_eq!(budget.taken(), MIB as u64);
    drop(copy);
    assert_eq!(budget.taken(), 0);
}

#[tokio::test]
async fn bodies_are_refused_together_and_small_ones_never() {
    let budget = Budget::new(2 * MIB as u64);
    let kept = [
        read(&budget, of(MIB)).await.unwrap(),
        read(&budget, of(MIB - 1024)).await.unwrap(),
    ];
    let refused = read(&budget, of(MIB)).await.unwrap_err();
    assert_eq!(refused.kind, FailureKind::Overloaded);
    assert!(refused.retry_after.is_some());
    assert_eq!(
        budget.taken(),
        (2 * MIB - 1024) as u64,
        "of the refused one nothing"
    );
    assert_eq!(read(&budget, of(FREE)).await.unwrap().len(), FREE);
    drop(kept);
    assert!(read(&budget, of(MIB)).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn what_is_being_read_counts_as_far_as_it_has_come_and_no_further() {
    let budget = Arc::new(Budget::new(2 * MIB as u64));
    let (sender, receiver) = tokio::sync::mpsc::channel::<Result<Bytes, std::io::Error>>(1);
    let chunks = stream::unfold(receiver, |mut receiver| async move {
        receiver.recv().await.map(|chunk| (chunk, receiver))
    });
    let reader = Arc::clone(&budget);
    let reading = tokio::spawn(async move { read(&reader, Body::from_stream(chunks)).await });
    for _ in 0..2 {
        let chunk = Bytes::from(vec![b' '; 64 << 10]);
        sender.send(Ok(chunk)).await.unwrap();
    }
    let reserved = sender.reserve().await.unwrap();
    tokio::task::yield_now().await;
    assert_eq!(budget.taken(), 128 << 10);
    drop(reserved);
    // Its client sends no more: what had come is given back with the refusal.
    assert_eq!(
        reading.await.unwrap().unwrap_err().kind,
        FailureKind::BadRequest
    );
    assert_eq!(budget.taken(), 0);
    drop(sender);
}

#[test]
fn what_is_counted_elsewhere_is_not_counted_here() {
    let budget = Budget::new(MIB as u64);
    let mut share = Share::of(&budget);
    assert!(share.grow(MIB));
    let lent = budget.lend(MIB);
    assert_eq!(budget.taken(), 0);
    let mut other = Share::of(&budget);
    assert!(other.grow(MIB));
    drop(lent);
    assert_eq!(budget.taken(), 2 * MIB as u64, "it is there all the same");
    assert!(!Share::of(&budget).grow(FREE + 1));
    // In whatever order they are dropped.
    let lent = budget.lend(MIB);
    drop((share, other));
    assert_eq!(budget.taken(), 0);
    drop(lent);
    assert_eq!(budget.taken(), 0);
    assert!(Share::of(&budget).grow(MIB) && !Share::of(&budget).grow(MIB + 1));
}
