//! Whether the cluster's definitions know every field that this gateway knows. An older definition drops what it does not
//! know in silence, and nobody would see why a field has no effect.
//!
//! Asked of the API server's own description of itself, which every account may read.

use std::time::Duration;

use kube::Client;
use mcp_gateway_api::crds::{self, GROUP, VERSION};
use serde_json::Value;
use tokio::sync::watch;

use crate::problem::Problem;

/// How often it is asked.
const EACH: Duration = Duration::from_secs(15);
/// How many fields are named.
const NAMED: usize = 5;

/// Asks again and again, until nobody listens.
pub async fn compare(client: Client, tell: watch::Sender<Option<Problem>>) {
    loop {
        // Whoever cannot be asked is told of by the watches.
        if let Some(theirs) = description(&client).await {
            let found = problem(&theirs);
            tell.send_if_modified(|before| {
                let changed = *before != found;
                *before = found;
                changed
            });
        }
        tokio::select! {
            () = tell.closed() => return,
            () = tokio::time::sleep(EACH) => {}
        }
    }
}

async fn description(client: &Client) -> Option<Value> {
    let path = format!("/openapi/v3/apis/{GROUP}/{VERSION}");
    let request = http::Request::get(path).body(Vec::new()).ok()?;
    client.request(request).await.ok()
}

/// What is wrong, if anything, with definitions that are described so. Pure.
fn problem(theirs: &Value) -> Option<Problem> {
    let schemas = theirs["components"]["schemas"].as_object()?;
    let mut missing = Vec::new();
    for ours in crds::all() {
        let kind = &ours.spec.names.kind;
        let named = |name: &&String| name.rsplit('.').next() == Some(kind.as_str());
        // A kind that is absent altogether is told of by its watch.
        let Some(schema) = schemas
            .keys()
            .find(named)
            .and_then(|name| schemas.get(name))
        else {
            continue;
        };
        let version = ours.spec.versions.first()?.schema.as_ref()?;
        let ours = serde_json::to_value(version.open_api_v3_schema.as_ref()?).ok()?;
        for part in ["spec", "status"] {
            let path = format!("{kind}.{part}");
            lacking(
                &ours["properties"][part],
                &schema["properties"][part],
                &path,
                &mut missing,
            );
        }
    }
    if missing.is_empty() {
        return None;
    }
    let more = missing.len().saturating_sub(NAMED);
    missing.truncate(NAMED);
    let mut list = missing.join(", ");
    if more > 0 {
        list.push_str(&format!(" and {more} more"));
    }
    let message = format!("the cluster's definitions are older than this gateway, and drop {list}");
    let remedy = "run 'mcp-gateway crds | kubectl apply --server-side -f -'";
    let problem = Problem::error(std::path::Path::new("kubernetes"), message);
    Some(problem.remedy(remedy).warning())
}

/// The fields of `ours` that `theirs` has not.
fn lacking(ours: &Value, theirs: &Value, path: &str, missing: &mut Vec<String>) {
    for (name, field) in ours["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}.{name}");
        match theirs["properties"].get(name) {
            None => missing.push(path),
            Some(theirs) => lacking(field, theirs, &path, missing),
        }
    }
    for inner in ["items", "additionalProperties"] {
        if let (Some(ours), Some(theirs)) = (ours.get(inner), theirs.get(inner)) {
            lacking(ours, theirs, path, missing);
        }
    }
}
