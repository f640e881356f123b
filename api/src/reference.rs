//! Which Secrets and `ConfigMap`s a backend may use: only those labelled for it, or for the tenant it works for. Whoever may
//! write documents must not be able to read every Secret beside them.

use std::{collections::BTreeMap, fmt};

use crate::ids::{BackendName, TenantName};

/// Its value is the one backend that may use the object.
pub const BACKEND_LABEL: &str = "mcp-gateway.dev/backend";
/// Its value is the one tenant for whose work the object may be used.
pub const TENANT_LABEL: &str = "mcp-gateway.dev/tenant";

/// Why an object may not be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unusable {
    /// It bears neither label.
    Unlabelled,
    /// It is another backend's.
    OtherBackend,
    /// It is a tenant's for whom this instance does not work.
    OtherTenant,
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unlabelled => "it is not labelled for this backend",
            Self::OtherBackend => "it is labelled for another backend",
            Self::OtherTenant => "it is labelled for a tenant this does not work for",
        })
    }
}

/// Whether an object with these labels may be used by an instance of `backend` that works for one of `tenants`.
///
/// Every label that is there must fit, and one must be there.
///
/// # Errors
/// It may not.
pub fn usable<'t>(
    labels: &BTreeMap<String, String>,
    backend: &BackendName,
    tenants: impl IntoIterator<Item = &'t TenantName>,
) -> Result<(), Unusable> {
    let of_backend = labels.get(BACKEND_LABEL);
    let of_tenant = labels.get(TENANT_LABEL);
    if of_backend.is_none() && of_tenant.is_none() {
        return Err(Unusable::Unlabelled);
    }
    if of_backend.is_some_and(|name| name != backend.as_str()) {
        return Err(Unusable::OtherBackend);
    }
    match of_tenant {
        Some(name) if !tenants.into_iter().any(|t| t.as_str() == name) => {
            Err(Unusable::OtherTenant)
        }
        Some(_) | None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_labelled_for_the_backend_or_its_tenant_is_usable() {
        let name = |text| BackendName::new(text).expect("a DNS label");
        let tenant = |text| TenantName::new(text).expect("a DNS label");
        let labels = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
            let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
            pairs.iter().map(owned).collect()
        };
        let ours = [tenant("a")];
        for (given, tenants, verdict) in [
            (vec![], &ours[..], Err(Unusable::Unlabelled)),
            (vec![("app", "x")], &ours, Err(Unusable::Unlabelled)),
            (vec![(BACKEND_LABEL, "x")], &ours, Ok(())),
            (vec![(BACKEND_LABEL, "x")], &[], Ok(())),
            (
                vec![(BACKEND_LABEL, "y")],
                &ours,
                Err(Unusable::OtherBackend),
            ),
            (vec![(TENANT_LABEL, "a")], &ours, Ok(())),
            (vec![(TENANT_LABEL, "b")], &ours, Err(Unusable::OtherTenant)),
            (vec![(TENANT_LABEL, "a")], &[], Err(Unusable::OtherTenant)),
            (
                vec![(BACKEND_LABEL, "y"), (TENANT_LABEL, "a")],
                &ours,
                Err(Unusable::OtherBackend),
            ),
            (
                vec![(BACKEND_LABEL, "x"), (TENANT_LABEL, "b")],
                &ours,
                Err(Unusable::OtherTenant),
            ),
        ] {
            assert_eq!(
                usable(&labels(&given), &name("x"), tenants),
                verdict,
                "{given:?}"
            );
        }
    }
}
