//! The legacy GET stream of a session (2025-11-25 `basic/transports`, "Listening for Messages from the Server").
//!
//! Wakes nothing and holds no lease. While the session sleeps the stream is parked; when the session is awake, again or
//! still, it is attached. A session has one stream upstream: a second GET takes the place of the first, whose upstream
//! connection is closed before the next is opened (servers answer 409 until they noticed).
//! `Last-Event-ID` goes upstream only if that id was seen on the session's current upstream session.

use std::{future::Future, io, pin::Pin, sync::Arc, time::Duration};

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
    failure::Failure,
    record::{SessionBinding, SessionNews},
};
use tokio::time::{Instant, sleep_until, timeout};

use super::{
    KEEP_ALIVE, Source,
    attached::{Asked, Attached, Passed, lives, pass_on},
    broken_off, error_events, event_stream,
    get::{Ask, open, resumed_from},
    right::Right,
    sessionless::sessionless,
};
use crate::{
    caller::Caller,
    edge::headers::{LOST, SESSION_ID},
    error::Refusal,
    exchange::{
        opened::{self, Opened},
        session,
    },
    forward::{self, upstream::SendError},
    gateway::Gateway,
    session::StreamTicket,
    sse::{EventSummary, Seen},
};

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
    let shown = opened.shown.clone();
    let resume = resumed_from(&opened, &head.headers);
    if let Some(id) = resume.as_ref().and_then(|id| id.to_str().ok()) {
        gateway.resumptions.announce(opened.about.key, id);
    }
    let left = opened.about.expires_at.saturating_sub(opened::unix_now());
    let left = Duration::from_secs(left);
    let mut stream = Legacy {
        ticket: opened.session.open_stream(),
        asked: Ask::of(head, resume),
        request_timeout: caller.backend.policy.request_timeout,
        opened,
        place: Place::Parked,
        refused: None,
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

type Opening = Pin<Box<dyn Future<Output = Result<Asked, SendError>> + Send>>;

enum Place {
    Parked,
    Opening(SessionBinding, Opening),
    Attached(SessionBinding, Box<Attached>),
}

enum Step {
    Opened(SessionBinding, Result<Asked, SendError>),
    Passed(Passed),
}

/// Where there was no stream to be had.
enum Refused {
    /// The server has none: not asked again.
    ForGood(SessionBinding),
    /// It was lost: asked again when something changes.
    ForNow(SessionBinding),
}

impl Refused {
    fn at(&self, asked: &SessionBinding) -> bool {
        match self {
            Self::ForGood(binding) | Self::ForNow(binding) => binding == asked,
        }
    }
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
    place: Place,
    refused: Option<Refused>,
    right: Right,
    // What was to be said at the end has been said.
    over: bool,
    last: Instant,
}

impl Place {
    /// What happens next here; never anything while parked. Nothing is lost if the future is dropped.
    async fn step(&mut self) -> Step {
        match self {
            Self::Parked => std::future::pending().await,
            Self::Opening(binding, opening) => {
                let asked = opening.await;
                Step::Opened(binding.clone(), asked)
            }
            Self::Attached(_, attached) => Step::Passed(attached.next().await),
        }
    }

    const fn binding(&self) -> Option<&SessionBinding> {
        match self {
            Self::Parked => None,
            Self::Opening(binding, _) | Self::Attached(binding, _) => Some(binding),
        }
    }

    fn at_boundary(&self) -> bool {
        match self {
            Self::Parked | Self::Opening(..) => true,
            Self::Attached(_, attached) => attached.at_boundary(),
        }
    }
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
                return Some(Ok(errors));
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
                step = self.place.step() => match self.stepped(step).await {
                    Next::Give(given) => return Some(given),
                    Next::End => return None,
                    Next::Again => {}
                },
                () = sleep_until(due) => {
                    self.last = Instant::now();
                    if self.place.at_boundary() {
                        return Some(Ok(KEEP_ALIVE));
                    }
                }
            }
        }
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
        if let (Place::Parked, Some(binding), Some(view)) = (&self.place, target, live)
            && !self
                .refused
                .as_ref()
                .is_some_and(|refused| refused.at(&binding))
        {
            self.ticket.park(false);
            self.opened.session.lives_on(&binding);
            // It may have been parked meanwhile and live elsewhere now.
            let session = &self.opened.session;
            let unknown = |id: &mut HeaderValue| !id.to_str().is_ok_and(|id| session.has_seen(id));
            self.asked.resume.take_if(unknown);
            let opening = open(
                self.gateway.clone(),
                view,
                self.asked.clone(),
                binding.clone(),
            );
            self.place = Place::Opening(binding, Box::pin(opening));
            // Only the first try resumes; what comes after a loss begins afresh.
            self.asked.resume = None;
        }
        true
    }

    /// What the client still waits for and will never get, its own stream being closed and its server lost.
    fn unanswered(&mut self) -> Option<Bytes> {
        if !self.place.at_boundary() {
            return None;
        }
        let waiting = self.opened.session.unanswered();
        (!waiting.is_empty()).then(|| error_events(&forward::lost(), &waiting))
    }

    /// The gateway ends the stream: whoever waits for an answer on it is told, if that can be said here.
    fn farewell(&mut self, failure: &Failure) -> Option<io::Result<Bytes>> {
        self.over = true;
        if !self.place.at_boundary() {
            return None;
        }
        let waiting = self.opened.session.cut();
        (!waiting.is_empty()).then(|| Ok(error_events(failure, &waiting)))
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
        match asked {
            Ok(Asked::Stream(head, attached)) => {
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
        if head.status == StatusCode::NOT_FOUND {
            if self.opened.binding(&self.gateway).as_ref() != Some(by) {
                // It was revived elsewhere meanwhile; what is said of it here means nothing any more.
                return Ok(event_stream(None, self));
            }
            if head.headers.get(LOST).is_some_and(|what| what == "session") {
                // A bridge lost the session's child: asleep, not ended.
                self.opened.session.asleep();
                self.opened.record(&self.gateway, SessionNews::Asleep);
                return Ok(event_stream(None, self));
            }
            self.opened.end(&self.gateway);
        }
        pass_on(head, body).await
    }

    async fn stepped(&mut self, step: Step) -> Next {
        match step {
            Step::Opened(binding, Ok(Asked::Stream(_, attached))) => {
                self.place = Place::Attached(binding, attached);
                Next::Again
            }
            Step::Opened(binding, Ok(Asked::Refused(..))) => {
                self.park();
                self.refused = Some(Refused::ForGood(binding));
                Next::Again
            }
            Step::Opened(binding, Err(_unreachable)) => {
                self.park();
                self.refused = Some(Refused::ForNow(binding));
                Next::Again
            }
            Step::Passed(Passed::Bytes(bytes, events)) => {
                self.last = Instant::now();
                events.iter().for_each(|event| self.observe(event));
                Next::Give(Ok(bytes))
            }
            Step::Passed(Passed::Service(_)) => Next::Again,
            Step::Passed(Passed::Lost) if self.place.at_boundary() => {
                self.refused = self.place.binding().cloned().map(Refused::ForNow);
                self.park();
                Next::Again
            }
            Step::Passed(Passed::Lost) => Next::Give(Err(broken_off())),
            Step::Passed(Passed::Ended) => self.ended().await,
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
        let session = &self.opened.session;
        session.observe(
            attached.instance(),
            event,
            lease.flatten().as_ref(),
            deadline,
        );
    }
}
