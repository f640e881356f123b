//! A gateway that lacks a right says which, and goes on as soon as it has it.

use std::process::Stdio;

use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Command;

use super::{
    cluster::{Space, space},
    count, demo,
    troubles::{assert_told, knock, make, until_known, until_served},
};
use crate::{
    documents::BINARY,
    tools::{self, Share},
};

/// What all in one needs of pods where documents come from files and name no Secrets.
const ENOUGH: [&str; 6] = ["get", "list", "watch", "create", "patch", "delete"];

fn rules(verbs: &[&str]) -> Value {
    json!([
        {"apiGroups": [""], "resources": ["pods"], "verbs": verbs},
        {"apiGroups": [""], "resources": ["pods/log"], "verbs": ["get"]},
    ])
}

/// A kubeconfig of an account that may do so much with pods.
async fn account(space: &Space, home: &TempDir, verbs: &[&str]) -> std::path::PathBuf {
    let roles: Api<Role> = Api::namespaced(space.client.clone(), &space.name);
    make(
        &roles,
        json!({"metadata": {"name": "gateway"}, "rules": rules(verbs)}),
    )
    .await;
    let bindings: Api<RoleBinding> = Api::namespaced(space.client.clone(), &space.name);
    make(
        &bindings,
        json!({
            "metadata": {"name": "gateway"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "gateway"},
            "subjects": [{"kind": "ServiceAccount", "name": "gateway", "namespace": space.name}],
        }),
    )
    .await;
    let own = std::fs::read_to_string(&space.kubeconfig).expect("a kubeconfig");
    let mut own: kube::config::Kubeconfig =
        kube::config::Kubeconfig::from_yaml(&own).expect("a kubeconfig");
    // Files that it names are beside it.
    let folder = space.kubeconfig.parent().expect("a folder");
    for user in &mut own.auth_infos {
        let Some(info) = &mut user.auth_info else {
            continue;
        };
        info.impersonate = Some(format!("system:serviceaccount:{}:gateway", space.name));
        let files = [&mut info.client_certificate, &mut info.client_key];
        for file in files.into_iter().flatten() {
            *file = folder.join(&*file).to_string_lossy().into_owned();
        }
    }
    for cluster in &mut own.clusters {
        if let Some(file) = cluster
            .cluster
            .as_mut()
            .and_then(|cluster| cluster.certificate_authority.as_mut())
        {
            *file = folder.join(&*file).to_string_lossy().into_owned();
        }
    }
    let path = home.path().join("kubeconfig");
    // JSON is YAML.
    let text = serde_json::to_string(&own).expect("a kubeconfig is JSON");
    std::fs::write(&path, text).expect("it is written");
    path
}

async fn grant(space: &Space, verbs: &[&str]) {
    let roles: Api<Role> = Api::namespaced(space.client.clone(), &space.name);
    let rules = json!({"rules": rules(verbs)});
    let params = PatchParams::default();
    let granted = roles.patch("gateway", &params, &Patch::Merge(&rules)).await;
    granted.expect("the role is changed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_right_that_is_missing_is_named_and_used_once_it_is_given() {
    let Some(space) = space("missing rights").await else {
        return;
    };
    let home = tempfile::tempdir().expect("a temporary folder");
    let kubeconfig = account(&space, &home, &["get", "list", "watch", "patch"]).await;
    let backend = demo("demo", "streamable-http")
        .policy("idleTimeout", "1s")
        .policy("holdTimeout", "2m");
    let _turn = tools::turn(Share::Half).await;
    let at = (space.name.as_str(), kubeconfig.as_path());
    let gateway = space.gateway_at(at, &[backend], &[]).await;

    let why = "the gateway's service account may not create pods (RBAC)";
    let (reply, _) = tokio::join!(knock(&gateway, "demo"), until_known(&gateway, "demo", why));
    assert_told("demo", &["start_failed"], &reply);

    grant(&space, &["get", "list", "watch", "patch", "create"]).await;
    let peer = until_served(&gateway, "demo").await;
    assert_eq!(count(&peer).await, 1);

    // It can be made but not ended.
    let why = "the gateway's service account may not delete pods (RBAC)";
    until_known(&gateway, "demo", why).await;
    grant(&space, &ENOUGH).await;
    gateway.until_cold("demo").await;
    space.until_empty().await;
    assert_eq!(count(&peer).await, 1, "revived");
}

/// It would find no pod of an earlier gateway, and hear of none: it does not begin.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_may_not_list_pods_does_not_begin_and_says_why() {
    let Some(space) = space("no right to list").await else {
        return;
    };
    let home = tempfile::tempdir().expect("a temporary folder");
    let kubeconfig = account(&space, &home, &["get", "create"]).await;
    let documents = home.path().join("backends.yaml");
    std::fs::write(&documents, demo("demo", "streamable-http").document()).expect("written");
    let ended = Command::new(BINARY)
        .args([
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--admin-listen",
            "127.0.0.1:0",
        ])
        .args(space.arguments(&space.name))
        .arg("--backends")
        .arg(documents)
        .arg("--state-dir")
        .arg(home.path().join("state"))
        .env("KUBECONFIG", kubeconfig)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let ended = tokio::time::timeout(crate::gateway::PATIENCE, ended).await;
    let ended = ended.expect("it ends").expect("it can be started");
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert!(!ended.status.success(), "{said}");
    let why = "the gateway's service account may not list pods (RBAC)";
    assert!(said.contains(why), "{said}");
}
