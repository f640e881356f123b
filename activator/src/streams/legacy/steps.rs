//! What the server's side of a legacy stream does, and what becomes of the client's.

use axum::http::{StatusCode, response::Parts};
use mcp_gateway_api::record::SessionBinding;
use tokio::time::Instant;

use super::{Legacy, Next};
use crate::{
    edge::headers::LOST,
    exchange::news,
    session::Strand,
    sse::{EventSummary, Seen},
    streams::{
        attached::{Asked, Passed},
        broken_off,
        place::{Place, Refused, Step},
    },
};

impl Legacy {
    pub(super) async fn stepped(&mut self, step: Step) -> Next {
        match step {
            Step::Opened(binding, Ok(Asked::Stream(_, attached))) => {
                self.asked.afresh();
                self.remember(true);
                self.place = Place::Attached(binding, attached);
                Next::Again
            }
            Step::Opened(binding, Ok(Asked::Refused(head, _))) => {
                self.refused_later(binding, &head)
            }
            Step::Opened(binding, Err(_unreachable)) => {
                self.park();
                self.asked.afresh();
                self.refused = Some(Refused::ForNow(binding));
                Next::Again
            }
            Step::Passed(Passed::Bytes(bytes, events)) => {
                self.last = Instant::now();
                events.iter().for_each(|event| self.observe(event));
                Next::Give(Ok(bytes))
            }
            Step::Passed(Passed::Service(_)) => Next::Again,
            Step::Passed(Passed::Lost) if !self.place.at_boundary() => {
                Next::Give(Err(broken_off()))
            }
            Step::Passed(Passed::Lost) if self.ticket.strand() == Strand::GET => {
                self.refused = self.place.binding().cloned().map(Refused::ForNow);
                self.park();
                Next::Again
            }
            // Its client resumes it again if it waits for more.
            Step::Passed(Passed::Ended)
                if self.ticket.strand() != Strand::GET && self.place.at_boundary() =>
            {
                Next::End
            }
            Step::Passed(Passed::Lost | Passed::Ended) => self.ended().await,
        }
    }

    /// The server gives no stream, and the client has its headers.
    fn refused_later(&mut self, binding: SessionBinding, head: &Parts) -> Next {
        self.park();
        if head.status == StatusCode::CONFLICT {
            self.asked.busy();
            self.refused = Some(Refused::Busy(binding));
            return Next::Again;
        }
        self.asked.afresh();
        if head.status == StatusCode::METHOD_NOT_ALLOWED {
            // Clients that come again are told so.
            self.remember(false);
            return Next::End;
        }
        if head.headers.get(LOST).is_some_and(|what| what == "session") {
            self.session_lost(&binding);
        } else if self.ticket.strand() != Strand::GET {
            return Next::End;
        }
        self.refused = Some(Refused::ForGood(binding));
        Next::Again
    }

    /// A bridge lost the session's child.
    pub(super) fn session_lost(&self, binding: &SessionBinding) {
        if self.opened.session.lost_at(binding) {
            news::let_go(&self.gateway, &self.opened.about);
        }
    }

    /// The server ended the stream: with its own end, or because it wants the client to come again.
    async fn ended(&mut self) -> Next {
        let boundary = self.place.at_boundary();
        let binding = self.place.binding().cloned();
        let was = std::mem::replace(&mut self.place, Place::Parked);
        self.ticket.park(true);
        let Place::Attached(_, mut attached) = was else {
            return Next::End;
        };
        if !boundary {
            return Next::Give(Err(broken_off()));
        }
        if !attached.dies().await {
            return Next::End;
        }
        self.refused = binding.map(Refused::ForNow);
        Next::Again
    }

    fn observe(&self, event: &EventSummary) {
        let Place::Attached(binding, attached) = &self.place else {
            return;
        };
        let asks = |seen: &Seen| matches!(seen, Seen::Request { .. });
        // A server that asks something while nothing else runs keeps its instance until it is answered.
        let lease = event.messages.iter().any(asks).then(|| {
            let taken = self.gateway.deps.directory.lease(binding.instance).ok();
            taken.or_else(|| self.opened.session.beside(binding.instance))
        });
        let deadline = Instant::now() + self.request_timeout;
        let from = (attached.instance(), self.ticket.strand());
        let session = &self.opened.session;
        session.observe(from, event, lease.flatten().as_ref(), deadline);
        if event.says_lost() {
            self.session_lost(binding);
        }
    }
}
