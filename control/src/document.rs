//! The documents of `docs/configuration.md`: `McpBackend`, `ScalingPolicy` and `Tenant` as people write them, absent
//! fields absent.
//!
//! Parsing decides what a field may say; what fields say together is decided in [`crate::yaml`].

use mcp_gateway_api::{
    backend::{AgentForm, Transport},
    ids::{BackendName, PolicyName, TenantName},
    policy::{Isolation, OnIdle, ScalingPolicy},
};
use serde::{Deserialize, Deserializer, de::Error};
use serde_saphyr::Spanned;

pub mod fields;
pub mod pod;

use crate::place::Place;
use fields::{Bytes, EnvName, EnvText, HostName, Only, OnlyEmpty, PortNumber, Span, UrlPath};
use pod::{Image, ObjectKey, ObjectName, PodSpec, Resources};

/// The one `apiVersion`.
pub const API_VERSION: &str = "mcp-gateway.dev/v1alpha1";

/// `apiVersion`, checked.
#[derive(Debug, Clone, Copy)]
pub struct ApiVersion;

impl<'de> Deserialize<'de> for ApiVersion {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let given = String::deserialize(from)?;
        if given == API_VERSION {
            Ok(Self)
        } else {
            let given: String = given.chars().take(80).collect();
            Err(D::Error::custom(format!(
                "{given:?} is not known; write {API_VERSION}"
            )))
        }
    }
}

/// `metadata`; labels and annotations are for the author.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Metadata<N> {
    /// The name.
    pub name: N,
    #[serde(default, rename = "labels")]
    _labels: Option<indexmap::IndexMap<String, String>>,
    #[serde(default, rename = "annotations")]
    _annotations: Option<indexmap::IndexMap<String, String>>,
}

/// `kind: McpBackend`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BackendDocument {
    #[serde(rename = "apiVersion")]
    _api_version: ApiVersion,
    #[serde(rename = "kind")]
    _kind: String,
    /// Its name.
    pub metadata: Metadata<BackendName>,
    /// What it says.
    pub spec: Spanned<BackendSpec>,
}

/// `spec` of an `McpBackend`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BackendSpec {
    /// For people.
    pub description: Option<String>,
    /// The image of its pods.
    pub image: Option<Spanned<Image>>,
    /// The program and its leading arguments.
    pub command: Option<Spanned<Vec<String>>>,
    /// Further arguments.
    pub args: Option<Vec<String>>,
    /// Where it runs, relative to the document's folder.
    pub working_dir: Option<Spanned<String>>,
    /// Its environment.
    pub env: Option<Vec<Spanned<EnvEntry>>>,
    /// What it speaks.
    pub transport: Option<Transport>,
    /// Where it listens in a pod; a process gets a free port as `$PORT`.
    pub port: Option<Spanned<PortNumber>>,
    /// The path of its endpoint.
    pub path: Option<Spanned<UrlPath>>,
    /// The `Host` header sent upstream.
    pub host: Option<Spanned<HostName>>,
    /// The probe.
    pub health_check: Option<Spanned<HealthCheck>>,
    /// A `ScalingPolicy` document.
    pub policy_ref: Option<Spanned<PolicyRef>>,
    /// The policy itself.
    pub policy: Option<Spanned<PolicySpec>>,
    /// Who may use it.
    pub tenants: Option<Vec<TenantName>>,
    #[serde(default, rename = "requiredRoles")]
    _required_roles: Option<OnlyEmpty>,
    /// How our agent gets into its pods.
    pub agent: Option<Spanned<AgentForm>>,
    /// What its pods may use.
    pub resources: Option<Spanned<Resources>>,
    /// What else its pods are like.
    pub pod: Option<Spanned<PodSpec>>,
}

/// One entry of `env`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EnvEntry {
    /// Its name.
    pub name: EnvName,
    /// Its value.
    pub value: Option<EnvText>,
    /// Where its value comes from.
    pub value_from: Option<ValueFrom>,
}

/// `valueFrom`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ValueFrom {
    /// A variable of the gateway's own environment.
    pub env: Option<EnvName>,
    /// A key of a Secret beside the backend.
    pub secret_key_ref: Option<KeySelector>,
    /// A key of a `ConfigMap` beside the backend.
    pub config_map_key_ref: Option<KeySelector>,
}

/// `secretKeyRef` and `configMapKeyRef`.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KeySelector {
    /// The object's name.
    pub name: ObjectName,
    /// The key in it.
    pub key: ObjectKey,
    /// Whether the server starts without it.
    #[serde(default)]
    pub optional: bool,
}

/// `healthCheck`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HealthCheck {
    /// Must answer 2xx.
    pub path: UrlPath,
}

/// `policyRef`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PolicyRef {
    /// Its name.
    pub name: PolicyName,
}

/// `kind: ScalingPolicy`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PolicyDocument {
    #[serde(rename = "apiVersion")]
    _api_version: ApiVersion,
    #[serde(rename = "kind")]
    _kind: String,
    /// Its name.
    pub metadata: Metadata<PolicyName>,
    /// What it says.
    pub spec: PolicySpec,
}

/// `kind: Tenant`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TenantDocument {
    #[serde(rename = "apiVersion")]
    _api_version: ApiVersion,
    #[serde(rename = "kind")]
    _kind: String,
    /// Its name.
    pub metadata: Metadata<TenantName>,
    /// What it says.
    #[serde(default)]
    pub spec: TenantSpec,
}

/// `spec` of a `Tenant`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TenantSpec {
    /// How people call it.
    pub display_name: Option<String>,
    /// For people.
    pub description: Option<String>,
}

/// `spec` of a `ScalingPolicy`, and an inline `policy`. What is absent has the default of the transport.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PolicySpec {
    isolation: Option<Isolation>,
    idle_timeout: Option<Span>,
    session_idle_timeout: Option<Span>,
    on_idle: Option<OnIdle>,
    start_timeout: Option<Span>,
    hold_timeout: Option<Span>,
    request_timeout: Option<Span>,
    max_slots: Option<Count>,
    max_pending: Option<Count>,
    max_pending_bytes: Option<Bytes>,
    drain_timeout: Option<Span>,
    session_lifetime: Option<Span>,
    #[serde(default, rename = "minInstances")]
    _min_instances: Option<Only<0>>,
    #[serde(default, rename = "maxInstances")]
    _max_instances: Option<Only<1>>,
    #[serde(default, rename = "warmPool")]
    _warm_pool: Option<Only<0>>,
}

/// A number from 1 to a million.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Count(u32);

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let given = u64::deserialize(from)?;
        u32::try_from(given)
            .ok()
            .filter(|n| (1..=1_000_000).contains(n))
            .map(Self)
            .ok_or_else(|| {
                D::Error::custom(format!(
                    "{given} is out of range; write a number from 1 to 1000000"
                ))
            })
    }
}

impl PolicySpec {
    /// The policy with every field filled in.
    #[must_use]
    pub fn resolve(&self, transport: Transport, place: Place) -> ScalingPolicy {
        let usual = match transport {
            Transport::Stdio => Isolation::Session,
            Transport::StreamableHttp | Transport::Sse => Isolation::Tenant,
        };
        let isolation = self.isolation.unwrap_or(usual);
        let base = match place {
            Place::Process => ScalingPolicy::for_processes(isolation),
            Place::Pod => ScalingPolicy::for_pods(isolation),
        };
        let or = |given: Option<Span>, default| given.map_or(default, |span| span.0);
        let count = |given: Option<Count>, default| given.map_or(default, |count| count.0);
        ScalingPolicy {
            isolation: base.isolation,
            idle_timeout: or(self.idle_timeout, base.idle_timeout),
            session_idle_timeout: or(self.session_idle_timeout, base.session_idle_timeout),
            on_idle: self.on_idle.unwrap_or(base.on_idle),
            start_timeout: or(self.start_timeout, base.start_timeout),
            hold_timeout: or(self.hold_timeout, base.hold_timeout),
            request_timeout: or(self.request_timeout, base.request_timeout),
            max_slots: count(self.max_slots, base.max_slots),
            max_pending: count(self.max_pending, base.max_pending),
            max_pending_bytes: self
                .max_pending_bytes
                .map_or(base.max_pending_bytes, |bytes| bytes.0),
            drain_timeout: or(self.drain_timeout, base.drain_timeout),
            session_lifetime: or(self.session_lifetime, base.session_lifetime),
        }
    }
}
