//! What a server's answer tells the gateway beyond passing: told once, when the answer is a result.

use bytes::Bytes;
use mcp_gateway_api::record::{SessionNews, SessionRef, SessionUpdate};

use crate::{
    gateway::Gateway,
    memory::MemoryKey,
    message::{Message, Request},
};

/// Something to be remembered if the answer is a result.
pub(crate) enum News {
    /// A change of a session that a revival must repeat.
    Session(SessionUpdate),
    /// The answer to `server/discover`.
    Discovered(MemoryKey),
}

impl News {
    /// What a successful answer to this message would change in its session.
    pub(crate) fn of(message: &Message, session: &SessionRef) -> Option<Self> {
        let Message::Request(Request { method, params, .. }) = message else {
            return None;
        };
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

    /// Tells it; `body` is the answer, where it was JSON.
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

/// Writes news of a session without keeping anybody waiting. The own table knows at once.
pub(crate) fn record(gateway: &Gateway, update: SessionUpdate) {
    gateway.deps.directory.learn(&update);
    let scaler = std::sync::Arc::clone(&gateway.deps.scaler);
    gateway.tasks.spawn(async move {
        let backend = update.session.backend.clone();
        if let Err(failure) = scaler.record(update).await {
            tracing::warn!(%backend, why = failure.private, "news of a session was not kept: {failure}");
        }
    });
}
