//! A client's stream and what its POSTs must know of it.

use std::sync::Arc;

use axum::http::HeaderMap;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use dashmap::DashMap;
use mcp_gateway_api::{
    failure::{Failure, FailureKind},
    ids::{BackendName, SessionKey},
    principal::PrincipalId,
    record::{SessionBinding, SessionNews, SessionRef, SessionUpdate},
};
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::dial::Piece;
use crate::{
    caller::Caller,
    edge::headers,
    exchange::{
        initialize::Promise,
        news::{self, Awaited},
    },
    gateway::Gateway,
    message::RequestId,
    session::{Session, StreamTicket, handshake::Handshake},
    streams::attached::Attached,
};

/// Most streams open at once.
const MOST: usize = 16_384;
/// Messages to a stream's reader that may wait.
const INBOX: usize = 16;
/// Answers awaited for what they tell of a session.
const MOST_NEWS: usize = 64;

/// All channels.
#[derive(Default)]
pub(crate) struct Channels(DashMap<SessionKey, Arc<Channel>>);

/// One channel.
pub(crate) struct Channel {
    /// Its own name, in the URL; 192 random bits.
    pub(super) key: SessionKey,
    principal: PrincipalId,
    pub(super) backend: BackendName,
    /// The headers the stream was asked for with, as a server may see them.
    pub(super) headers: HeaderMap,
    to_stream: mpsc::Sender<ToStream>,
    /// Cancelled when the client's stream is closed, or must be.
    pub(super) closed: CancellationToken,
    pub(super) state: Mutex<State>,
}

#[derive(Default)]
pub(super) struct State {
    /// What claims and records need; known from the first claim on.
    pub about: Option<SessionRef>,
    /// Its entry in the table of sessions.
    pub session: Option<Arc<Session>>,
    /// That the client's stream is open, for its session.
    pub ticket: Option<StreamTicket>,
    /// Where the server's stream is attached, and where it takes POSTs.
    pub upstream: Option<SessionBinding>,
    /// What a revival replays.
    pub handshake: Option<Handshake>,
    /// The `initialize` whose result has not passed yet.
    pub opening: Option<RequestId>,
    /// What the server promised in it.
    pub promise: Option<Promise>,
    /// Answers awaited for what they tell.
    pub news: Vec<Awaited>,
}

impl State {
    /// No server's stream is attached any more.
    pub(super) fn detach(&mut self) {
        self.upstream = None;
        self.news.clear();
    }
}

/// What a POST tells the reader of the client's stream.
pub(super) enum ToStream {
    /// The server's stream, from here on; first the bytes already read of it.
    Attach {
        attached: Box<Attached>,
        binding: SessionBinding,
        read: Vec<Piece>,
        /// Requests that were lost with the instance before.
        lost: Vec<RequestId>,
    },
    /// An event of the gateway's own.
    Say(Bytes),
}

impl Channel {
    /// A new channel and what its stream reads.
    pub(super) fn open(
        gateway: &Gateway,
        caller: &Caller,
        headers: &HeaderMap,
    ) -> Result<(Arc<Self>, mpsc::Receiver<ToStream>), Failure> {
        let table = &gateway.channels.0;
        if table.len() >= MOST {
            return Err(
                Failure::new(FailureKind::Overloaded, "Too many streams are open.")
                    .retry_after(std::time::Duration::from_secs(5)),
            );
        }
        let (to_stream, inbox) = mpsc::channel(INBOX);
        let channel = Arc::new(Self {
            key: SessionKey::random(),
            principal: caller.principal.id,
            backend: caller.backend.name.clone(),
            headers: headers::to_server(headers),
            to_stream,
            closed: CancellationToken::new(),
            state: Mutex::default(),
        });
        table.insert(channel.key, Arc::clone(&channel));
        Ok((channel, inbox))
    }

    /// The channel that a POST names, if it is this caller's.
    pub(super) fn find(gateway: &Gateway, caller: &Caller, name: &str) -> Option<Arc<Self>> {
        let bytes = URL_SAFE_NO_PAD.decode(name).ok()?;
        let key = SessionKey(bytes.try_into().ok()?);
        let channel = gateway
            .channels
            .0
            .get(&key)
            .map(|found| Arc::clone(&found))?;
        let own =
            channel.principal == caller.principal.id && channel.backend == caller.backend.name;
        (own && !channel.closed.is_cancelled()).then_some(channel)
    }

    /// Its name in the URL.
    pub(super) fn name(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.key.0)
    }

    /// Tells the stream's reader something; false when it is gone.
    pub(super) async fn tell(&self, what: ToStream) -> bool {
        tokio::select! {
            sent = self.to_stream.send(what) => sent.is_ok(),
            () = self.closed.cancelled() => false,
        }
    }

    /// The server's stream is no longer attached.
    pub(super) fn detached(&self, from: &SessionBinding) {
        let mut state = self.state.lock();
        if state.upstream.as_ref() == Some(from) {
            state.detach();
        }
    }

    /// As [`Self::detached`], if the session sleeps; false when a POST has come in between.
    pub(super) fn detached_asleep(&self, from: &SessionBinding) -> bool {
        let mut state = self.state.lock();
        let asleep = state
            .session
            .as_ref()
            .is_some_and(|s| s.binding().is_none());
        if asleep && state.upstream.as_ref() == Some(from) {
            state.detach();
        }
        asleep
    }

    /// The answer to a request will tell something of the session.
    pub(super) fn expect(&self, awaited: Awaited) {
        let mut state = self.state.lock();
        if state.news.len() < MOST_NEWS {
            state.news.push(awaited);
        }
    }

    /// An answer passed.
    pub(super) fn answered(&self, gateway: &Gateway, id: &RequestId, is_error: bool) {
        let told = {
            let mut state = self.state.lock();
            let at = state.news.iter().position(|awaited| awaited.id == *id);
            at.map(|at| state.news.swap_remove(at).news)
        };
        if let Some(news) = told.filter(|_| !is_error) {
            news.tell(gateway, None);
        }
    }

    /// The session is over: the stream closes, POSTs find nothing.
    pub(super) fn end(&self, gateway: &Gateway) {
        self.closed.cancel();
        gateway.channels.0.remove(&self.key);
        let about = self.state.lock().about.take();
        if let Some(session) = about {
            gateway.sessions.end(&session.key);
            let news = SessionNews::Ended;
            news::record(gateway, SessionUpdate { session, news });
        }
    }
}
