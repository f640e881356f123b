//! Re-creating a session whose instance was lost: its handshake is replayed on a fresh one, behind the same id.
//!
//! Done by the one exchange that the claim gave the permit to; the others of the session wait for it. The replay must
//! promise what the first handshake did, revision and capabilities; otherwise the session ends. Log level and
//! subscriptions are restored. What the server kept in memory is lost, which the log line and the metric say.
//! Once begun it is finished even if the client leaves: half a session on the new instance would be of no use to anybody.

use std::{sync::Arc, time::Duration};

use axum::http::{HeaderMap, HeaderValue, Method, header};
use bytes::Bytes;
use mcp_gateway_api::{
    failure::{Failure, FailureKind},
    ids::UpstreamSession,
    record::{SessionBinding, SessionNews, SessionRef, SessionUpdate},
};
use serde_json::json;
use tokio::time::Instant;

use crate::{
    edge::headers::PROTOCOL_VERSION,
    exchange::{
        Exchange,
        goodbye::Unclaimed,
        initialize::{Promise, promise},
        news,
        opened::{self, Opened},
        permit::Permit,
    },
    forward::{self, Marks, Outbound, answer::Answer, outlive::Outliving},
    gateway::Gateway,
    lease::Lease,
    message,
    metrics::{self, Operation},
    session::sealed::SealedSession,
};

/// Longest replay; well within the permit.
const REPLAY: Duration = Duration::from_secs(40);

/// Everything a replay needs, its own so that it can go on alone.
struct Replay {
    gateway: Gateway,
    headers: HeaderMap,
    query: Option<String>,
    lease: Lease,
    sealed: SealedSession,
    about: SessionRef,
    until: Instant,
    /// What the server issued, until the session is known to live there: nobody would ever use it otherwise.
    issued: Option<Unclaimed>,
    /// Given back if the replay does not get so far as to say what came of it.
    permit: Option<Permit>,
}

/// Why a replay failed.
enum Failed {
    /// The server answers, but not as before: the session cannot be had again.
    ForGood(String),
    /// The instance was lost meanwhile.
    ForNow(Failure),
}

/// Revives the session on a leased instance and tells the control plane how that went.
///
/// # Errors
/// `SessionGone` when it cannot be had again, `InstanceLost` when another try may do.
pub(crate) async fn revive(
    x: &Exchange,
    opened: &Opened,
    lease: &Lease,
    permit: Option<Permit>,
) -> Result<SessionBinding, Failure> {
    let replay = Replay {
        gateway: x.gateway.clone(),
        headers: own_headers(&x.headers),
        query: x.uri.query().map(str::to_owned),
        lease: lease.another(),
        sealed: opened.sealed.clone(),
        about: opened.about.clone(),
        until: Instant::now() + REPLAY,
        issued: None,
        permit,
    };
    Outliving::in_any_case(&x.gateway, Box::pin(replay.run())).await
}

/// The client's own headers go along (servers may take settings from them), except those about one message.
fn own_headers(client: &HeaderMap) -> HeaderMap {
    let mut headers = client.clone();
    let names: Vec<_> = headers
        .keys()
        .filter(|name| name.as_str().starts_with("mcp-"))
        .cloned()
        .collect();
    for name in names {
        headers.remove(name);
    }
    headers.insert(
        header::ACCEPT,
        HeaderValue::from_static("application/json, text/event-stream"),
    );
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    headers
}

impl Replay {
    async fn run(mut self) -> Result<SessionBinding, Failure> {
        let since = Instant::now();
        let replayed = tokio::time::timeout_at(self.until, self.replay()).await;
        let replayed =
            replayed.unwrap_or_else(|_elapsed| Err(Failed::ForNow(forward::timed_out())));
        let backend = &self.about.backend.clone();
        match replayed {
            Ok(upstream) => {
                let binding = SessionBinding {
                    instance: self.lease.instance(),
                    upstream,
                };
                if let Err(failure) = self.tell(SessionNews::Revived(binding.clone())).await {
                    self.keep_unless_refused(&failure);
                    return Err(failure);
                }
                if self.has_ended() {
                    return Err(opened::gone());
                }
                if let Some(issued) = self.issued.take() {
                    issued.claimed();
                }
                metrics::revived(backend, "revived");
                metrics::handshake(backend, since.elapsed());
                tracing::info!(%backend, session = ?self.about.key, instance = ?binding.instance,
                    "a session was revived on a new instance; what the server kept in memory for it is lost");
                Ok(binding)
            }
            Err(Failed::ForGood(why)) => {
                metrics::revived(backend, "ended");
                tracing::warn!(%backend, session = ?self.about.key, why, "a session could not be revived and has ended");
                // The session is over whether or not this is kept.
                let _kept = self.tell(SessionNews::RevivalFailed { retry: false }).await;
                self.gateway.sessions.end(&self.about.key);
                Err(opened::gone())
            }
            Err(Failed::ForNow(failure)) => {
                metrics::revived(backend, "failed");
                // Should this fail too, the permit runs out by itself.
                let _kept = self.tell(SessionNews::RevivalFailed { retry: true }).await;
                Err(failure)
            }
        }
    }

    /// What could not be said may have been heard: then the session lives there, and its server must not forget it. One that
    /// nobody comes to use is over with its instance.
    fn keep_unless_refused(&mut self, failure: &Failure) {
        if failure.kind != FailureKind::SessionGone
            && let Some(issued) = self.issued.take()
        {
            issued.claimed();
        }
    }

    /// Whether its client has ended it meanwhile.
    fn has_ended(&self) -> bool {
        let record = self.gateway.deps.directory.record(&self.about.key);
        record.is_some_and(|record| record.ended)
    }

    /// Says what came of the permit.
    async fn tell(&mut self, news: SessionNews) -> Result<(), Failure> {
        let update = SessionUpdate {
            session: self.about.clone(),
            news,
        };
        // Behind what was recorded before: that the session sleeps must not be written after that it was revived.
        let kept = news::kept(&self.gateway, update).await;
        if let Some(permit) = self.permit.take() {
            permit.used();
        }
        kept
    }

    async fn replay(&mut self) -> Result<UpstreamSession, Failed> {
        let handshake = self
            .sealed
            .handshake
            .as_ref()
            .and_then(|handshake| handshake.params());
        let params =
            handshake.ok_or_else(|| Failed::ForGood("its handshake was not kept".into()))?;
        let body = format!(
            r#"{{"jsonrpc":"2.0","id":"gateway-revival","method":"initialize","params":{params}}}"#
        );
        let (issued, chunks) = self.ask(body, None).await?;
        let now =
            promise(&chunks).ok_or_else(|| Failed::ForGood("initialize gave no result".into()))?;
        let before = Promise {
            revision: self.sealed.revision.clone(),
            capabilities: self.sealed.capabilities,
        };
        if now.revision != before.revision {
            return Err(Failed::ForGood(
                "the server negotiated another revision".into(),
            ));
        }
        if now != before {
            return Err(Failed::ForGood(
                "the server has other capabilities now".into(),
            ));
        }
        let upstream =
            issued.ok_or_else(|| Failed::ForGood("the server issued no session id".into()))?;
        if let Ok(version) = HeaderValue::from_str(&now.revision) {
            self.headers.insert(PROTOCOL_VERSION, version);
        }
        let initialized = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
        self.ask(initialized.into(), Some(&upstream)).await?;
        self.restore(&upstream).await?;
        Ok(upstream)
    }

    /// Log level and subscriptions. A server that refuses one of them now still serves the session.
    async fn restore(&mut self, upstream: &UpstreamSession) -> Result<(), Failed> {
        let Some(record) = self.gateway.deps.directory.record(&self.about.key) else {
            return Ok(());
        };
        let level = record
            .log_level
            .as_ref()
            .map(|level| ("logging/setLevel", json!({ "level": level })));
        let uris = record
            .subscriptions
            .iter()
            .map(|uri| ("resources/subscribe", json!({ "uri": uri })));
        for (number, (method, params)) in level.into_iter().chain(uris).enumerate() {
            let body = json!({
                "jsonrpc": "2.0",
                "id": format!("gateway-revival-{number}"),
                "method": method,
                "params": params,
            });
            match self.ask(body.to_string(), Some(upstream)).await {
                Ok(_) => {}
                Err(Failed::ForGood(why)) => tracing::warn!(method, why, "not restored at revival"),
                Err(now @ Failed::ForNow(_)) => return Err(now),
            }
        }
        Ok(())
    }

    /// Sends one message of the replay and reads its answer.
    async fn ask(
        &mut self,
        body: String,
        session: Option<&UpstreamSession>,
    ) -> Result<(Option<UpstreamSession>, Vec<Bytes>), Failed> {
        let message = message::classify(body.as_bytes())
            .map_err(|error| Failed::ForGood(format!("the kept handshake is damaged: {error}")))?;
        let answer = Answer {
            lease: self.lease.another(),
            operation: Operation::begin(message.method(), Instant::now()),
            message: Arc::new(message),
            begun: None,
            unclaimed: session
                .is_none()
                .then(|| Unclaimed::new(&self.gateway, &self.lease, self.until)),
            deadline: self.until,
            outlives: false,
            news: Vec::new(),
        };
        let outbound = Outbound {
            method: Method::POST,
            headers: &self.headers,
            query: self.query.as_deref(),
            body: body.into(),
            session,
            owner: None,
            turn: None,
        };
        let sent = forward::send(&self.gateway, outbound, answer).await;
        let response = sent.map_err(|undelivered| Failed::ForNow(undelivered.into_failure()))?;
        let (head, mut tap) = response.into_parts();
        let most = self.gateway.config.max_initialize_answer;
        let chunks = forward::read_ahead(&mut tap, most)
            .await
            .map_err(Failed::ForNow)?;
        // Busy, or too early: no word on whether the session can be had again.
        let for_now =
            head.status.is_server_error() || matches!(head.status.as_u16(), 408 | 409 | 425 | 429);
        if for_now {
            let why = format!("the server answered {}", head.status.as_u16());
            return Err(Failed::ForNow(
                Failure::new(
                    FailureKind::InstanceLost,
                    "The session could not be resumed; try again.",
                )
                .because(why),
            ));
        }
        if !head.status.is_success() {
            return Err(Failed::ForGood(format!(
                "the server answered {}",
                head.status.as_u16()
            )));
        }
        if let Some(unclaimed) = tap.take_unclaimed() {
            self.issued = Some(unclaimed);
        }
        let issued = head.extensions.get::<Marks>().and_then(Marks::upstream);
        Ok((issued, chunks))
    }
}
