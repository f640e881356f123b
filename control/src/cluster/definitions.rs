//! The definitions of the three kinds, as text that `kubectl apply` takes.

use mcp_gateway_api::crds;

/// What precedes the definitions.
const HEAD: &str = "# Made by 'mcp-gateway crds > dev/manifests/crds.yaml'. Do not edit.\n";

/// All definitions as YAML documents.
///
/// # Errors
/// A definition cannot be written as YAML, which a test rules out.
pub fn yaml() -> Result<String, serde_saphyr::ser::Error> {
    let mut text = HEAD.to_owned();
    for definition in crds::all() {
        text.push_str("---\n");
        text.push_str(&serde_saphyr::to_string(&definition)?);
    }
    Ok(text)
}
