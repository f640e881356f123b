//! What people read of the loop.

use crate::core::event::Transition;

/// One line that a person can follow: `everything: cold → starting (1 waiting)`.
pub(super) fn log(t: &Transition) {
    let Transition {
        backend,
        owner,
        from,
        to,
        why,
        private,
        ..
    } = t;
    let instance = t.instance.map(|id| format!("{id:?}"));
    if t.trouble {
        tracing::warn!(
            %backend, slot = %owner, instance, from, to, why, stderr = private,
            "{backend}: {from} → {to} ({why})"
        );
    } else {
        tracing::info!(
            %backend, slot = %owner, instance, from, to, why,
            "{backend}: {from} → {to} ({why})"
        );
    }
}
