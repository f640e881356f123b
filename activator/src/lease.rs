//! The right to use an instance for one exchange. A guard: dropping it gives it back, if that was not done before, by its
//! holder or because its [term](terms) was over.
//!
//! Invariants: a lease is first taken only while the instance's service is `Open`, in the critical section that drains
//! are applied in; the count of an instance is the number of its guards that live and were not given back.
//! Never: waits, allocates, or decides what a lease is needed for.

mod terms;

use std::{sync::Arc, time::Duration};

use mcp_gateway_api::{
    activity::InstanceActivity,
    ids::InstanceId,
    view::{InstanceView, Service},
};
use parking_lot::Mutex;
use tokio::{sync::watch, time::Instant};

use self::terms::Term;
pub(crate) use self::terms::Terms;
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
    /// Until when those are held at the longest that somebody may forget.
    pub(crate) terms: Terms,
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

    /// So many leases fewer: whether that is to be reported, and acknowledged.
    fn fewer(&mut self, leases: u32) -> (bool, bool) {
        // Every guard was counted when it was made; saturating only so that a fault here could not wrap.
        self.leases = self.leases.saturating_sub(leases);
        self.quiet_since = Instant::now();
        if self.gone {
            return (false, false);
        }
        let tell = !std::mem::replace(&mut self.dirty, true);
        (tell, self.view.service != Service::Open)
    }
}

impl Entry {
    /// Gives back the leases whose terms are over, or all that have one if the instance is cut: who holds them should have
    /// noticed, and cannot, because its client reads nothing.
    pub(crate) fn give_back_overdue(self: &Arc<Self>, outbox: &Outbox, now: Instant) {
        let cut = self.life.borrow().is_over();
        self.give_back(outbox, |ends| cut || ends <= now);
    }

    /// Gives back the leases with terms that are `over`.
    pub(crate) fn give_back(self: &Arc<Self>, outbox: &Outbox, over: impl Fn(Instant) -> bool) {
        let told = {
            let mut state = self.state.lock();
            let ended = state.terms.end_all(over);
            if ended == 0 {
                return;
            }
            state.fewer(ended)
        };
        self.tell(outbox, told);
    }

    fn tell(self: &Arc<Self>, outbox: &Outbox, (report, acknowledge): (bool, bool)) {
        if report {
            outbox.report_soon(self);
        }
        if acknowledge {
            outbox.acknowledge(self);
        }
    }
}

/// A lease.
pub struct Lease {
    entry: Arc<Entry>,
    view: Arc<InstanceView>,
    outbox: Arc<Outbox>,
    held: bool,
    term: Option<Term>,
}

impl Lease {
    pub(crate) fn take(
        entry: Arc<Entry>,
        outbox: Arc<Outbox>,
        until: Option<Instant>,
    ) -> Result<Self, NotNow> {
        let (view, term, tell) = {
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
            let term = until.map(|ends| state.terms.begin(ends));
            (Arc::clone(&state.view), term, tell)
        };
        if tell {
            outbox.report_soon(&entry);
        }
        Ok(Self {
            entry,
            view,
            outbox,
            held: true,
            term,
        })
    }

    /// What is to be used as a lease on an instance that retires, for what a session's messages say to whatever of it still
    /// runs there: it keeps nothing, so no drain is put off by it. `None` on any other instance.
    pub(crate) fn visit(entry: Arc<Entry>, outbox: Arc<Outbox>) -> Option<Self> {
        let view = {
            let state = entry.state.lock();
            let retires = !state.gone && state.view.service == Service::RetireDrain;
            retires.then(|| Arc::clone(&state.view))
        }?;
        Some(Self {
            entry,
            view,
            outbox,
            held: false,
            term: None,
        })
    }

    /// From `ends` on it is given back, whoever holds it, unless it has a term already.
    pub(crate) fn until(&mut self, ends: Instant) {
        if self.held && self.term.is_none() {
            self.term = Some(self.entry.state.lock().terms.begin(ends));
        }
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
        let held = self.held && {
            let mut state = self.entry.state.lock();
            let held = self.term.is_none_or(|term| state.terms.runs(term));
            state.leases += u32::from(held);
            held
        };
        Self {
            entry: Arc::clone(&self.entry),
            view: Arc::clone(&self.view),
            outbox: Arc::clone(&self.outbox),
            held,
            term: None,
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
        let told = {
            let mut state = self.entry.state.lock();
            // Over before, it has been given back.
            if self.term.is_some_and(|term| !state.terms.end(term)) {
                return;
            }
            state.fewer(1)
        };
        self.entry.tell(&self.outbox, told);
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
