//! What outlives a leader, and so what a new one is told: everything this activator knows, as it stood when the leader asked for it.
//!
//! Invariants: read in one critical section of the table, so that an instance is in one of the lists whatever happens to
//! it meanwhile. Nothing that no leader has told is in it. Never: takes anything off what the next report tells, for a
//! restatement may be lost.

use mcp_gateway_api::{
    activity::{ActivityReport, InstanceActivity},
    ids::{InstanceId, SessionKey},
    record::{SessionNews, SessionUpdate},
    scaler::Restatement,
    view::InstanceView,
};
use tokio::{sync::watch, time::Instant};

use super::{Directory, Number, records::Teller};

/// The last snapshot.
#[derive(Debug, Clone, Copy)]
pub(super) struct Heard {
    pub(super) epoch: u64,
    pub(super) complete: bool,
}

impl Default for Heard {
    /// Nobody has asked for anything yet.
    fn default() -> Self {
        Self {
            epoch: 0,
            complete: true,
        }
    }
}

impl Heard {
    /// Who says what is said now.
    pub(super) const fn teller(self) -> Teller {
        if self.complete {
            Teller::Knower
        } else {
            Teller::Beginner
        }
    }
}

impl Directory {
    /// Changes when the leader of a new term has told all there is: what of the own news it did not tell is lost with the
    /// leader before it ([`Directory::untold`]).
    pub(crate) fn terms(&self) -> watch::Receiver<u64> {
        self.inner.terms.subscribe()
    }

    /// Sessions of which the view has not told what was recorded here, though it ought to have.
    pub(crate) fn untold(&self) -> Vec<SessionKey> {
        self.inner.records.read().untold()
    }

    /// What it has not told of one session, oldest first, as far as it still holds: a session lives on nothing that is
    /// gone.
    pub(crate) fn untold_of(&self, key: &SessionKey) -> Vec<(Number, SessionUpdate)> {
        let mut untold = self.inner.records.read().untold_of(key);
        let gone = self.inner.gone.lock();
        untold.retain(|(_, update)| match &update.news {
            SessionNews::Revived(binding) => !gone.set.contains(&binding.instance),
            SessionNews::Opened(_)
            | SessionNews::Sessionless(_)
            | SessionNews::RevivalFailed { .. }
            | SessionNews::Asleep
            | SessionNews::LogLevel(_)
            | SessionNews::Subscribed(_)
            | SessionNews::Unsubscribed(_)
            | SessionNews::Ended => true,
        });
        untold
    }

    /// This activator holds the permit to revive a session, until [`Directory::permit_over`].
    pub(crate) fn permitted(&self, session: SessionKey, on: InstanceId) {
        self.inner.permits.lock().add(session, on, Instant::now());
    }

    /// The control plane has been told what came of the permit.
    pub(crate) fn permit_over(&self, session: &SessionKey) {
        self.inner.permits.lock().remove(session);
    }

    /// The term whose leader asks to be told everything; `None` once it has heard everybody.
    pub(super) fn asked_by(&self) -> Option<u64> {
        let heard = *self.inner.heard.lock();
        (!heard.complete).then_some(heard.epoch)
    }

    /// Everything, for the leader of that term, in this activator's report of that number.
    pub(crate) fn restatement(&self, epoch: u64, sequence: u64) -> Restatement {
        let now = Instant::now();
        let table = self.inner.table.read();
        let entries = table.values().filter_map(|entry| {
            let state = entry.state.lock();
            let known = (InstanceView::clone(&state.view), state.activity(now));
            (!state.gone).then_some(known)
        });
        let (instances, uses): (Vec<InstanceView>, Vec<InstanceActivity>) = entries.unzip();
        let gone = self.inner.gone.lock().order.iter().copied().collect();
        drop(table);
        Restatement {
            epoch,
            report: ActivityReport {
                activator: self.inner.activator,
                sequence,
                full: true,
                instances: uses,
            },
            instances,
            records: self.inner.records.read().told(),
            gone,
            permits: self.inner.permits.lock().held(now),
        }
    }
}
