//! What the accounts of the roles may do, asked of the API server itself: what stands here, and nothing else.

use futures_util::{StreamExt, stream};
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec,
};
use kube::{Api, Client, api::PostParams};

use super::Installation;

/// What might be asked for: group, resource, subresource.
const RESOURCES: [(&str, &str, &str); 26] = [
    ("", "pods", ""),
    ("", "pods", "log"),
    ("", "pods", "exec"),
    ("", "pods", "status"),
    ("", "secrets", ""),
    ("", "configmaps", ""),
    ("", "events", ""),
    ("", "services", ""),
    ("", "serviceaccounts", ""),
    ("", "serviceaccounts", "token"),
    ("", "namespaces", ""),
    ("", "nodes", ""),
    ("events.k8s.io", "events", ""),
    ("apps", "deployments", ""),
    ("coordination.k8s.io", "leases", ""),
    ("rbac.authorization.k8s.io", "roles", ""),
    ("rbac.authorization.k8s.io", "rolebindings", ""),
    ("networking.k8s.io", "networkpolicies", ""),
    ("apiextensions.k8s.io", "customresourcedefinitions", ""),
    ("mcp-gateway.dev", "mcpbackends", ""),
    ("mcp-gateway.dev", "mcpbackends", "status"),
    ("mcp-gateway.dev", "mcpbackends", "finalizers"),
    ("mcp-gateway.dev", "scalingpolicies", ""),
    ("mcp-gateway.dev", "scalingpolicies", "status"),
    ("mcp-gateway.dev", "tenants", ""),
    ("mcp-gateway.dev", "tenants", "status"),
];
const VERBS: [&str; 8] = [
    "get",
    "list",
    "watch",
    "create",
    "update",
    "patch",
    "delete",
    "deletecollection",
];

/// Where somebody might want to do it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Servers,
    System,
    Elsewhere,
}

/// The verbs that an account needs. Whatever is not here must be refused.
fn needed(account: &str, place: Place, what: (&str, &str, &str)) -> &'static [&'static str] {
    const FOLLOW: &[&str] = &["list", "watch"];
    match (account, place, what) {
        (
            "mcp-gateway-activator",
            Place::Servers,
            ("mcp-gateway.dev", "mcpbackends" | "scalingpolicies" | "tenants", ""),
        ) => FOLLOW,
        ("mcp-gateway-autoscaler" | "mcp-gateway", Place::Servers, what) => match what {
            ("mcp-gateway.dev", "scalingpolicies" | "tenants", "") => FOLLOW,
            ("mcp-gateway.dev", "mcpbackends", "") => &["list", "watch", "patch"],
            ("mcp-gateway.dev", "mcpbackends" | "scalingpolicies" | "tenants", "status") => {
                &["patch"]
            }
            ("", "pods", "") => &["get", "list", "watch", "create", "patch", "delete"],
            ("", "pods", "log") | ("", "secrets" | "configmaps", "") => &["get"],
            ("events.k8s.io", "events", "") => &["create", "patch"],
            _ => &[],
        },
        ("mcp-gateway-autoscaler", Place::System, what) => match what {
            // Its own lease by name, which is asked for below.
            ("coordination.k8s.io", "leases", "") => &["create"],
            ("", "pods", "") => &["list", "watch"],
            _ => &[],
        },
        _ => &[],
    }
}

/// One question to the API server.
async fn may(client: Client, account: String, asked: ResourceAttributes) -> bool {
    let (system, _) = account.split_once(':').expect("namespace and name");
    let groups = ["system:authenticated", "system:serviceaccounts"].map(str::to_owned);
    let own = format!("system:serviceaccounts:{system}");
    let review = SubjectAccessReview {
        spec: SubjectAccessReviewSpec {
            user: Some(format!("system:serviceaccount:{account}")),
            groups: Some([&groups[..], &[own]].concat()),
            resource_attributes: Some(asked),
            ..SubjectAccessReviewSpec::default()
        },
        ..SubjectAccessReview::default()
    };
    let all: Api<SubjectAccessReview> = Api::all(client);
    let answer = all.create(&PostParams::default(), &review).await;
    answer
        .expect("an answer")
        .status
        .expect("a verdict")
        .allowed
}

fn asked(
    namespace: &str,
    (group, resource, sub): (&str, &str, &str),
    verb: &str,
) -> ResourceAttributes {
    ResourceAttributes {
        namespace: Some(namespace.to_owned()),
        group: Some(group.to_owned()),
        resource: Some(resource.to_owned()),
        subresource: Some(sub.to_owned()),
        verb: Some(verb.to_owned()),
        ..ResourceAttributes::default()
    }
}

/// Each of these accounts may do what it needs and nothing else of all that might be asked for.
pub(super) async fn least_privilege(installed: &Installation, accounts: &[&str]) {
    let places = [
        (Place::Servers, installed.namespace.as_str()),
        (Place::System, installed.system.as_str()),
        (Place::Elsewhere, "default"),
    ];
    let mut questions = Vec::new();
    for account in accounts {
        for (place, namespace) in places {
            for what in RESOURCES {
                for verb in VERBS {
                    let expected = needed(account, place, what).contains(&verb);
                    let attributes = asked(namespace, what, verb);
                    let client = installed.client.clone();
                    let full = format!("{}:{account}", installed.system);
                    questions.push(async move {
                        let allowed = may(client, full, attributes).await;
                        let told = || format!("{account} {verb} {what:?} in {place:?}: {allowed}");
                        (allowed != expected).then(told)
                    });
                }
            }
        }
    }
    let wrong: Vec<String> = stream::iter(questions)
        .buffer_unordered(8)
        .filter_map(std::future::ready)
        .collect()
        .await;
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// The autoscaler may use the lease by which it stands for election, and no other.
pub(super) async fn its_lease_alone(installed: &Installation) {
    let lease = ("coordination.k8s.io", "leases", "");
    for (name, verb, expected) in [
        ("mcp-gateway-mcp-gateway", "get", true),
        ("mcp-gateway-mcp-gateway", "update", true),
        ("mcp-gateway-mcp-gateway", "delete", false),
        ("somebody-elses", "get", false),
        ("somebody-elses", "update", false),
    ] {
        let attributes = ResourceAttributes {
            name: Some(name.to_owned()),
            ..asked(&installed.system, lease, verb)
        };
        let account = format!("{}:mcp-gateway-autoscaler", installed.system);
        let allowed = may(installed.client.clone(), account, attributes).await;
        assert_eq!(allowed, expected, "{verb} {name}");
    }
}
