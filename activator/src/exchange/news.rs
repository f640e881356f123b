//! What a server's answer tells the gateway beyond passing: told once, when the answer is a result. And how news of
//! sessions reaches the control plane: of each session in the order in which it happened.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;
use mcp_gateway_api::{
    failure::Failure,
    ids::SessionKey,
    policy::OnIdle,
    record::{SessionNews, SessionRef, SessionUpdate},
};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::{
    directory::Number,
    forward,
    gateway::Gateway,
    memory::MemoryKey,
    message::{Message, Request, RequestId},
};

/// Something to be remembered if the answer is a result.
pub(crate) enum News {
    /// A change of a session that a revival must repeat.
    Session(SessionUpdate),
    /// The answer to `server/discover`.
    Discovered(MemoryKey),
}

/// Something that the result of a request will tell.
pub(crate) struct Awaited {
    /// Which request's.
    pub id: RequestId,
    /// What it tells.
    pub news: News,
}

impl Awaited {
    /// What the results of this message, each for itself, would change in its session.
    pub(crate) fn of(message: &Message, session: &SessionRef) -> Vec<Self> {
        let awaited = |request: &Request| {
            News::of(request, session).map(|news| Self {
                id: request.id.clone(),
                news,
            })
        };
        message.requests().filter_map(awaited).collect()
    }
}

impl News {
    fn of(request: &Request, session: &SessionRef) -> Option<Self> {
        let Request { method, params, .. } = request;
        let owned = |text: &Option<Box<str>>| text.as_deref().map(str::to_owned);
        let news = match &**method {
            "logging/setLevel" => SessionNews::LogLevel(owned(&params.level)?),
            "resources/subscribe" => SessionNews::Subscribed(owned(&params.uri)?),
            "resources/unsubscribe" => SessionNews::Unsubscribed(owned(&params.uri)?),
            _ => return None,
        };
        Some(Self::Session(SessionUpdate {
            session: session.clone(),
            news,
        }))
    }

    /// Whether it is in what the answer says, and not only in that it is a result.
    pub(crate) const fn needs_body(&self) -> bool {
        match self {
            Self::Session(_) => false,
            Self::Discovered(_) => true,
        }
    }

    /// Tells it; `body` is the answer's message, where that is at hand.
    pub(crate) fn tell(self, gateway: &Gateway, body: Option<Bytes>) {
        match self {
            Self::Session(update) => record(gateway, update),
            Self::Discovered(key) => {
                if let Some(body) = body {
                    gateway.deps.memory.discovered(&key, 200, &body);
                }
            }
        }
    }
}

/// Most news of one session that waits to be written; beyond it what is only nice to have is forgotten.
const MOST_WAITING: usize = 256;

/// News on its way to the control plane: of each session one piece after the other, so that what happened later is also
/// known later. A session is in the table exactly while something of it is being written.
#[derive(Default)]
pub(crate) struct Writing(Mutex<HashMap<SessionKey, VecDeque<Job>>>);

enum Job {
    Write {
        update: SessionUpdate,
        /// By which the own table knows it, if it does already.
        number: Option<Number>,
        reply: Option<oneshot::Sender<Result<(), Failure>>>,
    },
    /// Somebody waits until everything before it is written.
    Tell(oneshot::Sender<()>),
    /// What was written and never told by the view is written again.
    Repeat,
}

impl Job {
    /// Whether a session would go wrong, and not only lose a setting at its revival, if this were forgotten.
    const fn matters(&self) -> bool {
        match self {
            Self::Write { update, .. } => !matches!(
                update.news,
                SessionNews::LogLevel(_)
                    | SessionNews::Subscribed(_)
                    | SessionNews::Unsubscribed(_)
            ),
            Self::Tell(_) | Self::Repeat => true,
        }
    }
}

/// Writes news of a session without keeping anybody waiting. The own table knows at once.
pub(crate) fn record(gateway: &Gateway, update: SessionUpdate) {
    let mut writing = gateway.writing.0.lock();
    // Under the lock, so that the own table learns in the order in which the control plane does.
    let number = gateway.deps.directory.learn(&update);
    let key = update.session.key;
    let job = Job::Write {
        update,
        number,
        reply: None,
    };
    enqueue(gateway, &mut writing, key, job);
}

/// A session no longer lives where it did, though its instance goes on: asleep where sessions are revived, ended where
/// they are not.
pub(crate) fn let_go(gateway: &Gateway, session: &SessionRef) {
    let catalog = gateway.deps.catalog.borrow().get(&session.backend).cloned();
    let expires = catalog.is_some_and(|backend| backend.policy.on_idle == OnIdle::Expire);
    let news = if expires {
        SessionNews::Ended
    } else {
        SessionNews::Asleep
    };
    let update = SessionUpdate {
        session: session.clone(),
        news,
    };
    record(gateway, update);
    if expires {
        gateway.sessions.end(&session.key);
    }
}

/// Writes news of a session, after all news of it that came before, and waits until it is kept. The own table knows then.
///
/// # Errors
/// What the control plane answers.
pub(crate) async fn kept(gateway: &Gateway, update: SessionUpdate) -> Result<(), Failure> {
    let (reply, answer) = oneshot::channel();
    let key = update.session.key;
    let job = Job::Write {
        update,
        number: None,
        reply: Some(reply),
    };
    enqueue(gateway, &mut gateway.writing.0.lock(), key, job);
    answer
        .await
        .unwrap_or_else(|_dropped| Err(forward::shutting_down()))
}

/// Waits until all news of a session so far has reached the control plane: a claim that overtakes it would be answered
/// with what the session was before.
pub(crate) async fn written(gateway: &Gateway, key: SessionKey) {
    let told = {
        let mut writing = gateway.writing.0.lock();
        let Some(queue) = writing.get_mut(&key) else {
            return;
        };
        let (tell, told) = oneshot::channel();
        queue.push_back(Job::Tell(tell));
        told
    };
    // A writer that is gone writes nothing any more.
    let _gone = told.await;
}

/// Writes again what went with a leader that was lost, until the cut: what it had kept, and nobody was told, and what it
/// was too late to keep.
pub(crate) async fn repeat(gateway: Gateway) {
    let mut terms = gateway.deps.directory.terms();
    let repeating = async {
        while terms.changed().await.is_ok() {
            for key in gateway.deps.directory.untold() {
                let mut writing = gateway.writing.0.lock();
                // Before whatever is newer and still waits; what is being written just now is waited for.
                match writing.get_mut(&key) {
                    Some(queue) => queue.push_front(Job::Repeat),
                    None => enqueue(&gateway, &mut writing, key, Job::Repeat),
                }
            }
        }
    };
    gateway.cut.run_until_cancelled(repeating).await;
}

fn enqueue(
    gateway: &Gateway,
    writing: &mut HashMap<SessionKey, VecDeque<Job>>,
    key: SessionKey,
    job: Job,
) {
    if let Some(queue) = writing.get_mut(&key) {
        if queue.len() < MOST_WAITING || job.matters() {
            queue.push_back(job);
        } else if let Job::Write { update, number, .. } = job {
            if let Some(number) = number {
                gateway.deps.directory.settle(&key, number, false);
            }
            tracing::warn!(backend = %update.session.backend, "news of a session was not kept: too much of it waits");
        }
        return;
    }
    // A stream may be dropped when the runtime is gone, and then there is nobody to be told.
    if tokio::runtime::Handle::try_current().is_ok() {
        writing.insert(key, VecDeque::from([job]));
        let owner = gateway.clone();
        gateway.tasks.spawn(async move { write(&owner, key).await });
    }
}

async fn write(gateway: &Gateway, key: SessionKey) {
    loop {
        let job = {
            let mut writing = gateway.writing.0.lock();
            let job = writing.get_mut(&key).and_then(VecDeque::pop_front);
            if job.is_none() {
                writing.remove(&key);
            }
            job
        };
        match job {
            None => return,
            // Whoever waited may have left.
            Some(Job::Tell(tell)) => drop(tell.send(())),
            Some(Job::Repeat) => {
                for (number, update) in gateway.deps.directory.untold_of(&key) {
                    write_one(gateway, update, Some(number), None).await;
                }
            }
            Some(Job::Write {
                update,
                number,
                reply,
            }) => write_one(gateway, update, number, reply).await,
        }
    }
}

async fn write_one(
    gateway: &Gateway,
    update: SessionUpdate,
    number: Option<Number>,
    reply: Option<oneshot::Sender<Result<(), Failure>>>,
) {
    let SessionRef { key, backend, .. } = update.session.clone();
    let outcome = gateway.deps.scaler.record(update.clone()).await;
    let directory = &gateway.deps.directory;
    if ends_permit(&update.news) {
        directory.permit_over(&key);
    }
    let number = match (&reply, &outcome) {
        (Some(_), Ok(())) => directory.learn(&update),
        (Some(_), Err(_)) | (None, _) => number,
    };
    if let Some(number) = number {
        directory.settle(&key, number, outcome.is_ok());
    }
    match (reply, outcome) {
        (Some(reply), outcome) => {
            // Whoever waited may have left.
            let _left = reply.send(outcome);
        }
        (None, Err(failure)) => {
            tracing::warn!(%backend, why = failure.private, "news of a session was not kept: {failure}");
        }
        (None, Ok(())) => {}
    }
}

/// Whether it says what came of the permit to revive the session.
const fn ends_permit(news: &SessionNews) -> bool {
    match news {
        SessionNews::Revived(_) | SessionNews::RevivalFailed { .. } => true,
        SessionNews::Opened(_)
        | SessionNews::Sessionless(_)
        | SessionNews::Asleep
        | SessionNews::LogLevel(_)
        | SessionNews::Subscribed(_)
        | SessionNews::Unsubscribed(_)
        | SessionNews::Ended => false,
    }
}

#[cfg(test)]
pub(crate) mod tests;
