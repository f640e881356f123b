//! What the API server makes of our definitions.

use std::time::Duration;

use mcp_gateway_control::cluster::objects::Kind;
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::support::cluster;

const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn kubectl_explains_what_fields_mean() {
    let Some(cluster) = cluster("explain").await else {
        return;
    };
    for (path, part) in [
        ("mcpb", "started when somebody asks for it"),
        ("mcpb.spec.agent", "imageVolume"),
        (
            "mcpb.spec.env.valueFrom.secretKeyRef",
            "mcp-gateway.dev/backend",
        ),
        ("mcpb.spec.pod.tolerations.operator", "Operator"),
        ("mcpb.status.why", "What is wrong"),
        ("mcpsp.spec.idleTimeout", "until an instance is stopped"),
        ("mcpt.spec.displayName", "How people call it"),
    ] {
        // The API server describes new definitions a moment after it has accepted them.
        let give_up = Instant::now() + PATIENCE;
        loop {
            let said = cluster.kubectl(&["explain", path]);
            let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
            if said.contains(part) {
                break;
            }
            assert!(Instant::now() < give_up, "{path}: {said}");
            sleep(Duration::from_millis(100)).await;
        }
    }
    let kinds = cluster.kubectl(&["api-resources", "--categories=mcp", "-o", "name"]);
    assert_eq!(kinds.lines().count(), 3, "{kinds}");
}

#[tokio::test]
async fn the_api_server_refuses_bad_documents_with_a_sentence() {
    let Some(cluster) = cluster("refuses").await else {
        return;
    };
    let backend = Kind::McpBackend;
    let policy = Kind::ScalingPolicy;
    for (kind, name, spec, part) in [
        (backend, "x", json!({"command": ["a"]}), "there is no image"),
        (
            backend,
            "a.b",
            json!({"image": "i"}),
            "the name is part of a URL",
        ),
        (
            backend,
            "x",
            json!({"image": "i", "command": ["a"], "agent": "sidecar"}),
            "a stdio server needs the agent",
        ),
        (
            backend,
            "x",
            json!({"image": "i", "command": ["a"], "port": 80}),
            "a stdio server has no port",
        ),
        (
            backend,
            "x",
            json!({"image": "i", "transport": "stdio"}),
            "a stdio server needs a command",
        ),
        (
            backend,
            "x",
            json!({"image": "i", "agent": "init"}),
            "there is no command",
        ),
        (
            backend,
            "x",
            json!({"image": "i", "policy": {}, "policyRef": {"name": "p"}}),
            "both a policyRef and a policy",
        ),
        (
            backend,
            "x",
            json!({"image": "i", "env": [{"name": "PORT", "value": "1"}]}),
            "PORT is the gateway's",
        ),
        (
            backend,
            "x",
            json!({"image": "i", "env": [{"name": "A"}]}),
            "write either a value",
        ),
        (
            backend,
            "x",
            json!({"image": "i", "env": [{"name": "A", "valueFrom": {"env": "A"}}]}),
            "no concern of a pod",
        ),
        (
            backend,
            "x",
            json!({"image": "i", "env": [{"name": "A", "valueFrom": {}}]}),
            "one of secretKeyRef and configMapKeyRef",
        ),
        (
            backend,
            "x",
            json!({"image": "i", "env": [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]}),
            "Duplicate value",
        ),
        (
            backend,
            "x",
            json!({"image": "i", "env": [{"name": "MCP_GATEWAY_AGENT_X", "value": "1"}]}),
            "the gateway's own",
        ),
        (
            backend,
            "x",
            json!({"image": "i", "workingDir": "sub"}),
            "write a path within the image",
        ),
        (
            backend,
            "x",
            json!({"image": "i", "agent": "pigeon"}),
            "Unsupported value",
        ),
        (
            backend,
            "x",
            json!({"image": "i", "port": 0}),
            "should be greater than or equal to 1",
        ),
        (
            backend,
            "x",
            json!({"image": "i", "policy": {"idleTimeout": "10"}}),
            "write a number with its unit",
        ),
        (
            backend,
            "x",
            json!({"image": "i", "resources": {"limits": {"cpu": "lots"}}}),
            "spec.resources.limits",
        ),
        (
            backend,
            "x",
            json!({"image": "i", "requiredRoles": ["a"]}),
            "requiredRoles",
        ),
        (
            backend,
            "x",
            json!({"image": "i", "pod": {"labels": {"mcp-gateway.dev/slot": "a"}}}),
            "not for documents to set",
        ),
        (
            backend,
            "x",
            json!({"image": "i", "pod": {"annotations": {"a.kubernetes.io/b": "a"}}}),
            "not for documents to set",
        ),
        (
            backend,
            "x",
            json!({"image": "i", "pod": {"priorityClassName": "system-node-critical"}}),
            "parts of the cluster itself",
        ),
        (
            policy,
            "x",
            json!({"idleTimeout": "soon"}),
            "write a number with its unit",
        ),
        (policy, "x", json!({"warmPool": 3}), "warmPool"),
        (policy, "x", json!({"maxSlots": 0}), "maxSlots"),
    ] {
        let refused = cluster.create(kind, name, spec.clone()).await;
        let said = refused.expect_err(&spec.to_string());
        assert!(said.contains(part), "{spec}: {said}");
    }
    let unknown = "apiVersion: mcp-gateway.dev/v1alpha1\nkind: McpBackend\nmetadata: {name: x}\nspec: {image: i, imag: i}\n";
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), unknown).unwrap();
    let said = cluster.kubectl(&["apply", "-f", file.path().to_str().unwrap()]);
    assert!(said.contains("unknown field \"spec.imag\""), "{said}");
}

#[tokio::test]
async fn the_api_server_accepts_a_whole_document_and_fills_in_defaults() {
    let Some(cluster) = cluster("accepts").await else {
        return;
    };
    let spec = json!({
        "description": "d", "image": "ghcr.io/a/b:v1", "command": ["a"], "args": ["b"], "workingDir": ".",
        "env": [
            {"name": "A", "value": "1"},
            {"name": "B", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
            {"name": "C", "valueFrom": {"configMapKeyRef": {"name": "s", "key": "k", "optional": true}}},
        ],
        "transport": "streamable-http", "port": 9000, "path": "/mcp?a=b", "host": "localhost:1",
        "healthCheck": {"path": "/ready"}, "policy": {"isolation": "shared", "idleTimeout": "1h 30m", "maxPendingBytes": 4096},
        "tenants": ["a"], "requiredRoles": [], "agent": "imageVolume",
        "resources": {"requests": {"cpu": 1, "memory": "64Mi"}, "limits": {"nvidia.com/gpu": "1"}},
        "pod": {
            "labels": {"app.kubernetes.io/part-of": "a"}, "annotations": {"a.example/b": "c"},
            "nodeSelector": {"kubernetes.io/arch": "amd64"},
            "tolerations": [{"key": "a", "operator": "Exists"}],
            "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": []}}},
            "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway"}],
            "priorityClassName": "low", "runtimeClassName": "gvisor",
            "imagePullSecrets": [{"name": "r"}], "imagePullPolicy": "Never",
        },
    });
    let made = cluster
        .create(Kind::McpBackend, "whole", spec)
        .await
        .unwrap();
    assert_eq!(made.data["spec"]["policy"]["holdTimeout"], "55s");
    assert_eq!(made.data["spec"]["policy"]["maxPendingBytes"], 4096);
    assert_eq!(made.data["spec"]["pod"]["tolerations"][0]["key"], "a");
    let registry = cluster.registry().await;
    crate::support::backend(&registry, "whole", |found| {
        found.is_some_and(|backend| backend.launch.port == Some(9000))
    })
    .await;
    assert_eq!(**registry.problems().borrow(), vec![]);
}
