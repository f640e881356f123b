//! Permits to revive a session: to whom one was given, and when it ends.
//!
//! Invariants: at most one permit to revive a session is out at a time, and it belongs to a claim; it ends by news, by
//! its time, or with the instance it was for, and then those who waited for its outcome are placed anew.

use std::collections::BTreeSet;

use mcp_gateway_api::{
    claim::{Claimed, Standing},
    ids::{ClaimId, InstanceId, SessionKey},
    record::{REVIVAL_PERMIT, SessionRef},
};
use tokio::time::Instant;

use super::{Core, Ticket, WaiterId, claims::Place, event::Note, timers::Timer};

/// A permit that is out.
#[derive(Debug)]
pub(super) struct Revival {
    ticket: Ticket,
    alarm: Option<Instant>,
    /// Who holds it; `None` if an earlier leader gave it.
    holder: Option<Holder>,
    /// Those who wait for its outcome.
    pub(super) queue: BTreeSet<WaiterId>,
}

/// The claim that a permit answered. It is the holder, not the answer: one that never arrived is given again.
#[derive(Debug)]
struct Holder {
    claim: ClaimId,
    /// Answers that have not come back undelivered.
    answers: u32,
}

impl Core {
    /// The permit for who asks, unless another claim has it: then who asks waits for what comes of it.
    pub(super) fn permit(
        &mut self,
        id: WaiterId,
        session: &SessionRef,
        ticket: Ticket,
    ) -> Option<Standing> {
        let claim = self.waiters.get(&id)?.request.id;
        if let Some(revival) = self.revivals.get_mut(&session.key) {
            if let Some(holder) = &mut revival.holder
                && holder.claim == claim
                && revival.ticket == ticket
            {
                // It would not ask if the answer had reached it.
                holder.answers += 1;
                let over = Some(self.now + REVIVAL_PERMIT);
                self.timers
                    .set(&mut revival.alarm, over, Timer::Permit(session.key));
                return Some(Standing::Revive);
            }
            revival.queue.insert(id);
            let waiter = self.waiters.get_mut(&id)?;
            if let Place::Slot(slot) =
                std::mem::replace(&mut waiter.place, Place::Revival(session.key))
                && let Some(slot) = self.slots.get_mut(&slot)
            {
                slot.waiters.remove(&id);
            }
            return None;
        }
        let holder = Holder { claim, answers: 1 };
        self.give_permit(session.key, ticket, Some(holder));
        self.note(Note::Reviving(session.backend.clone()));
        Some(Standing::Revive)
    }

    fn give_permit(&mut self, key: SessionKey, ticket: Ticket, holder: Option<Holder>) {
        let mut revival = Revival {
            ticket,
            alarm: None,
            holder,
            queue: BTreeSet::new(),
        };
        let over = Some(self.now + REVIVAL_PERMIT);
        self.timers
            .set(&mut revival.alarm, over, Timer::Permit(key));
        self.revivals.insert(key, revival);
        if let Some(instance) = self.instances.get_mut(&ticket) {
            instance.permits.insert(key);
        }
    }

    /// An earlier leader gave this permit, and it is still held.
    pub(super) fn permitted(&mut self, key: SessionKey, on: InstanceId) {
        let Some(ticket) = self.by_id.get(&on).copied() else {
            return;
        };
        let stays = self
            .instances
            .get(&ticket)
            .is_some_and(|instance| instance.phase.is_current());
        if stays && !self.revivals.contains_key(&key) {
            self.give_permit(key, ticket, None);
        }
    }

    /// Ends a permit; those who waited for its outcome are to be placed anew.
    fn end_permit(&mut self, key: SessionKey) -> BTreeSet<WaiterId> {
        let Some(mut revival) = self.revivals.remove(&key) else {
            return BTreeSet::new();
        };
        self.timers
            .set(&mut revival.alarm, None, Timer::Permit(key));
        if let Some(instance) = self.instances.get_mut(&revival.ticket) {
            instance.permits.remove(&key);
        }
        revival.queue
    }

    /// A permit's time is over: the next asker gets one.
    pub(super) fn permit_over(&mut self, key: SessionKey) {
        let queue = self.end_permit(key);
        self.place_all(queue);
    }

    /// The claim has been asked again, and answered, if another answer is out; or somebody else holds the permit by now.
    fn take_permit_back(&mut self, key: SessionKey, claim: ClaimId) {
        let holder = self
            .revivals
            .get_mut(&key)
            .and_then(|revival| revival.holder.as_mut())
            .filter(|holder| holder.claim == claim);
        let Some(holder) = holder else {
            return;
        };
        holder.answers -= 1;
        if holder.answers == 0 {
            self.permit_over(key);
        }
    }

    /// An instance goes out of service, and the permits for it with it.
    pub(super) fn void_permits(&mut self, ticket: Ticket) -> BTreeSet<WaiterId> {
        let permits = self
            .instances
            .get_mut(&ticket)
            .map_or_else(BTreeSet::new, |i| std::mem::take(&mut i.permits));
        let mut queue = BTreeSet::new();
        for key in permits {
            queue.append(&mut self.end_permit(key));
        }
        queue
    }

    /// An answer never reached its asker: a permit goes to the next, a provisional slot to the next try.
    pub(super) fn take_back(&mut self, session: Option<(SessionKey, ClaimId)>, claimed: &Claimed) {
        match (&claimed.standing, session) {
            (Standing::Revive, Some((key, claim))) => self.take_permit_back(key, claim),
            (Standing::Revive | Standing::Fresh | Standing::Bound(_), _) => {}
        }
        if claimed.session.is_some()
            && let Some(id) = self.by_key.get(&claimed.instance.slot)
            && let Some(slot) = self.slots.get_mut(id)
            && let Some(provisional) = &mut slot.provisional
        {
            provisional.handed = false;
        }
    }
}
