use super::*;

#[test]
fn a_number_is_one_more_than_the_highest_and_given_once() {
    let table = Table::default();
    let name = |number| format!("pod-{number}");
    assert_eq!(table.reserve("slot", 1, name), 1);
    assert_eq!(table.reserve("slot", 1, name), 2);
    assert_eq!(table.reserve("other", 1, name), 1);
    table.not_created("pod-2");
    assert_eq!(table.reserve("slot", 1, name), 2);
    table.not_created("pod-2");
    assert_eq!(
        table.reserve("slot", 5, name),
        5,
        "a name was taken by somebody else"
    );
}

#[test]
fn nothing_is_kept_of_names_that_were_given_back() {
    let table = Table::default();
    for number in 1..100 {
        table.reserve("slot", number, |number| format!("pod-{number}"));
        table.not_created(&format!("pod-{number}"));
    }
    let inner = table.inner.lock();
    assert!(inner.numbers.is_empty() && inner.creating.is_empty() && inner.early.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_call_waits_for_the_answer_of_the_create_call() {
    let table = Arc::new(Table::default());
    table.settled("pod-1").await;
    table.reserve("slot", 1, |number| format!("pod-{number}"));
    let waiting = Arc::clone(&table);
    let waiting = tokio::spawn(async move { waiting.settled("pod-1").await });
    tokio::task::yield_now().await;
    assert!(!waiting.is_finished());
    table.not_created("pod-1");
    waiting.await.unwrap();
}
