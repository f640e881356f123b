//! Candidates against a model of the API server whose messages are slow, lost, or late.

use std::collections::BTreeMap;

use proptest::prelude::*;
use rand::{Rng, SeedableRng, rngs::StdRng};

use super::*;

const DURATION: Duration = Duration::from_secs(15);
const STEP: Duration = Duration::from_millis(100);

fn lease(version: u64, holder: Option<&str>, transitions: u64) -> Lease {
    Lease {
        version: version.to_string().into(),
        holder: holder.map(Into::into),
        transitions,
        duration: DURATION,
    }
}

/// Follows a candidate to its first write.
fn take(candidate: &mut Candidate, now: Instant, seen: Option<Lease>) -> Action {
    assert_eq!(candidate.step(now, Heard::Nothing), Action::Read);
    candidate.step(now, Heard::Read(seen))
}

#[test]
fn a_lease_that_does_not_exist_is_made_and_led_in_term_one() {
    let (mut me, now) = (Candidate::new("me", DURATION, 1), Instant::now());
    let Action::Write(write) = take(&mut me, now, None) else {
        panic!("no write")
    };
    assert_eq!((write.over, write.transitions), (None, 1));
    assert_eq!(me.term(now), None);
    me.step(now + STEP, Heard::Written(lease(1, Some("me"), 1)));
    let term = me.term(now + STEP).unwrap();
    assert_eq!((term.epoch, term.until), (1, now + DURATION * 2 / 3));
}

#[test]
fn a_held_lease_is_taken_only_when_it_has_not_changed_for_its_duration() {
    let (mut me, start) = (Candidate::new("me", DURATION, 1), Instant::now());
    assert!(matches!(
        take(&mut me, start, Some(lease(1, Some("other"), 4))),
        Action::Sleep(_)
    ));
    // It is renewed once.
    let renewed = start + DURATION / 2;
    me.step(renewed, Heard::Nothing);
    me.step(renewed, Heard::Read(Some(lease(2, Some("other"), 4))));
    let early = renewed + DURATION - STEP;
    me.step(early, Heard::Nothing);
    let still = me.step(early, Heard::Read(Some(lease(2, Some("other"), 4))));
    assert!(matches!(still, Action::Sleep(_)), "{still:?}");
    let due = renewed + DURATION;
    me.step(due + DURATION / 10, Heard::Nothing);
    let now = me.step(
        due + DURATION / 10,
        Heard::Read(Some(lease(2, Some("other"), 4))),
    );
    let Action::Write(write) = now else {
        panic!("{now:?}")
    };
    assert_eq!((write.transitions, write.over.as_deref()), (5, Some("2")));
}

#[test]
fn a_lease_that_was_deleted_goes_on_above_the_terms_seen() {
    let (mut me, now) = (Candidate::new("me", DURATION, 1), Instant::now());
    take(&mut me, now, Some(lease(9, Some("other"), 40)));
    me.step(now + DURATION, Heard::Nothing);
    let made = me.step(now + DURATION, Heard::Read(None));
    assert!(
        matches!(made, Action::Write(write) if write.transitions == 41 && write.over.is_none())
    );
}

#[test]
fn a_released_lease_is_taken_at_once() {
    let (mut me, now) = (Candidate::new("me", DURATION, 1), Instant::now());
    let taken = take(&mut me, now, Some(lease(9, None, 4)));
    assert!(matches!(taken, Action::Write(write) if write.transitions == 5));
}

#[test]
fn what_an_earlier_process_of_the_same_pod_holds_is_taken_at_once_in_another_term() {
    let now = Instant::now();
    let mut me = Candidate::new("pod-1.b", DURATION, 1).after(Some("pod-1.".into()));
    let taken = take(&mut me, now, Some(lease(9, Some("pod-1.a"), 4)));
    assert!(matches!(taken, Action::Write(write) if write.transitions == 5 && write.takes));
    // Nobody else's is.
    for holder in ["pod-11.a", "pod-2.a", "pod-1"] {
        let mut me = Candidate::new("pod-1.b", DURATION, 1).after(Some("pod-1.".into()));
        let waits = take(&mut me, now, Some(lease(9, Some(holder), 4)));
        assert!(matches!(waits, Action::Sleep(_)), "{holder}: {waits:?}");
    }
    let mut me = Candidate::new("pod-1.b", DURATION, 1);
    let waits = take(&mut me, now, Some(lease(9, Some("pod-1.a"), 4)));
    assert!(matches!(waits, Action::Sleep(_)), "{waits:?}");
}

/// Somebody gave two processes one pod's name: they do not take the lease from each other for ever.
#[test]
fn a_process_of_the_same_pod_that_takes_the_lease_later_is_alive() {
    let now = Instant::now();
    let mut me = Candidate::new("pod-1.b", DURATION, 1).after(Some("pod-1.".into()));
    take(&mut me, now, Some(lease(9, Some("pod-1.a"), 4)));
    me.step(now, Heard::Written(lease(10, Some("pod-1.b"), 5)));
    assert!(me.term(now).is_some());
    let renew = now + DURATION / 3;
    me.step(renew, Heard::Nothing);
    assert_eq!(me.step(renew, Heard::Refused), Action::Read);
    let waits = me.step(renew, Heard::Read(Some(lease(11, Some("pod-1.c"), 6))));
    assert!(matches!(waits, Action::Sleep(_)), "{waits:?}");
    assert_eq!(me.term(renew), None);
}

#[test]
fn a_leader_renews_after_a_third_and_stands_down_after_two() {
    let (mut me, start) = (Candidate::new("me", DURATION, 1), Instant::now());
    take(&mut me, start, None);
    let slept = me.step(start, Heard::Written(lease(1, Some("me"), 1)));
    assert_eq!(slept, Action::Sleep(start + DURATION / 3));
    let due = start + DURATION / 3;
    let renewal = me.step(due, Heard::Nothing);
    assert!(matches!(renewal, Action::Write(write) if write.transitions == 1 && !write.takes));
    // No answer, and none from then on.
    let mut action = me.step(due + STEP, Heard::Lost);
    assert_eq!(action, Action::Read);
    assert!(me.term(start + DURATION * 2 / 3 - STEP).is_some());
    assert_eq!(me.term(start + DURATION * 2 / 3), None);
    // It reads that the lease is its own still: it may lead again, in another term.
    let later = start + DURATION;
    action = me.step(later, Heard::Read(Some(lease(2, Some("me"), 1))));
    assert!(matches!(action, Action::Write(write) if write.transitions == 2 && write.takes));
}

#[test]
fn a_leader_that_reads_anothers_name_leads_no_more() {
    let (mut me, start) = (Candidate::new("me", DURATION, 1), Instant::now());
    take(&mut me, start, None);
    me.step(start, Heard::Written(lease(1, Some("me"), 1)));
    me.step(start + DURATION / 3, Heard::Nothing);
    me.step(start + DURATION / 3, Heard::Refused);
    me.step(
        start + DURATION / 3,
        Heard::Read(Some(lease(5, Some("other"), 2))),
    );
    assert_eq!(me.term(start + DURATION / 3), None);
}

#[test]
fn one_that_resigns_gives_the_lease_back_and_leads_no_more() {
    let (mut me, start) = (Candidate::new("me", DURATION, 1), Instant::now());
    take(&mut me, start, None);
    me.step(start, Heard::Written(lease(1, Some("me"), 1)));
    me.resign();
    assert_eq!(me.term(start), None);
    let Action::Write(write) = me.step(start, Heard::Nothing) else {
        panic!("no write")
    };
    assert_eq!((write.holder, write.transitions), (None, 1));
    let after = me.step(start, Heard::Written(lease(2, None, 1)));
    assert!(matches!(after, Action::Sleep(_)));
}

/// A message on its way.
struct Flight {
    to: usize,
    request: u64,
    at: Instant,
    what: What,
}

enum What {
    Read,
    Write(Write),
    Answer(Heard),
}

/// A process of a pod.
fn candidate(pod: usize, number: usize) -> Candidate {
    let before = format!("{pod}.");
    Candidate::new(&format!("{before}{number}"), DURATION, 1).after(Some(before.into()))
}

struct World {
    rng: StdRng,
    now: Instant,
    lease: Option<Lease>,
    versions: u64,
    candidates: Vec<Candidate>,
    /// How often each was started again.
    restarts: usize,
    /// The request each waits for, and until when.
    waits: Vec<Option<(u64, Instant)>>,
    wakes: Vec<Instant>,
    requests: u64,
    flights: Vec<Flight>,
    troubled: bool,
    /// Who led in which term.
    terms: BTreeMap<u64, usize>,
    /// Who led in the step before.
    led: Vec<Option<u64>>,
    /// Terms that are over.
    over: Vec<u64>,
}

impl World {
    fn new(seed: u64, candidates: usize) -> Self {
        let now = Instant::now();
        Self {
            rng: StdRng::seed_from_u64(seed),
            now,
            lease: None,
            versions: 0,
            candidates: (0..candidates).map(|n| candidate(n, 0)).collect(),
            restarts: 0,
            waits: vec![None; candidates],
            wakes: vec![now; candidates],
            requests: 0,
            flights: Vec::new(),
            troubled: true,
            terms: BTreeMap::new(),
            led: vec![None; candidates],
            over: Vec::new(),
        }
    }

    fn send(&mut self, to: usize, request: u64, what: What) {
        if self.troubled && self.rng.random_ratio(1, 5) {
            return;
        }
        let longest = if self.troubled { 12_000 } else { 50 };
        let delay = match self.rng.random_ratio(4, 5) {
            true => self.rng.random_range(0..50),
            false => self.rng.random_range(0..longest),
        };
        let at = self.now + Duration::from_millis(delay);
        self.flights.push(Flight {
            to,
            request,
            at,
            what,
        });
    }

    fn serve(&mut self, what: What) -> Heard {
        match what {
            What::Read => Heard::Read(self.lease.clone()),
            What::Write(write) => {
                let current = self.lease.as_ref().map(|lease| Arc::clone(&lease.version));
                if current != write.over {
                    return Heard::Refused;
                }
                self.versions += 1;
                let now = Lease {
                    version: self.versions.to_string().into(),
                    holder: write.holder,
                    transitions: write.transitions,
                    duration: DURATION,
                };
                self.lease = Some(now.clone());
                Heard::Written(now)
            }
            What::Answer(_) => unreachable!("not for the server"),
        }
    }

    fn deliver(&mut self) {
        let now = self.now;
        let (due, later) = std::mem::take(&mut self.flights)
            .into_iter()
            .partition(|f| f.at <= now);
        self.flights = later;
        let due: Vec<Flight> = due;
        for flight in due {
            match flight.what {
                What::Answer(heard) => {
                    let awaited = self.waits[flight.to].is_some_and(|(id, _)| id == flight.request);
                    if awaited {
                        self.waits[flight.to] = None;
                        self.step(flight.to, heard);
                    }
                }
                what @ (What::Read | What::Write(_)) => {
                    let heard = self.serve(what);
                    self.send(flight.to, flight.request, What::Answer(heard));
                }
            }
        }
    }

    fn step(&mut self, who: usize, heard: Heard) {
        let action = self.candidates[who].step(self.now, heard);
        let what = match action {
            Action::Sleep(until) => {
                self.wakes[who] = until;
                return;
            }
            Action::Read => What::Read,
            Action::Write(write) => What::Write(write),
        };
        self.requests += 1;
        self.waits[who] = Some((self.requests, self.now + DURATION / 3));
        self.send(who, self.requests, what);
    }

    /// A process dies, and what it has sent is still on its way; its pod's next one knows nothing.
    fn restart(&mut self, who: usize) {
        self.restarts += 1;
        self.candidates[who] = candidate(who, self.restarts);
        self.waits[who] = None;
        self.wakes[who] = self.now;
    }

    fn tick(&mut self) {
        self.now += STEP;
        self.deliver();
        if self.troubled && self.rng.random_ratio(1, 300) {
            let who = self.rng.random_range(0..self.candidates.len());
            self.restart(who);
        }
        for who in 0..self.candidates.len() {
            match self.waits[who] {
                Some((_, until)) if self.now >= until => {
                    self.waits[who] = None;
                    self.step(who, Heard::Lost);
                }
                None if self.now >= self.wakes[who] => self.step(who, Heard::Nothing),
                Some(_) | None => {}
            }
        }
        self.check();
    }

    fn check(&mut self) {
        let mut leading = 0;
        for who in 0..self.candidates.len() {
            let epoch = self.candidates[who].term(self.now).map(|term| term.epoch);
            if let Some(before) = self.led[who]
                && epoch != Some(before)
            {
                self.over.push(before);
            }
            if let Some(epoch) = epoch {
                leading += 1;
                assert!(!self.over.contains(&epoch), "term {epoch} began again");
                let first = *self.terms.entry(epoch).or_insert(who);
                assert_eq!(first, who, "two led in term {epoch}");
                let newest = self.terms.last_key_value().map(|(epoch, _)| *epoch);
                if self.led[who] != Some(epoch) {
                    assert_eq!(newest, Some(epoch), "a term lower than one before");
                }
            }
            self.led[who] = epoch;
        }
        assert!(leading <= 1, "{leading} lead at once");
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.tick();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn never_two_leaders_whatever_is_lost_or_late_and_one_when_all_is_well_again(
        seed: u64, candidates in 2..4_usize,
    ) {
        let mut world = World::new(seed, candidates);
        world.run(Duration::from_secs(600));
        world.troubled = false;
        world.run(Duration::from_secs(60));
        prop_assert!(world.led.iter().any(Option::is_some), "nobody leads");
        let before = world.terms.len();
        world.run(Duration::from_secs(60));
        prop_assert_eq!(world.terms.len(), before, "a leader was replaced though all was well");

        // The leader's process dies: its pod's next one leads, long before a lease would have expired.
        let leader = world.led.iter().position(Option::is_some).unwrap();
        let term = world.led[leader];
        world.restart(leader);
        world.run(DURATION / 3);
        prop_assert!(world.led[leader] > term, "{:?} after {term:?}", world.led[leader]);

        // The leader resigns: another leads soon, long before a lease would have expired.
        let leader = world.led.iter().position(Option::is_some).unwrap();
        world.candidates[leader].resign();
        world.wakes[leader] = world.now;
        world.run(DURATION / 3);
        let next = world.led.iter().position(Option::is_some);
        prop_assert!(next.is_some_and(|next| next != leader), "nobody took over: {next:?}");
    }
}
