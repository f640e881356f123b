//! How servers and agents end.

use std::time::Duration;

use rustix::process::Signal;
use tokio::time::Instant;

use crate::support::{
    home::Home,
    pod::{Pod, Spec, orders, processes, request, server},
    until,
};

fn children_of(pid: i32) -> Vec<i32> {
    let all = processes().into_iter();
    all.filter(|p| p.1 == pid && !p.2).map(|p| p.0).collect()
}

fn alive(pid: i32) -> bool {
    processes().iter().any(|p| p.0 == pid && !p.2)
}

#[tokio::test]
async fn a_crash_is_told_with_code_and_last_words_and_the_agent_ends_with_the_same_code() {
    let mut home = Home::new().await;
    let mut pod = Pod::start(&home, Spec::default());
    let given = orders(server(&["serve"]));
    let port = given.port;
    let mut line = home.order(given).await;
    line.running().await;
    line.ready().await;
    assert!(request(port, "GET", "/die", &[], "").await.is_err());
    let exited = line.exited().await;
    assert_eq!((exited.code, exited.signal), (Some(7), None));
    assert_eq!(exited.stderr_tail.last().unwrap(), "last words");
    assert_eq!(exited.summary, "it exited with code 7");
    assert_eq!(pod.ended().await.code(), Some(7));
}

#[tokio::test]
async fn an_exit_before_serving_is_told_without_a_ready() {
    let mut home = Home::new().await;
    let _pod = Pod::start(&home, Spec::default());
    let mut line = home.order(orders(server(&["exit", "4"]))).await;
    line.running().await;
    let exited = line.exited().await;
    assert_eq!(exited.code, Some(4));
    assert_eq!(exited.summary, "it exited with code 4 before it served");
    assert_eq!(exited.stderr_tail, ["going down"]);
}

#[tokio::test]
async fn a_drain_ends_the_server_politely_and_then_the_agent() {
    let mut home = Home::new().await;
    let mut pod = Pod::start(&home, Spec::default());
    let mut line = home.order(orders(server(&["serve"]))).await;
    line.running().await;
    line.ready().await;
    let server = children_of(pod.pid());
    assert_eq!(server.len(), 1);
    line.drain(20_000).await;
    let exited = line.exited().await;
    assert_eq!((exited.code, exited.signal), (None, Some(15)));
    assert!(
        exited.summary.starts_with("it was told to end"),
        "{}",
        exited.summary
    );
    assert_eq!(pod.ended().await.code(), Some(128 + 15));
    assert!(!alive(server[0]));
}

#[tokio::test]
async fn a_server_that_does_not_listen_to_a_drain_is_killed_after_its_grace() {
    let mut home = Home::new().await;
    let mut pod = Pod::start(&home, Spec::default());
    let mut line = home.order(orders(server(&["stubborn"]))).await;
    line.running().await;
    line.ready().await;
    let since = Instant::now();
    line.drain(300).await;
    let exited = line.exited().await;
    assert_eq!(exited.signal, Some(9));
    assert!(since.elapsed() >= Duration::from_millis(300));
    assert_eq!(pod.ended().await.code(), Some(128 + 9));
}

#[tokio::test]
async fn a_sigterm_of_the_kubelet_is_a_drain() {
    let mut home = Home::new().await;
    let mut pod = Pod::start(&home, Spec::default());
    let mut line = home.order(orders(server(&["serve"]))).await;
    line.running().await;
    line.ready().await;
    pod.signal(Signal::TERM);
    let exited = line.exited().await;
    assert_eq!(exited.signal, Some(15));
    pod.ended().await;
}

#[tokio::test]
async fn a_sigterm_before_orders_ends_at_once() {
    let mut home = Home::new().await;
    let mut pod = Pod::start(&home, Spec::default());
    let _unanswered = home.ring().await;
    pod.signal(Signal::TERM);
    assert!(pod.ended().await.success());
}

#[tokio::test]
async fn the_end_is_told_to_a_home_that_was_away_when_it_came() {
    let mut home = Home::new().await;
    let mut pod = Pod::start(&home, Spec::default());
    let given = orders(server(&["serve"]));
    let port = given.port;
    let mut line = home.order(given).await;
    line.running().await;
    line.ready().await;
    let (address, authority) = home.burn_down();
    assert!(request(port, "GET", "/die", &[], "").await.is_err());
    until("the server's end", || {
        children_of(pod.pid()).is_empty().then_some(())
    })
    .await;
    let mut home = Home::at(address, authority).await;
    let ring = home.ring().await;
    let state = ring.hello.state.clone().unwrap();
    assert_eq!(state.exited.unwrap().code, Some(7));
    let mut line = ring.welcome(1, None).await;
    assert_eq!(line.next().await, None);
    assert_eq!(pod.ended().await.code(), Some(7));
}
