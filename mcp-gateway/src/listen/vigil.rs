//! Decides when a connection on which nothing is asked has to end.
//!
//! The connection is looked at some times within the patience it has, so that nobody need note the time of anything. Pure: the
//! times are the caller's.
//!
//! Invariants: whoever has asked nothing is asked to end after [`LOOKS`] looks, and cut at the next; so is an HTTP/2
//! connection that had no stream for as long, but later: its last answers may still be on their way. One that has a stream is
//! never ended. HTTP/1 connections are watched until their first request only: from then on hyper waits for each head, and for
//! no longer than that.

/// So many quiet looks in a row are the whole patience.
pub(super) const LOOKS: u32 = 4;

/// What a look at a connection shows.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Seen {
    /// The head of a request has come.
    pub(super) asked: bool,
    /// HTTP/2 streams so far, those that ended included. Over HTTP/1 there are none.
    pub(super) opened: usize,
    /// HTTP/2 streams now.
    pub(super) open: usize,
}

/// What to do with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Look again after the next part of the patience.
    Wait,
    /// It has asked nothing: ask it to end, and look again soon.
    Dismiss,
    /// It has been answered: ask it to end, and look again when it must have taken its answers.
    Retire,
    /// It was asked and did not end: drop it.
    Cut,
    /// It speaks HTTP/1 and has asked: look no more.
    Leave,
}

/// The looks at one connection.
#[derive(Debug, Default)]
pub(super) struct Vigil {
    /// Streams at the last look.
    opened: usize,
    /// Looks in a row that saw nothing.
    quiet: u32,
}

impl Vigil {
    /// Takes one look.
    pub(super) fn look(&mut self, seen: Seen) -> Verdict {
        if seen.asked && seen.opened == 0 {
            return Verdict::Leave;
        }
        if seen.open > 0 || seen.opened != self.opened {
            // Also after it was asked to end: what came meanwhile is answered first.
            self.opened = seen.opened;
            self.quiet = 0;
            return Verdict::Wait;
        }
        self.quiet += 1;
        if self.quiet < LOOKS {
            Verdict::Wait
        } else if self.quiet > LOOKS {
            Verdict::Cut
        } else if seen.asked {
            Verdict::Retire
        } else {
            Verdict::Dismiss
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{
        LOOKS, Seen,
        Verdict::{Cut, Dismiss, Leave, Retire, Wait},
        Vigil,
    };

    const SILENT: Seen = Seen {
        asked: false,
        opened: 0,
        open: 0,
    };

    /// An HTTP/2 connection that had so many streams, and has so many.
    const fn streams(opened: usize, open: usize) -> Seen {
        Seen {
            asked: true,
            opened,
            open,
        }
    }

    #[test]
    fn who_asks_nothing_is_asked_to_end_and_cut_at_the_next_look() {
        let mut vigil = Vigil::default();
        for _ in 1..LOOKS {
            assert_eq!(vigil.look(SILENT), Wait);
        }
        assert_eq!([(); 2].map(|()| vigil.look(SILENT)), [Dismiss, Cut]);
    }

    #[test]
    fn who_asks_over_http_1_is_left_alone_even_after_being_asked_to_end() {
        let asked = Seen {
            asked: true,
            ..SILENT
        };
        assert_eq!(Vigil::default().look(asked), Leave);
        let mut vigil = Vigil::default();
        while vigil.look(SILENT) != Dismiss {}
        assert_eq!(vigil.look(asked), Leave);
    }

    #[test]
    fn an_open_stream_keeps_its_connection_for_ever() {
        let mut vigil = Vigil::default();
        for _ in 0..10 * LOOKS {
            assert_eq!(vigil.look(streams(1, 1)), Wait);
        }
    }

    #[test]
    fn a_stream_that_came_and_went_between_two_looks_counts() {
        let mut vigil = Vigil::default();
        for opened in 1..10 * LOOKS as usize {
            assert_eq!(vigil.look(streams(opened, 0)), Wait);
        }
    }

    #[test]
    fn an_idle_http_2_connection_ends_after_the_whole_patience() {
        let mut vigil = Vigil::default();
        assert_eq!(vigil.look(streams(3, 1)), Wait, "the last one is open");
        for _ in 1..LOOKS {
            assert_eq!(vigil.look(streams(3, 0)), Wait);
        }
        assert_eq!([(); 2].map(|()| vigil.look(streams(3, 0))), [Retire, Cut]);
    }

    #[test]
    fn a_stream_that_came_while_its_connection_was_asked_to_end_is_not_cut() {
        let mut vigil = Vigil::default();
        while vigil.look(SILENT) != Dismiss {}
        assert_eq!(vigil.look(streams(1, 1)), Wait);
        assert_eq!(vigil.look(streams(1, 0)), Wait);
    }
}
