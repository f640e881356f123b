//! What clients do, and what an activator does for them.

use super::*;

impl World {
    /// One client does one thing.
    pub(super) fn traffic(&mut self) {
        let Some(at) = self.some_activator() else {
            return;
        };
        let of = self.rng.random_range(0..clients::NAMES.len());
        let principal = clients::principal(&mut self.rng);
        match self.rng.random_range(0..20) {
            0..3 => self.claim(at, of, &principal, Purpose::Initialize),
            3..5 => self.claim(at, of, &principal, Purpose::Probe),
            5..9 => {
                let isolation = clients::backend(of, 0, &mut self.rng).policy.isolation;
                let (backend, tenant) = (clients::name(of), &principal.tenant);
                let slot = SlotKey::of(&backend, isolation, tenant, principal.id, None);
                match self.activators[&at].open_for(&slot) {
                    Some(id) => self.use_warm(at, id),
                    None => self.claim(at, of, &principal, Purpose::Exchange),
                }
            }
            9..19 => self.session_traffic(at),
            _ => self.end_session(),
        }
    }

    pub(super) fn session_traffic(&mut self, at: ActivatorId) {
        if self.sessions.is_empty() {
            return;
        }
        let n = self.rng.random_range(0..self.sessions.len());
        let session = self.sessions[n].clone();
        let sealed = SessionBinding {
            instance: session.home,
            upstream: UpstreamSession("sealed".into()),
        };
        let record = self.activators[&at].records.get(&session.about.key);
        if record.is_some_and(|record| record.ended) {
            self.sessions.swap_remove(n);
            return;
        }
        let bound = record.map_or(Some(sealed.clone()), |record| record.binding_or(&sealed));
        let bound = bound.map(|binding| binding.instance);
        match bound.filter(|id| self.activators[&at].is_open(*id)) {
            Some(id) => self.use_warm(at, id),
            None => {
                let of = clients::NAMES
                    .iter()
                    .position(|n| *n == session.about.backend.as_str());
                let purpose = Purpose::Session {
                    session: session.about.clone(),
                    bound,
                };
                self.claim(
                    at,
                    of.expect("it is one of them"),
                    &session.principal,
                    purpose,
                );
            }
        }
        if self.rng.random_ratio(1, 30) {
            self.send_news(Some(at), &session.about, SessionNews::Asleep);
        }
    }

    pub(super) fn end_session(&mut self) {
        if self.sessions.is_empty() {
            return;
        }
        let n = self.rng.random_range(0..self.sessions.len());
        let about = self.sessions[n].about.clone();
        self.checks.counts.sessions_ended += 1;
        self.send_news(None, &about, SessionNews::Ended);
    }

    /// `None`: by whatever way there is.
    pub(super) fn send_news(
        &mut self,
        from: Option<ActivatorId>,
        session: &SessionRef,
        news: SessionNews,
    ) {
        let after = ms(&mut self.rng, 20);
        let session = session.clone();
        self.later(after, Act::News(from, SessionUpdate { session, news }));
    }

    /// Sent until it is answered, as long as its sender lives.
    pub(super) fn news(&mut self, from: Option<ActivatorId>, update: SessionUpdate) {
        if from.is_some_and(|id| !self.activators.contains_key(&id)) {
            return;
        }
        if self.core.is_none() || from.is_some_and(|id| !self.reaches(id)) {
            return self.later(Duration::from_millis(300), Act::News(from, update));
        }
        self.next_reply += 1;
        let reply = self.next_reply;
        self.replies.insert(reply, (from, update.clone()));
        self.feed(Event::Record { reply, update });
    }

    pub(super) fn claim(
        &mut self,
        at: ActivatorId,
        of: usize,
        principal: &Principal,
        purpose: Purpose,
    ) {
        let request = clients::ask(of, principal, purpose, &mut self.rng);
        self.claim_again(at, request, 0);
    }

    pub(super) fn claim_again(&mut self, at: ActivatorId, request: ClaimRequest, tries: u32) {
        if !self.activators.contains_key(&at) {
            return;
        }
        if !self.reaches(at) {
            if tries < 10 && !self.quiet {
                self.later(
                    Duration::from_millis(300),
                    Act::Retry(at, request, tries + 1),
                );
            }
            return;
        }
        self.checks.counts.claims += 1;
        self.next_waiter += 1;
        let waiter = WaiterId(self.next_waiter);
        let pending = Pending {
            activator: at,
            request: request.clone(),
            asked: self.now,
            left: false,
            answered: false,
            tries,
        };
        self.pending.insert(waiter, pending);
        if self.rng.random_ratio(1, 8) {
            let after = ms(&mut self.rng, 300);
            self.later(after, Act::Withdraw(waiter));
        }
        let fresh = SessionKey(self.rng.random());
        self.feed(Event::Claim {
            waiter,
            request,
            fresh,
        });
    }

    pub(super) fn withdraw(&mut self, waiter: WaiterId) {
        if let Some(pending) = self.pending.get_mut(&waiter)
            && !pending.left
        {
            pending.left = true;
            self.checks.counts.withdrawn += 1;
            self.feed(Event::Withdrawn(waiter));
        }
    }

    /// An answer reaches its asker, if it is still there.
    pub(super) fn answered(
        &mut self,
        epoch: u64,
        waiter: WaiterId,
        answer: Result<Box<Claimed>, Failure>,
    ) {
        let pending = self.pending.remove(&waiter).expect("somebody asked");
        let session = match &pending.request.purpose {
            Purpose::Session { session, .. } => Some(session.clone()),
            Purpose::Initialize | Purpose::Exchange | Purpose::Probe => None,
        };
        let Ok(claimed) = answer else {
            return;
        };
        let at = pending.activator;
        let unheard = self.activators.get(&at).is_none_or(|one| one.cut_off);
        if pending.left || unheard {
            let session = session.map(|session| (session.key, pending.request.id));
            if let (Standing::Revive, Some((key, _))) = (&claimed.standing, session) {
                self.checks.end_permit(key);
            }
            return self.tell_leader(epoch, Event::Undelivered { session, claimed });
        }
        let id = claimed.instance.id;
        let old = epoch < self.activators[&at].epoch;
        // With its connection: the leader believes that it was heard.
        let lost = !old && !self.quiet && self.rng.random_ratio(1, 40);
        if old || lost {
            // Thrown away, or never there, and asked again.
            self.checks.counts.old_answers += u64::from(old);
            self.checks.counts.lost_answers += u64::from(lost);
            if let (Standing::Revive, Some(session)) = (&claimed.standing, &session) {
                self.checks.end_permit(session.key);
            }
            return self.claim_again(at, pending.request, pending.tries + 1);
        }
        let activator = self.activators.get_mut(&at).expect("it is there");
        activator.epoch = epoch;
        if let Some(ack) = activator.know(claimed.instance.clone(), self.now) {
            self.send_ack(ack);
        }
        if !self.activators[&at].is_open(id) {
            if let (Standing::Revive, Some(session)) = (&claimed.standing, &session) {
                self.checks.end_permit(session.key);
                self.send_news(
                    Some(at),
                    session,
                    SessionNews::RevivalFailed { retry: true },
                );
            }
            if pending.tries < 3 && !self.quiet {
                self.claim_again(at, pending.request, pending.tries + 1);
            }
            return;
        }
        self.lease(at, id);
        match (&claimed.standing, session) {
            (Standing::Revive, Some(session)) => self.revive(at, &session, id),
            (Standing::Bound(_), _) => self.checks.counts.bound += 1,
            (Standing::Fresh | Standing::Revive, _) => {}
        }
        if let Some(key) = claimed.session
            && self.rng.random_ratio(9, 10)
        {
            self.open(key, &pending.request, id);
        }
    }

    pub(super) fn revive(&mut self, at: ActivatorId, session: &SessionRef, id: InstanceId) {
        let activator = self.activators.get_mut(&at).expect("it is there");
        activator.permits.insert(session.key, (id, self.now));
        let from = Some(at);
        match self.rng.random_range(0..20) {
            0 => self.checks.counts.permits_lost += 1,
            1..3 => {
                self.checks.counts.revival_failed += 1;
                self.send_news(from, session, SessionNews::RevivalFailed { retry: true });
            }
            3 => {
                self.checks.counts.revival_failed += 1;
                self.send_news(from, session, SessionNews::RevivalFailed { retry: false });
            }
            _ => {
                self.checks.counts.revived += 1;
                let binding = SessionBinding {
                    instance: id,
                    upstream: UpstreamSession("revived".into()),
                };
                self.send_news(from, session, SessionNews::Revived(binding));
            }
        }
    }

    pub(super) fn open(&mut self, key: SessionKey, request: &ClaimRequest, home: InstanceId) {
        self.checks.counts.sessions_opened += 1;
        let about = SessionRef {
            key,
            backend: request.backend.clone(),
            tenant: request.tenant.clone(),
            expires_at: UNIX + 1_000_000_000,
        };
        self.send_news(None, &about, SessionNews::Opened(home));
        let subject = ["ann", "bob"]
            .map(|who| principal_of(&request.tenant, who))
            .into_iter()
            .find(|p| p.id == request.principal)
            .expect("it is one of them");
        self.sessions.push(Session {
            about,
            principal: subject,
            home,
        });
        if self.sessions.len() > 40 {
            self.sessions.remove(0);
        }
    }

    pub(super) fn use_warm(&mut self, at: ActivatorId, id: InstanceId) {
        self.checks.counts.warm += 1;
        self.lease(at, id);
    }

    /// Takes a lease, as the rule allows, and ends it some time later.
    pub(super) fn lease(&mut self, at: ActivatorId, id: InstanceId) {
        let activator = self.activators.get_mut(&at).expect("it is there");
        assert!(activator.lease(id), "it was open");
        let ending = self
            .runtime
            .alive
            .get(&id)
            .is_none_or(|copy| copy.told_to_end);
        assert!(
            !ending || self.checks.is_excused(id),
            "leased while it was being ended"
        );
        let long = if self.rng.random_ratio(1, 20) {
            10_000
        } else {
            200
        };
        let after = ms(&mut self.rng, long);
        self.later(after, Act::EndLease(at, id));
        self.later(Duration::from_millis(10), Act::Report(at, Some(id)));
    }

    pub(super) fn end_lease(&mut self, at: ActivatorId, id: InstanceId) {
        let Some(activator) = self.activators.get_mut(&at) else {
            return;
        };
        if let Some(ack) = activator.release(id, self.now) {
            self.send_ack(ack);
        }
        self.later(Duration::from_millis(10), Act::Report(at, Some(id)));
    }
}
