//! The GET upstream that a legacy stream is made of: what the client asked for, asked again after each wake.

use std::{sync::Arc, time::Duration};

use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use mcp_gateway_api::{record::SessionBinding, view::InstanceView};
use tokio::time::{Instant, sleep};

use super::attached::{Asked, ask, lives};
use crate::{
    edge::headers::{self, LAST_EVENT_ID},
    exchange::opened::Opened,
    forward::{
        request::{Extras, SentBody, build},
        upstream::SendError,
    },
    gateway::Gateway,
    session::Strand,
};

/// First pause before asking again after 409; doubles.
const CONFLICT_PAUSE: Duration = Duration::from_millis(10);
/// Longest a server may take to notice that the stream before is closed.
const CONFLICT_FOR: Duration = Duration::from_secs(3);

/// What the client asked for, to ask the server again.
#[derive(Clone)]
pub(super) struct Ask {
    headers: HeaderMap,
    query: Option<Box<str>>,
    /// `Last-Event-ID`, for the next try.
    pub(super) resume: Option<HeaderValue>,
    /// How long 409 is asked again at once.
    patience: Duration,
    /// Where it was asked last.
    at: Option<SessionBinding>,
}

impl Ask {
    pub(super) fn of(head: &http::request::Parts, resume: Option<HeaderValue>) -> Self {
        Self {
            headers: headers::to_server(&head.headers),
            query: head.uri.query().map(Into::into),
            resume,
            patience: CONFLICT_FOR,
            at: None,
        }
    }

    /// It is asked there now. What it resumes is of no use anywhere else.
    pub(super) fn at(&mut self, binding: &SessionBinding) {
        let before = self.at.replace(binding.clone());
        if before.is_some_and(|before| before != *binding) {
            self.afresh();
        }
    }

    /// Only the first try that finds the stream free, or none, resumes; what comes after a loss begins afresh.
    pub(super) fn afresh(&mut self) {
        self.resume = None;
        self.patience = CONFLICT_FOR;
    }

    /// The stream is somebody else's for longer than a server takes to notice: a later try is one request.
    pub(super) const fn busy(&mut self) {
        self.patience = Duration::ZERO;
    }

    pub(super) fn request(
        &self,
        view: &InstanceView,
        binding: Option<&SessionBinding>,
    ) -> http::Request<SentBody> {
        let extras = Extras {
            session: binding.map(|binding| &binding.upstream),
            last_event_id: self.resume.as_ref(),
            query: self.query.as_deref(),
        };
        build(
            Method::GET,
            view,
            self.headers.clone(),
            extras,
            SentBody::default(),
        )
    }
}

/// `Last-Event-ID` and the strand it is of, if it means something to the session's current upstream session: it was seen
/// on that here, or the session has lived nowhere else, so that whoever passed it on, such as another activator, had it
/// from there. Which strand it is of is then not known; it is nobody's here.
pub(super) fn resumed_from(
    gateway: &Gateway,
    opened: &Opened,
    headers: &HeaderMap,
) -> Option<(Strand, HeaderValue)> {
    let id = headers.get(LAST_EVENT_ID)?;
    let lives_where_it_began = || {
        let binding = opened.binding(gateway);
        let binding = binding.filter(|binding| opened.began_on(binding))?;
        lives(gateway, binding.instance).map(|_there| binding)
    };
    let strand = match opened.session.strand_of(id.to_str().ok()?) {
        Some(strand) => strand,
        None => opened
            .session
            .strand_from_elsewhere(&lives_where_it_began()?),
    };
    Some((strand, id.clone()))
}

/// Asks for the stream, again while the server has not noticed that the one before is closed.
pub(super) async fn open(
    gateway: Gateway,
    view: Arc<InstanceView>,
    asked: Ask,
    binding: SessionBinding,
) -> Result<Asked, SendError> {
    let until = Instant::now() + asked.patience;
    let mut pause = CONFLICT_PAUSE;
    loop {
        let answer = ask(&gateway, &view, asked.request(&view, Some(&binding))).await?;
        match answer {
            Asked::Refused(head, _)
                if head.status == StatusCode::CONFLICT && Instant::now() < until =>
            {
                sleep(pause).await;
                pause *= 2;
            }
            Asked::Refused(..) | Asked::Stream(..) => return Ok(answer),
        }
    }
}
