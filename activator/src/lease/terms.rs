//! Until when leases may be held at the longest. Whoever holds one gives it back in time as a rule; but an answer is looked
//! at only when its client reads, and a client that does not must not keep an instance.
//!
//! Invariants: a term ends once, by its lease or by the clock; a place is used again only under another number. Pure: time
//! is an argument.

use tokio::time::Instant;

/// More places than this are not kept for nobody.
const KEPT: usize = 64;

/// The terms of one instance's leases.
#[derive(Debug, Default)]
pub(crate) struct Terms {
    places: Vec<Place>,
    // First free place; each names the next.
    free: Option<usize>,
    running: usize,
    last: u64,
}

#[derive(Debug)]
enum Place {
    Free { next: Option<usize> },
    Taken { number: u64, ends: Instant },
}

/// One lease's term.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Term {
    place: usize,
    number: u64,
}

impl Terms {
    /// A term that runs until `ends`.
    pub(crate) fn begin(&mut self, ends: Instant) -> Term {
        self.last += 1;
        self.running += 1;
        let number = self.last;
        let taken = Place::Taken { number, ends };
        let place = match self.free {
            Some(free) => {
                self.free = match std::mem::replace(&mut self.places[free], taken) {
                    Place::Free { next } => next,
                    Place::Taken { .. } => None,
                };
                free
            }
            None => {
                self.places.push(taken);
                self.places.len() - 1
            }
        };
        Term { place, number }
    }

    /// Whether it runs.
    pub(crate) fn runs(&self, term: Term) -> bool {
        match self.places.get(term.place) {
            Some(Place::Taken { number, .. }) => *number == term.number,
            Some(Place::Free { .. }) | None => false,
        }
    }

    /// Ends it; whether it ran until now.
    pub(crate) fn end(&mut self, term: Term) -> bool {
        let runs = self.runs(term);
        if runs {
            self.vacate(term.place);
        }
        runs
    }

    /// Ends all that are `over`, by when they end; how many there were.
    pub(crate) fn end_all(&mut self, over: impl Fn(Instant) -> bool) -> u32 {
        let mut ended = 0;
        for place in 0..self.places.len() {
            match &self.places[place] {
                Place::Taken { ends, .. } if over(*ends) => {
                    self.vacate(place);
                    ended += 1;
                }
                Place::Taken { .. } | Place::Free { .. } => {}
            }
        }
        if self.running == 0 && self.places.capacity() > KEPT {
            self.places = Vec::new();
            self.free = None;
        }
        ended
    }

    fn vacate(&mut self, place: usize) {
        self.places[place] = Place::Free { next: self.free };
        self.free = Some(place);
        self.running -= 1;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn each_term_ends_once_by_its_lease_or_by_the_clock(
            steps in prop::collection::vec((0_u8..3, 0_u64..20), 0..300)
        ) {
            let start = Instant::now();
            let at = |second| start + Duration::from_secs(second);
            let mut terms = Terms::default();
            let mut running: Vec<(Term, u64)> = Vec::new();
            let mut ended: Vec<Term> = Vec::new();
            for (what, second) in steps {
                match what {
                    0 => running.push((terms.begin(at(second)), second)),
                    1 if !running.is_empty() => {
                        let (term, _) = running.remove(second as usize % running.len());
                        prop_assert!(terms.end(term));
                        ended.push(term);
                    }
                    _ => {
                        let over = running.extract_if(.., |(_, ends)| *ends <= second);
                        let over: Vec<Term> = over.map(|(term, _)| term).collect();
                        prop_assert_eq!(terms.end_all(|ends| ends <= at(second)) as usize, over.len());
                        ended.extend(over);
                    }
                }
                prop_assert_eq!(terms.running, running.len());
                prop_assert!(running.iter().all(|(term, _)| terms.runs(*term)));
                prop_assert!(!ended.iter().any(|term| terms.runs(*term) || terms.end(*term)));
            }
        }
    }

    #[test]
    fn places_are_used_again_and_given_back_when_nobody_needs_them() {
        let now = Instant::now();
        let mut terms = Terms::default();
        for _ in 0..1_000 {
            let term = terms.begin(now);
            terms.end(term);
        }
        assert_eq!(terms.places.len(), 1);
        for _ in 0..1_000 {
            terms.begin(now);
        }
        assert_eq!(terms.end_all(|_ends| true), 1_000);
        assert_eq!(terms.places.capacity(), 0);
    }
}
