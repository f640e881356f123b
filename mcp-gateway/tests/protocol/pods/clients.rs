//! Real clients against real servers in pods, each through a cold start and, where it keeps a session, a revival.
//!
//! Which client gets on with which server in every step is found out in [`crate::clients`], where a cold start is cheap;
//! here it is whether a pod makes any difference.

use futures_util::future::join_all;
use serde_json::json;

use super::{
    SERVER,
    cluster::{DEMO, EMBEDDED, space},
};
use crate::{
    clients::{CLIENTS, Client, INSPECTORS, Server, run},
    documents::Backend,
    gateway::Gateway,
    rmcp_client::{self, Era},
    tools::{self, Share, Tools},
};

const NODE: &str = "localhost/mcp-everything:dev";
const PYTHON: &str = "localhost/mcp-python:dev";
/// Twice through a start: of its first pod and of the one after the nap.
const STEPS: &str = "connect,list,call,progress,pause,call,close";

/// A server in pods, and the clients that it meets here, by their labels.
struct Meeting {
    server: Server,
    clients: &'static [&'static str],
    rmcp: Option<Era>,
}

/// What the images say by themselves, said again: documents name a stdio server's command.
fn meetings() -> Vec<Meeting> {
    let everything = |over: &str| {
        let script = "/app/node_modules/@modelcontextprotocol/server-everything/dist/index.js";
        json!(["/usr/local/bin/node", script, over])
    };
    let python = |over: &str| json!(["/opt/python/bin/python3.11", "/app/server.py", over]);
    let demo = |over: &str| json!([SERVER, "demo-server", "--transport", over]);
    let server = |name: &str, transport: &str, image: &str, command, profile| {
        let backend = Backend::image(name, transport, image).spec("command", command);
        Server::new(backend, profile, STEPS)
    };
    let embedded = |mut server: Server| {
        server.backend = server.backend.spec("agent", "embedded");
        server
    };
    vec![
        Meeting {
            server: server(
                "npm-stdio",
                "stdio",
                NODE,
                everything("stdio"),
                "everything",
            ),
            clients: &["py1", "ts1", "inspector"],
            rmcp: None,
        },
        Meeting {
            server: server(
                "npm-http",
                "streamable-http",
                NODE,
                everything("streamableHttp"),
                "everything",
            ),
            clients: &["py2 auto"],
            rmcp: Some(Era::Initialize),
        },
        Meeting {
            server: server("pypi-stdio", "stdio", PYTHON, python("stdio"), "own"),
            clients: &["py2 auto", "ts2 auto"],
            rmcp: Some(Era::Auto),
        },
        Meeting {
            server: server(
                "pypi-http",
                "streamable-http",
                PYTHON,
                python("http"),
                "own",
            ),
            clients: &["py1", "ts1", "inspector"],
            rmcp: None,
        },
        Meeting {
            server: server("rust-stdio", "stdio", DEMO, demo("stdio"), "demo"),
            clients: &["py1 sse", "ts1"],
            rmcp: Some(Era::Discover),
        },
        Meeting {
            server: embedded(server(
                "rust-http",
                "streamable-http",
                EMBEDDED,
                demo("http"),
                "demo",
            )),
            clients: &["py1", "py2 legacy", "inspector"],
            rmcp: None,
        },
    ]
}

fn find(label: &str) -> &'static Client {
    static ALL: ([Client; 10], [Client; 2]) = (CLIENTS, INSPECTORS);
    let mut all = ALL.0.iter().chain(&ALL.1);
    let found = all.find(|client| client.label == label);
    found.unwrap_or_else(|| panic!("no client {label}"))
}

/// All its clients, one after the other; those that failed.
async fn meet(gateway: &Gateway, meeting: &Meeting, tools: &Tools) -> Vec<String> {
    let name = meeting.server.backend.name.as_str();
    let mut failed = Vec::new();
    let mut note = |label: &str, outcome: Result<String, String>| {
        println!("{name} {label}: {outcome:?}");
        if let Err(why) = outcome {
            failed.push(format!("{name} {label}: {why}"));
        }
    };
    for label in meeting.clients {
        // The Inspector is one process, and so one session, for each step.
        let steps = match *label {
            "inspector" => "call",
            _ => STEPS,
        };
        let outcome = run(gateway, &meeting.server, find(label), tools, steps).await;
        note(label, outcome);
    }
    if let Some(era) = meeting.rmcp {
        let profile = meeting.server.profile;
        let outcome = rmcp_client::run(gateway, name, profile, era).await;
        note(&format!("rmcp {era:?}"), outcome);
    }
    gateway.until_cold(name).await;
    failed
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn real_clients_meet_npm_pypi_and_rust_servers_in_pods_from_cold_and_after_a_nap() {
    let Some(space) = space("real clients").await else {
        return;
    };
    let Some(tools) = tools::installed("real clients of pods") else {
        return;
    };
    let meetings = meetings();
    let backends: Vec<Backend> = meetings
        .iter()
        .map(|meeting| meeting.server.backend.clone())
        .collect();
    let _turn = tools::turn(Share::Whole).await;
    let gateway = space.gateway(&backends, &[]).await;
    let met = join_all(meetings.iter().map(|one| meet(&gateway, one, tools))).await;
    let failed: Vec<String> = met.into_iter().flatten().collect();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
    for meeting in &meetings {
        let status = gateway.status(&meeting.server.backend.name).await;
        println!("{}: {} starts", status.name, status.starts);
        assert_eq!(status.failures, 0, "{:?}", status.last_failure);
    }
    space.until_empty().await;
}
