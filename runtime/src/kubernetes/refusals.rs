//! Why an agent's call is refused, and how often that has happened.

use std::sync::atomic::{AtomicU64, Ordering};

use tonic::Status;

/// Why. Each is a metric label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// No hello in time.
    Silent,
    /// Too many calls wait for their hello.
    Crowded,
    /// The first message was no hello of a version that is spoken here.
    Protocol,
    /// A proof that was not made here, or for another pod.
    Token,
    /// A launch token for the second time.
    Spent,
    /// The name and the UID are not of one pod.
    Foreign,
    /// It is not at the address that it claims.
    Address,
    /// A pod that nobody knows any more.
    Unknown,
}

impl Refusal {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Silent,
        Self::Crowded,
        Self::Protocol,
        Self::Token,
        Self::Spent,
        Self::Foreign,
        Self::Address,
        Self::Unknown,
    ];

    /// As a metric label.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Silent => "silent",
            Self::Crowded => "crowded",
            Self::Protocol => "protocol",
            Self::Token => "token",
            Self::Spent => "spent",
            Self::Foreign => "foreign",
            Self::Address => "address",
            Self::Unknown => "unknown",
        }
    }

    /// What the caller is told: not more than whether to try again, or to end.
    pub(crate) fn status(self) -> Status {
        match self {
            Self::Silent | Self::Crowded => Status::unavailable("try again"),
            Self::Protocol => Status::failed_precondition("a hello of protocol 1 is expected"),
            Self::Token | Self::Spent | Self::Foreign | Self::Address => {
                Status::unauthenticated("who are you?")
            }
            Self::Unknown => Status::not_found("nobody knows this pod any more"),
        }
    }
}

/// How often each has happened since the runtime was opened.
#[derive(Debug, Default)]
pub struct Refusals([AtomicU64; 8]);

impl Refusals {
    pub(crate) fn count(&self, why: Refusal) {
        self.of(why).fetch_add(1, Ordering::Relaxed);
    }

    fn of(&self, why: Refusal) -> &AtomicU64 {
        let [
            silent,
            crowded,
            protocol,
            token,
            spent,
            foreign,
            address,
            unknown,
        ] = &self.0;
        match why {
            Refusal::Silent => silent,
            Refusal::Crowded => crowded,
            Refusal::Protocol => protocol,
            Refusal::Token => token,
            Refusal::Spent => spent,
            Refusal::Foreign => foreign,
            Refusal::Address => address,
            Refusal::Unknown => unknown,
        }
    }

    /// How often.
    #[must_use]
    pub fn get(&self, why: Refusal) -> u64 {
        self.of(why).load(Ordering::Relaxed)
    }
}
