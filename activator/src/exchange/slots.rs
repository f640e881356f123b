//! Whose slot an exchange without session is for.

use http::HeaderValue;
use mcp_gateway_api::{policy::Isolation, slot::SlotKey};

use crate::{caller::Caller, memory::MemoryKey};

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

/// Who a bridge keeps apart, as the slot does.
pub(crate) fn owner_of(caller: &Caller) -> Option<HeaderValue> {
    let text = match caller.backend.policy.isolation {
        Isolation::Session => {
            let id = caller.principal.id.0;
            id.iter().map(|byte| format!("{byte:02x}")).collect()
        }
        Isolation::Tenant => caller.principal.tenant.as_str().to_owned(),
        Isolation::Shared => return None,
    };
    HeaderValue::from_str(&text).ok()
}

/// What memory of its server a caller shares.
pub(crate) fn memory_key(caller: &Caller) -> MemoryKey {
    MemoryKey {
        backend: (caller.backend.name.clone(), caller.backend.generation),
        owner: slot_of(caller).owner,
    }
}
