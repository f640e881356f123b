//! Documents come, change and go; their status says how they are.

use std::time::{Duration, SystemTime};

use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api,
    api::{Patch, PatchParams, PostParams},
};
use mcp_gateway_api::{crds::FINALIZER, ids::BackendName, policy::Isolation};
use mcp_gateway_control::{
    ClusterRegistry,
    cluster::{BackendReport, objects::Kind},
};
use serde_json::json;

use crate::support::{Cluster, backend, cluster, condition, say};

const BACKEND: Kind = Kind::McpBackend;
const POLICY: Kind = Kind::ScalingPolicy;

fn resting() -> BackendReport {
    BackendReport {
        state: "cold".to_owned(),
        instances: 0,
        sessions: Some(0),
        last_start: None,
        why: None,
        waits: None,
    }
}

/// Says that nothing is left of anything, again and again as the autoscaler does, until the backend is gone.
async fn until_gone(cluster: &Cluster, registry: &ClusterRegistry, name: &str) {
    let saying = async {
        loop {
            registry.report(tokio::time::Instant::now(), [].into());
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    tokio::select! {
        () = saying => {}
        () = cluster.until(BACKEND, name, "its end", |object| object.is_none()) => {}
    }
}

#[tokio::test]
async fn documents_appear_in_the_catalog_follow_edits_and_leave() {
    let Some(cluster) = cluster("follow").await else {
        return;
    };
    let registry = cluster.registry().await;
    assert!(*registry.known().borrow());
    let spec = json!({"image": "a:1", "policyRef": {"name": "p"}});
    cluster.create(BACKEND, "a", spec).await.unwrap();
    cluster
        .create(POLICY, "p", json!({"isolation": "shared"}))
        .await
        .unwrap();
    backend(&registry, "a", |found| {
        found.is_some_and(|backend| backend.policy.isolation == Isolation::Shared)
    })
    .await;
    let name = BackendName::new("a").unwrap();
    let generation = registry.catalog().borrow().get(&name).unwrap().generation;
    let uid = cluster.api(BACKEND).get("a").await.unwrap().metadata.uid;
    assert_eq!(registry.owners().read().get(&name), uid.as_ref());

    cluster
        .merge(BACKEND, "a", json!({"spec": {"image": "a:2"}}))
        .await;
    backend(&registry, "a", |found| {
        found.is_some_and(|backend| backend.generation != generation)
    })
    .await;
    cluster
        .merge(POLICY, "p", json!({"spec": {"idleTimeout": "7m"}}))
        .await;
    backend(&registry, "a", |found| {
        found.is_some_and(|backend| backend.policy.idle_timeout == Duration::from_secs(420))
    })
    .await;
    cluster
        .until(BACKEND, "a", "Accepted", |object| {
            object
                .and_then(|object| condition(object, "Accepted"))
                .is_some_and(|(status, ..)| status == "True")
        })
        .await;
    cluster.delete(BACKEND, "a").await;
    backend(&registry, "a", |found| found.is_none()).await;
}

#[tokio::test]
async fn a_backend_that_is_deleted_goes_when_its_last_instance_has_ended_and_not_before() {
    let Some(cluster) = cluster("finalizer").await else {
        return;
    };
    let registry = cluster.registry().await;
    cluster
        .create(BACKEND, "a", json!({"image": "a"}))
        .await
        .unwrap();
    cluster
        .until(BACKEND, "a", "the finalizer", |object| {
            object.is_some_and(|object| {
                let finalizers = object.metadata.finalizers.iter().flatten();
                finalizers.into_iter().any(|name| name == FINALIZER)
            })
        })
        .await;
    let running = BackendReport {
        state: "ready".to_owned(),
        instances: 1,
        ..resting()
    };
    say(&registry, "a", running.clone());
    cluster.delete(BACKEND, "a").await;
    backend(&registry, "a", |found| found.is_none()).await;
    // Well after the deletion was noticed, something still runs.
    tokio::time::sleep(Duration::from_secs(1)).await;
    say(&registry, "a", running);
    cluster
        .until(BACKEND, "a", "what it waits for", |object| {
            object.is_some_and(|object| {
                let why = object.data["status"]["why"].as_str().unwrap_or_default();
                why.contains("being deleted") && why.contains("1 left")
            })
        })
        .await;
    // Longer than the writer takes to let it go.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let still = cluster.api(BACKEND).get_opt("a").await.unwrap();
    assert!(still.is_some(), "it went while an instance was left");
    until_gone(&cluster, &registry, "a").await;
}

#[tokio::test]
async fn a_bad_document_says_why_in_its_status_spares_the_others_and_recovers() {
    let Some(cluster) = cluster("bad").await else {
        return;
    };
    let registry = cluster.registry().await;
    let spec = json!({"image": "a", "policyRef": {"name": "later"}});
    cluster.create(BACKEND, "bad", spec).await.unwrap();
    cluster
        .create(BACKEND, "good", json!({"image": "a"}))
        .await
        .unwrap();
    backend(&registry, "good", |found| found.is_some()).await;
    cluster
        .until(BACKEND, "bad", "PolicyNotFound", |object| {
            let found = object.and_then(|object| condition(object, "Accepted"));
            found.is_some_and(|(status, reason, message)| {
                status == "False"
                    && reason == "PolicyNotFound"
                    && message
                        .starts_with("spec.policyRef.name: there is no ScalingPolicy later; add")
            })
        })
        .await;
    let problems = registry.problems().borrow().clone();
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(
        problems[0]
            .to_string()
            .contains("mcpbackends/bad: McpBackend bad")
    );
    let table = cluster.kubectl(&["get", "mcpb", "bad"]);
    assert!(table.contains("refused"), "{table}");
    // An event says it too, which is written after the status.
    cluster
        .until_told(&["describe", "mcpb", "bad"], |described| {
            described.contains("Warning") && described.contains("PolicyNotFound")
        })
        .await;
    cluster.create(POLICY, "later", json!({})).await.unwrap();
    backend(&registry, "bad", |found| found.is_some()).await;
    cluster
        .until(BACKEND, "bad", "acceptance", |object| {
            object
                .and_then(|object| condition(object, "Accepted"))
                .is_some_and(|(status, ..)| status == "True")
        })
        .await;
    // What the API server lets through and the parser does not: an edit keeps the last good form.
    let more = json!({"spec": {"resources": {"requests": {"cpu": "2"}, "limits": {"cpu": "1"}}}});
    cluster.merge(BACKEND, "good", more).await;
    cluster
        .until(BACKEND, "good", "the refusal of an edit", |object| {
            let found = object.and_then(|object| condition(object, "Accepted"));
            found.is_some_and(|(_, reason, message)| {
                reason == "Invalid"
                    && message.contains("more than its limit")
                    && message.contains("last good form")
            })
        })
        .await;
    backend(&registry, "good", |found| {
        found.is_some_and(|backend| backend.launch.pod.requests.is_empty())
    })
    .await;
}

#[tokio::test]
async fn the_columns_show_how_a_backend_is_doing() {
    let Some(cluster) = cluster("columns").await else {
        return;
    };
    let registry = cluster.registry().await;
    cluster
        .create(BACKEND, "a", json!({"image": "a"}))
        .await
        .unwrap();
    backend(&registry, "a", |found| found.is_some()).await;
    // So long ago that what is shown does not change while the test runs.
    let started = SystemTime::now() - Duration::from_secs(30 * 3_600 + 1_800);
    let report = BackendReport {
        state: "ready".to_owned(),
        instances: 2,
        sessions: Some(5),
        last_start: Some(started),
        why: None,
        waits: None,
    };
    say(&registry, "a", report);
    cluster
        .until(BACKEND, "a", "the report", |object| {
            object.is_some_and(|object| object.data["status"]["sessions"] == 5)
        })
        .await;
    let table = cluster.kubectl(&["get", "mcp"]);
    let row = table
        .lines()
        .find(|line| line.contains("mcpbackend"))
        .unwrap();
    let columns: Vec<&str> = row.split_whitespace().collect();
    assert_eq!(columns[1..4], ["ready", "2", "5"], "{table}");
    assert_eq!(columns[4], "30h", "{table}");

    let failing = BackendReport {
        state: "backoff".to_owned(),
        why: Some("the image cannot be pulled".to_owned()),
        ..resting()
    };
    say(&registry, "a", failing);
    cluster
        .until(BACKEND, "a", "the failure", |object| {
            let found = object.and_then(|object| condition(object, "Available"));
            found.is_some_and(|(status, reason, message)| {
                (status.as_str(), reason.as_str()) == ("False", "StartsFail")
                    && message == "the image cannot be pulled"
            })
        })
        .await;
    let table = cluster.kubectl(&["get", "mcpb", "a"]);
    assert!(
        table.contains("backoff") && table.contains("the image cannot be pulled"),
        "{table}"
    );
    let object = cluster.api(BACKEND).get("a").await.unwrap();
    assert!(
        object.data["status"]["lastStart"].is_string(),
        "an instance that is gone was started all the same"
    );
}

#[tokio::test]
async fn statuses_are_written_once_a_second_at_most_and_only_when_they_change() {
    let Some(cluster) = cluster("pace").await else {
        return;
    };
    let registry = cluster.registry().await;
    cluster
        .create(BACKEND, "a", json!({"image": "a"}))
        .await
        .unwrap();
    let said = |instances| BackendReport {
        state: "ready".to_owned(),
        instances,
        ..resting()
    };
    let version = async || {
        let object = cluster.api(BACKEND).get("a").await.unwrap();
        object.metadata.resource_version.unwrap()
    };
    say(&registry, "a", said(1));
    cluster
        .until(
            BACKEND,
            "a",
            "the finalizer and the first report",
            |object| {
                object.is_some_and(|object| {
                    let finalizers = object.metadata.finalizers.iter().flatten().count();
                    finalizers == 1 && object.data["status"]["instances"] == 1
                })
            },
        )
        .await;
    let mut versions = std::collections::BTreeSet::new();
    let began = tokio::time::Instant::now();
    for round in 0..60 {
        say(&registry, "a", said(2 + round));
        versions.insert(version().await);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let most = began.elapsed().as_secs() + 2;
    assert!(
        versions.len() as u64 <= most,
        "{} in {most} s",
        versions.len()
    );
    cluster
        .until(BACKEND, "a", "the last report", |object| {
            object.is_some_and(|object| object.data["status"]["instances"] == 61)
        })
        .await;
    let before = version().await;
    for _ in 0..30 {
        say(&registry, "a", said(61));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(before, version().await);
}

#[tokio::test]
async fn a_secret_that_is_not_labelled_for_the_backend_is_told_of_until_it_is() {
    let Some(cluster) = cluster("secrets").await else {
        return;
    };
    let secrets = Api::<Secret>::namespaced(cluster.client.clone(), &cluster.namespace);
    let secret = json!({"metadata": {"name": "s"}, "stringData": {"k": "v"}});
    secrets
        .create(
            &PostParams::default(),
            &serde_json::from_value(secret).unwrap(),
        )
        .await
        .unwrap();
    let _registry = cluster.registry().await;
    let from = |name: &str| json!([{"name": "T", "valueFrom": {"secretKeyRef": {"name": name, "key": "k"}}}]);
    for name in ["s", "none"] {
        let spec = json!({"image": "a", "env": from(name)});
        cluster
            .create(BACKEND, &format!("uses-{name}"), spec)
            .await
            .unwrap();
    }
    let says = |reason: &'static str, part: &'static str| {
        move |object: Option<&kube::core::DynamicObject>| {
            let found = object.and_then(|object| condition(object, "ReferencesUsable"));
            found.is_some_and(|(_, r, message)| r == reason && message.contains(part))
        }
    };
    cluster
        .until(
            BACKEND,
            "uses-none",
            "NotFound",
            says("NotFound", "there is no Secret none"),
        )
        .await;
    cluster
        .until(
            BACKEND,
            "uses-s",
            "NotLabelled",
            says(
                "NotLabelled",
                "kubectl label secret s mcp-gateway.dev/backend=uses-s",
            ),
        )
        .await;
    let labels = json!({"metadata": {"labels": {"mcp-gateway.dev/backend": "uses-s"}}});
    secrets
        .patch("s", &PatchParams::default(), &Patch::Merge(labels))
        .await
        .unwrap();
    cluster
        .until(BACKEND, "uses-s", "Labelled", says("Labelled", "labelled"))
        .await;
}

#[tokio::test]
async fn a_gateway_without_rights_says_which_it_lacks() {
    let Some(cluster) = cluster("rights").await else {
        return;
    };
    let mut config = cluster.config.clone();
    config.auth_info.impersonate = Some("nobody-in-particular".to_owned());
    let registry =
        mcp_gateway_control::ClusterRegistry::start(mcp_gateway_control::ClusterConfig {
            watches: kube::Client::try_from(config).unwrap(),
            namespace: cluster.namespace.clone(),
            writing: None,
        })
        .await;
    let problems = registry.problems().borrow().clone();
    assert_eq!(problems.len(), 1, "one line for one cause: {problems:?}");
    let said = problems[0].to_string();
    for part in [
        "may not list and watch McpBackend, ScalingPolicy, Tenant",
        "mcpbackends",
        "Role",
    ] {
        assert!(said.contains(part), "{said}");
    }
    assert!(!*registry.known().borrow());
}

/// The Role of `dev/manifests` for a service account in this test's namespace.
async fn grant(cluster: &crate::support::Cluster) {
    let manifest = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../dev/manifests/alone/rbac.yaml"
    );
    let manifest = std::fs::read_to_string(manifest).unwrap();
    let namespace = &cluster.namespace;
    let manifest = manifest
        .replace(
            "namespace: mcp-gateway-system}",
            &format!("namespace: {namespace}}}"),
        )
        .replace("namespace: mcp}", &format!("namespace: {namespace}}}"));
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), manifest).unwrap();
    let said = cluster.kubectl(&["apply", "-f", file.path().to_str().unwrap()]);
    assert_eq!(said.matches("created").count(), 3, "{said}");
}

#[tokio::test]
async fn the_role_of_the_manifests_is_enough_for_the_registry() {
    let Some(cluster) = cluster("role").await else {
        return;
    };
    grant(&cluster).await;
    let account = format!("system:serviceaccount:{}:mcp-gateway", cluster.namespace);
    let mut config = cluster.config.clone();
    config.auth_info.impersonate = Some(account.clone());
    let client = kube::Client::try_from(config).unwrap();
    let registry =
        mcp_gateway_control::ClusterRegistry::start(mcp_gateway_control::ClusterConfig {
            watches: client.clone(),
            namespace: cluster.namespace.clone(),
            writing: Some(mcp_gateway_control::cluster::Writing::alone(client, "test")),
        })
        .await;
    assert_eq!(**registry.problems().borrow(), vec![]);
    let env =
        json!([{"name": "T", "valueFrom": {"configMapKeyRef": {"name": "none", "key": "k"}}}]);
    let spec = json!({"image": "a", "env": env});
    cluster.create(BACKEND, "a", spec).await.unwrap();
    cluster.create(POLICY, "p", json!({})).await.unwrap();
    let accepted = |object: Option<&kube::core::DynamicObject>| {
        let found = object.and_then(|object| condition(object, "Accepted"));
        found.is_some_and(|(status, ..)| status == "True")
    };
    cluster.until(POLICY, "p", "acceptance", accepted).await;
    cluster
        .until(BACKEND, "a", "the look at what it names", |object| {
            let found = object.and_then(|object| condition(object, "ReferencesUsable"));
            found.is_some_and(|(_, reason, _)| reason == "NotFound")
        })
        .await;
    let events = Api::<k8s_openapi::api::events::v1::Event>::namespaced(
        cluster.client.clone(),
        &cluster.namespace,
    );
    let deadline = tokio::time::Instant::now() + crate::support::PATIENCE;
    while events
        .list(&Default::default())
        .await
        .unwrap()
        .items
        .is_empty()
    {
        assert!(
            tokio::time::Instant::now() < deadline,
            "no event was written"
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    cluster.delete(BACKEND, "a").await;
    backend(&registry, "a", |found| found.is_none()).await;
    until_gone(&cluster, &registry, "a").await;
    // What it must not do.
    for denied in [
        ["delete", "secrets", ""],
        ["list", "secrets", ""],
        ["create", "mcpbackends", ""],
        ["delete", "mcpbackends", ""],
        ["create", "pods", "exec"],
        ["create", "roles", ""],
    ] {
        let [verb, resource, below] = denied;
        let below = format!("--subresource={below}");
        let said = cluster.kubectl(&["auth", "can-i", verb, resource, &below, "--as", &account]);
        assert!(said.starts_with("no"), "{verb} {resource}: {said}");
    }
}
