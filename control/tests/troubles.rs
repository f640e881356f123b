//! An API server that is away, or does not know our kinds, takes nothing down, is told of in one line, and is found again.
//! The API server is scripted; what a real one does is in `cluster.rs`.

#![expect(
    clippy::unwrap_used,
    reason = "tests: a failed unwrap is a failed test"
)]

use std::time::Duration;

use http::{Request, Response, StatusCode};
use kube::client::Body;
use mcp_gateway_api::ids::BackendName;
use mcp_gateway_control::{ClusterConfig, ClusterRegistry};
use serde_json::{Value, json};
use tokio::{sync::watch, time::timeout};

/// What the API server is like at the moment.
#[derive(Debug, Clone, PartialEq)]
enum Mode {
    /// It refuses every connection.
    Away,
    /// It knows no kind of ours but these.
    Knows(Vec<&'static str>, Vec<(&'static str, &'static str)>),
}

/// With images the definitions are ours; without any they are older.
fn knows(images: &[(&'static str, &'static str)]) -> Mode {
    Mode::Knows(
        vec!["mcpbackends", "scalingpolicies", "tenants"],
        images.to_vec(),
    )
}

fn answer(code: StatusCode, body: &Value) -> Response<Body> {
    let body = Body::from(body.to_string().into_bytes());
    Response::builder().status(code).body(body).unwrap()
}

fn list(plural: &str, images: &[(&str, &str)]) -> Value {
    let object = |(name, image): &(&str, &str)| {
        json!({
            "apiVersion": "mcp-gateway.dev/v1alpha1", "kind": "McpBackend",
            "metadata": {"name": name, "uid": name, "resourceVersion": "1", "generation": image.len()},
            "spec": {"image": image},
        })
    };
    let items: Vec<Value> = images.iter().map(object).collect();
    let items = if plural == "mcpbackends" {
        items
    } else {
        Vec::new()
    };
    json!({
        "apiVersion": "mcp-gateway.dev/v1alpha1", "kind": "List",
        "metadata": {"resourceVersion": "1"}, "items": items,
    })
}

/// What the API server says of our definitions; an older one knows no `spec.agent` of a backend.
fn description(older: bool) -> Value {
    let mut schemas = serde_json::Map::new();
    for crd in mcp_gateway_api::crds::all() {
        let crd = serde_json::to_value(crd).unwrap();
        let kind = crd["spec"]["names"]["kind"].as_str().unwrap();
        let mut schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone();
        if older && kind == "McpBackend" {
            let spec = schema["properties"]["spec"]["properties"]
                .as_object_mut()
                .unwrap();
            spec.remove("agent").unwrap();
        }
        schemas.insert(format!("dev.mcp-gateway.v1alpha1.{kind}"), schema);
    }
    json!({"components": {"schemas": schemas}})
}

async fn serve(
    request: Request<Body>,
    mut mode: watch::Receiver<Mode>,
) -> Result<Response<Body>, std::io::Error> {
    let now = mode.borrow_and_update().clone();
    let away = || std::io::Error::new(std::io::ErrorKind::ConnectionRefused, "refused");
    let Mode::Knows(kinds, images) = now else {
        return Err(away());
    };
    if request.uri().path().starts_with("/openapi/") {
        return Ok(answer(StatusCode::OK, &description(images.is_empty())));
    }
    let plural = request.uri().path().rsplit('/').next().unwrap().to_owned();
    if !kinds.contains(&plural.as_str()) {
        let status = json!({
            "kind": "Status", "status": "Failure", "reason": "NotFound", "code": 404,
            "message": "the server could not find the requested resource",
        });
        return Ok(answer(StatusCode::NOT_FOUND, &status));
    }
    if request
        .uri()
        .query()
        .is_some_and(|query| query.contains("watch="))
    {
        // A watch tells nothing, and ends when the server changes.
        let _ = mode.changed().await;
        return Err(away());
    }
    Ok(answer(StatusCode::OK, &list(&plural, &images)))
}

async fn start(mode: &watch::Sender<Mode>) -> ClusterRegistry {
    let mode = mode.subscribe();
    let service = tower::service_fn(move |request| serve(request, mode.clone()));
    ClusterRegistry::start(ClusterConfig {
        watches: kube::Client::new(service, "mcp"),
        namespace: "mcp".to_owned(),
        writing: None,
    })
    .await
}

async fn until_image(registry: &ClusterRegistry, name: &str, image: &str) {
    let name = BackendName::new(name).unwrap();
    let mut catalog = registry.catalog();
    let there = catalog.wait_for(|catalog| {
        let backend = catalog.get(&name);
        backend.is_some_and(|backend| backend.launch.image.as_deref() == Some(image))
    });
    timeout(Duration::from_secs(60), there)
        .await
        .unwrap()
        .unwrap();
}

async fn until_problems(registry: &ClusterRegistry, count: usize) -> Vec<String> {
    let mut problems = registry.problems();
    let there = problems.wait_for(|problems| problems.len() == count);
    let found = timeout(Duration::from_secs(60), there)
        .await
        .unwrap()
        .unwrap();
    found.iter().map(ToString::to_string).collect()
}

#[tokio::test(start_paused = true)]
async fn a_cluster_without_our_definitions_says_how_to_install_them_and_is_served_once_they_are() {
    let (mode, _keep) = watch::channel(Mode::Knows(Vec::new(), vec![("a", "one")]));
    let registry = start(&mode).await;
    let said = until_problems(&registry, 1).await;
    for part in [
        "no definition of McpBackend, ScalingPolicy, Tenant",
        "mcp-gateway crds | kubectl apply",
    ] {
        assert!(said[0].contains(part), "{said:?}");
    }
    mode.send_replace(knows(&[("a", "one")]));
    until_image(&registry, "a", "one").await;
    until_problems(&registry, 0).await;
}

#[tokio::test(start_paused = true)]
async fn an_older_cluster_without_one_kind_serves_the_others() {
    let kinds = vec!["mcpbackends", "scalingpolicies"];
    let (mode, _keep) = watch::channel(Mode::Knows(kinds, vec![("a", "one")]));
    let registry = start(&mode).await;
    until_image(&registry, "a", "one").await;
    let said = until_problems(&registry, 1).await;
    assert!(said[0].contains("no definition of Tenant;"), "{said:?}");
}

#[tokio::test(start_paused = true)]
async fn an_api_server_that_goes_away_takes_nothing_down_and_is_followed_again_when_it_is_back() {
    let (mode, _keep) = watch::channel(knows(&[("a", "one"), ("b", "one")]));
    let registry = start(&mode).await;
    until_image(&registry, "a", "one").await;
    mode.send_replace(Mode::Away);
    let said = until_problems(&registry, 1).await;
    for part in [
        "the API server does not answer",
        "refused",
        "stays in force",
    ] {
        assert!(said[0].contains(part), "{said:?}");
    }
    tokio::time::sleep(Duration::from_secs(30)).await;
    until_image(&registry, "a", "one").await;
    mode.send_replace(knows(&[("a", "three")]));
    until_image(&registry, "a", "three").await;
    until_problems(&registry, 0).await;
    let gone = BackendName::new("b").unwrap();
    assert!(registry.catalog().borrow().get(&gone).is_none());
}

#[tokio::test(start_paused = true)]
async fn whoever_starts_while_the_api_server_is_away_knows_that_nothing_is_known() {
    let (mode, _keep) = watch::channel(Mode::Away);
    let registry = start(&mode).await;
    assert!(!*registry.known().borrow());
    until_problems(&registry, 1).await;
    mode.send_replace(knows(&[("a", "one")]));
    until_image(&registry, "a", "one").await;
    assert!(*registry.known().borrow());
}

#[tokio::test(start_paused = true)]
async fn definitions_that_are_older_than_the_gateway_are_told_of_until_they_are_replaced() {
    let (mode, _keep) = watch::channel(knows(&[]));
    let registry = start(&mode).await;
    let said = until_problems(&registry, 1).await;
    for part in ["older", "drop McpBackend.spec.agent;", "mcp-gateway crds"] {
        assert!(said[0].contains(part), "{said:?}");
    }
    mode.send_replace(knows(&[("a", "one")]));
    until_image(&registry, "a", "one").await;
    until_problems(&registry, 0).await;
}
