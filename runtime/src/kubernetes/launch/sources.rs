//! What a document refers to, looked at before a pod is made of it.

use std::collections::BTreeSet;

use futures_util::future::try_join_all;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use mcp_gateway_api::{backend::EnvValue, failure::ExitReport};
use tokio::time::Instant;

use super::{Patience, asked, given_up, is_final};
use crate::{
    LaunchOrder,
    kubernetes::{World, names, sentences},
};

/// Secrets and `ConfigMap`s are usable only if labelled for the backend or the tenant: whoever may write documents must
/// not read by them what they could not read otherwise.
pub(super) async fn check(
    world: &World,
    order: &LaunchOrder,
    until: Instant,
) -> Result<(), ExitReport> {
    let mut named: BTreeSet<(&'static str, &str, bool)> = BTreeSet::new();
    for var in &order.backend.launch.env {
        match &var.value {
            EnvValue::FromSecret(key) => named.insert(("Secret", &key.name, key.optional)),
            EnvValue::FromConfigMap(key) => named.insert(("ConfigMap", &key.name, key.optional)),
            EnvValue::Literal(_) | EnvValue::FromEnv(_) => false,
        };
    }
    let checks = named
        .into_iter()
        .map(|(kind, name, optional)| check_source(world, order, (kind, name, optional), until));
    try_join_all(checks).await.map(|_| ())
}

async fn check_source(
    world: &World,
    order: &LaunchOrder,
    (kind, name, optional): (&'static str, &str, bool),
    until: Instant,
) -> Result<(), ExitReport> {
    let (backend, tenant) = (&order.backend.name, &order.tenant);
    let namespace = &world.settings.namespace;
    match metadata(world, kind, name, until).await? {
        Some(meta) => {
            let shared = order.slot.owner == mcp_gateway_api::slot::Owner::Nobody;
            let theirs = (!shared).then_some(tenant);
            if names::may_use(&meta.labels.unwrap_or_default(), backend, theirs) {
                return Ok(());
            }
            Err(sentences::report(
                &format!("a {kind} that it refers to is not labelled for it"),
                &format!(
                    "the {kind} {name} needs the label {}={backend} or {}={tenant}",
                    names::BACKEND,
                    names::TENANT
                ),
            ))
        }
        None if optional => Ok(()),
        None => Err(sentences::report(
            &format!("a {kind} that it refers to does not exist"),
            &format!("there is no {kind} {name} in namespace {namespace}"),
        )),
    }
}

/// What is said of it, which is all that may be read here; asked for as long as the API server is away.
async fn metadata(
    world: &World,
    kind: &'static str,
    name: &str,
    until: Instant,
) -> Result<Option<ObjectMeta>, ExitReport> {
    let mut patience = Patience::new(until);
    loop {
        let found = match kind {
            "Secret" => asked(world.secrets.get_metadata_opt(name))
                .await
                .map(|found| found.map(|o| o.metadata)),
            _ => asked(world.config_maps.get_metadata_opt(name))
                .await
                .map(|found| found.map(|o| o.metadata)),
        };
        let failed = match found {
            Ok(found) => return Ok(found),
            Err(failed) => failed,
        };
        if failed.as_ref().is_some_and(is_final) || patience.is_over() {
            let doing = format!("get {}s", kind.to_lowercase());
            return Err(given_up(world, failed, &doing));
        }
        tracing::warn!(
            kind,
            name,
            error = failed.map(tracing::field::display),
            "what a pod refers to could not be looked at; trying again"
        );
        patience.wait().await;
    }
}
