//! Where a client's legacy stream is: parked, asking a server, or attached to its stream.

use std::{future::Future, pin::Pin};

use mcp_gateway_api::record::SessionBinding;

use super::attached::{Asked, Attached, Passed};
use crate::forward::upstream::SendError;

pub(super) type Opening = Pin<Box<dyn Future<Output = Result<Asked, SendError>> + Send>>;

/// Where a legacy stream is.
pub(super) enum Place {
    /// With no server.
    Parked,
    /// A server has been asked.
    Opening(SessionBinding, Opening),
    /// A server's events pass.
    Attached(SessionBinding, Box<Attached>),
}

/// What happened there.
pub(super) enum Step {
    /// The server that was asked has answered.
    Opened(SessionBinding, Result<Asked, SendError>),
    /// The server's stream did something.
    Passed(Passed),
}

/// Where there was no stream to be had.
pub(super) enum Refused {
    /// The server has none: not asked again.
    ForGood(SessionBinding),
    /// It was lost: asked again when something changes.
    ForNow(SessionBinding),
    /// Somebody else has it, such as an activator that has not noticed that its client left: asked again with each
    /// keep-alive.
    Busy(SessionBinding),
}

impl Refused {
    /// Whether it was there.
    pub(super) fn at(&self, asked: &SessionBinding) -> bool {
        match self {
            Self::ForGood(binding) | Self::ForNow(binding) | Self::Busy(binding) => {
                binding == asked
            }
        }
    }
}

impl Place {
    /// What happens next here; never anything while parked. Nothing is lost if the future is dropped.
    pub(super) async fn step(&mut self) -> Step {
        match self {
            Self::Parked => std::future::pending().await,
            Self::Opening(binding, opening) => {
                let asked = opening.await;
                Step::Opened(binding.clone(), asked)
            }
            Self::Attached(_, attached) => Step::Passed(attached.next().await),
        }
    }

    /// Whose stream it is, or will be.
    pub(super) const fn binding(&self) -> Option<&SessionBinding> {
        match self {
            Self::Parked => None,
            Self::Opening(binding, _) | Self::Attached(binding, _) => Some(binding),
        }
    }

    /// Whether bytes of ours would stand between two events.
    pub(super) fn at_boundary(&self) -> bool {
        match self {
            Self::Parked | Self::Opening(..) => true,
            Self::Attached(_, attached) => attached.at_boundary(),
        }
    }
}
