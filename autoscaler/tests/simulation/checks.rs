//! What is watched from outside, and what has happened.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use mcp_gateway_api::{
    failure::FailureKind,
    ids::{ActivatorId, InstanceId, SessionKey},
    record::{REVIVAL_PERMIT, SharedRecord},
    slot::SlotKey,
    view::{InstanceView, Service},
};
use tokio::time::Instant;

macro_rules! counts {
    ($($name:ident),* $(,)?) => {
        /// How often what happened: a simulation in which something never happens proves nothing about it.
        #[derive(Debug, Default)]
        pub(crate) struct Counts { $(pub $name: u64),* }

        impl Counts {
            pub(crate) fn add(&mut self, other: &Self) { $(self.$name += other.$name;)* }

            pub(crate) fn assert_everything_happened(&self) {
                $(assert!(self.$name > 0, "it never happened: {}", stringify!($name));)*
            }
        }
    };
}

counts!(
    claims,
    answered,
    withdrawn,
    undelivered,
    warm,
    launches,
    terminates,
    idle_drains,
    reopened,
    retire_drains,
    cuts,
    crashes,
    strays,
    hold_timeouts,
    starts_failed,
    no_room,
    unknown_backends,
    sessions_gone,
    sessions_opened,
    permits,
    revived,
    revival_failed,
    permits_lost,
    bound,
    sessions_ended,
    edits,
    deletions,
    policies,
    activators_left,
    lost_reports,
    late_answers,
    leaders_lost,
    takeovers,
    found,
    marks,
    marks_too_late,
    orders_fenced,
    late_orders,
    restated,
    records_restated,
    permits_restated,
    partitions,
    long_partitions,
    restarts,
    pods_gone,
    old_answers,
    lost_answers,
    old_views,
);

struct Published {
    slot: SlotKey,
    service: Service,
}

struct Permitted {
    since: Instant,
    on: InstanceId,
    to: ActivatorId,
    epoch: u64,
}

#[derive(Default)]
pub(crate) struct Checks {
    pub(crate) counts: Counts,
    published: BTreeMap<InstanceId, Published>,
    /// Ever published as cut, or ended by itself: leases there may be lost.
    excused: BTreeSet<InstanceId>,
    departed: BTreeSet<InstanceId>,
    permits: BTreeMap<SessionKey, Permitted>,
    handed: BTreeSet<SessionKey>,
    ended: BTreeSet<SessionKey>,
}

impl Checks {
    pub(crate) fn published(&mut self, view: &InstanceView) {
        assert!(
            !self.departed.contains(&view.id),
            "published after it was gone"
        );
        let before = self.published.get(&view.id).map(|one| one.service);
        match (before, view.service) {
            (_, Service::IdleDrain) => self.counts.idle_drains += 1,
            (Some(Service::IdleDrain), Service::Open) => self.counts.reopened += 1,
            (_, Service::RetireDrain) => self.counts.retire_drains += 1,
            (_, Service::Cut) => self.counts.cuts += 1,
            (_, Service::Open) => {}
        }
        let retired = matches!(before, Some(Service::RetireDrain | Service::Cut));
        let back = matches!(view.service, Service::Open | Service::IdleDrain);
        assert!(!(retired && back), "a retire drain was cancelled");
        match view.service {
            Service::Cut => {
                self.excused.insert(view.id);
                self.void_permits(view.id);
            }
            Service::RetireDrain => self.void_permits(view.id),
            Service::Open | Service::IdleDrain => {}
        }
        let one = Published {
            slot: view.slot.clone(),
            service: view.service,
        };
        self.published.insert(view.id, one);
        let serves = |one: &&Published| {
            one.slot == view.slot && matches!(one.service, Service::Open | Service::IdleDrain)
        };
        let serving = self.published.values().filter(serves).count();
        assert!(serving <= 1, "{serving} instances serve {:?}", view.slot);
    }

    pub(crate) fn gone(&mut self, id: InstanceId) {
        assert!(self.departed.insert(id), "gone twice");
        self.published.remove(&id);
        self.void_permits(id);
    }

    pub(crate) fn crashed(&mut self, id: InstanceId) {
        self.excused.insert(id);
        self.counts.crashes += 1;
    }

    /// Whether losing a lease on it is not the gateway's doing.
    pub(crate) fn is_excused(&self, id: InstanceId) -> bool {
        self.excused.contains(&id)
    }

    pub(crate) fn has_departed(&self, id: InstanceId) -> bool {
        self.departed.contains(&id)
    }

    pub(crate) fn void_permits(&mut self, id: InstanceId) {
        self.permits.retain(|_, one| one.on != id);
    }

    pub(crate) fn end_permit(&mut self, key: SessionKey) {
        self.permits.remove(&key);
    }

    pub(crate) fn permitted(
        &mut self,
        key: SessionKey,
        at: InstanceId,
        (to, epoch): (ActivatorId, u64),
        now: Instant,
    ) {
        let permitted = Permitted {
            since: now,
            on: at,
            to,
            epoch,
        };
        if let Some(Permitted { since, on, .. }) = self.permits.insert(key, permitted) {
            let age = now.saturating_duration_since(since);
            assert!(
                age >= REVIVAL_PERMIT,
                "a second permit for {key:?} (on {on:?}) after {age:?}"
            );
        }
        self.counts.permits += 1;
    }

    /// Its holder cannot use it any more, nor tell of it.
    pub(crate) fn holder_gone(&mut self, id: ActivatorId) {
        self.permits.retain(|_, one| one.to != id);
    }

    /// It has heard of that leader: what an earlier one gave it and has not arrived will be thrown away.
    pub(crate) fn holds(&mut self, id: ActivatorId, epoch: u64, held: &BTreeSet<SessionKey>) {
        self.permits
            .retain(|key, one| one.to != id || one.epoch >= epoch || held.contains(key));
    }

    /// What a leader published says nothing of what the next one does.
    pub(crate) fn leader_lost(&mut self) {
        self.counts.leaders_lost += 1;
        self.published.clear();
        self.departed.clear();
    }

    /// Nobody is left who knows better: what ended is known only to these.
    pub(crate) fn keep_ended(&mut self, known: impl Fn(&SessionKey) -> bool) {
        self.ended.retain(known);
    }

    /// Everybody has been heard: what anybody knew to have ended must have ended.
    pub(crate) fn all_heard(&self, records: &[SharedRecord]) {
        let ended: BTreeSet<_> = records.iter().filter(|r| r.ended).map(|r| r.key).collect();
        for key in &self.ended {
            assert!(
                ended.contains(key),
                "it was forgotten that {key:?} has ended"
            );
        }
    }

    pub(crate) fn handed_out(&mut self, key: SessionKey) {
        assert!(
            self.handed.insert(key),
            "the key {key:?} was handed out twice"
        );
    }

    pub(crate) fn taken_back(&mut self, key: SessionKey) {
        self.handed.remove(&key);
    }

    pub(crate) fn ended(&mut self, key: SessionKey) {
        self.ended.insert(key);
        self.permits.remove(&key);
    }

    pub(crate) fn may_be_served(&self, key: SessionKey) {
        assert!(
            !self.ended.contains(&key),
            "the ended session {key:?} was served"
        );
    }

    pub(crate) fn failed(&mut self, kind: FailureKind) {
        match kind {
            FailureKind::HoldTimeout => self.counts.hold_timeouts += 1,
            FailureKind::StartFailed => self.counts.starts_failed += 1,
            FailureKind::Capacity => self.counts.no_room += 1,
            FailureKind::UnknownBackend => self.counts.unknown_backends += 1,
            FailureKind::SessionGone => self.counts.sessions_gone += 1,
            FailureKind::BadRequest
            | FailureKind::TooLarge
            | FailureKind::MediaType
            | FailureKind::Method
            | FailureKind::Unauthenticated
            | FailureKind::Forbidden
            | FailureKind::Overloaded
            | FailureKind::InstanceLost
            | FailureKind::RequestTimeout
            | FailureKind::ShuttingDown
            | FailureKind::Internal => panic!("nothing here fails with {kind:?}"),
        }
    }

    pub(crate) fn in_time(waited: Duration, budget: Duration) {
        let slack = Duration::from_millis(10);
        assert!(
            waited <= budget + slack,
            "answered after {waited:?} of {budget:?}"
        );
    }
}
