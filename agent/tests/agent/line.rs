//! The line to home: who is called, who is believed, and what a lost one changes (nothing).

use std::{net::SocketAddr, time::Duration};

use mcp_gateway_link::{Authority, agent::from_agent::What, protocol::AGENT_SAYS};
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    time::timeout,
};
use tonic::Status;

use crate::support::{
    home::Home,
    pod::{Pod, Spec, get, orders, server},
    within,
};

#[tokio::test]
async fn after_a_lost_line_the_pod_says_what_it_runs_and_orders_are_carried_out_once() {
    let mut home = Home::new().await;
    let _pod = Pod::start(&home, Spec::default());
    let given = orders(server(&["serve"]));
    let port = given.port;
    let mut line = home.order(given.clone()).await;
    line.running().await;
    let ready = line.ready().await;
    let pid = get(port, "/pid").await;
    drop(line);

    let ring = home.ring().await;
    assert_eq!(
        (ring.token(), ring.secret()),
        (None, Some(&b"come again"[..]))
    );
    let state = ring.hello.state.clone().unwrap();
    assert!(state.running && state.exited.is_none());
    assert_eq!(state.ready, Some(ready));
    let line = ring.welcome(2, Some(given)).await;
    assert_eq!(get(port, "/pid").await, pid);
    line.drain(5_000).await;
    let exited = line.exited().await;
    assert_eq!(exited.signal, Some(15));
    // Had the orders been carried out again, there would be two words more.
}

#[tokio::test]
async fn a_server_outlives_a_home_that_burns_down() {
    let mut home = Home::new().await;
    let _pod = Pod::start(&home, Spec::default());
    let given = orders(server(&["serve"]));
    let port = given.port;
    let mut line = home.order(given).await;
    line.running().await;
    line.ready().await;
    let pid = get(port, "/pid").await;
    let (address, authority) = home.burn_down();
    assert_eq!(get(port, "/pid").await, pid);
    let mut home = Home::at(address, authority).await;
    let ring = home.ring().await;
    assert!(ring.hello.state.clone().unwrap().ready.is_some());
    let line = ring.welcome(2, None).await;
    assert_eq!(get(port, "/pid").await, pid);
    drop(line);
}

#[tokio::test]
async fn what_happens_while_nobody_listens_is_told_later() {
    let mut home = Home::new().await;
    let _pod = Pod::start(&home, Spec::default());
    let given = orders(server(&["serve"]));
    let line = home.order(given).await;
    drop(line);
    // Whatever of it fell between the lines is in a hello or is said after one.
    loop {
        let ring = home.ring().await;
        if ring
            .hello
            .state
            .as_ref()
            .is_some_and(|state| state.ready.is_some())
        {
            return;
        }
        let mut line = ring.welcome(1, None).await;
        if let Some(What::Ready(_)) = line.next().await {
            return;
        }
    }
}

#[tokio::test]
async fn a_home_that_is_not_the_leader_is_passed_over_and_so_is_a_leader_of_the_past() {
    let mut follower = Home::new().await;
    let pem = (
        follower.authority.cert_pem().to_owned(),
        follower.authority.key_pem(),
    );
    let authority = Authority::from_pem(&pem.0, &pem.1).unwrap();
    let mut leader = Home::of(authority).await;
    let both = format!("{},{}", follower.address, leader.address);
    let spec = Spec {
        env: vec![("MCP_GATEWAY_AGENT_HOME", both)],
        ..Spec::default()
    };
    let _pod = Pod::start(&leader, spec);
    follower
        .ring()
        .await
        .refuse(Status::unavailable("not the leader"));
    let ring = leader.ring().await;
    let mut line = ring.welcome(7, Some(orders(server(&["serve"])))).await;
    line.running().await;
    line.ready().await;
    drop(line);
    // Whichever is called first now: the old leader is not listened to.
    let again = loop {
        tokio::select! {
            ring = follower.ring() => {
                let mut line = ring.welcome(6, None).await;
                line.drain(1).await;
                assert_eq!(line.next().await, None);
            }
            ring = leader.ring() => break ring,
        }
    };
    assert!(again.hello.state.unwrap().exited.is_none());
}

/// A machine that is gone refuses nobody, and a process that hangs lets its kernel accept connections.
#[tokio::test]
async fn homes_that_say_nothing_are_passed_over_in_the_order_they_were_given() {
    let gone = TcpSocket::new_v4().unwrap();
    gone.bind(([127, 0, 0, 1], 0).into()).unwrap();
    let gone = gone.listen(0).unwrap();
    let full = fill(gone.local_addr().unwrap()).await;
    let hangs = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let mut leader = Home::new().await;
    let homes = [
        gone.local_addr().unwrap(),
        hangs.local_addr().unwrap(),
        leader.address,
    ];
    let spec = Spec {
        env: vec![(
            "MCP_GATEWAY_AGENT_HOME",
            homes.map(|home| home.to_string()).join(","),
        )],
        ..Spec::default()
    };
    let pod = Pod::start(&leader, spec);
    let ring = leader.ring().await;
    assert!(ring.token().is_some());
    let (_silent, _) = within("a call before", hangs.accept()).await.unwrap();
    let said = pod.stderr.lock().clone();
    let first = said
        .iter()
        .find(|line| line.contains("does not welcome us"));
    let first = first.expect("it says whom it has tried");
    assert!(first.contains(&homes[0].to_string()), "{said:?}");
    assert!(
        first.starts_with(AGENT_SAYS),
        "it is not taken for the server's: {first}"
    );
    drop((full, gone));
}

/// Connects until nobody answers any more: the queue of a listener that never accepts is full.
async fn fill(address: SocketAddr) -> Vec<TcpStream> {
    let mut full = Vec::new();
    while let Ok(connected) = timeout(Duration::from_millis(300), TcpStream::connect(address)).await
    {
        full.push(connected.unwrap());
    }
    full
}

#[tokio::test]
async fn a_home_with_a_certificate_of_somebody_else_hears_nothing() {
    let mut stranger = Home::new().await;
    let ours = Authority::generate().unwrap();
    let mut real = Home::of(ours).await;
    let both = format!("{},{}", stranger.address, real.address);
    let spec = Spec {
        env: vec![("MCP_GATEWAY_AGENT_HOME", both)],
        ..Spec::default()
    };
    let _pod = Pod::start(&real, spec);
    let ring = real.ring().await;
    assert!(ring.token().is_some());
    assert!(stranger.is_quiet());
    drop((ring, &mut stranger));
}

#[tokio::test]
async fn a_pod_that_nobody_knows_any_more_ends_its_server_and_itself() {
    let mut home = Home::new().await;
    let mut pod = Pod::start(&home, Spec::default());
    let mut line = home.order(orders(server(&["serve"]))).await;
    line.running().await;
    line.ready().await;
    drop(line);
    let denying = async {
        loop {
            home.ring().await.refuse(Status::not_found("no such pod"));
        }
    };
    tokio::select! {
        status = pod.ended() => assert_eq!(status.code(), Some(128 + 15)),
        () = denying => {}
    }
    pod.said("home knows nothing of this pod").await;
}

#[tokio::test]
async fn a_pod_whose_token_is_refused_for_a_moment_goes_on_trying() {
    let mut home = Home::new().await;
    let _pod = Pod::start(&home, Spec::default());
    for _ in 0..3 {
        home.ring()
            .await
            .refuse(Status::unauthenticated("wrong token"));
    }
    let mut line = home.order(orders(server(&["serve"]))).await;
    line.running().await;
}
