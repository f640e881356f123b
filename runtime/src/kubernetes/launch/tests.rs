use mcp_gateway_api::{
    backend::{Backend, EnvVar, LaunchSpec, Transport},
    ids::{BackendName, Generation, TenantName},
    policy::{Isolation, ScalingPolicy},
    slot::{Owner, SlotKey},
};

use super::*;
use crate::kubernetes::fake::{self, Answer, status};

fn order(env: Vec<EnvVar>) -> LaunchOrder {
    let name = BackendName::new("time").unwrap();
    let launch = LaunchSpec {
        image: Some("localhost/time:1".into()),
        port: None,
        pod: Arc::default(),
        command: Vec::new(),
        args: Vec::new(),
        working_dir: None,
        env,
        transport: Transport::StreamableHttp,
        path: "/mcp".into(),
        host: None,
        health_path: None,
    };
    LaunchOrder {
        slot: SlotKey {
            backend: name.clone(),
            owner: Owner::Nobody,
        },
        backend: Arc::new(Backend {
            name,
            generation: Generation(1),
            description: None,
            launch,
            policy: Arc::new(ScalingPolicy::for_processes(Isolation::Shared)),
            tenants: Vec::new(),
        }),
        tenant: TenantName::default(),
    }
}

fn exists() -> Answer {
    status(409, "AlreadyExists", "pods \"time-1\" already exists")
}

#[tokio::test(start_paused = true)]
async fn a_look_at_the_pod_that_has_the_name_is_not_waited_for_for_ever() {
    let (client, asked) = fake::api(|line, _| match line {
        line if line.starts_with("POST") => exists(),
        _ => Answer::Silent,
    });
    let (world, _events) = fake::world(client).await;
    let launched = launch(&world, order(Vec::new()));
    let launched = timeout(PATIENCE * 2, launched).await.expect("an end");
    let report = launched.unwrap_err();
    assert!(report.summary.contains("did not answer"), "{report:?}");
    let looks = asked.lock().iter().filter(|l| l.starts_with("GET")).count();
    assert!((2..20).contains(&looks), "{looks}");
}
