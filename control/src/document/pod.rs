//! Types of the fields that only pods have: images, references, quantities, and the allow-list of what a document may
//! say of its pods.

use std::{collections::BTreeMap, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{Error, Visitor},
};

/// The reference of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image(pub String);

impl<'de> Deserialize<'de> for Image {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        let fine = |b: u8| b.is_ascii_alphanumeric() || b"-._:/@".contains(&b);
        let edge = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
        let bytes = text.as_bytes();
        let whole = edge(bytes.first()) && edge(bytes.last()) && bytes.len() <= 512;
        if whole && bytes.iter().all(|b| fine(*b)) {
            Ok(Self(text))
        } else {
            let given: String = text.chars().take(80).collect();
            Err(D::Error::custom(format!(
                "{given:?} is no image; write a reference such as ghcr.io/example/server:v1"
            )))
        }
    }
}

/// Whether the text is a DNS subdomain (RFC 1123), as most Kubernetes objects are named.
#[must_use]
pub fn is_subdomain(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let label = |label: &str| {
        let bytes = label.as_bytes();
        let edges = [bytes.first(), bytes.last()];
        edges.iter().all(|b| b.is_some_and(|b| *b != b'-')) && bytes.iter().all(|b| inner(*b))
    };
    text.len() <= 253 && text.split('.').all(label)
}

/// The name of a Kubernetes object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectName(pub String);

impl<'de> Deserialize<'de> for ObjectName {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        if is_subdomain(&text) {
            Ok(Self(text))
        } else {
            let given: String = text.chars().take(80).collect();
            Err(D::Error::custom(format!(
                "{given:?} is no name of a Kubernetes object; write one of a-z, 0-9, '-' and '.', as kubectl shows it"
            )))
        }
    }
}

/// A key in a Secret or `ConfigMap`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectKey(pub String);

impl<'de> Deserialize<'de> for ObjectKey {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        let fine = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
        if !text.is_empty() && text.len() <= 253 && text.bytes().all(fine) {
            Ok(Self(text))
        } else {
            let given: String = text.chars().take(80).collect();
            Err(D::Error::custom(format!(
                "{given:?} is no key of a Secret or ConfigMap; write one of letters, digits, '-', '_' and '.'"
            )))
        }
    }
}

/// An amount as Kubernetes writes it: `50m`, `64Mi`, `2`.
#[derive(Debug, Clone, PartialEq)]
pub struct Quantity {
    /// As it was written.
    pub text: String,
    /// As a number, for comparing two.
    pub value: f64,
}

/// Suffixes and what they stand for.
const UNITS: [(&str, f64); 16] = [
    ("Ki", 1024.0),
    ("Mi", 1_048_576.0),
    ("Gi", 1_073_741_824.0),
    ("Ti", 1_099_511_627_776.0),
    ("Pi", 1_125_899_906_842_624.0),
    ("Ei", 1_152_921_504_606_846_976.0),
    ("n", 1e-9),
    ("u", 1e-6),
    ("m", 1e-3),
    ("k", 1e3),
    ("M", 1e6),
    ("G", 1e9),
    ("T", 1e12),
    ("P", 1e15),
    ("E", 1e18),
    ("", 1.0),
];

impl Quantity {
    /// Reads an amount of 0 or more.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (number, factor) = UNITS
            .iter()
            .find_map(|(unit, factor)| text.strip_suffix(unit).map(|rest| (rest, *factor)))?;
        // Only what Kubernetes reads too: `inf` and signs are numbers to Rust.
        let plain = number
            .bytes()
            .all(|b| b.is_ascii_digit() || b".eE".contains(&b));
        let value: f64 = number.parse().ok().filter(|_| plain)?;
        let value = value * factor;
        (text.len() <= 40 && value.is_finite()).then(|| Self {
            text: text.to_owned(),
            value,
        })
    }
}

struct QuantityVisitor;

impl Visitor<'_> for QuantityVisitor {
    type Value = Quantity;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an amount, such as 50m or 64Mi")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Quantity, E> {
        Quantity::parse(text).ok_or_else(|| {
            let given: String = text.chars().take(40).collect();
            E::custom(format!(
                "{given:?} is no amount; write one such as 50m for cpu or 64Mi for memory"
            ))
        })
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Quantity, E> {
        self.visit_str(&number.to_string())
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Quantity, E> {
        self.visit_str(&number.to_string())
    }
}

impl<'de> Deserialize<'de> for Quantity {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_str(QuantityVisitor)
    }
}

/// `resources`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Resources {
    /// What is set aside for a pod.
    #[serde(default)]
    pub requests: BTreeMap<String, Quantity>,
    /// What it may use at most.
    #[serde(default)]
    pub limits: BTreeMap<String, Quantity>,
}

/// One entry of `imagePullSecrets`.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PullSecret {
    /// The Secret's name.
    pub name: ObjectName,
}

/// `imagePullPolicy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum PullPolicy {
    /// At every start.
    Always,
    /// When the node has it not.
    IfNotPresent,
    /// Never: it must be there.
    Never,
}

impl PullPolicy {
    /// As Kubernetes writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Always => "Always",
            Self::IfNotPresent => "IfNotPresent",
            Self::Never => "Never",
        }
    }
}

/// `pod`: all that a document may say of its pods beyond image, command and resources. What is not listed here cannot
/// be said: host networks, volumes, security contexts, service accounts.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PodSpec {
    /// Further labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Further annotations.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
    /// Labels its nodes must have.
    #[serde(default)]
    pub node_selector: BTreeMap<String, String>,
    /// As Kubernetes writes them.
    #[serde(default)]
    pub tolerations: Vec<serde_json::Value>,
    /// As Kubernetes writes it.
    pub affinity: Option<serde_json::Value>,
    /// As Kubernetes writes them.
    #[serde(default)]
    pub topology_spread_constraints: Vec<serde_json::Value>,
    /// A `PriorityClass`.
    pub priority_class_name: Option<ObjectName>,
    /// A `RuntimeClass`.
    pub runtime_class_name: Option<ObjectName>,
    /// Secrets for pulling the image.
    #[serde(default)]
    pub image_pull_secrets: Vec<PullSecret>,
    /// When the image is pulled.
    pub image_pull_policy: Option<PullPolicy>,
}
