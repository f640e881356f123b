//! Deciding: one candidate's view of the lease, as a value.
//!
//! The caller does what [`Candidate::step`] says and tells what came of it, one action at a time; between two steps the
//! passing of time alone may end a leadership ([`Candidate::term`]). Others' clocks are never read: another's lease has
//! expired when it has not changed for its duration by the own clock. Only that of an earlier process of the own pod has
//! expired at once: it is known to be dead.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

#[cfg(test)]
mod tests;

/// The lease as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// Changes with each write.
    pub version: Arc<str>,
    /// Who holds it; nobody, if it was released.
    pub holder: Option<Arc<str>>,
    /// How often it was taken.
    pub transitions: u64,
    /// How long its holder may be silent.
    pub duration: Duration,
}

/// A write that replaces the lease read last, and only that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// The version it replaces; `None`: there is none yet.
    pub over: Option<Arc<str>>,
    /// Who holds it from now on.
    pub holder: Option<Arc<str>>,
    /// How often it was taken, this time included.
    pub transitions: u64,
    /// Whether this write takes it, or only keeps it.
    pub takes: bool,
}

/// What came of the last action.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// Time has passed.
    Nothing,
    /// The lease was read; `None`: there is none.
    Read(Option<Lease>),
    /// The write was accepted; the lease is this now.
    Written(Lease),
    /// The write was refused: somebody else wrote first.
    Refused,
    /// No answer: it may or may not have happened, or may happen yet.
    Lost,
}

/// What to do now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Nothing until then.
    Sleep(Instant),
    /// Read the lease.
    Read,
    /// Write the lease.
    Write(Write),
}

/// A leadership.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Term {
    /// Its number.
    pub epoch: u64,
    /// It is over then, unless it is renewed.
    pub until: Instant,
}

/// One candidate.
#[derive(Debug)]
pub struct Candidate {
    id: Arc<str>,
    /// How the ids of earlier processes begin that cannot be alive any more.
    before: Option<Arc<str>>,
    /// Such a process that held the lease when it was first read. Whoever takes it later is alive, whatever its id.
    dead: Option<Arc<str>>,
    duration: Duration,
    first: u64,
    /// The lease as last read, when it was first seen so, and when it was last looked at.
    seen: Option<Seen>,
    term: Option<Term>,
    /// The write under way, and when it was sent.
    sent: Option<(Write, Instant)>,
    resigned: bool,
}

#[derive(Debug)]
struct Seen {
    lease: Option<Lease>,
    since: Instant,
    looked: Instant,
    /// Something went wrong since: what is known may be old.
    stale: bool,
}

impl Candidate {
    /// A candidate whose `id` no other process has or will have, for a lease of that duration. A lease that does not
    /// exist begins with the term `first`, which should be above that of any earlier lease, or with the one after the
    /// highest that this candidate has seen.
    #[must_use]
    pub fn new(id: &str, duration: Duration, first: u64) -> Self {
        Self {
            id: id.into(),
            before: None,
            dead: None,
            duration,
            first,
            seen: None,
            term: None,
            sent: None,
            resigned: false,
        }
    }

    /// The same after other processes, whose ids begin like this and who are dead: what one of them holds is free.
    #[must_use]
    pub fn after(self, before: Option<Arc<str>>) -> Self {
        Self { before, ..self }
    }

    /// The leadership at that moment, if there is one.
    #[must_use]
    pub fn term(&self, now: Instant) -> Option<Term> {
        self.term.filter(|term| now < term.until)
    }

    /// Who holds the lease, as last read.
    #[must_use]
    pub fn holder(&self) -> Option<&Arc<str>> {
        self.seen.as_ref()?.lease.as_ref()?.holder.as_ref()
    }

    /// Leads no more, and takes the lease no more. The next write, if any, gives it back.
    pub fn resign(&mut self) {
        self.term = None;
        self.resigned = true;
    }

    /// Hears what came of the last action and says what to do next.
    pub fn step(&mut self, now: Instant, heard: Heard) -> Action {
        match heard {
            Heard::Nothing => {}
            Heard::Read(lease) => self.read(now, lease),
            Heard::Written(lease) => self.written(now, lease),
            Heard::Refused | Heard::Lost => {
                self.sent = None;
                if let Some(seen) = &mut self.seen {
                    seen.stale = true;
                }
            }
        }
        if self.term.is_some_and(|term| now >= term.until) {
            self.term = None;
        }
        self.next(now)
    }

    fn read(&mut self, now: Instant, lease: Option<Lease>) {
        // Somebody else took it: whatever the own clock says, this leadership is over.
        let mine = |lease: &Lease, term: &Term| {
            lease.holder.as_ref() == Some(&self.id) && lease.transitions == term.epoch
        };
        if let Some(term) = &self.term
            && !lease.as_ref().is_some_and(|lease| mine(lease, term))
        {
            self.term = None;
        }
        if let (None, Some(lease), Some(before)) = (&self.seen, &lease, &self.before) {
            let holder = lease.holder.clone();
            self.dead = holder.filter(|holder| holder.starts_with(before.as_ref()));
        }
        let transitions = lease.as_ref().map_or(0, |lease| lease.transitions);
        self.first = self.first.max(transitions.saturating_add(1));
        let since = match &self.seen {
            Some(seen) if seen.lease == lease => seen.since,
            Some(_) | None => now,
        };
        self.seen = Some(Seen {
            lease,
            since,
            looked: now,
            stale: false,
        });
    }

    fn written(&mut self, now: Instant, lease: Lease) {
        let Some((write, sent)) = self.sent.take() else {
            return;
        };
        // The time counts from when the write was sent: others count from when they see it, which is later.
        let until = sent + self.duration * 2 / 3;
        let holds = lease.holder.as_ref() == Some(&self.id);
        if write.takes && holds && !self.resigned {
            let epoch = lease.transitions;
            self.term = Some(Term { epoch, until });
        } else if let Some(term) = &mut self.term
            && holds
            && now < term.until
        {
            term.until = until;
        }
        self.seen = Some(Seen {
            lease: Some(lease),
            since: now,
            looked: now,
            stale: false,
        });
    }

    fn next(&mut self, now: Instant) -> Action {
        let Some(seen) = self.seen.as_ref().filter(|seen| !seen.stale) else {
            return Action::Read;
        };
        let holds = seen
            .lease
            .as_ref()
            .is_some_and(|lease| lease.holder.as_ref() == Some(&self.id));
        if self.resigned {
            return match &seen.lease {
                Some(lease) if holds => self.write(now, lease.clone(), false),
                Some(_) | None => Action::Sleep(now + self.duration),
            };
        }
        if let (Some(term), Some(lease)) = (self.term, &seen.lease) {
            let renew = term.until - self.duration / 3;
            if now < renew {
                return Action::Sleep(renew);
            }
            return self.write(now, lease.clone(), false);
        }
        let free = match &seen.lease {
            None => true,
            // Held by this very process, which does not lead: taken by a write that nobody answered, or lost by silence.
            // Nobody else leads in its term, and this process never again does.
            Some(_) if holds => true,
            Some(lease) => {
                let expires = seen.since + lease.duration.max(self.duration);
                let dead = lease.holder == self.dead;
                dead || lease.holder.is_none() || now >= expires
            }
        };
        // A refusal counts from the last look, so an expired lease is taken as it is now, not as it was once.
        let fresh = now < seen.looked + self.look_again();
        match (free && fresh, &seen.lease) {
            (true, Some(lease)) => self.write(now, lease.clone(), true),
            (true, None) => self.create(now),
            (false, _) if fresh => Action::Sleep(seen.looked + self.look_again()),
            (false, _) => Action::Read,
        }
    }

    fn look_again(&self) -> Duration {
        self.duration / 10
    }

    fn write(&mut self, now: Instant, lease: Lease, takes: bool) -> Action {
        let write = Write {
            over: Some(lease.version),
            holder: (!self.resigned).then(|| Arc::clone(&self.id)),
            transitions: lease.transitions + u64::from(takes),
            takes,
        };
        self.sent = Some((write.clone(), now));
        Action::Write(write)
    }

    fn create(&mut self, now: Instant) -> Action {
        let write = Write {
            over: None,
            holder: Some(Arc::clone(&self.id)),
            transitions: self.first,
            takes: true,
        };
        self.sent = Some((write.clone(), now));
        Action::Write(write)
    }
}
