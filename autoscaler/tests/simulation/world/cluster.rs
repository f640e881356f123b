//! What happens in a cluster: leaders are lost and replaced, activators are cut off, restart and vanish.

use super::*;

/// Longest that an activator is cut off: shorter than what takes it for gone.
const LONGEST_CUT: u64 = 480_000;

impl World {
    /// Whether what this activator says reaches the leader.
    pub(super) fn reaches(&self, id: ActivatorId) -> bool {
        let one = self.activators.get(&id);
        self.core.is_some() && one.is_some_and(|one| one.pod.is_none() || one.listens)
    }

    pub(super) fn tell_leader(&mut self, epoch: u64, event: Event) {
        if epoch == self.epoch {
            self.feed(event);
        }
    }

    pub(super) fn cluster_chaos(&mut self) {
        let complete = self.core.as_ref().is_some_and(Core::is_complete);
        match self.rng.random_range(0..12) {
            0..3 => self.lose_leader(),
            3..7 if complete => self.cut_off(),
            7..9 => self.restart(),
            9..11 => {
                self.vanish();
                self.join();
            }
            _ => {}
        }
    }

    /// The leader is gone; what it has ordered and said is still on its way.
    pub(super) fn lose_leader(&mut self) {
        if self.core.take().is_none() {
            return;
        }
        self.checks.leader_lost();
        self.keep_ended();
        for one in self.activators.values_mut() {
            one.listens = false;
        }
        if self.rng.random() {
            // Its streams broke before what it said last got through.
            let epoch = self.epoch;
            self.queue
                .retain(|_, act| !matches!(act, Act::View(_, of, _) if *of == epoch));
        }
        for (from, update) in std::mem::take(&mut self.replies).into_values() {
            let after = ms(&mut self.rng, 500);
            self.later(after, Act::News(from, update));
        }
        let unanswered: Vec<_> = self
            .pending
            .iter()
            .filter(|(_, one)| !one.answered)
            .map(|(waiter, _)| *waiter)
            .collect();
        for waiter in unanswered {
            self.ask_again(waiter);
        }
        let longest = [20, 20, 200, 200, 2_000, 2_000, 60_000][self.rng.random_range(0..7)];
        let after = ms(&mut self.rng, longest);
        self.later(after, Act::TakeOver);
    }

    /// The way to the leader broke under a claim.
    fn ask_again(&mut self, waiter: WaiterId) {
        if let Some(pending) = self.pending.remove(&waiter)
            && !pending.left
        {
            let after = ms(&mut self.rng, 300);
            let again = Act::Retry(pending.activator, pending.request, pending.tries + 1);
            self.later(after, again);
        }
    }

    pub(super) fn take_over(&mut self) {
        self.epoch += 1;
        let (found, plan) = self.runtime.find(&mut self.rng);
        self.checks.counts.takeovers += 1;
        self.checks.counts.found += found.len() as u64;
        let settings = settings(self.seed, self.epoch);
        let catalog = Arc::new(self.catalog.clone());
        self.core = Some(Core::adopt(settings, self.now, catalog, vec![], found));
        for (after, happening) in plan {
            self.later(after, Act::World(happening));
        }
        let after = self.lag();
        self.later(after, Act::List(self.epoch));
        let all: Vec<_> = self.activators.keys().copied().collect();
        for id in all {
            let after = self.lag();
            self.later(after, Act::Subscribe(id));
        }
        self.feed(Event::Tick);
    }

    pub(super) fn join_from_pod(&mut self) {
        let uid = PodUid(self.rng.random());
        self.pods.insert(uid);
        let after = self.lag();
        self.later(after, Act::List(self.epoch));
        self.begin(ActivatorPod {
            uid,
            incarnation: 1,
        });
    }

    fn begin(&mut self, pod: ActivatorPod) {
        let id = ActivatorId(self.rng.random());
        self.activators.insert(id, Activator::new(id, Some(pod)));
        let after = self.lag();
        self.later(after, Act::Subscribe(id));
        self.later(REPORT_EVERY, Act::FullReport(id));
    }

    pub(super) fn subscribe(&mut self, id: ActivatorId) {
        let Some(one) = self.activators.get_mut(&id) else {
            return;
        };
        if one.cut_off || one.listens {
            return;
        }
        if self.core.is_none() {
            // It is told when there is a leader again.
            return;
        }
        one.listens = true;
        one.subscription += 1;
        let pod = one.pod.expect("it runs in a pod");
        self.feed(Event::Subscribed(id, pod));
        let listened = self.core.as_ref().is_some_and(|core| core.listens_to(id));
        assert!(listened, "the latest process of a pod was turned away");
        let all = self.snapshot();
        let after = self.lag();
        self.later(after, Act::View(id, self.epoch, Box::new(all)));
        self.report(id, true, None);
        for ack in self.activators[&id].acks() {
            self.send_ack(ack);
        }
    }

    pub(super) fn restate(&mut self, id: ActivatorId) {
        if !self.reaches(id) {
            return;
        }
        let Some(one) = self.activators.get_mut(&id) else {
            return;
        };
        let all = one.restate(self.now);
        let held = all.permits.iter().map(|one| one.session).collect();
        self.checks.holds(id, all.epoch, &held);
        self.checks.counts.restated += 1;
        self.checks.counts.records_restated += all.records.len() as u64;
        self.checks.counts.permits_restated += all.permits.len() as u64;
        if !self.quiet && self.rng.random_ratio(1, 10) {
            return;
        }
        for _ in 0..self.copies() {
            let after = self.lag();
            self.later(after, Act::Core(Event::Restated(Box::new(all.clone()))));
        }
    }

    fn cut_off(&mut self) {
        let Some(id) = self.some_activator() else {
            return;
        };
        let long = self.rng.random_ratio(1, 10);
        let one = self.activators.get_mut(&id).expect("it is there");
        if one.cut_off || !one.listens {
            return;
        }
        one.cut_off = true;
        one.listens = false;
        let subscription = one.subscription;
        self.checks.counts.partitions += 1;
        self.checks.counts.long_partitions += u64::from(long);
        let unanswered: Vec<_> = self
            .pending
            .iter()
            .filter(|(_, one)| one.activator == id && !one.answered)
            .map(|(waiter, _)| *waiter)
            .collect();
        for waiter in unanswered {
            self.ask_again(waiter);
            self.feed(Event::Withdrawn(waiter));
        }
        let after = self.lag();
        self.later(after, Act::Silence(self.epoch, id, subscription));
        let after = ms(&mut self.rng, if long { LONGEST_CUT } else { 10_000 });
        self.later(after, Act::Heal(id));
    }

    pub(super) fn heal(&mut self, id: ActivatorId) {
        if let Some(one) = self.activators.get_mut(&id) {
            one.cut_off = false;
            self.subscribe(id);
        }
    }

    pub(super) fn silence(&mut self, epoch: u64, id: ActivatorId, subscription: u64) {
        let one = self.activators.get(&id);
        if one.is_none_or(|one| one.subscription == subscription) {
            self.tell_leader(epoch, Event::Silent(id));
        }
    }

    fn end_process(&mut self) -> Option<ActivatorPod> {
        let id = self.some_activator()?;
        let one = &self.activators[&id];
        let (pod, subscription) = (one.pod, one.subscription);
        self.die(id);
        self.checks.holder_gone(id);
        if !self.core.as_ref().is_some_and(Core::is_complete) {
            self.keep_ended();
        }
        let after = self.lag();
        self.later(after, Act::Silence(self.epoch, id, subscription));
        pod
    }

    /// A container starts again: what its process leased and knew is lost.
    fn restart(&mut self) {
        if let Some(pod) = self.end_process() {
            self.checks.counts.restarts += 1;
            self.begin(ActivatorPod {
                incarnation: pod.incarnation + 1,
                ..pod
            });
        }
    }

    fn vanish(&mut self) {
        if let Some(pod) = self.end_process() {
            self.checks.counts.pods_gone += 1;
            self.pods.remove(&pod.uid);
            let after = ms(&mut self.rng, 5_000);
            self.later(after, Act::List(self.epoch));
        }
    }

    /// With the leader went what only it knew.
    pub(super) fn keep_ended(&mut self) {
        let activators = &self.activators;
        let gamma = clients::name(2);
        self.checks.keep_ended(|key| {
            let records = activators.values().filter_map(|one| one.records.get(key));
            let mut ended = records.filter(|record| record.ended && record.backend != gamma);
            ended.next().is_some()
        });
    }

    pub(super) fn mark(&mut self, epoch: u64, id: InstanceId) {
        let taken = self.runtime.take(id, epoch);
        self.checks.counts.marks += 1;
        self.checks.counts.marks_too_late += u64::from(!taken);
        let after = self.lag();
        self.later(after, Act::Leader(epoch, Event::Marked(id, taken)));
    }

    pub(super) fn recorded(&mut self, reply: u64) {
        let Some((Some(from), update)) = self.replies.remove(&reply) else {
            return;
        };
        let over = match update.news {
            SessionNews::Revived(_) | SessionNews::RevivalFailed { .. } => true,
            SessionNews::Opened(_)
            | SessionNews::Sessionless(_)
            | SessionNews::Asleep
            | SessionNews::LogLevel(_)
            | SessionNews::Subscribed(_)
            | SessionNews::Unsubscribed(_)
            | SessionNews::Ended => false,
        };
        if let Some(one) = self.activators.get_mut(&from)
            && over
        {
            one.permits.remove(&update.session.key);
        }
    }
}
