//! The client's end of a channel: our `endpoint` event, then whatever the server's stream of the moment carries.

use std::{collections::VecDeque, io, sync::Arc};

use bytes::Bytes;
use mcp_gateway_api::{failure::Failure, record::SessionBinding};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};

use super::channel::{Channel, ToStream};
use crate::{
    exchange::{initialize::promise, opened},
    forward,
    gateway::Gateway,
    message::RequestId,
    session::{Session, Strand},
    sse::{EventSummary, Seen},
    streams::{
        KEEP_ALIVE, Source,
        attached::{Attached, Passed},
        broken_off, error_events,
        right::Right,
    },
};

/// Most bytes kept to find what the server promised in its `initialize` result.
const MAX_PROMISE: usize = 1 << 20;

pub(super) struct ChannelStream {
    gateway: Gateway,
    channel: Arc<Channel>,
    inbox: mpsc::Receiver<ToStream>,
    upstream: Option<(SessionBinding, Box<Attached>)>,
    // To be sent before anything else.
    ready: VecDeque<Bytes>,
    // Events of our own that wait for a boundary.
    said: VecDeque<Bytes>,
    // The bytes since the `initialize` went upstream, until its result has passed.
    opening: Vec<Bytes>,
    last: Instant,
    right: Right,
    // What was to be said at the end has been said.
    over: bool,
}

enum Heard {
    Told(Option<ToStream>),
    Passed(Passed),
    Quiet,
    Changed,
    Over(Failure),
}

impl ChannelStream {
    pub(super) fn new(
        gateway: Gateway,
        channel: Arc<Channel>,
        inbox: mpsc::Receiver<ToStream>,
        right: Right,
        endpoint: String,
    ) -> Self {
        let name = channel.name();
        let first = format!("event: endpoint\ndata: {endpoint}?session_id={name}\n\n");
        Self {
            gateway,
            channel,
            inbox,
            upstream: None,
            ready: VecDeque::from([Bytes::from(first)]),
            said: VecDeque::new(),
            opening: Vec::new(),
            last: Instant::now(),
            right,
            over: false,
        }
    }

    fn at_boundary(&self) -> bool {
        self.upstream
            .as_ref()
            .is_none_or(|(_, attached)| attached.at_boundary())
    }

    fn session(&self) -> Option<Arc<Session>> {
        self.channel.state.lock().session.as_ref().map(Arc::clone)
    }

    async fn hear(&mut self) -> Heard {
        let session = self.session();
        let due = self.last + self.gateway.config.keep_alive;
        let (changed, ended) = (
            async {
                match &session {
                    Some(session) => session.changed().await,
                    None => std::future::pending().await,
                }
            },
            async {
                match &session {
                    Some(session) => session.ended().cancelled().await,
                    None => std::future::pending().await,
                }
            },
        );
        let passed = async {
            match self.upstream.as_mut() {
                Some((_, attached)) => attached.next().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = self.gateway.cut.cancelled() => Heard::Over(forward::shutting_down()),
            () = self.channel.closed.cancelled() => Heard::Over(opened::gone()),
            () = ended => Heard::Over(opened::gone()),
            () = self.right.over() => Heard::Over(opened::gone()),
            told = self.inbox.recv() => Heard::Told(told),
            passed = passed => Heard::Passed(passed),
            () = changed => Heard::Changed,
            () = sleep_until(due) => Heard::Quiet,
        }
    }

    /// Acts on it; an error breaks the stream off.
    fn act(&mut self, heard: Heard) -> Result<(), io::Error> {
        match heard {
            Heard::Told(Some(ToStream::Attach {
                attached,
                binding,
                read,
                lost,
            })) => {
                if !self.at_boundary() {
                    return Err(broken_off());
                }
                self.upstream = Some((binding, attached));
                self.tell_lost(&forward::lost(), &lost);
                for (bytes, event) in read {
                    self.passed(bytes, event.as_slice());
                }
            }
            Heard::Told(Some(ToStream::Say(event))) => self.said.push_back(event),
            // The channel itself keeps a sender.
            Heard::Told(None) | Heard::Over(_) => {}
            Heard::Passed(Passed::Bytes(bytes, events)) => self.passed(bytes, &events),
            Heard::Passed(Passed::Service(_)) => {}
            Heard::Passed(Passed::Ended | Passed::Lost) => self.lost(&forward::lost())?,
            // Asleep: the instance let go of the session.
            Heard::Changed if self.at_boundary() => {
                let leaves =
                    |(binding, _): &mut (SessionBinding, _)| self.channel.detached_asleep(binding);
                self.upstream.take_if(leaves);
            }
            Heard::Changed => {}
            Heard::Quiet => {
                self.last = Instant::now();
                if self.at_boundary() {
                    self.ready.push_back(KEEP_ALIVE);
                }
            }
        }
        if self.at_boundary() {
            self.ready.append(&mut self.said);
        }
        Ok(())
    }

    fn passed(&mut self, bytes: Bytes, events: &[EventSummary]) {
        self.last = Instant::now();
        self.note_promise(&bytes, events);
        if let (Some(session), Some((binding, _))) = (self.session(), &self.upstream) {
            for event in events {
                self.observe(&session, binding, event);
            }
        }
        self.ready.push_back(bytes);
    }

    fn observe(&self, session: &Session, binding: &SessionBinding, event: &EventSummary) {
        let mut asks = false;
        for seen in &event.messages {
            match seen {
                Seen::Request { .. } => asks = true,
                Seen::Response {
                    id: Some(id),
                    is_error,
                } => {
                    self.channel.answered(&self.gateway, id, *is_error);
                }
                Seen::Response { id: None, .. } | Seen::Notification { .. } => {}
            }
        }
        let backend = self
            .gateway
            .deps
            .catalog
            .borrow()
            .get(&self.channel.backend)
            .map(Arc::clone);
        let Some(backend) = backend else { return };
        let lease = asks.then(|| {
            let taken = self.gateway.deps.directory.lease(binding.instance).ok();
            taken.or_else(|| session.beside(binding.instance))
        });
        let deadline = Instant::now() + backend.policy.request_timeout;
        let from = (binding.instance, Strand::GET);
        session.observe(from, event, lease.flatten().as_ref(), deadline);
    }

    /// A revival must get what the first handshake got, so that is kept.
    fn note_promise(&mut self, bytes: &Bytes, events: &[EventSummary]) {
        let awaited = self.channel.state.lock().opening.clone();
        let Some(id) = awaited else {
            return;
        };
        let so_far: usize = self.opening.iter().map(Bytes::len).sum();
        if so_far + bytes.len() <= MAX_PROMISE {
            self.opening.push(bytes.clone());
        }
        if events.iter().any(|event| super::dial::answers(event, &id)) {
            let promised = promise(&std::mem::take(&mut self.opening));
            let mut state = self.channel.state.lock();
            state.promise = promised;
            state.opening = None;
        }
    }

    /// The server's stream is over, and with it the session on that instance: whoever still waits for an answer is told.
    fn lost(&mut self, failure: &Failure) -> Result<(), io::Error> {
        let boundary = self.at_boundary();
        let Some((binding, _attached)) = self.upstream.take() else {
            return Ok(());
        };
        self.channel.detached(&binding);
        let session = self.session();
        let waiting = session.map(|session| session.lost(binding.instance));
        if !boundary {
            return Err(broken_off());
        }
        self.tell_lost(failure, &waiting.unwrap_or_default());
        Ok(())
    }

    fn tell_lost(&mut self, failure: &Failure, waiting: &[RequestId]) {
        if !waiting.is_empty() {
            self.ready.push_back(error_events(failure, waiting));
        }
    }
}

impl Source for ChannelStream {
    async fn next(&mut self) -> Option<io::Result<Bytes>> {
        loop {
            if let Some(bytes) = self.ready.pop_front() {
                return Some(Ok(bytes));
            }
            match self.hear().await {
                Heard::Over(_) if self.over => return None,
                Heard::Over(failure) => {
                    self.over = true;
                    let told = self.lost(&failure);
                    if let Err(error) = told {
                        return Some(Err(error));
                    }
                }
                heard @ (Heard::Told(_) | Heard::Passed(_) | Heard::Quiet | Heard::Changed) => {
                    if let Err(error) = self.act(heard) {
                        return Some(Err(error));
                    }
                }
            }
        }
    }
}

impl Drop for ChannelStream {
    fn drop(&mut self) {
        self.channel.end(&self.gateway);
    }
}
