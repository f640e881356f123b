//! Whose slot an exchange without session is for.

use mcp_gateway_api::slot::SlotKey;

use crate::caller::Caller;

/// The slot of a caller's exchanges without session: principal, tenant or nobody, by isolation.
pub(crate) fn slot_of(caller: &Caller) -> SlotKey {
    SlotKey::of(
        &caller.backend.name,
        caller.backend.policy.isolation,
        &caller.principal.tenant,
        caller.principal.id,
        None,
    )
}
