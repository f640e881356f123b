//! Looks at the Secrets and `ConfigMap`s that backends name: whether they are there and labelled for them. Metadata only;
//! their contents never come here.
//!
//! This is for people to see early. What counts is the same look at each launch, which refuses.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use futures_util::{StreamExt, stream};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::{Api, Client};
use mcp_gateway_api::{
    backend::{Backend, EnvValue},
    catalog::{Catalog, CatalogWatch},
    ids::BackendName,
    policy::Isolation,
    reference::{BACKEND_LABEL, TENANT_LABEL, usable},
};
use tokio::{sync::watch, time::timeout};

use super::status::References;

/// How often objects are looked at again: nobody tells when they change.
pub const AGAIN: Duration = Duration::from_secs(10);
/// How many are looked at at once.
const AT_ONCE: usize = 8;
/// How long the API server may take to answer for one.
const CALL: Duration = Duration::from_secs(10);

/// What is found, by backend; those that name nothing are not in it.
pub type Verdicts = Arc<BTreeMap<BackendName, References>>;

/// A Secret or a `ConfigMap`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Named {
    secret: bool,
    name: String,
}

impl Named {
    fn kind(&self) -> &'static str {
        if self.secret { "Secret" } else { "ConfigMap" }
    }
}

/// What was found under a name.
#[derive(Debug, Clone)]
enum Found {
    Labels(BTreeMap<String, String>),
    Nothing,
    Unknown(String),
}

/// Looks again and again, and whenever the catalog changes, until nobody listens.
pub async fn look(
    client: Client,
    namespace: String,
    mut catalog: CatalogWatch,
    mut leading: watch::Receiver<bool>,
    tell: watch::Sender<Verdicts>,
) {
    let mut may_change = true;
    loop {
        if *leading.borrow_and_update() {
            let now = Arc::clone(&catalog.borrow_and_update());
            let verdicts = all(&client, &namespace, &now).await;
            tell.send_if_modified(|before| {
                let changed = **before != verdicts;
                if changed {
                    *before = Arc::new(verdicts);
                }
                changed
            });
        }
        tokio::select! {
            changed = catalog.changed() => if changed.is_err() { return },
            changed = leading.changed(), if may_change => may_change = changed.is_ok(),
            () = tell.closed() => return,
            () = tokio::time::sleep(AGAIN) => {}
        }
    }
}

async fn all(
    client: &Client,
    namespace: &str,
    catalog: &Catalog,
) -> BTreeMap<BackendName, References> {
    let backends = catalog.backends.values();
    let names: BTreeSet<Named> = backends
        .flat_map(|b| names(b))
        .map(|(name, _)| name)
        .collect();
    let found: BTreeMap<Named, Found> = stream::iter(names)
        .map(|name| async move {
            let late = |_| Found::Unknown("the API server does not answer".to_owned());
            let found = timeout(CALL, find(client, namespace, &name)).await;
            (name, found.unwrap_or_else(late))
        })
        .buffer_unordered(AT_ONCE)
        .collect()
        .await;
    let judged = |backend: &Arc<Backend>| Some((backend.name.clone(), judge(backend, &found)?));
    catalog.backends.values().filter_map(judged).collect()
}

/// What a backend names, and whether it can do without.
fn names(backend: &Backend) -> impl Iterator<Item = (Named, bool)> {
    backend.launch.env.iter().filter_map(|var| {
        let (secret, key) = match &var.value {
            EnvValue::FromSecret(key) => (true, key),
            EnvValue::FromConfigMap(key) => (false, key),
            EnvValue::Literal(_) | EnvValue::FromEnv(_) => return None,
        };
        let name = key.name.clone();
        Some((Named { secret, name }, key.optional))
    })
}

async fn find(client: &Client, namespace: &str, name: &Named) -> Found {
    let metadata = if name.secret {
        let api = Api::<Secret>::namespaced(client.clone(), namespace);
        api.get_metadata_opt(&name.name)
            .await
            .map(|found| found.map(|object| object.metadata))
    } else {
        let api = Api::<ConfigMap>::namespaced(client.clone(), namespace);
        api.get_metadata_opt(&name.name)
            .await
            .map(|found| found.map(|object| object.metadata))
    };
    match metadata {
        Ok(Some(metadata)) => Found::Labels(metadata.labels.unwrap_or_default()),
        Ok(None) => Found::Nothing,
        Err(error) => Found::Unknown(format!(
            "the {} {} cannot be looked at: {error}",
            name.kind(),
            name.name
        )),
    }
}

/// The verdict on a backend; none if it names nothing. Pure.
fn judge(backend: &Backend, found: &BTreeMap<Named, Found>) -> Option<References> {
    let mut verdict = None;
    for (name, optional) in names(backend) {
        let kind = name.kind();
        let this = match found.get(&name) {
            Some(Found::Labels(labels)) => {
                // A tenant's own is for that tenant's instances only: good here if there may be any.
                let tenant = labels
                    .get(TENANT_LABEL)
                    .and_then(|tenant| tenant.parse().ok())
                    .filter(|tenant| backend.admits(tenant))
                    // What everybody shares is no tenant's.
                    .filter(|_| backend.policy.isolation != Isolation::Shared);
                match usable(labels, &backend.name, &tenant) {
                    Ok(()) => References::Usable,
                    Err(why) => {
                        let Named { name, .. } = &name;
                        let sentence = format!(
                            "the {kind} {name} may not be used: {why}; if it may, run 'kubectl label {} {name} {BACKEND_LABEL}={}'",
                            kind.to_lowercase(),
                            backend.name
                        );
                        References::Unusable("NotLabelled", sentence)
                    }
                }
            }
            Some(Found::Nothing) if optional => References::Usable,
            Some(Found::Nothing) => {
                let sentence = format!(
                    "there is no {kind} {} in this namespace; create it, with the label {BACKEND_LABEL}={}",
                    name.name, backend.name
                );
                References::Unusable("NotFound", sentence)
            }
            Some(Found::Unknown(why)) => References::Unknown(why.clone()),
            None => continue,
        };
        // The worst is what people must see.
        verdict = match (verdict, this) {
            (Some(worse @ References::Unusable(..)), _) => Some(worse),
            (Some(worse @ References::Unknown(_)), References::Usable) => Some(worse),
            (_, this) => Some(this),
        };
    }
    verdict
}
