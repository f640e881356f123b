//! Sessions: where one lives, who may revive it, what is remembered of it.
//!
//! Invariants: who may revive is permitted one at a time (see [`super::permits`]). A session that has ended is never
//! revived.

use std::{collections::BTreeSet, sync::Arc};

use mcp_gateway_api::{
    backend::Backend,
    catalog::Catalog,
    claim::Standing,
    failure::{Failure, FailureKind},
    ids::{BackendName, InstanceId, SessionKey},
    policy::{Isolation, OnIdle},
    record::{SessionNews, SessionRef, SessionUpdate},
    slot::{Owner, SlotKey},
    view::ViewEvent,
};

use super::{
    Core, Ticket, WaiterId,
    claims::HOLD_RETRY,
    event::Effect,
    instance::Phase,
    records::{self, Change},
    slot::SlotPhase,
};

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
        if let Some(mark) = self.records.in_the_way_of(session) {
            self.forget_record(mark);
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
