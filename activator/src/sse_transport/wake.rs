//! Waking a channel's server: claim, open its stream, replay the handshake if there was one, hand the stream over.
//!
//! Done by whoever has the channel's turn. Once an instance is claimed the rest goes on without the client, but not for
//! longer than a client would have waited.

use std::{sync::Arc, time::Duration};

use mcp_gateway_api::{
    claim::{Purpose, Standing},
    failure::{Failure, FailureKind},
    ids::SessionKey,
    policy::OnIdle,
    record::{SessionNews, SessionRef, SessionUpdate},
};
use tokio::time::{Instant, sleep_until};

use super::{
    channel::{Channel, ToStream},
    dial::{self, Dialled, Replay},
    post::{Ready, awake},
};
use crate::{
    exchange::{
        Exchange,
        claim::{self, Got},
        news,
        opened::{self, unix_now},
    },
    forward,
    session::{Strand, handshake::Handshake},
};

/// Longest that opening a stream and replaying a handshake may take; well within the permit to revive.
const ATTACH: Duration = Duration::from_secs(40);

/// Has the turn: claims, opens the server's stream, replays if there is something to replay, hands the stream over.
pub(super) async fn wake(x: &Arc<Exchange>, channel: &Arc<Channel>) -> Result<Ready, Failure> {
    let (about, bound, handshake) = {
        let state = channel.state.lock();
        let session = state.session.as_ref();
        let bound = session
            .and_then(|session| session.binding())
            .or_else(|| state.upstream.clone());
        (state.about.clone(), bound, state.handshake.clone())
    };
    let begins = x.message.method() == Some("initialize");
    let replays = about.is_some() && !begins;
    if replays && (x.caller.backend.policy.on_idle == OnIdle::Expire || handshake.is_none()) {
        channel.end(&x.gateway);
        return Err(opened::gone());
    }
    let purpose = about
        .clone()
        .map_or(Purpose::Initialize, |session| Purpose::Session {
            session,
            bound: bound.map(|binding| binding.instance),
        });
    if let Purpose::Session { session, .. } = &purpose {
        news::written(&x.gateway, session.key).await;
    }
    let got = claim::claim(&x.gateway, &x.caller, purpose, x.arrived).await?;
    if let Some(ready) = still(x, channel, &got) {
        return Ok(ready);
    }
    let woken = Woken {
        x: Arc::clone(x),
        channel: Arc::clone(channel),
        opens: about.is_none(),
        about: about.unwrap_or_else(|| begin(x, &got)),
        handshake: handshake.filter(|_| replays),
        got,
    };
    // A task of its own: half a session on the new instance would be of no use, should this client leave now.
    let settled = x.gateway.tasks.spawn(woken.settle()).await;
    settled.unwrap_or_else(|_panicked_or_shut_down| Err(forward::lost()))
}

/// The instance never went, its drain was called off: the server's stream is attached as before.
fn still(x: &Exchange, channel: &Channel, got: &Got) -> Option<Ready> {
    if got.claimed.standing == Standing::Revive {
        return None;
    }
    let ready = awake(x, channel)?;
    (ready.lease.instance() == got.lease.instance()).then_some(ready)
}

/// An instance was claimed for the channel; what comes now is finished in any case.
struct Woken {
    x: Arc<Exchange>,
    channel: Arc<Channel>,
    opens: bool,
    about: SessionRef,
    handshake: Option<Handshake>,
    got: Got,
}

impl Woken {
    async fn settle(self) -> Result<Ready, Failure> {
        let attached = self.attach_in_time().await;
        let news = match &attached {
            Ok(dialled) if self.opens => Some(SessionNews::Opened(dialled.binding.instance)),
            Ok(dialled) => Some(SessionNews::Revived(dialled.binding.clone())),
            Err(failure) => (self.got.claimed.standing == Standing::Revive).then_some(
                SessionNews::RevivalFailed {
                    retry: failure.kind != FailureKind::SessionGone,
                },
            ),
        };
        let gateway = &self.x.gateway;
        if let Some(news) = news {
            let session = self.about.clone();
            let update = SessionUpdate { session, news };
            let kept = news::kept(gateway, update).await;
            if attached.is_ok() {
                kept?;
            }
        }
        match attached {
            Ok(dialled) => self.hand_over(dialled).await,
            Err(failure) => {
                if failure.kind == FailureKind::SessionGone {
                    self.channel.end(gateway);
                }
                Err(failure)
            }
        }
    }

    /// Attaches, or gives up: with the hold, well within the permit, with the client's stream and with the gateway.
    /// What waited longer would hold its lease, and with it the instance, for nobody.
    async fn attach_in_time(&self) -> Result<Dialled, Failure> {
        let x = &self.x;
        let hold_ends = x.arrived + x.caller.backend.policy.hold_timeout;
        tokio::select! {
            attached = attach(self) => attached,
            () = sleep_until(hold_ends.min(Instant::now() + ATTACH)) => Err(claim::hold_timeout()),
            () = self.channel.closed.cancelled() => Err(opened::gone()),
            () = x.gateway.closing.cancelled() => Err(forward::shutting_down()),
        }
    }

    /// The client's stream reads the server's from here on.
    async fn hand_over(self, dialled: Dialled) -> Result<Ready, Failure> {
        let (gateway, channel) = (&self.x.gateway, &self.channel);
        let (attached, binding, read) = dialled.into_parts();
        let session = gateway.sessions.enter(&self.about);
        let lost = {
            let mut state = channel.state.lock();
            let before = state.upstream.take();
            let lost = before.map(|before| session.lost(before.instance));
            session.lives_on(&binding);
            state.about = Some(self.about);
            state.session = Some(Arc::clone(&session));
            state
                .ticket
                .get_or_insert_with(|| session.open_stream(Strand::GET));
            state.upstream = Some(binding.clone());
            lost.unwrap_or_default()
        };
        let attach = ToStream::Attach {
            attached,
            binding: binding.clone(),
            read,
            lost,
        };
        if !channel.tell(attach).await {
            // The client closed its stream meanwhile; what it would have ended is known only now.
            channel.end(gateway);
            return Err(opened::gone());
        }
        Ok(Ready {
            lease: self.got.lease,
            binding,
            session,
            turn: None,
        })
    }
}

fn begin(x: &Exchange, got: &Got) -> SessionRef {
    SessionRef {
        key: got.claimed.session.unwrap_or_else(SessionKey::random),
        backend: x.caller.backend.name.clone(),
        tenant: x.caller.principal.tenant.clone(),
        expires_at: unix_now().saturating_add(x.caller.backend.policy.session_lifetime.as_secs()),
    }
}

async fn attach(woken: &Woken) -> Result<Dialled, Failure> {
    let Woken {
        x, channel, got, ..
    } = woken;
    let mut dialled = dial::dial(&x.gateway, &x.caller, &channel.headers, &got.lease).await?;
    if let Some(handshake) = &woken.handshake {
        let promised = channel.state.lock().promise.clone();
        let record = x.gateway.deps.directory.record(&woken.about.key);
        let what = Replay {
            handshake,
            promised: promised.as_ref(),
            record: record.as_deref(),
        };
        let since = Instant::now();
        let replayed = dialled
            .replay(&x.gateway, &got.lease, &channel.headers, what)
            .await;
        let outcome = if replayed.is_ok() {
            "revived"
        } else {
            "failed"
        };
        crate::metrics::revived(&x.caller.backend.name, outcome);
        replayed?;
        crate::metrics::handshake(&x.caller.backend.name, since.elapsed());
    }
    Ok(dialled)
}
