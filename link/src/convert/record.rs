//! Session records and news of sessions.

use mcp_gateway_api::{
    ids::UpstreamSession,
    record::{
        MAX_SUBSCRIPTIONS, SessionBinding, SessionNews, SessionRecord, SessionRef, SessionUpdate,
    },
};

use super::{
    FromWire, Nonsense, ToWire, backend_name, instance_bytes, instance_id, may, need, principal_id,
    session_key, shared, tenant_name, text,
};
use crate::scaler::{self as wire, session_update::News};

impl ToWire for SessionRef {
    type Wire = wire::SessionRef;

    fn to_wire(&self) -> wire::SessionRef {
        wire::SessionRef {
            key: self.key.0.to_vec(),
            backend: self.backend.as_str().to_owned(),
            tenant: self.tenant.as_str().to_owned(),
            expires_at: self.expires_at,
        }
    }
}

impl FromWire for SessionRef {
    type Wire = wire::SessionRef;

    fn from_wire(wire: wire::SessionRef) -> Result<Self, Nonsense> {
        Ok(Self {
            key: session_key(&wire.key)?,
            backend: backend_name(&wire.backend)?,
            tenant: tenant_name(&wire.tenant)?,
            expires_at: wire.expires_at,
        })
    }
}

impl ToWire for SessionBinding {
    type Wire = wire::SessionBinding;

    fn to_wire(&self) -> wire::SessionBinding {
        wire::SessionBinding {
            instance: instance_bytes(self.instance),
            upstream: self.upstream.0.to_string(),
        }
    }
}

impl FromWire for SessionBinding {
    type Wire = wire::SessionBinding;

    fn from_wire(wire: wire::SessionBinding) -> Result<Self, Nonsense> {
        Ok(Self {
            instance: instance_id(&wire.instance)?,
            upstream: UpstreamSession(shared("upstream session", wire.upstream)?),
        })
    }
}

impl ToWire for SessionRecord {
    type Wire = wire::SessionRecord;

    fn to_wire(&self) -> wire::SessionRecord {
        let whereabouts = |binding: &Option<SessionBinding>| wire::Whereabouts {
            binding: binding.as_ref().map(ToWire::to_wire),
        };
        wire::SessionRecord {
            key: self.key.0.to_vec(),
            backend: self.backend.as_str().to_owned(),
            tenant: self.tenant.as_str().to_owned(),
            expires_at: self.expires_at,
            ended: self.ended,
            binding: self.binding.as_ref().map(whereabouts),
            log_level: self.log_level.clone(),
            subscriptions: self.subscriptions.clone(),
            stamp: Some(self.stamp.to_wire()),
        }
    }
}

impl FromWire for SessionRecord {
    type Wire = wire::SessionRecord;

    fn from_wire(wire: wire::SessionRecord) -> Result<Self, Nonsense> {
        if wire.subscriptions.len() > MAX_SUBSCRIPTIONS {
            return Err(Nonsense::TooLong("subscriptions"));
        }
        let uris = wire.subscriptions.into_iter();
        let level = wire.log_level.map(|level| text("log level", level));
        Ok(Self {
            key: session_key(&wire.key)?,
            backend: backend_name(&wire.backend)?,
            tenant: tenant_name(&wire.tenant)?,
            expires_at: wire.expires_at,
            ended: wire.ended,
            binding: wire.binding.map(|known| may(known.binding)).transpose()?,
            log_level: level.transpose()?,
            subscriptions: uris
                .map(|uri| text("subscription", uri))
                .collect::<Result<_, _>>()?,
            stamp: need("stamp", wire.stamp)?,
        })
    }
}

impl ToWire for SessionUpdate {
    type Wire = wire::SessionUpdate;

    fn to_wire(&self) -> wire::SessionUpdate {
        let news = match &self.news {
            SessionNews::Opened(instance) => News::Opened(instance_bytes(*instance)),
            SessionNews::Sessionless(principal) => News::Sessionless(principal.0.to_vec()),
            SessionNews::Revived(binding) => News::Revived(binding.to_wire()),
            SessionNews::RevivalFailed { retry } => {
                News::RevivalFailed(wire::RevivalFailed { retry: *retry })
            }
            SessionNews::Asleep => News::Asleep(wire::Nothing {}),
            SessionNews::LogLevel(level) => News::LogLevel(level.clone()),
            SessionNews::Subscribed(uri) => News::Subscribed(uri.clone()),
            SessionNews::Unsubscribed(uri) => News::Unsubscribed(uri.clone()),
            SessionNews::Ended => News::Ended(wire::Nothing {}),
        };
        wire::SessionUpdate {
            session: Some(self.session.to_wire()),
            news: Some(news),
        }
    }
}

impl FromWire for SessionUpdate {
    type Wire = wire::SessionUpdate;

    fn from_wire(wire: wire::SessionUpdate) -> Result<Self, Nonsense> {
        let news = match wire.news.ok_or(Nonsense::Missing("news"))? {
            News::Opened(instance) => SessionNews::Opened(instance_id(&instance)?),
            News::Sessionless(principal) => SessionNews::Sessionless(principal_id(&principal)?),
            News::Revived(binding) => SessionNews::Revived(FromWire::from_wire(binding)?),
            News::RevivalFailed(failed) => SessionNews::RevivalFailed {
                retry: failed.retry,
            },
            News::Asleep(_) => SessionNews::Asleep,
            News::LogLevel(level) => SessionNews::LogLevel(text("log level", level)?),
            News::Subscribed(uri) => SessionNews::Subscribed(text("subscription", uri)?),
            News::Unsubscribed(uri) => SessionNews::Unsubscribed(text("subscription", uri)?),
            News::Ended(_) => SessionNews::Ended,
        };
        Ok(Self {
            session: need("session", wire.session)?,
            news,
        })
    }
}
