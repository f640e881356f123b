//! What pods are called and how they are found again: names, labels, annotations. Pure.
//!
//! Invariants: a name follows from (installation, slot, ordinal, generation) alone, so two leaders that want the same
//! pod collide instead of making two; every name is a DNS label; what a label says is never a secret and always a
//! valid label value.

use std::collections::BTreeMap;

use mcp_gateway_api::{
    ids::{BackendName, Generation, TenantName},
    slot::SlotKey,
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Which installation a pod belongs to; every list and watch selects by it.
pub const INSTALLATION: &str = "mcp-gateway.dev/installation";
/// Hash of the slot.
pub const SLOT: &str = "mcp-gateway.dev/slot";
/// The backend's name.
pub const BACKEND: &str = "mcp-gateway.dev/backend";
/// The tenant's name.
pub const TENANT: &str = "mcp-gateway.dev/tenant";
/// Kubernetes' own label for who made it.
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// The value of [`MANAGED_BY`].
pub const MANAGER: &str = "mcp-gateway";
/// Annotation: everything a later leader must know of the pod ([`Facts`]), as JSON.
pub const FACTS: &str = "mcp-gateway.dev/instance";
/// Annotation: hash of everything in the pod but its token.
pub const SPEC_HASH: &str = "mcp-gateway.dev/spec-hash";
/// Annotation: the leadership term that ended it.
pub const ENDED_BY: &str = "mcp-gateway.dev/terminated-by-epoch";
/// Annotation: the leadership term that took it over from an older one.
pub const ADOPTED_BY: &str = "mcp-gateway.dev/adopted-by-epoch";
/// Annotation: its launch token has been used.
pub const SPENT: &str = "mcp-gateway.dev/called-home";

/// Characters of the backend's name that a pod's name begins with.
const PREFIX: usize = 40;
/// Bytes of the hash in a pod's name, 2 characters each.
const NAME_HASH: usize = 8;
/// Bytes of a slot's hash in its label.
const SLOT_HASH: usize = 16;

/// What a later leader must know of a pod that no agent tells it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Facts {
    pub(crate) slot: SlotKey,
    pub(crate) tenant: TenantName,
    /// Of the backend's document.
    pub(crate) generation: Generation,
    /// The how-manieth pod of its slot.
    pub(crate) number: u64,
    pub(crate) form: super::forms::Form,
    pub(crate) port: u16,
    pub(crate) path: String,
    pub(crate) host: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) health_path: Option<String>,
    /// Whether requests go to a bridge, which must be shown the instance's secret.
    #[serde(default)]
    pub(crate) bridge: bool,
}

fn hash(parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn slot_bytes(slot: &SlotKey) -> Vec<u8> {
    // The types are plain: strings, byte arrays, unit variants. An empty text would only make hashes collide.
    serde_json::to_vec(slot).unwrap_or_default()
}

/// The value of the label [`SLOT`].
pub(crate) fn slot_hash(installation: &str, slot: &SlotKey) -> String {
    let all = hash(&[installation.as_bytes(), &slot_bytes(slot)]);
    hex(all.split_at(SLOT_HASH).0)
}

/// The name of a slot's pod: `ordinal` is its place beside others of the slot, `number` counts those before it.
pub(crate) fn pod_name(installation: &str, slot: &SlotKey, ordinal: u32, number: u64) -> String {
    let all = hash(&[
        installation.as_bytes(),
        &slot_bytes(slot),
        &ordinal.to_be_bytes(),
        &number.to_be_bytes(),
    ]);
    let backend = slot.backend.as_str();
    let prefix: String = backend.chars().take(PREFIX).collect();
    format!(
        "{}-{}",
        prefix.trim_end_matches('-'),
        hex(all.split_at(NAME_HASH).0)
    )
}

/// Our labels.
pub(crate) fn labels(
    installation: &str,
    slot: &SlotKey,
    tenant: &TenantName,
) -> BTreeMap<String, String> {
    [
        (INSTALLATION, installation.to_owned()),
        (SLOT, slot_hash(installation, slot)),
        (BACKEND, slot.backend.to_string()),
        (TENANT, tenant.to_string()),
        (MANAGED_BY, MANAGER.to_owned()),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into()
}

/// Selects the installation's pods.
pub(crate) fn selector(installation: &str) -> String {
    format!("{INSTALLATION}={installation},{MANAGED_BY}={MANAGER}")
}

/// Whether a Secret or `ConfigMap` with these labels may be used by that backend for that tenant; none for an instance
/// that everybody shares, which is no tenant's. The registry judges by the same rule.
#[must_use]
pub fn may_use(
    labels: &BTreeMap<String, String>,
    backend: &BackendName,
    tenant: Option<&TenantName>,
) -> bool {
    mcp_gateway_api::reference::usable(labels, backend, tenant).is_ok()
}

/// The hash of what was rendered.
pub(crate) fn spec_hash(rendered: &[u8]) -> String {
    hex(&hash(&[rendered]))
}

#[cfg(test)]
mod tests {
    use mcp_gateway_api::{ids::SessionKey, slot::Owner};
    use proptest::prelude::*;

    use super::*;

    fn slot(backend: &str, session: Option<[u8; 24]>) -> SlotKey {
        SlotKey {
            backend: BackendName::new(backend).unwrap(),
            owner: session.map_or(Owner::Nobody, |key| Owner::Session(SessionKey(key))),
        }
    }

    proptest! {
        #[test]
        fn every_name_is_a_dns_label(
            backend in "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", session: Option<[u8; 24]>, number: u64,
        ) {
            let name = pod_name("prod", &slot(&backend, session), 0, number);
            prop_assert!(BackendName::new(&name).is_ok(), "{}", name);
        }

        #[test]
        fn whatever_differs_makes_another_name(
            a: (u32, u64, Option<[u8; 24]>), b: (u32, u64, Option<[u8; 24]>),
        ) {
            let name = |(ordinal, number, session)| pod_name("prod", &slot("time", session), ordinal, number);
            prop_assert_eq!(name(a) == name(b), a == b);
        }

        #[test]
        fn facts_are_read_as_they_were_written(session: Option<[u8; 24]>, number: u64, port: u16) {
            let facts = Facts {
                slot: slot("time", session),
                tenant: TenantName::default(),
                generation: Generation(number ^ 1),
                number,
                form: super::super::forms::Form::Init,
                port,
                path: "/mcp".into(),
                host: "localhost".into(),
                health_path: None,
                bridge: true,
            };
            let text = serde_json::to_string(&facts).unwrap();
            prop_assert_eq!(serde_json::from_str::<Facts>(&text).unwrap(), facts);
        }
    }

    #[test]
    fn installations_do_not_share_names() {
        let slot = slot("time", None);
        assert_ne!(pod_name("a", &slot, 0, 1), pod_name("b", &slot, 0, 1));
        assert_ne!(slot_hash("a", &slot), slot_hash("b", &slot));
    }

    #[test]
    fn an_object_is_usable_only_if_it_is_labelled_for_the_backend_or_the_tenant() {
        let (backend, tenant) = (BackendName::new("github").unwrap(), TenantName::default());
        let with = |key: &str, value: &str| [(key.to_owned(), value.to_owned())].into();
        assert!(may_use(&with(BACKEND, "github"), &backend, Some(&tenant)));
        assert!(may_use(&with(TENANT, "default"), &backend, Some(&tenant)));
        assert!(!may_use(&with(TENANT, "default"), &backend, None));
        assert!(!may_use(&with(BACKEND, "default"), &backend, Some(&tenant)));
        assert!(!may_use(&BTreeMap::new(), &backend, Some(&tenant)));
    }
}
