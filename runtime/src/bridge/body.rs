//! Response bodies: a text, or a stream of server-sent events fed by a child.
//!
//! Invariants: a stream says something at least once per keep-alive period (a comment line if there is nothing else);
//! one event holds one message on one `data:` line; dropping the body is how the rest of the bridge learns that the
//! client has gone. When a child ends under a stream that still owes answers, each of them gets a JSON-RPC error; the last
//! word on each stream of its session is then an event without data, which clients never see and the activator knows.

use std::{
    collections::VecDeque,
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Response, header};
use http_body::Frame;
use tokio::{
    sync::mpsc,
    time::{Instant, Sleep, sleep},
};

use super::{
    outlet::Piece,
    refusal::{LOST_HEADER, Refusal},
    worker::{Listening, Waiting},
};

/// A response's body.
#[derive(Debug)]
pub(super) enum Body {
    /// All of it, or nothing (any more).
    Full(Option<Bytes>),
    /// Events.
    Events(Box<Events>),
}

impl Body {
    /// A text.
    pub(super) fn full(text: String) -> Self {
        Self::Full(Some(text.into()))
    }

    /// Nothing.
    pub(super) const fn empty() -> Self {
        Self::Full(None)
    }
}

/// Where the events come from.
#[derive(Debug)]
pub(super) enum Source {
    /// A POST: ends with its last answer.
    Post(Waiting, Owed),
    /// A GET: ends with the child.
    Passive(
        Listening,
        #[expect(dead_code, reason = "held for what its drop does")] Option<OnClose>,
    ),
}

/// Runs when a stream is dropped.
pub(super) struct OnClose(pub(super) Option<Box<dyn FnOnce() + Send + Sync>>);

impl std::fmt::Debug for OnClose {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("OnClose(…)")
    }
}

impl Drop for OnClose {
    fn drop(&mut self) {
        if let Some(run) = self.0.take() {
            run();
        }
    }
}

/// The requests of a POST that are not answered yet: their ids as written, by position.
#[derive(Debug, Clone, Default)]
pub(super) struct Owed(pub(super) Vec<Option<String>>);

impl Owed {
    /// Strikes an answered one out.
    pub(super) fn answered(&mut self, index: usize) {
        if let Some(slot) = self.0.get_mut(index) {
            *slot = None;
        }
    }

    /// Whether all are answered.
    pub(super) fn is_empty(&self) -> bool {
        self.0.iter().all(Option::is_none)
    }

    /// Takes the ids that are left.
    pub(super) fn take(&mut self) -> Vec<String> {
        self.0.drain(..).flatten().collect()
    }
}

/// A stream of events.
#[derive(Debug)]
pub(super) struct Events {
    first: VecDeque<Bytes>,
    source: Source,
    over: bool,
    period: Duration,
    quiet: Pin<Box<Sleep>>,
}

impl Source {
    const fn rx(&mut self) -> &mut mpsc::Receiver<Piece> {
        match self {
            Self::Post(waiting, _) => &mut waiting.rx,
            Self::Passive(listening, _) => &mut listening.rx,
        }
    }
}

/// One event of the `message` type.
pub(super) fn event(text: &str) -> Bytes {
    format!("event: message\ndata: {text}\n\n").into()
}

impl Events {
    /// A stream that begins with `lead` (already framed) and then says what comes.
    pub(super) fn new(mut source: Source, lead: Option<Bytes>, period: Duration) -> Self {
        let waiting = match &mut source {
            Source::Post(waiting, _) => std::mem::take(&mut waiting.first),
            Source::Passive(listening, _) => std::mem::take(&mut listening.first),
        };
        let first = lead.into_iter().chain(waiting.iter().map(|t| event(t)));
        Self {
            first: first.collect(),
            source,
            over: false,
            period,
            quiet: Box::pin(sleep(period)),
        }
    }

    /// The answer that carries the stream.
    pub(super) fn response(self) -> Response<Body> {
        let mut response = Response::new(Body::Events(Box::new(self)));
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("text/event-stream"),
        );
        headers.insert(
            header::CACHE_CONTROL,
            HeaderValue::from_static("no-cache, no-transform"),
        );
        headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
        response
    }

    /// Takes a piece in; what is to be written for it, if anything.
    pub(super) fn take(&mut self, piece: &Piece) -> Option<Bytes> {
        if let (Source::Post(_, owed), Some(answers)) = (&mut self.source, piece.answers) {
            owed.answered(answers.index);
            self.over = owed.is_empty();
        }
        (!piece.text.is_empty()).then(|| event(&piece.text))
    }

    /// The child's end of the stream has closed: the answers it still owes become errors.
    fn cut(&mut self) {
        self.over = true;
        let (worker, ids) = match &mut self.source {
            Source::Post(waiting, owed) => (&waiting.worker, owed.take()),
            Source::Passive(listening, _) => (&listening.worker, listening.worker.take_orphans()),
        };
        let refusal = Refusal::lost(&worker.death().unwrap_or_default());
        let errors = ids.iter().map(|id| refusal.clone().to(Some(id)).text());
        self.first.extend(errors.map(|text| event(&text)));
        if worker.lost_its_session() {
            let lost = format!("event: {LOST_HEADER}\n\n");
            self.first.push_back(lost.into());
        }
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        loop {
            if let Some(bytes) = self.first.pop_front() {
                return Poll::Ready(Some(bytes));
            }
            if self.over {
                return Poll::Ready(None);
            }
            match self.source.rx().poll_recv(cx) {
                Poll::Ready(Some(piece)) => {
                    if let Some(bytes) = self.take(&piece) {
                        return Poll::Ready(Some(bytes));
                    }
                }
                Poll::Ready(None) => self.cut(),
                Poll::Pending => {
                    ready!(self.quiet.as_mut().poll(cx));
                    let next = Instant::now() + self.period;
                    self.quiet.as_mut().reset(next);
                    return Poll::Ready(Some(Bytes::from_static(b": keep-alive\n\n")));
                }
            }
        }
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.get_mut() {
            Self::Full(text) => Poll::Ready(text.take().map(|t| Ok(Frame::data(t)))),
            Self::Events(events) => {
                let bytes = ready!(events.poll_event(cx));
                if bytes.is_some() {
                    let next = Instant::now() + events.period;
                    events.quiet.as_mut().reset(next);
                }
                Poll::Ready(bytes.map(|b| Ok(Frame::data(b))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Full(text) => text.is_none(),
            Self::Events(_) => false,
        }
    }

    fn size_hint(&self) -> http_body::SizeHint {
        match self {
            Self::Full(text) => {
                http_body::SizeHint::with_exact(text.as_ref().map_or(0, |t| t.len() as u64))
            }
            Self::Events(_) => http_body::SizeHint::default(),
        }
    }
}
