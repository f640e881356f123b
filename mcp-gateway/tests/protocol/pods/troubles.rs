//! What keeps a pod from serving: told in one sentence wherever somebody looks, and over when its cause is.

use std::time::Duration;

use futures_util::future::join_all;
use k8s_openapi::api::{
    admissionregistration::v1::{ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding},
    core::v1::{Namespace, Pod, ResourceQuota, Secret},
};
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::{
    SERVER,
    cluster::{Space, space},
    count, demo,
    objects::condition,
};
use crate::{
    documents::Backend,
    gateway::{Gateway, PATIENCE},
    tools::{self, Share},
    wire::{self, Peer, Reply},
};

/// An interpreter without a version in its path.
const NODE: &str = "/usr/local/bin/node";
const EVERYTHING: &str = "localhost/mcp-everything:dev";
/// What is never shown to clients.
const PRIVATE: [&str; 6] = [
    "localhost/",
    "/no/such",
    "Kubernetes",
    "exceeded quota",
    "198.18.",
    "serviceaccount",
];

/// A backend that cannot start.
struct Trouble {
    backend: Backend,
    /// Kinds of error that a client may be told; which one can depend on how fast Kubernetes is.
    kinds: &'static [&'static str],
    /// What everybody else is told.
    why: &'static str,
}

fn trouble(backend: Backend, kinds: &'static [&'static str], why: &'static str) -> Trouble {
    Trouble {
        backend,
        kinds,
        why,
    }
}

fn http(name: &str) -> Backend {
    demo(name, "streamable-http").policy("holdTimeout", "2m")
}

fn node(name: &str, script: &str) -> Backend {
    http(name)
        .spec("image", EVERYTHING)
        .spec("command", json!([NODE, "-e", script]))
}

/// Asks for a session as a client does that hears the answer through.
pub(super) async fn knock(gateway: &Gateway, backend: &str) -> Reply {
    let (client, url) = (wire::http(), gateway.url(backend));
    let reply = wire::post(&client, &url, &[], &wire::initialize(7)).await;
    reply.unwrap_or_else(|why| panic!("{backend}: {why}\n{}", gateway.log()))
}

/// The client's sentence: its own id, a kind that says what to do, when to come again, and nothing private.
pub(super) fn assert_told(name: &str, kinds: &[&str], reply: &Reply) {
    let message = reply.json();
    assert_eq!(reply.status, 503, "{name}: {message}");
    assert_eq!(message["id"], 7, "{name}: {message}");
    let seconds = reply.header("retry-after").parse::<u64>();
    assert!(seconds.is_ok(), "{name}: no Retry-After");
    let error = &message["error"];
    let kind = error["data"]["kind"].as_str().unwrap_or_default();
    assert!(kinds.contains(&kind), "{name}: {message}");
    let text = error.to_string();
    assert!(
        PRIVATE.iter().all(|private| !text.contains(private)),
        "{name}: {text}"
    );
}

/// Waits until `/status` tells of it.
pub(super) async fn until_known(gateway: &Gateway, name: &str, why: &str) -> String {
    let give_up = Instant::now() + PATIENCE;
    loop {
        let status = gateway.status(name).await;
        let instances = status
            .slots
            .iter()
            .filter_map(|slot| slot.instance.as_ref());
        let mut said: Vec<String> = instances.flat_map(|one| one.warnings.clone()).collect();
        said.extend(status.last_failure.map(|failure| failure.exit.summary));
        if let Some(found) = said.iter().find(|text| text.contains(why)) {
            return found.clone();
        }
        assert!(
            Instant::now() < give_up,
            "{name}: {said:?}\n{}",
            gateway.log()
        );
        sleep(Duration::from_millis(50)).await;
    }
}

/// A session, as soon as there can be one.
pub(super) async fn until_served(gateway: &Gateway, name: &str) -> Peer {
    let give_up = Instant::now() + 2 * PATIENCE;
    loop {
        match Peer::connect(&gateway.url(name), name).await {
            Ok(peer) => return peer,
            Err(why) => assert!(Instant::now() < give_up, "{name}: {why}\n{}", gateway.log()),
        }
        sleep(Duration::from_millis(200)).await;
    }
}

/// One client's call, and what all the places say of it.
async fn meet(space: &Space, gateway: &Gateway, trouble: &Trouble) {
    let name = trouble.backend.name.as_str();
    let knocking = knock(gateway, name);
    let looking = until_known(gateway, name, trouble.why);
    let (reply, known) = tokio::join!(knocking, looking);
    assert_told(name, trouble.kinds, &reply);
    let told = reply.json()["error"]["message"].to_string();
    assert!(told.contains(trouble.why), "{name}: {told}");
    println!(
        "{name}: the client: {}; the operator: {known}",
        reply.json()["error"]
    );
    let object = space
        .until(name, "told of", |object| {
            let why = object["status"]["why"].as_str().unwrap_or_default();
            why.contains(trouble.why)
        })
        .await;
    let available = condition(&object, "Available");
    assert_eq!(available["status"], "False", "{name}: {available}");
    space.until_told(name, trouble.why).await;
}

/// It serves, and nobody says otherwise any more.
async fn recovers(space: &Space, gateway: &Gateway, name: &str) {
    let peer = until_served(gateway, name).await;
    assert_eq!(count(&peer).await, 1, "{name}");
    space
        .until(name, "available again", |object| {
            condition(object, "Available")["status"] == "True" && object["status"]["why"].is_null()
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_document_that_cannot_work_says_why_everywhere_and_works_once_it_is_mended() {
    let Some(space) = space("documents that cannot work").await else {
        return;
    };
    let eats = "const a = []; for (;;) a.push(Buffer.alloc(1e7, 1))";
    let small = json!({"limits": {"memory": "100Mi"}});
    let failed: &[&str] = &["start_failed"];
    let troubles = [
        trouble(
            http("image").spec("image", "localhost/nothing-here:1"),
            failed,
            "image could not be pulled",
        ),
        trouble(
            http("command").spec("command", json!(["/no/such/program"])),
            failed,
            "command does not exist in its image",
        ),
        trouble(
            node("silent", "setInterval(() => {}, 1e6)").policy("startTimeout", "3s"),
            failed,
            "did not accept requests within 3s",
        ),
        trouble(
            http("ends").spec("command", json!([SERVER, "no-such"])),
            failed,
            "exited with code 2",
        ),
        trouble(
            http("full")
                .spec("resources", json!({"requests": {"cpu": "1000"}}))
                .policy("holdTimeout", "15s"),
            &["hold_timeout"],
            "no node of the cluster has room for its pod",
        ),
        trouble(
            node("hungry", eats).spec("resources", small.clone()),
            failed,
            "more memory than its limit",
        ),
        trouble(
            node("hungry-agent", eats)
                .spec("resources", small)
                .spec("agent", "imageVolume"),
            failed,
            "more memory than its limit",
        ),
    ];
    let backends: Vec<Backend> = troubles.iter().map(|one| one.backend.clone()).collect();
    let _turn = tools::turn(Share::Whole).await;
    let gateway = space.serving(&backends, &[]).await;
    join_all(troubles.iter().map(|one| meet(&space, &gateway, one))).await;
    for backend in &backends {
        space.put(&http(&backend.name)).await;
    }
    join_all(
        backends
            .iter()
            .map(|one| recovers(&space, &gateway, &one.name)),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_cluster_does_not_admit_says_why_everywhere_and_starts_once_it_is_admitted() {
    let Some(space) = space("what is not admitted").await else {
        return;
    };
    let secret =
        json!([{"name": "T", "valueFrom": {"secretKeyRef": {"name": "token", "key": "t"}}}]);
    let troubles = [
        trouble(
            http("admission"),
            &["start_failed"],
            "an admission rule of the cluster does not admit its pod",
        ),
        trouble(
            http("secret").spec("env", secret),
            &["start_failed"],
            "not labelled for",
        ),
    ];
    let backends: Vec<Backend> = troubles.iter().map(|one| one.backend.clone()).collect();
    let _turn = tools::turn(Share::Whole).await;
    let secrets: Api<Secret> = Api::namespaced(space.client.clone(), &space.name);
    make(
        &secrets,
        json!({"metadata": {"name": "token"}, "stringData": {"t": "1"}}),
    )
    .await;
    forbid(&space, "admission").await;
    let gateway = space.serving(&backends, &[]).await;
    until_forbidden(&space, "admission").await;
    join_all(troubles.iter().map(|one| meet(&space, &gateway, one))).await;

    space.allow().await;
    let label = json!({"metadata": {"labels": {"mcp-gateway.dev/backend": "secret"}}});
    let (params, label) = (PatchParams::default(), Patch::Merge(label));
    let labelled = secrets.patch("token", &params, &label).await;
    labelled.expect("the label is set");
    join_all(
        backends
            .iter()
            .map(|one| recovers(&space, &gateway, &one.name)),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quota_says_why_everywhere_and_what_waits_starts_once_there_is_room() {
    let Some(space) = space("a quota").await else {
        return;
    };
    let room = trouble(
        http("room"),
        &["start_failed"],
        "resource quota has no room for its pod",
    );
    let _turn = tools::turn(Share::Half).await;
    let quotas: Api<ResourceQuota> = Api::namespaced(space.client.clone(), &space.name);
    make(
        &quotas,
        json!({"metadata": {"name": "none"}, "spec": {"hard": {"pods": "0"}}}),
    )
    .await;
    let give_up = Instant::now() + PATIENCE;
    while quotas
        .get("none")
        .await
        .expect("the quota")
        .status
        .is_none()
    {
        assert!(Instant::now() < give_up, "the quota is not looked after");
        sleep(Duration::from_millis(50)).await;
    }
    let gateway = space
        .serving(std::slice::from_ref(&room.backend), &[])
        .await;
    meet(&space, &gateway, &room).await;
    let deleted = quotas.delete("none", &DeleteParams::default()).await;
    deleted.expect("the quota is deleted");
    recovers(&space, &gateway, "room").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_namespace_that_is_not_there_is_named_and_used_once_it_is() {
    let Some(space) = space("no namespace").await else {
        return;
    };
    let later = format!("{}-later", space.name);
    let _turn = tools::turn(Share::Half).await;
    let at = (later.as_str(), space.kubeconfig.as_path());
    let gateway = space.gateway_at(at, &[http("demo")], &[]).await;
    let why = "the namespace for its pod does not exist";
    let (reply, _) = tokio::join!(knock(&gateway, "demo"), until_known(&gateway, "demo", why));
    assert_told("demo", &["start_failed"], &reply);
    let namespaces: Api<Namespace> = Api::all(space.client.clone());
    make(&namespaces, json!({"metadata": {"name": later}})).await;
    let served = until_served(&gateway, "demo").await;
    assert_eq!(count(&served).await, 1);
    drop(gateway);
    let deleted = namespaces.delete(&later, &DeleteParams::default()).await;
    deleted.expect("the namespace is deleted");
}

/// The rule is in force a moment after it was made.
async fn until_forbidden(space: &Space, backend: &str) {
    let pod = json!({
        "metadata": {"name": "asks", "labels": {"mcp-gateway.dev/backend": backend}},
        "spec": {"containers": [{"name": "asks", "image": "none"}]},
    });
    let pod: Pod = serde_json::from_value(pod).expect("a pod");
    let pods: Api<Pod> = Api::namespaced(space.client.clone(), &space.name);
    let params = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    let give_up = Instant::now() + PATIENCE;
    while pods.create(&params, &pod).await.is_ok() {
        assert!(Instant::now() < give_up, "the rule is never in force");
        sleep(Duration::from_millis(50)).await;
    }
}

pub(super) async fn make<K>(all: &Api<K>, object: Value)
where
    K: Clone + serde::de::DeserializeOwned + serde::Serialize + std::fmt::Debug,
{
    let object: K = serde_json::from_value(object).expect("an object");
    let made = all.create(&PostParams::default(), &object).await;
    made.expect("the object is made");
}

/// A rule of the cluster against one backend's pods in this namespace.
async fn forbid(space: &Space, backend: &str) {
    let name = &space.name;
    let label = format!("object.metadata.labels['mcp-gateway.dev/backend'] != '{backend}'");
    let rule = json!({"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]});
    let here = json!({"matchLabels": {"kubernetes.io/metadata.name": name}});
    make(
        &Api::<ValidatingAdmissionPolicy>::all(space.client.clone()),
        json!({"metadata": {"name": name}, "spec": {
            "matchConstraints": {"resourceRules": [rule], "namespaceSelector": here},
            "validations": [{"expression": label, "message": "not in this house"}],
        }}),
    )
    .await;
    make(
        &Api::<ValidatingAdmissionPolicyBinding>::all(space.client.clone()),
        json!({"metadata": {"name": name}, "spec": {"policyName": name, "validationActions": ["Deny"]}}),
    )
    .await;
}

impl Space {
    /// Takes the rule away.
    async fn allow(&self) {
        Self::forget_rules(self.client.clone(), &self.name).await;
    }

    /// The rules of the cluster that a test has made bear its namespace's name.
    pub(super) async fn forget_rules(client: kube::Client, name: &str) {
        let params = DeleteParams::default();
        let bindings: Api<ValidatingAdmissionPolicyBinding> = Api::all(client.clone());
        drop(bindings.delete(name, &params).await);
        let policies: Api<ValidatingAdmissionPolicy> = Api::all(client);
        drop(policies.delete(name, &params).await);
    }
}
