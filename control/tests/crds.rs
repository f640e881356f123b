//! What is checked in is what the types say, and what the API server accepts is what the parser accepts.

#![expect(
    clippy::unwrap_used,
    reason = "tests: a failed unwrap is a failed test"
)]

use std::{collections::BTreeSet, path::Path};

use mcp_gateway_api::{
    backend::Transport,
    crds,
    policy::{Isolation, ScalingPolicy},
};
use mcp_gateway_control::{
    Place,
    cluster::definitions,
    document::PolicySpec,
    register::{Outcome, Register},
    source::read_bytes,
};
use serde_json::{Map, Value, json};

const CHECKED_IN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../dev/manifests/crds.yaml");

#[test]
fn the_definitions_that_are_checked_in_are_those_of_the_types() {
    let now = definitions::yaml().unwrap();
    if std::env::var_os("MCP_GATEWAY_WRITE_CRDS").is_some() {
        std::fs::write(CHECKED_IN, &now).unwrap();
    }
    let then = std::fs::read_to_string(CHECKED_IN).unwrap_or_default();
    assert!(
        then == now,
        "dev/manifests/crds.yaml is not what the types say: run 'mcp-gateway crds > dev/manifests/crds.yaml'"
    );
}

/// The schema of `spec` of a kind.
fn spec(kind: &str) -> Value {
    let crd = crds::all()
        .into_iter()
        .find(|crd| crd.spec.names.kind == kind)
        .unwrap();
    let crd = serde_json::to_value(crd).unwrap();
    crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"].clone()
}

/// The fields the parser knows where it finds one it does not.
fn parsed(kind: &str, spec: &str) -> BTreeSet<String> {
    let text = format!(
        "apiVersion: mcp-gateway.dev/v1alpha1\nkind: {kind}\nmetadata: {{name: x}}\nspec: {spec}\n"
    );
    let reading = read_bytes(Path::new("x.yaml"), text.as_bytes(), Place::Pod);
    let Outcome { problems, .. } = Register::default().update(vec![reading]);
    let remedy = &problems[0].remedy;
    let list = remedy
        .strip_prefix("the fields are ")
        .unwrap_or_else(|| panic!("{}", problems[0]));
    list.split(", ").map(str::to_owned).collect()
}

fn known(schema: &Value) -> BTreeSet<String> {
    let properties: &Map<String, Value> = schema["properties"].as_object().unwrap();
    properties.keys().cloned().collect()
}

#[test]
fn the_definitions_and_the_parser_know_the_same_fields() {
    let backend = spec("McpBackend");
    let of = |path: &str| backend.pointer(path).unwrap();
    for (schema, kind, unknown) in [
        (&backend, "McpBackend", "{zzzzzz: 1}"),
        (&spec("ScalingPolicy"), "ScalingPolicy", "{zzzzzz: 1}"),
        (&spec("Tenant"), "Tenant", "{zzzzzz: 1}"),
        (
            of("/properties/policy"),
            "McpBackend",
            "{policy: {zzzzzz: 1}}",
        ),
        (of("/properties/pod"), "McpBackend", "{pod: {zzzzzz: 1}}"),
        (
            of("/properties/resources"),
            "McpBackend",
            "{resources: {zzzzzz: 1}}",
        ),
        (
            of("/properties/env/items"),
            "McpBackend",
            "{env: [{zzzzzz: 1}]}",
        ),
        (
            of("/properties/env/items/properties/valueFrom"),
            "McpBackend",
            "{env: [{name: a, valueFrom: {zzzzzz: 1}}]}",
        ),
        (
            of("/properties/env/items/properties/valueFrom/properties/secretKeyRef"),
            "McpBackend",
            "{env: [{name: a, valueFrom: {secretKeyRef: {zzzzzz: 1}}}]}",
        ),
    ] {
        assert_eq!(known(schema), parsed(kind, unknown), "{kind} {unknown}");
    }
}

#[test]
fn the_defaults_of_the_definitions_are_those_of_the_gateway() {
    for schema in [
        spec("ScalingPolicy"),
        spec("McpBackend")
            .pointer("/properties/policy")
            .unwrap()
            .clone(),
    ] {
        let properties = schema["properties"].as_object().unwrap();
        let defaults: Map<String, Value> = properties
            .iter()
            .filter_map(|(name, field)| Some((name.clone(), field.get("default")?.clone())))
            .collect();
        assert_eq!(
            defaults.len(),
            11,
            "all but isolation and what is not built"
        );
        let written: PolicySpec = serde_json::from_value(Value::Object(defaults)).unwrap();
        let resolved = written.resolve(Transport::StreamableHttp, Place::Pod);
        assert_eq!(resolved, ScalingPolicy::for_pods(Isolation::Tenant));
    }
    assert_eq!(
        spec("McpBackend")["properties"]["agent"]["default"],
        json!("auto")
    );
}

/// Every field, with its path, of a schema.
fn each<'v>(schema: &'v Value, path: &str, visit: &mut impl FnMut(&str, &'v Value)) {
    visit(path, schema);
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        each(field, &format!("{path}.{name}"), visit);
    }
    for inner in ["items", "additionalProperties"] {
        if let Some(inner) = schema.get(inner).filter(|inner| inner.is_object()) {
            each(inner, &format!("{path}[]"), visit);
        }
    }
}

#[test]
fn every_field_is_explained_and_nothing_is_nullable() {
    for kind in ["McpBackend", "ScalingPolicy", "Tenant"] {
        each(&spec(kind), kind, &mut |path, schema| {
            let explained = schema["description"].is_string() || path.ends_with("[]");
            assert!(explained, "{path} is not explained");
            assert!(schema.get("nullable").is_none(), "{path}");
            assert!(schema.get("$ref").is_none(), "{path}");
            assert!(
                schema["type"].is_string() || schema["x-kubernetes-int-or-string"] == true,
                "{path} is not structural: {schema}"
            );
        });
    }
}
