//! Claims and failures.

use std::time::Duration;

use mcp_gateway_api::{
    claim::{ClaimRequest, Claimed, ColdStart, Purpose, Standing},
    failure::{Failure, FailureKind},
};

use super::{
    FromWire, MAX_TEXT, Nonsense, ToWire, backend_name, claim_id, instance_bytes, instance_id, may,
    nanos, need, principal_id, session_key, tenant_name, text,
};
use crate::scaler::{self as wire, claim_request, claimed};

impl ToWire for ClaimRequest {
    type Wire = wire::ClaimRequest;

    fn to_wire(&self) -> wire::ClaimRequest {
        let purpose = match &self.purpose {
            Purpose::Initialize => claim_request::Purpose::Initialize(wire::Nothing {}),
            Purpose::Session { session, bound } => {
                claim_request::Purpose::Session(wire::SessionPurpose {
                    session: Some(session.to_wire()),
                    bound: bound.map(instance_bytes),
                })
            }
            Purpose::Exchange => claim_request::Purpose::Exchange(wire::Nothing {}),
            Purpose::Probe => claim_request::Purpose::Probe(wire::Nothing {}),
        };
        wire::ClaimRequest {
            backend: self.backend.as_str().to_owned(),
            tenant: self.tenant.as_str().to_owned(),
            principal: self.principal.0.to_vec(),
            purpose: Some(purpose),
            budget_ns: nanos(self.budget),
            claim: self.id.0.to_vec(),
        }
    }
}

impl FromWire for ClaimRequest {
    type Wire = wire::ClaimRequest;

    fn from_wire(wire: wire::ClaimRequest) -> Result<Self, Nonsense> {
        let purpose = match wire.purpose.ok_or(Nonsense::Missing("purpose"))? {
            claim_request::Purpose::Initialize(_) => Purpose::Initialize,
            claim_request::Purpose::Session(of) => Purpose::Session {
                session: need("session", of.session)?,
                bound: of.bound.as_deref().map(instance_id).transpose()?,
            },
            claim_request::Purpose::Exchange(_) => Purpose::Exchange,
            claim_request::Purpose::Probe(_) => Purpose::Probe,
        };
        Ok(Self {
            id: claim_id(&wire.claim)?,
            backend: backend_name(&wire.backend)?,
            tenant: tenant_name(&wire.tenant)?,
            principal: principal_id(&wire.principal)?,
            purpose,
            budget: Duration::from_nanos(wire.budget_ns),
        })
    }
}

impl ToWire for Claimed {
    type Wire = wire::Claimed;

    fn to_wire(&self) -> wire::Claimed {
        let standing = match &self.standing {
            Standing::Fresh => claimed::Standing::Fresh(wire::Nothing {}),
            Standing::Bound(binding) => claimed::Standing::Bound(binding.to_wire()),
            Standing::Revive => claimed::Standing::Revive(wire::Nothing {}),
        };
        wire::Claimed {
            session: self.session.map(|key| key.0.to_vec()),
            instance: Some(self.instance.to_wire()),
            standing: Some(standing),
            cold: self.cold.as_ref().map(ToWire::to_wire),
        }
    }
}

impl FromWire for Claimed {
    type Wire = wire::Claimed;

    fn from_wire(wire: wire::Claimed) -> Result<Self, Nonsense> {
        let standing = match wire.standing.ok_or(Nonsense::Missing("standing"))? {
            claimed::Standing::Fresh(_) => Standing::Fresh,
            claimed::Standing::Bound(binding) => Standing::Bound(FromWire::from_wire(binding)?),
            claimed::Standing::Revive(_) => Standing::Revive,
        };
        Ok(Self {
            session: wire.session.as_deref().map(session_key).transpose()?,
            instance: need("instance", wire.instance)?,
            standing,
            cold: may(wire.cold)?,
        })
    }
}

impl ToWire for ColdStart {
    type Wire = wire::ColdStart;

    fn to_wire(&self) -> wire::ColdStart {
        wire::ColdStart {
            claim_ns: nanos(self.claim),
            create_ns: nanos(self.create),
            start_ns: nanos(self.start),
            serve_ns: nanos(self.serve),
        }
    }
}

impl FromWire for ColdStart {
    type Wire = wire::ColdStart;

    fn from_wire(wire: wire::ColdStart) -> Result<Self, Nonsense> {
        Ok(Self {
            claim: Duration::from_nanos(wire.claim_ns),
            create: Duration::from_nanos(wire.create_ns),
            start: Duration::from_nanos(wire.start_ns),
            serve: Duration::from_nanos(wire.serve_ns),
        })
    }
}

impl ToWire for Failure {
    type Wire = wire::Failure;

    fn to_wire(&self) -> wire::Failure {
        wire::Failure {
            kind: self.kind.to_wire() as i32,
            public: cut(&self.public),
            private: self.private.as_deref().map(cut),
            retry_after_ns: self.retry_after.map(nanos),
        }
    }
}

/// A failure must arrive even if it quotes too much.
fn cut(text: &str) -> String {
    text[..text.floor_char_boundary(MAX_TEXT)].to_owned()
}

impl FromWire for Failure {
    type Wire = wire::Failure;

    fn from_wire(wire: wire::Failure) -> Result<Self, Nonsense> {
        Ok(Self {
            kind: FromWire::from_wire(wire.kind)?,
            public: text("failure", wire.public)?,
            private: wire
                .private
                .map(|private| text("failure", private))
                .transpose()?,
            retry_after: wire.retry_after_ns.map(Duration::from_nanos),
        })
    }
}

impl ToWire for FailureKind {
    type Wire = wire::FailureKind;

    fn to_wire(&self) -> wire::FailureKind {
        match self {
            Self::BadRequest => wire::FailureKind::BadRequest,
            Self::TooLarge => wire::FailureKind::TooLarge,
            Self::MediaType => wire::FailureKind::MediaType,
            Self::Method => wire::FailureKind::Method,
            Self::Unauthenticated => wire::FailureKind::Unauthenticated,
            Self::Forbidden => wire::FailureKind::Forbidden,
            Self::UnknownBackend => wire::FailureKind::UnknownBackend,
            Self::SessionGone => wire::FailureKind::SessionGone,
            Self::Overloaded => wire::FailureKind::Overloaded,
            Self::Capacity => wire::FailureKind::Capacity,
            Self::HoldTimeout => wire::FailureKind::HoldTimeout,
            Self::StartFailed => wire::FailureKind::StartFailed,
            Self::InstanceLost => wire::FailureKind::InstanceLost,
            Self::RequestTimeout => wire::FailureKind::RequestTimeout,
            Self::ShuttingDown => wire::FailureKind::ShuttingDown,
            Self::Internal => wire::FailureKind::Internal,
        }
    }
}

impl FromWire for FailureKind {
    type Wire = i32;

    fn from_wire(value: i32) -> Result<Self, Nonsense> {
        let field = "failure kind";
        let unknown = Nonsense::Unknown { field, value };
        Ok(match wire::FailureKind::try_from(value) {
            Err(_) | Ok(wire::FailureKind::Unspecified) => return Err(unknown),
            Ok(wire::FailureKind::BadRequest) => Self::BadRequest,
            Ok(wire::FailureKind::TooLarge) => Self::TooLarge,
            Ok(wire::FailureKind::MediaType) => Self::MediaType,
            Ok(wire::FailureKind::Method) => Self::Method,
            Ok(wire::FailureKind::Unauthenticated) => Self::Unauthenticated,
            Ok(wire::FailureKind::Forbidden) => Self::Forbidden,
            Ok(wire::FailureKind::UnknownBackend) => Self::UnknownBackend,
            Ok(wire::FailureKind::SessionGone) => Self::SessionGone,
            Ok(wire::FailureKind::Overloaded) => Self::Overloaded,
            Ok(wire::FailureKind::Capacity) => Self::Capacity,
            Ok(wire::FailureKind::HoldTimeout) => Self::HoldTimeout,
            Ok(wire::FailureKind::StartFailed) => Self::StartFailed,
            Ok(wire::FailureKind::InstanceLost) => Self::InstanceLost,
            Ok(wire::FailureKind::RequestTimeout) => Self::RequestTimeout,
            Ok(wire::FailureKind::ShuttingDown) => Self::ShuttingDown,
            Ok(wire::FailureKind::Internal) => Self::Internal,
        })
    }
}
