//! The measurements themselves, run over real sockets against the lean server.

use std::time::Duration;

use mcp_gateway_loadtest::cold::{self, Transport};
use mcp_gateway_loadtest::target::Target;
use mcp_gateway_loadtest::{client, lean, warm};
use tokio::net::TcpListener;

async fn lean_target(name: &str) -> Target {
    let listener = TcpListener::bind("127.0.0.1:0")
        .await
        .expect("loopback has a free port");
    let address = listener
        .local_addr()
        .expect("a bound socket has an address");
    tokio::spawn(lean::serve(listener));
    format!("{name}=http://{address}/mcp")
        .parse()
        .expect("the target is well formed")
}

#[tokio::test]
async fn every_target_gets_every_round() {
    let options = warm::Options {
        title: "lean".to_owned(),
        targets: vec![lean_target("one").await, lean_target("two").await],
        pids: Vec::new(),
        connections: 3,
        rounds: 2,
        // So long that each gets its turn on a busy machine too.
        round: Duration::from_millis(250),
        body: client::tools_call("echo", r#"{"message":"x"}"#).unwrap(),
    };
    let section = warm::run(&options).await.unwrap();
    for target in &section.targets {
        assert_eq!(target.rounds.len(), 2, "{}", target.name);
        for round in &target.rounds {
            assert!(round.exchanges > 0, "{round:?}");
            assert_eq!(round.errors, 0, "{round:?}");
            assert!(round.p50_micros <= round.p99_micros, "{round:?}");
        }
    }
}

#[tokio::test]
async fn a_cold_start_by_hand_is_a_process_spawned_and_ended() {
    let options = cold::Options {
        title: "lean".to_owned(),
        gateway: lean_target("already there").await,
        transport: Transport::Http,
        command: [env!("CARGO_BIN_EXE_mcp-gateway-loadtest"), "serve", "lean"]
            .map(str::to_owned)
            .to_vec(),
        samples: 8,
    };
    let section = cold::run(&options).await.unwrap();
    let pairs = section.pairs;
    assert_eq!(pairs.len(), 8);
    // The fastest of each: what else the machine does may take longer than either.
    let fastest = |all: &mut dyn Iterator<Item = f64>| all.fold(f64::INFINITY, f64::min);
    let by_hand = fastest(&mut pairs.iter().map(|pair| pair.by_hand_millis));
    let there = fastest(&mut pairs.iter().map(|pair| pair.gateway_millis));
    assert!(by_hand > there, "{pairs:?}");
}

#[tokio::test]
async fn a_target_that_does_not_accept_is_named() {
    // Bound, so that nobody else gets it, and not listened on.
    let held = tokio::net::TcpSocket::new_v4().unwrap();
    held.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let port = held.local_addr().unwrap().port();
    let target: Target = format!("nobody=http://127.0.0.1:{port}/mcp")
        .parse()
        .unwrap();
    let error = client::Client::connect(&target).await.unwrap_err();
    assert!(
        error.to_string().contains("nobody does not accept"),
        "{error}"
    );
}

#[tokio::test]
#[cfg(target_os = "linux")]
async fn sessions_are_opened_and_weighed() {
    use mcp_gateway_loadtest::sessions;

    let options = sessions::Options {
        title: "lean".to_owned(),
        target: lean_target("lean").await,
        pids: format!("self={}", std::process::id()).parse().unwrap(),
        count: 20,
    };
    let section = sessions::run(&options).await.unwrap();
    assert_eq!(section.count, 20);
    assert!(
        section.before.resident > 0 && section.after.resident > 0,
        "{section:?}"
    );
}
