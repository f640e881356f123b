//! Sessions: where one lives, who may revive it, what is remembered of it.
//!
//! Invariants: at most one permit to revive a session is out at a time; it ends by news, by its time, or with the
//! instance it was for, and then those who waited for its outcome are placed anew. A session that has ended is never
//! revived.

use std::{collections::BTreeSet, sync::Arc};

use mcp_gateway_api::{
    backend::Backend,
    catalog::Catalog,
    claim::{Claimed, Standing},
    failure::{Failure, FailureKind},
    ids::{BackendName, ClaimId, InstanceId, SessionKey},
    policy::{Isolation, OnIdle},
    record::{REVIVAL_PERMIT, SessionNews, SessionRef, SessionUpdate},
    slot::{Owner, SlotKey},
    view::ViewEvent,
};
use tokio::time::Instant;

use super::{
    Core, Ticket, WaiterId,
    claims::{HOLD_RETRY, Place},
    event::{Effect, Note},
    instance::Phase,
    records::{self, Change},
    slot::SlotPhase,
    timers::Timer,
};

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

/// Where a session is.
#[derive(Debug)]
pub(super) enum Whereabouts {
    /// On the ready instance of its slot.
    There,
    /// Nowhere, and may be revived.
    Lost,
    /// It has ended, or may not be revived.
    Gone(Failure),
}

impl Core {
    pub(super) fn whereabouts(
        &mut self,
        session: &SessionRef,
        bound: Option<InstanceId>,
        slot: &SlotKey,
        backend: &Backend,
    ) -> Whereabouts {
        let record = self.records.get(&session.key);
        let over = session.expires_at <= self.unix_now();
        if over || record.is_some_and(|record| record.ended) {
            return Whereabouts::Gone(records::gone());
        }
        let home = match record.and_then(|record| record.binding.as_ref()) {
            Some(binding) => binding.as_ref().map(|binding| binding.instance),
            None => bound,
        };
        let home = home.and_then(|id| self.by_id.get(&id));
        let serves = home
            .and_then(|ticket| self.instances.get(ticket))
            .is_some_and(|instance| match instance.phase {
                Phase::Ready | Phase::IdleDraining | Phase::Adopted => instance.key == *slot,
                // A session lives there: it serves, though this leader has not heard so.
                Phase::Starting => instance.adopted.is_some() && instance.key == *slot,
                Phase::Launching
                | Phase::Abandoned
                | Phase::Doomed
                | Phase::Retiring
                | Phase::Cut
                | Phase::Stopping => false,
            });
        if serves {
            return Whereabouts::There;
        }
        match backend.policy.on_idle {
            OnIdle::Revive => Whereabouts::Lost,
            OnIdle::Expire => {
                // Its id can be neither served nor revived: nothing about it needs to be kept.
                self.forget_record(session.key);
                Whereabouts::Gone(records::gone())
            }
        }
    }

    /// How a session stands on its slot's ready instance; `None` when the asker has to wait for a revival, or has been
    /// answered.
    pub(super) fn standing(
        &mut self,
        id: WaiterId,
        session: &SessionRef,
        bound: Option<InstanceId>,
        ticket: Ticket,
    ) -> Option<Standing> {
        let slot = self.instances.get(&ticket)?.key.clone();
        let backend = self.backend(&session.backend)?;
        match self.whereabouts(session, bound, &slot, &backend) {
            Whereabouts::Gone(failure) => {
                self.answer(id, Err(failure));
                None
            }
            Whereabouts::There => {
                let record = self.records.get(&session.key);
                let binding = record.and_then(|record| record.binding.clone().flatten());
                Some(binding.map_or(Standing::Fresh, Standing::Bound))
            }
            // Somebody who has not been heard may know where it lives.
            Whereabouts::Lost if self.takeover.is_some() => None,
            Whereabouts::Lost => self.permit(id, session, ticket),
        }
    }

    fn permit(&mut self, id: WaiterId, session: &SessionRef, ticket: Ticket) -> Option<Standing> {
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

    pub(super) fn record(&mut self, reply: u64, update: &SessionUpdate) {
        if self.takeover.is_some() {
            if !self.put_off(reply, update) {
                let result = Err(too_much_news());
                self.out.push(Effect::Recorded { reply, result });
            }
            return;
        }
        let result = self.apply_news(update);
        self.out.push(Effect::Recorded { reply, result });
    }

    fn apply_news(&mut self, update: &SessionUpdate) -> Result<(), Failure> {
        let session = &update.session;
        if session.expires_at <= self.unix_now() {
            return Err(records::gone());
        }
        match update.news {
            SessionNews::Opened(_) => {
                self.opened(session);
                return Ok(());
            }
            SessionNews::Sessionless(principal) => {
                self.has_no_session(session, principal);
                return Ok(());
            }
            SessionNews::Revived(_)
            | SessionNews::RevivalFailed { .. }
            | SessionNews::Asleep
            | SessionNews::LogLevel(_)
            | SessionNews::Subscribed(_)
            | SessionNews::Unsubscribed(_)
            | SessionNews::Ended => {}
        }
        let stamp = self.next_stamp();
        let applied = self.records.apply(update, stamp);
        let result = applied.map(|changed| {
            if let Some(record) = changed {
                self.persist(Change::Put(Arc::clone(&record)));
                self.publish(ViewEvent::Record(record));
                self.watch_expiry();
            }
        });
        match update.news {
            SessionNews::Revived(_) | SessionNews::RevivalFailed { .. } => {
                self.permit_over(session.key);
            }
            SessionNews::Opened(_)
            | SessionNews::Sessionless(_)
            | SessionNews::Asleep
            | SessionNews::LogLevel(_)
            | SessionNews::Subscribed(_)
            | SessionNews::Unsubscribed(_)
            | SessionNews::Ended => {}
        }
        if self.records.get(&session.key).is_some_and(|r| r.ended) {
            self.session_ended(session);
            self.hang_mark(session);
        }
        result
    }

    /// A provisional slot has become its session's.
    fn opened(&mut self, session: &SessionRef) {
        if let Some(id) = self.by_key.get(&session_slot(session)).copied() {
            self.withdraw_offer(id);
        }
    }

    /// Nobody will come back to a slot of its own: what waits there is told, what runs there need not wait out its
    /// idle time.
    pub(super) fn session_ended(&mut self, session: &SessionRef) {
        self.permit_over(session.key);
        let Some(id) = self.by_key.get(&session_slot(session)).copied() else {
            return;
        };
        self.withdraw_offer(id);
        let Some(slot) = self.slots.get_mut(&id) else {
            return;
        };
        slot.ended = true;
        slot.cancel_at = Some(self.now);
        let waiters = slot.waiters.clone();
        self.place_all(waiters);
        let phase = self.slots.get(&id).map(|slot| slot.phase);
        if let Some(SlotPhase::Serving(ticket)) = phase {
            self.check_idle(ticket);
        }
        self.poke(id);
    }

    /// An ended mark is kept only while its id could be served or revived. Where sessions are not revived that is as
    /// long as their slot has an instance.
    pub(super) fn hang_mark(&mut self, session: &SessionRef) {
        if !never_revives(&self.catalog, &session.backend) {
            return;
        }
        let Some(backend) = self.backend(&session.backend) else {
            return;
        };
        let key = SlotKey {
            backend: session.backend.clone(),
            owner: match backend.policy.isolation {
                Isolation::Session => Owner::Session(session.key),
                Isolation::Tenant => Owner::Tenant(session.tenant.clone()),
                Isolation::Shared => Owner::Nobody,
            },
        };
        match self.by_key.get(&key).and_then(|id| self.slots.get_mut(id)) {
            Some(slot) => {
                slot.marks.insert(session.key);
            }
            None => self.forget_record(session.key),
        }
    }

    /// A slot is gone, and every place where these sessions could have lived.
    pub(super) fn drop_marks(&mut self, slot: &SlotKey, marks: BTreeSet<SessionKey>) {
        if never_revives(&self.catalog, &slot.backend) {
            for key in marks {
                self.forget_record(key);
            }
        }
    }

    fn forget_record(&mut self, key: SessionKey) {
        if self.records.remove(&key) {
            self.persist(Change::Remove(key));
            self.publish(ViewEvent::Forget(key));
        }
    }
}

fn too_much_news() -> Failure {
    Failure::new(
        FailureKind::Overloaded,
        "Too much has to be remembered at once.",
    )
    .retry_after(HOLD_RETRY)
}

/// Whether sessions of that backend end with their instance.
pub(super) fn never_revives(catalog: &Catalog, backend: &BackendName) -> bool {
    let backend = catalog.get(backend);
    backend.is_some_and(|backend| backend.policy.on_idle == OnIdle::Expire)
}

fn session_slot(session: &SessionRef) -> SlotKey {
    SlotKey {
        backend: session.backend.clone(),
        owner: Owner::Session(session.key),
    }
}
