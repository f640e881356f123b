use mcp_gateway_api::{ids::BackendName, slot::Owner};
use proptest::prelude::*;

use super::*;

fn slot(name: &str) -> HoldKey {
    SlotKey {
        backend: BackendName::new(name).unwrap(),
        owner: Owner::Nobody,
    }
}

fn tenant(name: &str) -> TenantName {
    TenantName::new(name).unwrap()
}

fn bound(exchanges: u32, bytes: u64) -> Bound {
    Bound { exchanges, bytes }
}

#[test]
fn each_bound_is_met_on_its_own() {
    let holds = Holds::new(HoldBounds {
        tenant: bound(3, 1_000),
        whole: bound(4, 2_000),
    });
    let (a, b) = (slot("a"), slot("b"));
    let (t, u, v) = (tenant("t"), tenant("u"), tenant("v"));
    let two = bound(2, 100);
    let _one = holds.admit(&a, &t, 60, two).unwrap();
    assert_eq!(holds.admit(&a, &t, 60, two).err(), Some(Overflow::Slot));
    let second = holds.admit(&a, &t, 10, two).unwrap();
    assert_eq!(holds.admit(&a, &u, 1, two).err(), Some(Overflow::Slot));
    let _third = holds.admit(&b, &t, 1, two).unwrap();
    assert_eq!(
        holds.admit(&slot("c"), &t, 1, two).err(),
        Some(Overflow::Tenant)
    );
    let _fourth = holds.admit(&slot("c"), &u, 1, two).unwrap();
    assert_eq!(
        holds.admit(&slot("d"), &v, 1, two).err(),
        Some(Overflow::Whole)
    );
    drop(second);
    assert!(holds.admit(&a, &t, 40, two).is_ok());
}

proptest! {
    #[test]
    fn what_is_let_go_leaves_nothing_behind(steps in proptest::collection::vec((0..4_u8, 0..3_u8, 0..50_u64, any::<bool>()), 0..200)) {
        let holds = Holds::new(HoldBounds { tenant: bound(20, 500), whole: bound(40, 900) });
        let mut held = Vec::new();
        for (s, t, bytes, release) in steps {
            if release && !held.is_empty() {
                held.swap_remove(0);
                continue;
            }
            let guard = holds.admit(&slot(&format!("s{s}")), &tenant(&format!("t{t}")), bytes, bound(10, 300));
            held.extend(guard.ok());
            let counts = holds.counts.lock();
            prop_assert_eq!(counts.whole.exchanges as usize, held.len());
            prop_assert!(counts.whole.bytes <= 900);
        }
        held.clear();
        let counts = holds.counts.lock();
        prop_assert!(counts.slots.is_empty() && counts.tenants.is_empty());
        prop_assert_eq!((counts.whole.exchanges, counts.whole.bytes), (0, 0));
    }
}
