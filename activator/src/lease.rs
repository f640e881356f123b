//! The right to use an instance for one exchange. A guard: dropping it gives it back, if that was not done before.
//!
//! Invariants: a lease is first taken only while the instance's service is `Open`, in the critical section that drains
//! are applied in; the count of an instance is the number of its guards that live and were not given back.
//! Never: waits, allocates, or decides what a lease is needed for.

use std::{sync::Arc, time::Duration};

use mcp_gateway_api::{
    activity::InstanceActivity,
    ids::InstanceId,
    view::{InstanceView, Service},
};
use parking_lot::Mutex;
use tokio::{sync::watch, time::Instant};

use crate::directory::Outbox;

/// Why there is no lease to be had; a claim is the remedy for all but a cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotNow {
    /// It is gone for good.
    #[error("the instance is gone")]
    Gone,
    /// It takes no new lease.
    #[error("the instance is draining")]
    Draining(Service),
    /// The view does not know it; ask with [`crate::directory::Directory::resolve`].
    #[error("the instance is not known here")]
    Unknown,
}

/// Where an instance stands, for whoever watches one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    /// It runs; its service is this.
    In(Service),
    /// It is gone for good.
    Gone,
}

impl Life {
    /// Whether what is open on it must end now.
    #[must_use]
    pub const fn is_over(self) -> bool {
        match self {
            Self::Gone | Self::In(Service::Cut) => true,
            Self::In(Service::Open | Service::IdleDrain | Service::RetireDrain) => false,
        }
    }
}

/// One instance in the directory's table.
pub(crate) struct Entry {
    pub(crate) id: InstanceId,
    pub(crate) state: Mutex<State>,
    pub(crate) life: watch::Sender<Life>,
}

/// What the critical section protects.
pub(crate) struct State {
    pub(crate) view: Arc<InstanceView>,
    pub(crate) leases: u32,
    /// When the last lease ended; first seen, if there never was one.
    pub(crate) quiet_since: Instant,
    /// Whether it stands in the list of what the next report tells.
    pub(crate) dirty: bool,
    pub(crate) gone: bool,
}

impl State {
    /// Its use, as a report tells it.
    pub(crate) fn activity(&self, now: Instant) -> InstanceActivity {
        InstanceActivity {
            instance: self.view.id,
            leases: self.leases,
            idle_for: if self.leases > 0 {
                Duration::ZERO
            } else {
                now.saturating_duration_since(self.quiet_since)
            },
        }
    }
}

/// A lease.
pub struct Lease {
    entry: Arc<Entry>,
    view: Arc<InstanceView>,
    outbox: Arc<Outbox>,
    held: bool,
}

impl Lease {
    pub(crate) fn take(entry: Arc<Entry>, outbox: Arc<Outbox>) -> Result<Self, NotNow> {
        let (view, tell) = {
            let mut state = entry.state.lock();
            if state.gone {
                return Err(NotNow::Gone);
            }
            match state.view.service {
                Service::Open => {}
                drain @ (Service::IdleDrain | Service::RetireDrain | Service::Cut) => {
                    return Err(NotNow::Draining(drain));
                }
            }
            state.leases += 1;
            let tell = !std::mem::replace(&mut state.dirty, true);
            (Arc::clone(&state.view), tell)
        };
        if tell {
            outbox.report_soon(&entry);
        }
        Ok(Self {
            entry,
            view,
            outbox,
            held: true,
        })
    }

    /// The instance as it was when the lease was taken.
    #[must_use]
    pub const fn view(&self) -> &Arc<InstanceView> {
        &self.view
    }

    /// Which instance.
    #[must_use]
    pub fn instance(&self) -> InstanceId {
        self.entry.id
    }

    /// A second lease on the same instance, to be had even while it drains: the first one keeps it. What was given
    /// back keeps nothing, and yields its like.
    #[must_use]
    pub fn another(&self) -> Self {
        if self.held {
            self.entry.state.lock().leases += 1;
        }
        Self {
            entry: Arc::clone(&self.entry),
            view: Arc::clone(&self.view),
            outbox: Arc::clone(&self.outbox),
            held: self.held,
        }
    }

    /// Gives it back before it is dropped: nobody waits for the exchange any more. Its instance can still be watched.
    pub fn give_back(&mut self) {
        if std::mem::replace(&mut self.held, false) {
            self.release();
        }
    }

    /// Follows the instance's life; [`Life::is_over`] means that the exchange must end with a terminal error.
    #[must_use]
    pub fn life(&self) -> watch::Receiver<Life> {
        self.entry.life.subscribe()
    }

    /// Whether the instance is lost or cut by now.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.entry.life.borrow().is_over()
    }
}

impl Lease {
    fn release(&self) {
        let (tell, acknowledge) = {
            let mut state = self.entry.state.lock();
            // Every guard was counted when it was made; saturating only so that a fault here could not wrap.
            state.leases = state.leases.saturating_sub(1);
            state.quiet_since = Instant::now();
            if state.gone {
                return;
            }
            let tell = !std::mem::replace(&mut state.dirty, true);
            (tell, state.view.service != Service::Open)
        };
        if tell {
            self.outbox.report_soon(&self.entry);
        }
        if acknowledge {
            self.outbox.acknowledge(&self.entry);
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.give_back();
    }
}

impl std::fmt::Debug for Lease {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Lease").field(&self.entry.id).finish()
    }
}
