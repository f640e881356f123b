//! Connections of exchanges: driven by the exchange that uses them, so that an answer costs no hop between tasks.
//!
//! A quiet link waits in its instance's pool and is driven by nobody; whoever takes it out looks first whether the server
//! has closed it meanwhile. Invariants: a link carries one exchange at a time; it goes back only when the answer was read
//! to its end; dropped in the middle it closes, which is how a server hears of a modern cancellation. Nothing is sent
//! twice: only a request of which no byte was written is sent again, on another link.

use std::{
    pin::Pin,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use axum::http::{Request, Response};
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::{
    body::Incoming,
    client::conn::http1::{self, Connection, SendRequest},
};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::{
    request::SentBody,
    upstream::{Connector, SendError, Stream},
};

/// Under the 5 s after which Node and uvicorn close a quiet connection, so that we close it first.
pub(super) const QUIET: Duration = Duration::from_secs(4);
/// Quiet links kept for one instance.
const MOST: usize = 256;

/// Whether a link has a request: from then on its server may have read of it. For whoever gives the request up while it
/// is being sent.
#[derive(Default)]
pub(crate) struct Departed(AtomicBool);

impl Departed {
    fn set(&self, departed: bool) {
        self.0.store(departed, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// The links of one instance.
pub(super) struct Pool {
    connector: Connector,
    // The one used last is last, and first to be used again.
    quiet: Mutex<Vec<(Link, Instant)>>,
}

struct Link {
    requests: SendRequest<SentBody>,
    connection: Pin<Box<Connection<TokioIo<Stream>, SentBody>>>,
    pool: Weak<Pool>,
}

impl Pool {
    pub(super) fn new(connector: Connector) -> Arc<Self> {
        Arc::new(Self {
            connector,
            quiet: Mutex::default(),
        })
    }

    /// Closes what has been quiet for too long.
    pub(super) fn prune(&self, now: Instant) {
        let mut quiet = self.quiet.lock();
        quiet.retain(|(_link, since)| now.saturating_duration_since(*since) < QUIET);
        if quiet.is_empty() {
            quiet.shrink_to_fit();
        }
    }

    /// Sends a request and waits for the head of the answer.
    pub(super) async fn send(
        self: Arc<Self>,
        mut request: Request<SentBody>,
        departed: &Departed,
    ) -> Result<Response<Inbound>, SendError> {
        loop {
            let (mut link, fresh) = match self.take().await {
                Some(link) => (link, false),
                None => (self.open().await?, true),
            };
            departed.set(true);
            match link.send(request).await {
                Ok(response) => return Ok(response.map(|body| Inbound::new(body, link))),
                Err(mut error) => match error.take_message().filter(|_| !fresh) {
                    // No byte of it was written: the server had closed the link.
                    Some(unsent) => {
                        departed.set(false);
                        request = unsent;
                    }
                    None => return Err(SendError::Broken(chain(&error.into_error()))),
                },
            }
        }
    }

    /// A quiet link that is still good.
    async fn take(&self) -> Option<Link> {
        loop {
            let (mut link, since) = self.quiet.lock().pop()?;
            if since.elapsed() < QUIET && link.is_good().await {
                return Some(link);
            }
        }
    }

    async fn open(self: &Arc<Self>) -> Result<Link, SendError> {
        let stream = self.connector.clone().connect().await;
        let stream = stream.map_err(|error| SendError::Unreachable(error.to_string()))?;
        let shaken = http1::handshake(stream).await;
        let (requests, connection) =
            shaken.map_err(|error| SendError::Unreachable(chain(&error)))?;
        Ok(Link {
            requests,
            connection: Box::pin(connection),
            pool: Arc::downgrade(self),
        })
    }
}

impl Link {
    /// Whether another request may be sent: the server has neither closed it nor said anything unasked.
    async fn is_good(&mut self) -> bool {
        std::future::poll_fn(|cx| {
            let closed = self.connection.as_mut().poll(cx).is_ready();
            let ready = matches!(self.requests.poll_ready(cx), Poll::Ready(Ok(())));
            Poll::Ready(!closed && ready)
        })
        .await
    }

    async fn send(
        &mut self,
        request: Request<SentBody>,
    ) -> Result<Response<Incoming>, hyper::client::conn::TrySendError<Request<SentBody>>> {
        let connection = &mut self.connection;
        let mut answer = std::pin::pin!(self.requests.try_send_request(request));
        let mut closed = false;
        std::future::poll_fn(move |cx| {
            // When it ends it tells the answer, too.
            closed = closed || connection.as_mut().poll(cx).is_ready();
            answer.as_mut().poll(cx)
        })
        .await
    }
}

/// The body of an answer, with the link it comes on.
pub(crate) struct Inbound {
    body: Incoming,
    // Until the answer has been read to its end, or the link has closed.
    link: Option<Link>,
}

impl Inbound {
    fn new(body: Incoming, link: Link) -> Self {
        Self {
            body,
            link: Some(link),
        }
    }

    fn poll_body(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        if let Some(link) = self.link.as_mut()
            && link.connection.as_mut().poll(cx).is_ready()
        {
            // What it has read is still in the body.
            self.link = None;
        }
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn give_back(&mut self) {
        let Some(link) = self.link.take() else {
            return;
        };
        if let Some(pool) = link.pool.upgrade() {
            let mut quiet = pool.quiet.lock();
            if quiet.len() < MOST {
                quiet.push((link, Instant::now()));
            }
        }
    }
}

impl Body for Inbound {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let mut polled = self.poll_body(cx);
        if polled.is_pending() && self.link.is_some() {
            // Asking for the body has just allowed the connection to read it.
            polled = self.poll_body(cx);
        }
        match &polled {
            Poll::Ready(None) => self.give_back(),
            Poll::Ready(Some(Ok(_))) if self.body.is_end_stream() => self.give_back(),
            Poll::Ready(Some(Err(_))) => self.link = None,
            Poll::Ready(Some(Ok(_))) | Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Inbound {
    fn drop(&mut self) {
        // An answer without a body is never asked for one.
        if self.body.is_end_stream() {
            self.give_back();
        }
    }
}

/// An error with its causes.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
