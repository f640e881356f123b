//! The answer of an instance on its way to the client: bytes untouched, read along with.
//!
//! What passes is followed so far as leases, records and resumption need it. Only two things are ever added, and only
//! between two events: a comment on a legacy stream that is quiet, and one last event when the instance is lost, cut or
//! too slow, because a stream that just ends leaves clients waiting for a minute. An answer that breaks off within an
//! event, or that is no event stream, is broken off towards the client too.

use std::{
    future::Future,
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http::response::Parts;
use http_body::{Body, Frame, SizeHint};
use mcp_gateway_api::failure::Failure;
use tokio::time::{Instant, Sleep};
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::{
    edge::headers,
    error::error_message,
    exchange::goodbye::Unclaimed,
    forward::{answer::Answer, link::Inbound, lost, outlive, shutting_down, timed_out},
    gateway::Gateway,
    message::RequestId,
    sse::Scanner,
};

mod follow;

const KEEP_ALIVE: Bytes = Bytes::from_static(b":\n\n");
/// Most bytes of a JSON answer that are looked at, where its content matters at all.
const CAPTURE: usize = 256 << 10;

/// How long an answer may go on without a pause before it is watched.
const UNPAUSED: Duration = Duration::from_secs(1);

/// The body of an answer.
pub(crate) struct Tap {
    core: Option<Box<Core>>,
}

type Watch = Pin<Box<dyn Future<Output = Watched> + Send>>;

/// What ends an answer, or the wait for it, from outside.
enum Watched {
    Failed(Failure),
    /// Nobody waits for the responses any more.
    CalledOff,
    /// The client reads them on another stream.
    TakenOver,
}

struct Core {
    gateway: Gateway,
    inner: Inbound,
    answer: Answer,
    // For event streams.
    scanner: Option<Scanner>,
    // For JSON whose content matters.
    capture: Option<BytesMut>,
    // Read already, to be sent first; last one first.
    unread: Vec<Bytes>,
    // Requests whose responses have not passed.
    waiting: Vec<RequestId>,
    // Made when the answer first has to be waited for, or has not paused for long.
    watch: Option<Watch>,
    quiet: Option<Pin<Box<Sleep>>>,
    since: Instant,
    last: Instant,
    status: http::StatusCode,
    ended: bool,
    broken: bool,
    // Counted among what a shutdown waits for.
    _token: TaskTrackerToken,
}

impl Tap {
    pub(crate) fn new(gateway: Gateway, head: &Parts, inner: Inbound, answer: Answer) -> Self {
        let stream = headers::is_event_stream(&head.headers);
        let wanted = answer
            .news
            .iter()
            .any(|awaited| !stream || awaited.news.needs_body());
        let capture = wanted && head.status.is_success();
        let now = Instant::now();
        Self {
            core: Some(Box::new(Core {
                _token: gateway.tasks.token(),
                gateway,
                inner,
                scanner: stream.then(Scanner::new),
                capture: capture.then(BytesMut::new),
                unread: Vec::new(),
                waiting: answer.message.requests().map(|r| r.id.clone()).collect(),
                answer,
                watch: None,
                quiet: None,
                since: now,
                last: now,
                status: head.status,
                ended: false,
                broken: false,
            })),
        }
    }

    /// Whether it is an event stream.
    pub(crate) fn is_stream(&self) -> bool {
        self.core
            .as_ref()
            .is_some_and(|core| core.scanner.is_some())
    }

    /// The next bytes, for whoever must read ahead.
    pub(crate) async fn next(&mut self) -> Option<Result<Bytes, io::Error>> {
        loop {
            let frame = std::future::poll_fn(|cx| Pin::new(&mut *self).poll_frame(cx)).await?;
            match frame.map(Frame::into_data) {
                Ok(Ok(data)) => return Some(Ok(data)),
                Ok(Err(_trailers)) => {}
                Err(error) => return Some(Err(error)),
            }
        }
    }

    /// Puts back, in order, what was read ahead.
    pub(crate) fn unread(&mut self, mut chunks: Vec<Bytes>) {
        if let Some(core) = self.core.as_mut() {
            chunks.reverse();
            core.unread = chunks;
        }
    }

    /// The session that came with it and that no client has yet.
    pub(crate) fn take_unclaimed(&mut self) -> Option<Unclaimed> {
        let core = self.core.as_mut()?;
        core.answer.unclaimed.take()
    }

    /// Whether every request has its response.
    pub(crate) fn is_answered(&self) -> bool {
        self.core
            .as_ref()
            .is_none_or(|core| core.waiting.is_empty())
    }

    /// Whether all of it has been read.
    pub(crate) fn is_over(&self) -> bool {
        self.core.as_ref().is_none_or(|core| core.ended)
    }

    /// Whether the gateway ended it, because the instance could not.
    pub(crate) fn is_broken(&self) -> bool {
        self.core.as_ref().is_some_and(|core| core.broken)
    }
}

impl Body for Tap {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        self.core
            .as_mut()
            .map_or(Poll::Ready(None), |core| core.poll(cx))
    }

    fn is_end_stream(&self) -> bool {
        self.core
            .as_ref()
            .is_none_or(|core| core.ended && core.unread.is_empty())
    }

    fn size_hint(&self) -> SizeHint {
        match &self.core {
            Some(core) if core.scanner.is_none() && core.unread.is_empty() => {
                core.inner.size_hint()
            }
            Some(_) => SizeHint::default(),
            None => SizeHint::with_exact(0),
        }
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        let Some(mut core) = self.core.take() else {
            return;
        };
        if core.ended {
            return;
        }
        core.answer.operation.client_left();
        if core.answer.outlives && !core.waiting.is_empty() {
            let gateway = core.gateway.clone();
            core.unread.clear();
            outlive::run(&gateway, core.read_on());
        }
    }
}

impl Core {
    /// Reads on without the client, until the responses have passed, the stream has ended without them, or the client
    /// has resumed it elsewhere.
    async fn read_on(mut self: Box<Self>) {
        while !self.waiting.is_empty() {
            let next = std::future::poll_fn(|cx| match self.poll(cx) {
                Poll::Pending if self.waiting.is_empty() => Poll::Ready(None),
                polled @ (Poll::Pending | Poll::Ready(_)) => polled,
            });
            if next.await.is_none() {
                break;
            }
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if let Some(chunk) = self.unread.pop() {
            return Poll::Ready(Some(Ok(Frame::data(chunk))));
        }
        if self.ended {
            return Poll::Ready(None);
        }
        // A stream that never pauses must still be cut when its time has come.
        if self.watch.is_none() && self.last.saturating_duration_since(self.since) >= UNPAUSED {
            self.watch = Some(watch(&self.gateway, &self.answer, !self.waiting.is_empty()));
        }
        if let Poll::Ready(seen) = self.watched(cx) {
            return Poll::Ready(self.stop(seen));
        }
        match Pin::new(&mut self.inner).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(data) = frame.data_ref() {
                    self.passed(data);
                }
                // A server that knows the length writes the last byte and asks no further.
                if self.scanner.is_none() && self.inner.is_end_stream() {
                    self.end();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                tracing::debug!(%error, "an answer broke off");
                Poll::Ready(self.terminal(&lost()))
            }
            Poll::Ready(None) => {
                self.end();
                Poll::Ready(None)
            }
            Poll::Pending => self.wait(cx),
        }
    }

    /// Looks whether something ends it. One that is called off goes on as it came, but nothing is owed for it any more:
    /// it keeps no instance, and its client need not be told when it ends.
    fn watched(&mut self, cx: &mut Context<'_>) -> Poll<Watched> {
        loop {
            let Some(Poll::Ready(seen)) = self.watch.as_mut().map(|watch| watch.as_mut().poll(cx))
            else {
                return Poll::Pending;
            };
            match seen {
                Watched::Failed(_) | Watched::TakenOver => return Poll::Ready(seen),
                Watched::CalledOff => {
                    self.waiting.clear();
                    self.answer.lease.give_back();
                    self.watch = Some(watch(&self.gateway, &self.answer, false));
                }
            }
        }
    }

    fn stop(&mut self, seen: Watched) -> Option<Result<Frame<Bytes>, io::Error>> {
        match seen {
            Watched::Failed(failure) => self.terminal(&failure),
            Watched::CalledOff => None,
            Watched::TakenOver => {
                self.over_elsewhere();
                None
            }
        }
    }

    fn wait(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if self.watch.is_none() {
            self.watch = Some(watch(&self.gateway, &self.answer, !self.waiting.is_empty()));
            if let Poll::Ready(seen) = self.watched(cx) {
                return Poll::Ready(self.stop(seen));
            }
        }
        // Modern streams carry nothing of ours: their own end means something.
        if self.scanner.is_none() || !self.answer.outlives {
            return Poll::Pending;
        }
        let pause = self.gateway.config.keep_alive;
        let due = self.last + pause;
        let quiet = self
            .quiet
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(due)));
        while quiet.as_mut().poll(cx).is_ready() {
            let now = Instant::now();
            let silent = now.saturating_duration_since(self.last) >= pause;
            quiet.as_mut().reset(if silent {
                now + pause
            } else {
                self.last + pause
            });
            if silent && self.scanner.as_ref().is_some_and(Scanner::at_boundary) {
                self.last = now;
                // Polled once more so that the timer, now reset, wakes this task.
                let _not_yet = quiet.as_mut().poll(cx);
                return Poll::Ready(Some(Ok(Frame::data(KEEP_ALIVE))));
            }
        }
        Poll::Pending
    }

    /// Ends the answer with a failure: as one last event for each unanswered request where that can be said, else by
    /// breaking off.
    fn terminal(&mut self, failure: &Failure) -> Option<Result<Frame<Bytes>, io::Error>> {
        self.ended = true;
        self.broken = true;
        self.answer.operation.failed(failure.kind);
        self.answer.operation.finish();
        let waiting = std::mem::take(&mut self.waiting);
        self.settle();
        match &self.scanner {
            Some(scanner) if scanner.at_boundary() => {
                let mut last = BytesMut::new();
                for id in &waiting {
                    last.extend_from_slice(b"event: message\ndata: ");
                    last.extend_from_slice(&error_message(failure, None, Some(id)));
                    last.extend_from_slice(b"\n\n");
                }
                (!last.is_empty()).then(|| Ok(Frame::data(last.freeze())))
            }
            Some(_) | None => Some(Err(io::Error::new(
                io::ErrorKind::ConnectionAborted,
                "the answer broke off",
            ))),
        }
    }
}

fn watch(gateway: &Gateway, answer: &Answer, waits: bool) -> Watch {
    let called_off = waits.then(|| answer.called_off());
    let taken_over = waits.then(|| answer.taken_over());
    let mut life = answer.lease.life();
    let cut = gateway.cut.clone();
    let deadline = answer.deadline;
    Box::pin(async move {
        // What ended it, not what followed from that: a client that comes back late is told why.
        tokio::select! {
            biased;
            _ = life.wait_for(|life| life.is_over()) => Watched::Failed(lost()),
            () = cut.cancelled() => Watched::Failed(shutting_down()),
            () = tokio::time::sleep_until(deadline) => Watched::Failed(timed_out()),
            () = if_any(called_off) => Watched::CalledOff,
            () = if_any(taken_over) => Watched::TakenOver,
        }
    })
}

async fn if_any(future: Option<impl Future<Output = ()>>) {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}
