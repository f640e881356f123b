//! Why an agent's call is refused, how often that has happened, and who is told.

use std::sync::{
    LazyLock,
    atomic::{AtomicU64, Ordering},
};

use opentelemetry::{KeyValue, global, metrics::Counter};
use tonic::Status;

static REFUSED: LazyLock<Counter<u64>> = LazyLock::new(|| {
    global::meter("mcp_gateway")
        .u64_counter("mcp_gateway.home.refusals")
        .with_description(
            "Calls of agents, or of others in their name, that were refused, by reason.",
        )
        .build()
});

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

    /// What operators are told of the pod in whose name somebody called, where that may have been somebody else.
    pub(crate) const fn warning(self) -> Option<&'static str> {
        match self {
            Self::Silent | Self::Crowded | Self::Protocol | Self::Unknown => None,
            Self::Token => {
                Some("somebody called home in its name without its token, and was refused")
            }
            Self::Spent => {
                Some("its token was used to call home for a second time, which was refused")
            }
            Self::Foreign => {
                Some("somebody called home under another name with its UID, and was refused")
            }
            Self::Address => {
                Some("somebody called home in its name from another address, and was refused")
            }
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
        REFUSED.add(1, &[KeyValue::new("reason", why.label())]);
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
