//! The legacy GET stream of a session (2025-11-25 `basic/transports`, "Listening for Messages from the Server").
//!
//! Wakes nothing and holds no lease. While the session sleeps the stream is parked; when the session is awake, again or
//! still, it is attached. A second GET takes the place of the first, whose upstream connection is closed before the next
//! is opened (servers answer 409 until they noticed, and as long as another activator reads it for a client that has left:
//! it is asked for until it is free). A GET that resumes the answer to a POST is another [`Strand`]: it
//! stands beside the passive stream, and ends with the upstream session that it belongs to.
//! `Last-Event-ID` goes upstream only if that id was seen on the session's current upstream session, here or, as long as
//! the session has had no other, anywhere.
//! A server that has no such stream (405) is remembered, so that clients learn it while it sleeps, too.

use std::{io, sync::Arc, time::Duration};

use crate::forward::link::Inbound;
use axum::{
    body::Body,
    extract::{Request, State},
    http::{HeaderValue, Response, StatusCode, response::Parts},
    response::IntoResponse,
};
use bytes::Bytes;
use mcp_gateway_api::{
    backend::Transport,
    failure::{Failure, FailureKind},
    record::SessionBinding,
    view::{InstanceView, Service},
};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until, timeout},
};

use super::{
    KEEP_ALIVE, Source,
    attached::{Asked, lives, pass_on},
    broken_off, error_events, event_stream,
    get::{Ask, open, resumed_from},
    place::{Place, Refused},
    right::Right,
    sessionless::sessionless,
};
use crate::{
    caller::Caller,
    edge::headers::{LOST, SESSION_ID},
    error::Refusal,
    exchange::{
        opened::{self, Opened},
        session, slots,
    },
    forward,
    gateway::Gateway,
    lease::Life,
    memory::MemoryKey,
    session::{Strand, StreamTicket},
};

mod steps;

/// How long the client's headers wait for the server's. Some servers send theirs only with their first event.
const COMMIT_AFTER: Duration = Duration::from_secs(3);

/// `GET /adapters/{backend}/mcp`.
pub(crate) async fn get(
    State(gateway): State<Gateway>,
    caller: Caller,
    request: Request,
) -> Response<Body> {
    let (head, _no_body) = request.into_parts();
    let answered = if caller.backend.launch.transport == Transport::Sse {
        crate::sse_transport::open(&gateway, &caller, &head.headers)
    } else if head.headers.contains_key(SESSION_ID) {
        in_session(gateway, &caller, &head).await
    } else {
        sessionless(gateway, &caller, &head).await
    };
    answered.unwrap_or_else(|failure| Refusal::from(failure).into_response())
}

async fn in_session(
    gateway: Gateway,
    caller: &Caller,
    head: &http::request::Parts,
) -> Result<Response<Body>, Failure> {
    let opened = opened::open(&gateway, caller, &head.headers)?;
    if let Some(gone) = session::expired(&gateway, caller, &opened).await {
        return Err(gone);
    }
    let memory = slots::memory_key(caller);
    let known = gateway.deps.memory.get(&memory);
    let has_none = known.and_then(|known| known.streams) == Some(false);
    if has_none && !is_awake(&gateway, &opened) {
        return Err(Failure::new(
            FailureKind::Method,
            "This server has no stream to listen to.",
        ));
    }
    let shown = opened.shown.clone();
    let (strand, resume) = resumed_from(&gateway, &opened, &head.headers).unzip();
    let left = opened.about.expires_at.saturating_sub(opened::unix_now());
    let left = Duration::from_secs(left);
    let mut stream = Legacy {
        ticket: opened.session.open_stream(strand.unwrap_or(Strand::GET)),
        asked: Ask::of(head, resume),
        request_timeout: caller.backend.policy.request_timeout,
        opened,
        memory,
        place: Place::Parked,
        refused: None,
        reopens: None,
        right: Right::new(&gateway, caller, left)?,
        over: false,
        last: Instant::now(),
        gateway,
    };
    let mut response = match timeout(COMMIT_AFTER, stream.attach_at_once()).await {
        Ok(Some(Answer::Refused(by, head, body))) => return stream.refuse(&by, head, body).await,
        Ok(Some(Answer::Stream(head))) => event_stream(Some(head), stream),
        Ok(None) | Err(_) => event_stream(None, stream),
    };
    response.headers_mut().insert(SESSION_ID, shown);
    Ok(response)
}

/// Whether the session lives on an instance that can be asked.
fn is_awake(gateway: &Gateway, opened: &Opened) -> bool {
    let binding = opened.binding(gateway);
    binding.is_some_and(|binding| lives(gateway, binding.instance).is_some())
}

enum Answer {
    Stream(Box<Parts>),
    Refused(SessionBinding, Box<Parts>, Inbound),
}

struct Legacy {
    gateway: Gateway,
    opened: Opened,
    ticket: StreamTicket,
    asked: Ask,
    request_timeout: Duration,
    memory: MemoryKey,
    place: Place,
    refused: Option<Refused>,
    // Parked because the instance drains for being idle: told should that be called off.
    reopens: Option<watch::Receiver<Life>>,
    right: Right,
    // What was to be said at the end has been said.
    over: bool,
    last: Instant,
}

impl Source for Legacy {
    async fn next(&mut self) -> Option<io::Result<Bytes>> {
        let session = Arc::clone(&self.opened.session);
        loop {
            // Made before looking, so that no change is missed in between.
            let changed = session.changed();
            if self.over || session.ended().is_cancelled() || self.ticket.is_replaced() {
                return None;
            }
            if !self.settle() {
                return Some(Err(broken_off()));
            }
            if let Some(errors) = self.unanswered() {
                // What a resumed stream was resumed for has been said.
                self.over = self.ticket.strand() != Strand::GET;
                return Some(Ok(errors));
            }
            if self.ticket.is_void() {
                return None;
            }
            let due = self.last + self.gateway.config.keep_alive;
            tokio::select! {
                biased;
                () = self.gateway.cut.cancelled() => return self.farewell(&forward::shutting_down()),
                () = self.right.over() => return self.farewell(&opened::gone()),
                () = session.ended().cancelled() => return None,
                () = changed => {
                    self.refused.take_if(|refused| matches!(refused, Refused::ForNow(_)));
                }
                () = reopened(&mut self.reopens) => {}
                step = self.place.step() => match self.stepped(step).await {
                    Next::Give(given) => return Some(given),
                    Next::End => return None,
                    Next::Again => {}
                },
                () = sleep_until(due) => {
                    self.last = Instant::now();
                    self.refused.take_if(|refused| matches!(refused, Refused::Busy(_)));
                    if self.place.at_boundary() {
                        return Some(Ok(KEEP_ALIVE));
                    }
                }
            }
        }
    }
}

/// Resolves when the instance is in service again.
async fn reopened(life: &mut Option<watch::Receiver<Life>>) {
    let serves = |life: &Life| matches!(life, Life::In(Service::Open | Service::RetireDrain));
    let waits = async {
        match life {
            Some(life) => life.wait_for(serves).await.is_ok(),
            None => false,
        }
    };
    if !waits.await {
        std::future::pending::<()>().await;
    }
}

enum Next {
    Give(io::Result<Bytes>),
    End,
    Again,
}

impl Legacy {
    /// Attaches where the session lives, leaves where it does not; false when it must leave within an event.
    fn settle(&mut self) -> bool {
        let target = self.opened.binding(&self.gateway);
        let live = target
            .as_ref()
            .and_then(|b| lives(&self.gateway, b.instance));
        if self.place.binding().is_some() && self.place.binding() != target.as_ref() {
            if !self.place.at_boundary() {
                return false;
            }
            self.park();
        }
        self.reopens = None;
        let (Place::Parked, Some(binding)) = (&self.place, target) else {
            return true;
        };
        let refused = self.refused.as_ref().is_some_and(|at| at.at(&binding));
        if !refused && !self.ticket.is_void() {
            match live {
                Some(view) => self.ask(view, binding),
                None => self.reopens = self.gateway.deps.directory.watch(binding.instance),
            }
        }
        true
    }

    fn ask(&mut self, view: Arc<InstanceView>, binding: SessionBinding) {
        let session = &self.opened.session;
        self.ticket.park(false);
        session.lives_on(&binding);
        self.asked.at(&binding);
        // It may have been parked meanwhile and live elsewhere now.
        let began_there = self.opened.began_on(&binding);
        let unknown = |id: &mut HeaderValue| {
            !began_there && id.to_str().is_ok_and(|id| session.strand_of(id).is_none())
        };
        self.asked.resume.take_if(unknown);
        let opening = open(
            self.gateway.clone(),
            view,
            self.asked.clone(),
            binding.clone(),
        );
        self.place = Place::Opening(binding, Box::pin(opening));
    }

    /// What the client still waits for and will never get, its own stream being closed and its server lost.
    fn unanswered(&mut self) -> Option<Bytes> {
        if !self.place.at_boundary() {
            return None;
        }
        let waiting = self.ticket.unanswered();
        (!waiting.is_empty()).then(|| error_events(&forward::lost(), &waiting))
    }

    /// The gateway ends the stream: whoever waits for an answer on it is told, if that can be said here.
    fn farewell(&mut self, failure: &Failure) -> Option<io::Result<Bytes>> {
        self.over = true;
        if !self.place.at_boundary() {
            return None;
        }
        let waiting = self.ticket.cut();
        (!waiting.is_empty()).then(|| Ok(error_events(failure, &waiting)))
    }

    /// What the server said of GET is true of it while it sleeps, too.
    fn remember(&self, has_streams: bool) {
        let memory = &self.gateway.deps.memory;
        memory.streams(&self.memory, has_streams);
    }

    fn park(&mut self) {
        self.place = Place::Parked;
        self.ticket.park(true);
    }

    /// The first try, before the client has headers. `None`: parked.
    async fn attach_at_once(&mut self) -> Option<Answer> {
        self.park();
        self.settle();
        let Place::Opening(binding, opening) = &mut self.place else {
            return None;
        };
        let (binding, asked) = (binding.clone(), opening.await);
        self.park();
        self.asked.afresh();
        match asked {
            Ok(Asked::Stream(head, attached)) => {
                self.remember(true);
                self.ticket.park(false);
                self.place = Place::Attached(binding, attached);
                Some(Answer::Stream(head))
            }
            Ok(Asked::Refused(head, body)) => Some(Answer::Refused(binding, head, body)),
            Err(_unreachable) => {
                self.refused = Some(Refused::ForNow(binding));
                None
            }
        }
    }

    /// The server gave no stream and the client has no headers yet: what the server says is passed on.
    async fn refuse(
        self,
        by: &SessionBinding,
        head: Box<Parts>,
        body: Inbound,
    ) -> Result<Response<Body>, Failure> {
        if head.status == StatusCode::METHOD_NOT_ALLOWED {
            self.remember(false);
        }
        if head.status == StatusCode::NOT_FOUND {
            if self.opened.binding(&self.gateway).as_ref() != Some(by) {
                // It was revived elsewhere meanwhile; what is said of it here means nothing any more.
                return Ok(event_stream(None, self));
            }
            if head.headers.get(LOST).is_some_and(|what| what == "session") {
                self.session_lost(by);
                let ended = self.opened.session.ended().is_cancelled();
                return if ended {
                    Err(opened::gone())
                } else {
                    Ok(event_stream(None, self))
                };
            }
        }
        // A server without a route for GET says 404 of a session that is well: only what a POST or a DELETE is told ends it.
        pass_on(head, body).await
    }
}
