//! Which of a session's upstream streams is which.
//!
//! A *strand* is what the server sends on one stream, however often the client takes it up again: the passive GET stream
//! is one, the answer to each POST another, which goes on on a GET that resumes it (2025-11-25 `basic/transports`,
//! "Resumability and Redelivery"). Each event id belongs to the strand it came on. A client may follow several at once: a
//! newer stream takes the place of an older one of the same strand, and of no other.
//!
//! Invariants: a strand of an earlier upstream session is never current again; what is remembered is bounded by what is
//! open and by [`EVENTS_REMEMBERED`]. Pure.

use std::collections::VecDeque;

/// Event ids remembered for each session, as hashes.
pub(super) const EVENTS_REMEMBERED: usize = 256;

/// One strand of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Strand(u64);

impl Strand {
    /// The passive stream, which every upstream session has.
    pub const GET: Self = Self(0);
}

/// The strands of one session.
#[derive(Debug, Default)]
pub(super) struct Strands {
    last: u64,
    // The last one of the upstream session before.
    before: u64,
    events: VecDeque<(u64, Strand)>,
    // The client's newest open stream of each strand.
    newest: Vec<(Strand, u64)>,
    number: u64,
}

impl Strands {
    /// A POST goes upstream: its answer is a new strand.
    pub(super) const fn begin(&mut self) -> Strand {
        self.last += 1;
        Strand(self.last)
    }

    /// The upstream session is another: nothing of the one before goes on.
    pub(super) fn renew(&mut self) {
        self.before = self.last;
        self.events = VecDeque::new();
    }

    /// Whether it belongs to the upstream session of now.
    pub(super) fn is_current(&self, strand: Strand) -> bool {
        strand == Strand::GET || strand.0 > self.before
    }

    /// An event passed on it.
    pub(super) fn saw(&mut self, strand: Strand, event_id: &str) {
        if self.events.len() == EVENTS_REMEMBERED {
            self.events.pop_front();
        }
        self.events.push_back((hash(event_id), strand));
    }

    /// The strand that an event came on, if it was seen on the upstream session of now.
    pub(super) fn of(&self, event_id: &str) -> Option<Strand> {
        let wanted = hash(event_id);
        let found = self.events.iter().rev().find(|(seen, _)| *seen == wanted);
        found.map(|(_, strand)| *strand)
    }

    #[cfg(test)]
    pub(super) fn remembered(&self) -> usize {
        self.events.len()
    }

    /// The client opens a stream of it, which takes the place of the one before.
    pub(super) fn open(&mut self, strand: Strand) -> u64 {
        self.number += 1;
        self.newest.retain(|(known, _)| *known != strand);
        self.newest.push((strand, self.number));
        self.number
    }

    /// The client's stream of this number has ended.
    pub(super) fn close(&mut self, number: u64) {
        self.newest.retain(|(_, known)| *known != number);
        if self.newest.is_empty() {
            self.newest = Vec::new();
        }
    }

    /// Whether this is the newest of its strand.
    pub(super) fn is_newest(&self, strand: Strand, number: u64) -> bool {
        self.newest.contains(&(strand, number))
    }

    /// Whether the client has a stream of it open.
    pub(super) fn is_followed(&self, strand: Strand) -> bool {
        self.newest.iter().any(|(known, _)| *known == strand)
    }
}

fn hash(event_id: &str) -> u64 {
    use std::hash::{BuildHasher, RandomState};
    static KEYS: std::sync::LazyLock<RandomState> = std::sync::LazyLock::new(RandomState::new);
    KEYS.hash_one(event_id)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_event_is_of_the_strand_it_came_on_and_of_none_after_a_change() {
        let mut strands = Strands::default();
        let (one, two) = (strands.begin(), strands.begin());
        strands.saw(one, "a");
        strands.saw(two, "b");
        strands.saw(Strand::GET, "c");
        let of = |id| strands.of(id);
        assert_eq!(
            ["a", "b", "c", "d"].map(of),
            [Some(one), Some(two), Some(Strand::GET), None]
        );
        strands.renew();
        assert_eq!(strands.of("c"), None);
        let three = strands.begin();
        assert_eq!(
            [one, two, three, Strand::GET].map(|strand| strands.is_current(strand)),
            [false, false, true, true]
        );
    }

    proptest! {
        #[test]
        fn the_newest_open_stream_of_each_strand_follows_it(
            steps in prop::collection::vec((0_u64..3, any::<bool>()), 0..60)
        ) {
            let mut strands = Strands::default();
            let mut open: Vec<(Strand, u64)> = Vec::new();
            for (strand, opens) in steps {
                let strand = Strand(strand);
                if opens {
                    open.push((strand, strands.open(strand)));
                } else if !open.is_empty() {
                    let (_, number) = open.remove(strand.0 as usize % open.len());
                    strands.close(number);
                }
                for (strand, number) in &open {
                    let newer = open.iter().any(|(s, n)| s == strand && n > number);
                    // One that was replaced stays so, also when its successor has ended.
                    prop_assert!(!(newer && strands.is_newest(*strand, *number)));
                }
                prop_assert!(strands.newest.len() <= 3);
                prop_assert!(strands.newest.iter().all(|newest| open.contains(newest)));
            }
        }
    }
}
